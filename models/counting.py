"""Counting: what a plan costs a decoder, found without a network.

Knows calls. Refuses to know seconds: `orderbench.runs.cost` turns counts into them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.decode import PLAIN_DECODER, Counters, Decoder, make_tile, run_tile
from orderbench.models.model import Trait
from orderbench.orders import Lattice, Plan


class Nothing:
    """A model that computes nothing, so that decoding with it only counts."""

    code_sizes, n_classes, native = (2,), 1, "raster"
    traits: frozenset[Trait] = frozenset({"masks", "slots"})

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice

    def refuses(self, plan: Plan) -> str:
        return ""

    def start(self, labels_B: Tensor, slots: int) -> None:
        return None

    def step(self, cache: Any, codes_BGK: Tensor, cells_BG: Tensor, **masks: Tensor | None) -> None: ...

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        return Categorical(torch.zeros(*cells_BQ.shape, 2))

    def refill(self, cache: Any, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None: ...

    def rewind(self, cache: Any, slots: int) -> None: ...

    def keep(self, cache: Any, rows_B: Tensor) -> None: ...


def count(plan: Plan, decoder: Decoder = PLAIN_DECODER) -> Counters:
    """Counters of one sample, without a model; `cache_bytes` stays 0. Exact unless the decoder has the trait
    `varies`."""
    tile = make_tile(Nothing(plan.lattice), plan, [0])
    run_tile(tile, decoder)
    return tile.counters
