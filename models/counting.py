"""Counting: what a plan costs a decoder, found without a network.

Knows calls, and how often a guess may be supposed to be wrong where the number of calls depends on that. Refuses to
know seconds: `orderbench.runs.cost` turns counts into them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.decode import PLAIN_DECODER, Counters, Decoder, make_tile, run_tile
from orderbench.models.model import Trait
from orderbench.models.sampling import NoiseKind
from orderbench.orders import Lattice, Plan, walk_tax

_MISSES: dict[NoiseKind, tuple[float, float]] = {"uniform": (0.05, 0.36), "gumbel": (0.036, 0.22)}
"""The share of guesses that are wrong: at no tax, and more of it a bit per token of the walk's tax at the common pace.
Fitted by eye to docs/exact.md: sixteen orders, one network, 16x16."""
_SUPPOSED_TAX = 0.15  # of a walk without a prediction, in bits per token: that of an order neither good nor bad


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


class Guessed(Nothing):
    """A model that computes nothing, and of whose codes a share are not what was guessed, by chance of a fixed seed.

    misses: the chance that two answers to one cell differ, in [0, 1).
    """

    code_sizes = (16,)

    def __init__(self, lattice: Lattice, misses: float) -> None:
        super().__init__(lattice)
        self.odd = 1 - (1 - misses) ** 0.5  # of one answer; two agree if neither is odd
        self.chance = torch.Generator().manual_seed(0)

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        drawn_BQ = torch.rand(cells_BQ.shape, generator=self.chance)
        odd_BQ = 1 + (drawn_BQ / self.odd * 15).long().clamp_(max=14)
        code_BQ = torch.where(drawn_BQ < self.odd, odd_BQ, 0)
        return Categorical(60.0 * torch.nn.functional.one_hot(code_BQ, 16).float())


def misses(plan: Plan, noise: NoiseKind) -> float:
    """The share of guesses along a plan's walk that are supposed to be wrong, by the tax that is predicted for it."""
    taxed = walk_tax(plan)
    least, slope = _MISSES[noise]
    return min(0.9, least + slope * (_SUPPOSED_TAX if taxed is None else taxed))


def expect(plan: Plan, decoder: Decoder, batch: int, misses: float) -> Counters:
    """What a decoder that drafts may be expected to count of one sample of a batch: its own steps, with guesses that
    are wrong by chance. Within a third of what was measured, where `misses` came from that network."""
    tile = make_tile(Guessed(plan.lattice, misses), plan, range(batch))
    run_tile(tile, decoder)
    return tile.counters
