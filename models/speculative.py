"""Speculative decoding: codes with the law of one cell at a time, in fewer passes.

Knows drafts, the laws that they were drawn from, and when a draft may be kept. Refuses to know how a network computes.

A draft x at a place was drawn from a law q, given the codes before it. Asked again, the network says p. Kept with
probability min(1, p(x) / q(x)), and else drawn anew from the residual, norm((p - q)+), the code has the law p
(Leviathan et al., arXiv 2211.17192). The first draft that is not kept ends what is final in a pass. Randomness at a
place reaches later places alone, and a place is final once all before it are; so the whole has the law of one cell at a
time, under guidance, temperature and filters. The codes are not those of one cell at a time under the same noise.

Whether a draft is kept is noise with an address of its own: (seed, sample, cell, visit), the visit being the pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from orderbench.models.answer import Answer, at
from orderbench.models.decode import Step, Tile, register_decoder
from orderbench.models.exact import AtWork
from orderbench.models.model import check
from orderbench.models.sampling import filtered, inverse_cdf, keys, streamed
from orderbench.orders import BenchError

Rule = Literal["sjd", "coupling"]

_NEEDS = ("masks", "slots", "law")


@register_decoder(
    "speculative",
    paper="SJD, arXiv 2410.01699; coupling, arXiv 2510.24211",
    idea="the law of one cell at a time in fewer passes: drafts of the pass before are kept by a fair test",
    varies=True,
    drafts=True,
    needs=_NEEDS,
)
def speculative_steps(
    tile: Tile,
    *,
    rule: Annotated[Rule, "what becomes of drafts behind the first one that is not kept: sjd or coupling"] = "sjd",
    window: Annotated[int, "how many cells a pass asks, 1 or more"] = 16,
) -> Iterator[Step]:
    """Decode one cell at a time along the walk, a window of cells a pass. A step is a pass.

    rule: 'sjd' draws the drafts behind the first one that is not kept anew; 'coupling' tests them too, so that most of
    them stay as they are.
    """
    if window < 1:
        raise BenchError(f"speculative:window={window} is not served; window is 1 or more, as in speculative:window=16")
    check(tile.model, tile.plan.singly(), _NEEDS)
    work, index = Speculation(tile, rule), 0
    while len(work.rows_B):
        left = work.left
        yield work.run(index, min(window, left), min(window, left))[0]
        work.leave()
        index += 1


@register_decoder(
    "draft",
    paper="ASSD, arXiv 2504.20456",
    idea="the law of one cell at a time in fewer passes: one pass drafts the next cells apart, one tests them in turn",
    varies=True,
    drafts=True,
    needs=_NEEDS,
)
def draft_steps(
    tile: Tile, *, k: Annotated[int, "how many cells are drafted at once, 2 or more"] = 10
) -> Iterator[Step]:
    """Decode one cell at a time along the walk, in rounds of two passes. The first asks the next k cells given final
    codes alone; its first draft is final. The second feeds the drafts and tests the others in turn."""
    if k < 2:
        raise BenchError(f"draft:k={k} is not served; k is 2 or more, as in draft:k=10")
    check(tile.model, tile.plan.singly(), _NEEDS)
    work, index = Speculation(tile, "sjd"), 0
    while len(work.rows_B):
        drafts = index % 2 == 0
        if drafts:
            work.guessed_B = work.final_B.clone()  # what was drafted before is forgotten
        left = work.left
        yield work.run(index, min(k, left), 1 if drafts else min(k, left))[0]
        work.leave()
        index += 1


class Speculation(AtWork):
    """Samples at work whose drafts are kept by the test of p against q."""

    def __init__(self, tile: Tile, rule: Rule) -> None:
        super().__init__(tile, "marginal")
        self.rule = rule
        keys_BLK = keys(tile.seed, "visit", tile.samples, tile.plan.lattice.n_cells)
        self.keys_BLK = keys_BLK.to(tile.cells_BL.device)
        self.drafted_from: tuple[Tensor, Tensor] | None = None  # (B, Q) places and (B, Q, V) laws of the pass before

    @property
    def left(self) -> int:
        """How many cells the sample that is furthest back has left."""
        return 1 + self.last - int(self.final_B.min())

    def law(self, answer: Answer) -> Tensor:
        """(B, Q, V) float64: what codes are drawn from, with temperature and filters."""
        probs_BQV = filtered(answer.law(self.tile.sampling.temperature), self.tile.sampling)
        return probs_BQV / probs_BQV.sum(-1, keepdim=True)

    def chances(self, index: int, cells_BQ: Tensor) -> Tensor:
        """(B, Q, 2): the numbers of these cells at this visit: whether a draft is kept, and what is drawn."""
        return streamed(at(self.keys_BLK, cells_BQ)[..., 0], 2 * index, 2)

    def decide(self, index: int, answer: Answer, cells_BQ: Tensor, places_BQ: Tensor) -> tuple[Tensor, Tensor]:
        if self.tile.forced_BLK is not None:
            return super().decide(index, answer, cells_BQ, places_BQ)
        p_BQV, chance_BQ2 = self.law(answer), self.chances(index, cells_BQ)
        held_BQ1, drafted_BQ = at(self.codes_BLK, cells_BQ), places_BQ < self.guessed_B[:, None]
        q_BQV = self._drafted_from(places_BQ, p_BQV)
        kept_BQ = drafted_BQ & (
            chance_BQ2[..., 0] * q_BQV.gather(2, held_BQ1)[..., 0] < p_BQV.gather(2, held_BQ1)[..., 0]
        )
        residual_BQV = (p_BQV - q_BQV).clamp_(min=0)
        none_BQ1 = residual_BQV.sum(-1, keepdim=True) <= 0  # p and q are the same: every draft is kept
        anew_BQ1 = inverse_cdf(p_BQV, chance_BQ2[..., 1])[..., None]
        other_BQ1 = inverse_cdf(torch.where(none_BQ1, p_BQV, residual_BQV), chance_BQ2[..., 1])[..., None]
        tested_BQ1 = torch.where(drafted_BQ[..., None], torch.where(kept_BQ[..., None], held_BQ1, other_BQ1), anew_BQ1)
        self.drafted_from = places_BQ, p_BQV
        if self.rule == "coupling":
            return tested_BQ1, kept_BQ
        first_B1 = places_BQ.gather(
            1, kept_BQ.long().cumprod(1).sum(1, keepdim=True).clamp_(max=places_BQ.shape[1] - 1)
        )
        behind_BQ = places_BQ > first_B1  # of the first draft that is not kept; by place, since the last one may repeat
        return torch.where(behind_BQ[..., None], anew_BQ1, tested_BQ1), kept_BQ

    def _drafted_from(self, places_BQ: Tensor, p_BQV: Tensor) -> Tensor:
        """(B, Q, V): the laws that the drafts at these places were drawn from; anything where there is no draft."""
        if self.drafted_from is None:
            return p_BQV
        before_BQ, q_BQV = self.drafted_from
        index_BQ = (places_BQ - before_BQ[:, :1]).clamp(0, q_BQV.shape[1] - 1)
        return q_BQV.gather(1, index_BQ[..., None].expand(-1, -1, q_BQV.shape[2]))

    def narrow(self, keep_B: Tensor) -> None:
        super().narrow(keep_B)
        self.keys_BLK = self.keys_BLK[keep_B]
        if self.drafted_from is not None:
            places_BQ, q_BQV = self.drafted_from
            self.drafted_from = places_BQ[keep_B], q_BQV[keep_B]
