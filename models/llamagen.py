"""LlamaGen (arXiv 2406.06525): raster, one cell a step; and its released files, strictly.

Knows its slot programme. Refuses to know how a pass is computed. Written from a description of the layout; no published
file was read by this project.

The sequence is the class, then the codes in raster order. The output of a slot predicts the next cell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from orderbench.models.codec import Weights
from orderbench.models.config import StackConfig
from orderbench.models.families import register_family
from orderbench.models.layouts import fill, is_llama, llama_sizes
from orderbench.models.stack import LlamaStack, walks_alone
from orderbench.orders import Plan

SAMPLING = {"guidance": "constant:scale=2", "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True, kw_only=True)
class LlamaGenConfig(StackConfig):
    """Sizes of LlamaGen."""


class LlamaGen(LlamaStack[LlamaGenConfig]):
    """codes in raster order -> logits of the next cell."""

    native = "raster"

    def __init__(self, config: LlamaGenConfig) -> None:
        super().__init__(config)
        self.taps = (config.blocks,)

    def refuses(self, plan: Plan) -> str:
        """All but raster, one cell a step."""
        return walks_alone(self, plan)


def _recognises(names: Collection[str]) -> bool:
    return is_llama(names)


@register_family(
    "llamagen", paper="LlamaGen, arXiv 2406.06525", idea="raster, the output of a code predicts the next cell",
    recognises=_recognises, config=LlamaGenConfig, network=LlamaGen, sampling=SAMPLING,
)  # fmt: skip
def load_llamagen(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    classes: Annotated[int | None, "classes; default by the file"] = None,
    side: Annotated[int, "cells a side of the grid; 24 for a 384 px model"] = 16,
) -> LlamaGen:
    """A released file; BenchError for one that is not whole, or holds other names or shapes."""
    sizes = llama_sizes(weights, "LlamaGen", heads=heads, classes=classes, side=side)
    return fill(LlamaGen, LlamaGenConfig(**sizes), weights)
