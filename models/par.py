"""PAR (arXiv 2412.15119): distant regions in parallel; and its released files, strictly.

Knows its slot programme. Refuses to know how a pass is computed. Written from a description of the layout; no published
file was read by this project.

The grid is cut into n = m x m regions. Their first cells come one by one, then the same cell of all regions together.
The output of a code predicts the cell that is n places later in the walk: the next cell of its own region. So that the
first group of n has n inputs, n - 1 learned bridges stand behind the last single code, as slots of its unit. Bridges
are not rotated: like the class, they have the zero vector for query and key.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import isqrt
from typing import Annotated

import torch
from torch import Tensor, nn

from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import PAR, fill, is_llama, llama_sizes
from orderbench.models.stack import LlamaStack, walks_alone
from orderbench.orders import BenchError, Plan

SAMPLING = {"guidance": "constant:scale=1.6", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class ParConfig(StackConfig):
    """Sizes of PAR. m: regions a side, which divides the sides of the grid."""

    m: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m < 2 or self.rows % self.m or self.cols % self.m:
            raise BenchError(
                f"{self.m} x {self.m} regions do not divide a grid of {self.rows} x {self.cols}; a number of 2 or more "
                f"that divides both sides would do"
            )


class Par(LlamaStack[ParConfig]):
    """codes in the walk of `regions` -> logits of the cells n places later."""

    def __init__(self, config: ParConfig) -> None:
        super().__init__(config)
        self.native = f"regions:m={config.m}"
        self.regions, self.taps = config.m**2, (config.blocks,)
        self.spe_tok_embeddings = nn.ModuleDict({"special_embeddings": nn.Embedding(self.regions - 1, config.width)})

    def refuses(self, plan: Plan) -> str:
        """All but its own regions at their native pace: a code tells one cell, whoever is asked beside it."""
        return walks_alone(self, plan)

    def slots_of(self, units: int) -> int:
        return units + self.regions - 1

    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """One slot a code; n for the last one that comes singly, with the bridges behind it."""
        x, turn, counts = super().content(codes_BG, cells_BG, fed)
        last = self.regions - fed  # which of these units is the last single one
        if not 0 <= last < x.shape[1]:
            return x, turn, counts
        bridges = self.get_parameter("spe_tok_embeddings.special_embeddings.weight").expand(len(x), -1, -1)
        x = torch.cat([x[:, : last + 1], bridges, x[:, last + 1 :]], dim=1)
        still = self.no_turn(len(x), self.regions - 1)
        turn = torch.cat([turn[:, : last + 1], still, turn[:, last + 1 :]], dim=1)
        return x, turn, (*counts[:last], self.regions, *counts[last + 1 :])


def _recognises(names: Collection[str]) -> bool:
    return is_llama(names, PAR)


@register_family(
    "par", paper="PAR, arXiv 2412.15119", idea="the same cell of all regions together, told by the cells before them",
    recognises=_recognises, config=ParConfig, network=Par, sampling=SAMPLING,
)  # fmt: skip
def load_par(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    classes: Annotated[int | None, "classes; default by the file"] = None,
    side: Annotated[int, "cells a side of the grid; 16 for a 256 px model"] = 24,
) -> Par:
    """A released file; BenchError for one that is not whole, or holds other names or shapes."""
    sizes = llama_sizes(weights, "PAR", heads=heads, classes=classes, side=side)
    regions = 1 + (len(weights.tensors[PAR]) if weights.tensors[PAR].ndim else 0)
    if regions < 4 or isqrt(regions) ** 2 != regions:
        raise BenchError(f"'{weights.where}' holds {regions - 1} bridges; 3, 8 or 15 would do, for m x m regions")
    return fill(Par, ParConfig(**sizes, m=isqrt(regions)), weights)
