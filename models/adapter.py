"""The adapter for users' networks of the older form, which had eight members and gave logits.

Knows `lattice, n_codes, n_classes, start, step, logits, refill, rewind`. Refuses to know anything newer: such a network
holds one code a cell, takes no mask when it is asked, and is scored step by step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.model import NEEDS, Model, Trait, is_model
from orderbench.models.visibility import as_bias
from orderbench.orders import BenchError, Grid, Plan

MEMBERS = ("lattice", "n_codes", "n_classes", "start", "step", "logits", "refill", "rewind")


class EightMembers:
    """A network of the older form as a `Model`. network: the user's own."""

    native = "raster"
    traits: frozenset[Trait] = frozenset()

    def __init__(self, network: Any) -> None:
        self.network = network

    @property
    def lattice(self) -> Grid:
        """Where the cells are."""
        lattice: Grid = self.network.lattice
        return lattice

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.network.n_codes,)

    @property
    def n_classes(self) -> int:
        """C; the label C is none of them."""
        n: int = self.network.n_classes
        return n

    def refuses(self, plan: Plan) -> str:
        """Nothing: any cells may be asked and fed."""
        return ""

    def start(self, labels_B: Tensor, slots: int) -> Any:
        """A cache with the class fed."""
        return self.network.start(labels_B, slots)

    def step(
        self,
        cache: Any,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        """Feed; a mask, the same for all samples, becomes the bias (G, S) that such networks take."""
        bias = as_bias(seen, torch.float32)
        self.network.step(cache, codes_BGK[..., 0], cells_BG, None if bias is None else bias[0])

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        """The logits of these cells."""
        return Categorical(self.network.logits(cache, cells_BQ))

    def refill(self, cache: Any, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group."""
        self.network.refill(cache, labels_B, codes_BMK[..., 0], cells_BM)

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots."""
        self.network.rewind(cache, slots)


def missing(thing: Any) -> tuple[str, ...]:
    """What a thing lacks to be a model, or a network of the old form, whichever it is nearer to; nothing if it is
    one."""
    lacks = [tuple(need for need in needs if not hasattr(thing, need)) for needs in (NEEDS, MEMBERS)]
    return min(lacks, key=len)


def as_model(thing: Any, name: str) -> Model:
    """A user's object as a model: as it is, or adapted from the older form. BenchError names what it lacks for the form
    that it is nearer to.

    name: how the user named it, for the sentence.
    """
    lacks = missing(thing)
    if lacks:
        raise BenchError(
            f"what '{name}' returned has no {', '.join(lacks)}; orderbench.models.model.Model lists what a model "
            f"needs, and `bench doctor --model {name}` tests it"
        )
    model: Model = thing if is_model(thing) else EightMembers(thing)
    return model
