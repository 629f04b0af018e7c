"""NAR (arXiv 2503.10696): anti-diagonals, told by the neighbours to the left and above; its released files, strictly.

Knows its slot programme. Refuses to know how a pass is computed. Written from a description of the layout; no published
file was read by this project.

There are no slots that ask. The output of a code after the backbone predicts the cell to its right; after one block
more it predicts the cell below. A cell with both neighbours takes the mean of the two logits. The first cell takes the
mean of both outputs of the class.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import NAR, fill, is_llama, llama_sizes
from orderbench.models.stack import LlamaStack, StackCache, taken, walks_alone
from orderbench.models.transformer import RMSNorm
from orderbench.orders import BenchError, Plan, make_plan

SAMPLING = {"guidance": "constant:scale=2", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class NarConfig(StackConfig):
    """Sizes of NAR; its network has one block more than `blocks`."""


class Nar(LlamaStack[NarConfig]):
    """codes by anti-diagonals -> logits of the next anti-diagonal."""

    native = "diagonal"

    def __init__(self, config: NarConfig) -> None:
        super().__init__(config)
        self.taps = (config.blocks, config.blocks + 1)
        self.medusa_norm = RMSNorm(config.width)
        self.medusa_output = nn.Linear(config.width, config.codes, bias=False)

    def depth(self) -> int:
        """One block more than the backbone, for the cells below."""
        return self.config.blocks + 1

    def _neighbours(self) -> Tensor:
        """(2, L, 2) int64, to the left and above: the slot that tells a cell, and 1; 0 and 0 where there is none. The
        first cell has the class for both."""
        grid, (cells_L,) = self.config.grid, make_plan(self.native, self.config.grid).cells_for([0])
        slot = {int(cell): 1 + rank for rank, cell in enumerate(cells_L)}
        sides = ((1, grid.col_L), (grid.cols, grid.row_L))
        rows = [
            [[slot[cell - away], 1] if there_L[cell] else [0, int(cell == 0)] for cell in range(grid.n_cells)]
            for away, there_L in sides
        ]
        return torch.tensor(rows, device="cpu")

    def refuses(self, plan: Plan) -> str:
        """All but anti-diagonals, a whole one a step."""
        return walks_alone(self, plan)

    def look_up(self, cache: StackCache, cells_BQ: Tensor) -> Tensor:
        """The mean of what the neighbours that there are say."""
        right, below = self.taps
        left_BQ2, above_BQ2 = self.table("neighbours", self._neighbours)[:, cells_BQ]
        from_left = self.read(taken(cache.outputs[right], left_BQ2[..., 0]))
        from_above = self.medusa_output(self.medusa_norm(taken(cache.outputs[below], above_BQ2[..., 0])))
        (left_BQ1, above_BQ1) = left_BQ2[..., 1:].float(), above_BQ2[..., 1:].float()
        mean: Tensor = (left_BQ1 * from_left.float() + above_BQ1 * from_above.float()) / (left_BQ1 + above_BQ1)
        return mean


def _recognises(names: Collection[str]) -> bool:
    return is_llama(names, NAR)


@register_family(
    "nar", paper="NAR, arXiv 2503.10696", idea="anti-diagonals, each cell told by its left and its upper neighbour",
    recognises=_recognises, config=NarConfig, network=Nar, sampling=SAMPLING,
)  # fmt: skip
def load_nar(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    classes: Annotated[int | None, "classes; default by the file"] = None,
    side: Annotated[int, "cells a side of the grid; 24 for a 384 px model"] = 16,
) -> Nar:
    """A released file; BenchError for one that is not whole, or holds other names or shapes."""
    sizes = llama_sizes(weights, "NAR", heads=heads, classes=classes, side=side)
    if sizes["blocks"] < 2:
        raise BenchError(f"'{weights.where}' holds {sizes['blocks']} block, and NAR has one more than its backbone")
    return fill(Nar, NarConfig(**{**sizes, "blocks": sizes["blocks"] - 1}), weights)
