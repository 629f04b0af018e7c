"""RandAR (arXiv 2412.01827): any order, by an instruction token before every code; its released files, strictly.

Knows its slot programme. Refuses to know how a pass is computed. Written from a description of the layout; no published
file was read by this project.

The sequence is the class, then for every cell of the walk an instruction, which says where, and the code. A slot sees
no slot behind it. An instruction is one learned vector, turned by its cell and used as an embedding; attention turns it
again. Its output predicts the code. So a unit that is fed is two slots, and a cell that is asked is one. When several
cells are asked together, each sees the instructions before its own, and not the codes, which are not known yet; in
training it saw both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from orderbench.models.answer import Categorical
from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import RANDAR, fill, is_llama, llama_sizes
from orderbench.models.positions import rotate
from orderbench.models.stack import LlamaStack, StackCache
from orderbench.models.transformer import join_heads, split_heads

SAMPLING = {"guidance": "linear:scale=4:count=before", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class RandARConfig(StackConfig):
    """Sizes of RandAR."""


class RandAR(LlamaStack[RandARConfig]):
    """codes in any order, strictly causal -> logits of any cells."""

    native = "random@randar:88"
    joint, causal = True, True

    def __init__(self, config: RandARConfig) -> None:
        super().__init__(config)
        steps = min(88, config.grid.n_cells)
        self.native = f"random@randar:{steps}"
        self.pos_instruct_embeddings = nn.Parameter(torch.zeros(1, config.width))

    def slots_of(self, units: int) -> int:
        return 2 * units - 1

    def queries(self, cells_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """The instruction of every cell."""
        turn = self.turn_LJ[cells_BQ]
        x = self.pos_instruct_embeddings.expand(*cells_BQ.shape, -1)
        return join_heads(rotate(split_heads(x, self.config.heads), turn)), turn

    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Two slots a unit: the instruction, then the code."""
        asked, turn = self.queries(cells_BG)
        x = torch.stack([asked, self.tok_embeddings(codes_BG)], dim=2).flatten(1, 2)
        return x, turn.repeat_interleave(2, dim=1), (2,) * cells_BG.shape[1]

    def answer(self, cache: StackCache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        if seen is not None and self._is_sequence(cache, cells_BQ, seen):
            units, (x, turn) = len(cache.counts), self.queries(cells_BQ[:, -1:])
            last = torch.cat([seen[:, -1:, :units], seen[:, -1:, -1:]], dim=2)
            return Categorical(self.read(self.run(cache, (x, turn), last)[:, 1::2]).float())
        answer = super().answer(cache, cells_BQ, seen=seen)
        stands = seen is None and cache.length + cells_BQ.shape[1] <= cache.keys[0].shape[2]
        cache.asked_B = cells_BQ[:, 0] if stands else None
        return answer

    def _is_sequence(self, cache: StackCache, cells_BQ: Tensor, seen: Tensor) -> bool:
        """Whether what waits, and these cells, are one whole sequence of training: the class, the codes of a walk, and
        all cells of it, each seeing what was before it. Then instructions that stand before the codes ask already, and
        only the last cell needs one of its own: 2 L slots instead of 3 L."""
        units, Q = len(cache.counts), cells_BQ.shape[1]
        if cache.fed_BG is None or len(cache.waiting) != 2 or units != Q or len(seen) != 1:
            return False
        before, fed = torch.ones(Q, units, dtype=torch.bool, device=seen.device).tril(), cache.waiting[1].seen
        alone = torch.cat([before, torch.eye(Q, dtype=torch.bool, device=seen.device)], dim=1)
        if fed is None or len(fed) != 1 or not torch.equal(fed[0], before[1:]):
            return False
        return torch.equal(cache.fed_BG, cells_BQ[:, :-1]) and torch.equal(seen[0], alone)

    def step(
        self,
        cache: StackCache,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        """Feed decoded codes. Where the first cell is the first that was asked last, its instruction was run already,
        seeing all that it sees as content, and is not run again. So a step runs one slot less, as in the release. On a
        GPU, to find that out would make the processor wait, and all slots are run."""
        asked_B, cache.asked_B, cache.fed_BG = cache.asked_B, None, cells_BG
        elsewhere = cells_BG.device.type != "cpu"
        if seen is not None or asked_B is None or elsewhere or not torch.equal(asked_B, cells_BG[:, 0]):
            super().step(cache, codes_BGK, cells_BG, seen=seen, slots_BG=slots_BG)
            return
        x, turn, counts = self.content(codes_BGK[..., 0], cells_BG, len(cache.counts))
        cache.length += 1
        self._wait(cache, x[:, 1:], turn[:, 1:], counts, None)


def _recognises(names: Collection[str]) -> bool:
    return is_llama(names, RANDAR)


@register_family(
    "randar", paper="RandAR, arXiv 2412.01827", idea="any order, an instruction token before every code, causal",
    recognises=_recognises, config=RandARConfig, network=RandAR, sampling=SAMPLING,
)  # fmt: skip
def load_randar(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    classes: Annotated[int | None, "classes; default by the file"] = None,
    side: Annotated[int, "cells a side of the grid"] = 16,
) -> RandAR:
    """A released file; BenchError for one that is not whole, or holds other names or shapes."""
    sizes = llama_sizes(weights, "RandAR", heads=heads, classes=classes, side=side)
    return fill(RandAR, RandARConfig(**sizes), weights)
