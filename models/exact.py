"""Exact decoding: the codes of one cell at a time, in a fraction of the passes.

Knows walks, guesses and what makes a code final. Refuses to know how a network computes, and the step sizes of a plan:
it decodes the walk one cell at a time, whatever the pace.

The idea. Noise has an address, so one-at-a-time decoding is a function of it: the code of a place is what the network
says of it, given the codes before it, drawn with its own noise. Guess the next places, feed the guesses, and ask all of
them at once, each seeing the guesses before its own. Where the drawn codes equal the guesses, they are what one at a
time would have drawn; so is the first one that differs, since all before it were right. The others are the guesses of
the next pass. This is Jacobi's fixed point iteration (Wiggers & Hoogeboom, arXiv 2002.09928; Song et al., arXiv
2002.03629). There is one fixed point, so the first guess changes the number of passes and no code. A pass that finds
codes to be final guesses the next ones too, so no pass only verifies.

What a pass costs. It feeds the last final code, whose guess was wrong, and the guesses behind it. It asks cells from
the first one that is not final. Keys and values of final codes are final, and are not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, cast

import torch
from torch import Tensor

from orderbench.models.answer import Answer, at
from orderbench.models.decode import Step, Tile, register_decoder
from orderbench.models.model import Narrowing, check, serves
from orderbench.models.sampling import PLAIN
from orderbench.orders import BenchError

Start = Literal["marginal", "random", "copy"]

_NEEDS = ("masks", "slots")
_FREE_CELLS = {"cpu": 64}  # cells whose computation takes about as long as starting a pass, by device
_FREE_ELSEWHERE = 4096
_KEPT = 0.75  # samples leave once no more than this share of those at work is left
_LOGITS = 1 << 26  # numbers that the answer to one pass may hold, where the window is not given: 268 MB in fp32


@register_decoder(
    "exact",
    paper="orderbench, docs/exact.md; Jacobi's iteration: arXiv 2002.09928, 2002.03629",
    idea="the codes of one cell at a time in fewer passes: many cells are guessed at once, and right guesses are kept",
    exact=True,
    varies=True,
    drafts=True,
    needs=_NEEDS,
)
def exact_steps(
    tile: Tile,
    *,
    window: Annotated[int | None, "how many cells a pass asks, 1 or more; default by what was accepted"] = None,
    start: Annotated[Start, "the first guess of a cell: marginal, random or copy"] = "marginal",
) -> Iterator[Step]:
    """Decode one cell at a time along the walk, many cells a pass. A step is a pass. Samples advance on their own, and
    leave once they are done.

    start: 'marginal' guesses a cell by what the network says of it given all that is guessed before it, and feeds only
    such guesses. 'random' feeds at first what the cell's noise draws where all codes are equally likely. 'copy' feeds
    the code of the nearest cell that is final.
    """
    if window is not None and window < 1:
        raise BenchError(f"exact:window={window} is not served; window is 1 or more, as in exact:window=32")
    check(tile.model, tile.plan.singly(), _NEEDS)
    work = AtWork(tile, start)
    accepted, index = 1.0, 0  # accepted: cells a sample and pass, of late
    while len(work.rows_B):
        step, newly = work.run(index, *work.sizes(window, accepted))
        yield step
        accepted = newly if index < 2 else 0.6 * accepted + 0.4 * newly
        work.leave()
        index += 1


class AtWork:
    """The samples of a tile that are at work, each at its own place of its walk. A subclass may decide otherwise which
    guesses are kept.

    rows_B: which samples of the tile these are. cells_BL: their walks. codes_BLK: by cell, final or guessed. final_B,
    guessed_B: how many places of the walk have a final code, and how many have any.
    """

    def __init__(self, tile: Tile, start: Start) -> None:
        self.tile, self.start, self.cache = tile, start, tile.open()
        self.narrows = serves(tile.model, "keep")
        self.cells_BL, self.noise, self.codes_BLK = tile.cells_BL, tile.noise, tile.codes_BLK
        self.last = tile.cells_BL.shape[1] - 1  # the last place
        self.rows_B = torch.arange(len(tile.cells_BL), device=tile.cells_BL.device)
        self.final_B, self.guessed_B = torch.zeros_like(self.rows_B), torch.zeros_like(self.rows_B)
        self.slots_S = torch.arange(2 + self.last, device=self.rows_B.device)
        self.scales_L = tile.sampling.guidance.along((1,) * (1 + self.last)).to(self.rows_B.device)
        self.history: list[Tensor] = [torch.zeros_like(self.rows_B)]  # final_B of the whole tile, after every pass

    def sizes(self, window: int | None, accepted: float) -> tuple[int, int]:
        """How many cells the next pass asks, and how many codes it feeds at most.

        By default it asks as many as the device computes in the time that starting a pass takes, and twice what was
        accepted of late. So the window grows along a walk, as guesses become better, and shrinks as the batch grows. By
        'marginal', the nearer two thirds are fed: what lies further ahead is seldom accepted before it is asked again.
        """
        left = 1 + self.last - int(self.final_B.min())
        asked = window
        if asked is None:
            B, free = len(self.rows_B), _FREE_CELLS.get(self.rows_B.device.type, _FREE_ELSEWHERE)
            most = max(1, _LOGITS // (B * max(self.tile.model.code_sizes)))
            asked = min(4 + free // (1 + B) + int(2 * accepted), most)
        fed = -(-2 * asked // 3) if self.start == "marginal" else asked
        return min(asked, left), min(fed, left)

    def run(self, index: int, asked: int, fed: int) -> tuple[Step, float]:
        """One pass: feed, ask, draw, accept. The step, and how many cells a sample were accepted, on average."""
        places_BQ = (self.final_B[:, None] + self.slots_S[:asked]).clamp_(max=self.last)
        cells_BQ = self.cells_BL.gather(1, places_BQ)
        if self.start != "marginal":
            self._enter(places_BQ, cells_BQ)
        shown_B, slots = self._feed(fed)
        answer = self._ask(cells_BQ, places_BQ, shown_B, slots)
        codes_BQK, right_BQ = self.decide(index, answer, cells_BQ, places_BQ)
        fed_BQ = places_BQ < shown_B[:, None]
        accepted_B = (1 + (right_BQ & fed_BQ).long().cumprod(1).sum(1)).clamp_(max=asked)
        self.codes_BLK.scatter_(1, cells_BQ[..., None].expand_as(codes_BQK), codes_BQK)
        working = int((self.final_B <= self.last).sum())
        before_B, self.final_B = self.final_B, (self.final_B + accepted_B).clamp_(max=1 + self.last)
        self.guessed_B = torch.maximum(self.guessed_B, 1 + places_BQ[:, -1])
        self.history.append(self.history[-1].scatter(0, self.rows_B, self.final_B))
        newly = float((self.final_B - before_B).sum()) / working
        return Step(index, cells_BQ, codes_BQK, answer, rows_B=self.rows_B), newly

    def _enter(self, places_BQ: Tensor, cells_BQ: Tensor) -> None:
        """Give the asked cells that have no code yet a first guess."""
        if self.start == "copy":
            guess_BQK = at(self.codes_BLK, self._nearest(cells_BQ))
        else:
            noise, sizes = self.noise.at(cells_BQ), self.tile.model.code_sizes
            equal = [torch.zeros(*cells_BQ.shape, V, device=cells_BQ.device) for V in sizes]
            guess_BQK = torch.stack([noise.code(k).draw(one, PLAIN) for k, one in enumerate(equal)], dim=-1)
        held_BQK = at(self.codes_BLK, cells_BQ)
        guess_BQK = torch.where((places_BQ < self.guessed_B[:, None])[..., None], held_BQK, guess_BQK)
        self.codes_BLK.scatter_(1, cells_BQ[..., None].expand_as(guess_BQK), guess_BQK)
        self.guessed_B = torch.maximum(self.guessed_B, 1 + places_BQ[:, -1])

    def _nearest(self, cells_BQ: Tensor) -> Tensor:
        """(B, Q): for every cell the nearest one with a final code; before there is any, the first of the walk."""
        coords_LX = torch.from_numpy(self.tile.plan.lattice.coords.copy()).double().to(cells_BQ.device)
        far_LL = torch.cdist(coords_LX, coords_LX)
        walked_BQL = far_LL[cells_BQ].gather(2, self.cells_BL[:, None].expand(-1, cells_BQ.shape[1], -1))
        open_BL = self.slots_S[:-1] >= self.final_B[:, None].clamp(min=1)
        return self.cells_BL.gather(1, walked_BQL.masked_fill_(open_BL[:, None], torch.inf).argmin(-1))

    def _feed(self, fed: int) -> tuple[Tensor, int]:
        """Feed codes at hand, from the last final one on: those before it were fed when they were final.

        (B,): how many places of the walk content stands for. The number of slots in use.
        """
        first_B = (self.final_B - 1).clamp_(min=0)
        shown_B = torch.minimum(first_B + fed, self.guessed_B).clamp_(max=self.last)
        fed = min(fed, int((shown_B - first_B).max()))
        if fed <= 0:  # at the first pass, or if all is done
            return shown_B, 1
        places_BG = (first_B[:, None] + self.slots_S[:fed]).clamp_(max=self.last)  # nobody sees the last place's slot
        cells_BG, slots_BG = self.cells_BL.gather(1, places_BG), 1 + places_BG
        slots = 2 + min(self.last, int(first_B.max()) + fed - 1)
        seen_BGS = self.slots_S[:slots] <= slots_BG[..., None]
        both, model = self.tile.both, self.tile.model
        codes_BGK = at(self.codes_BLK, cells_BG)
        model.step(self.cache, both(codes_BGK), both(cells_BG), seen=both(seen_BGS), slots_BG=both(slots_BG))
        self._share("content", fed, slots)
        return shown_B, slots

    def _ask(self, cells_BQ: Tensor, places_BQ: Tensor, shown_B: Tensor, slots: int) -> Answer:
        """The guided answer to these cells, each seeing what content stands for places before its own."""
        seen_BQS = self.slots_S[:slots] <= torch.minimum(places_BQ, shown_B[:, None])[..., None]
        if serves(self.tile.model, "joint"):  # cells that are asked together do not see each other
            apart_QQ = torch.eye(cells_BQ.shape[1], dtype=torch.bool, device=cells_BQ.device)
            seen_BQS = torch.cat([seen_BQS, apart_QQ.expand(len(seen_BQS), -1, -1)], dim=2)
        answer = self.tile.model.answer(self.cache, self.tile.both(cells_BQ), seen=self.tile.both(seen_BQS))
        self._share("query", cells_BQ.shape[1], slots)
        return answer.guided(self.scales_L[places_BQ]) if self.tile.sampling.guidance.on else answer

    def decide(self, index: int, answer: Answer, cells_BQ: Tensor, places_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Q, K) the codes that cells hold from now on, and (B, Q) whether the guess before was right. Of the cells
        whose codes were fed, those up to the first wrong one are final, and so is that one."""
        if self.tile.forced_BLK is not None:
            codes_BQK = at(self.tile.forced_BLK[self.rows_B], cells_BQ)
        else:
            codes_BQK = answer.draw(self.noise.at(cells_BQ), self.tile.sampling)
        return codes_BQK, (codes_BQK == at(self.codes_BLK, cells_BQ)).all(-1)

    def _share(self, what: str, cells: int, slots: int) -> None:
        """Count cells of the samples at work, as the mean over the tile's samples."""
        counters, share = self.tile.counters, len(self.rows_B) / len(self.tile.samples)
        setattr(counters, f"{what}_tokens", getattr(counters, f"{what}_tokens") + cells * share)
        setattr(counters, f"{what}_pairs", getattr(counters, f"{what}_pairs") + cells * slots * share)

    def leave(self) -> None:
        """Let samples that are done leave, once they are many or all: to go on with fewer has its own cost."""
        B, done_B = len(self.rows_B), self.final_B > self.last
        left = B - int(done_B.sum())
        if left > (_KEPT * B if self.narrows else 0):
            return
        tile, keep_B = self.tile, torch.arange(left, device=done_B.device)
        keep_B[done_B[:left]] = left + (~done_B[left:]).nonzero()[:, 0]  # the others stay where they are
        if self.codes_BLK is not tile.codes_BLK:
            tile.codes_BLK[self.rows_B] = self.codes_BLK
        if left:
            model = cast(Narrowing, tile.model)
            model.keep(self.cache, torch.cat([keep_B, B + keep_B]) if tile.sampling.guidance.on else keep_B)
        else:
            self._settle()
        self.narrow(keep_B)

    def narrow(self, keep_B: Tensor) -> None:
        """Forget all samples at work but these."""
        self.noise = self.noise.of(keep_B)
        for name in ("rows_B", "cells_BL", "codes_BLK", "final_B", "guessed_B"):
            setattr(self, name, getattr(self, name)[keep_B])

    def _settle(self) -> None:
        """Say after which pass every code was final, and count the passes of a sample."""
        tile, final_BT = self.tile, torch.stack(self.history[1:], dim=1)
        passes_BL = 1 + torch.searchsorted(
            final_BT, self.slots_S[:-1].expand_as(tile.cells_BL).contiguous(), right=True
        )
        tile.settled_BL.scatter_(1, tile.cells_BL, passes_BL)
        tile.counters.passes = float(passes_BL.amax(1).double().mean())
