"""What a network must offer to be decoded, and how it says what it serves.

Knows the calls that decoding makes and the words for what a network can and cannot do. Refuses to know how a network
computes. `orderbench.models.Transformer` is a model, and so may be a user's own network; `models/contract.py` tests
any.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from orderbench.models.answer import Answer
from orderbench.orders import BenchError, Lattice, Plan

Trait = Literal["masks", "slots", "joint"]
TRAITS: dict[str, str] = {
    "masks": "feeding and asking take a mask `seen`",
    "slots": "feeding can name the slots it writes, each sample's own",
    "joint": "cells asked together see each other",
}

_NEED_WORDS = {**TRAITS, "rewind": "fed codes can be taken back (refill and rewind)"}


@runtime_checkable
class Model(Protocol):
    """A network that decodes.

    The cache holds slots: slot 0 is the class, every unit fed takes one more, however many a network keeps inside. A
    mask is bool, True where seen, with a leading axis B, or 1 where all samples share it.
    """

    @property
    def lattice(self) -> Lattice:
        """Where the cells are."""

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V_1, ..., V_K): how many values each of the K codes of a cell takes."""

    @property
    def n_classes(self) -> int:
        """C; the label C is none of them."""

    @property
    def native(self) -> str:
        """The arm that the network was trained for, as in 'raster' or 'regions:m=2'."""

    @property
    def traits(self) -> frozenset[Trait]:
        """What else its calls serve: see `TRAITS`."""

    def refuses(self, plan: Plan) -> str:
        """Why it cannot follow a plan of its own lattice, half a sentence; empty if it can."""

    def start(self, labels_B: Tensor, slots: int) -> Any:
        """A cache with room for `slots` slots, the class fed as the first."""

    def step(
        self,
        cache: Any,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        """Feed decoded codes. Without a mask they see every slot fed before and each other.

        seen, with the trait 'masks': (B or 1, G, S), over the S slots there are then, these included. slots_BG, with
        the trait 'slots': int64, the slots that these units write; S then counts the slots that the mask covers.
        """

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Answer:
        """What the network says of these cells, given every slot fed so far, in fp32.

        seen, with the trait 'masks': (B or 1, Q, S), over the slots; with the trait 'joint' (B or 1, Q, S + Q), over
        the slots and then the cells asked together. Without a mask every slot is seen, and with the trait 'joint'
        every cell asked.
        """


@runtime_checkable
class Rewindable(Model, Protocol):
    """A model that can be taken back, which corrections need."""

    def refill(self, cache: Any, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group, each seeing all."""

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots."""


def serves(model: object, need: str) -> bool:
    """Whether a model has a trait, or, for 'rewind', the calls that take it back."""
    if need == "rewind":
        return all(callable(getattr(model, name, None)) for name in ("refill", "rewind"))
    return need in getattr(model, "traits", ())


def refusal(model: Model, plan: Plan, needs: tuple[str, ...] = (), name: str = "the model") -> str:
    """Why a model cannot decode a plan with a decoder of these needs, as a sentence; empty if it can."""
    if plan.lattice != model.lattice:
        return (
            f"the plan is for a {plan.lattice} grid and {name}'s weights for {model.lattice}; make the plan with "
            f"--grid {model.lattice}"
        )
    missing = [need for need in needs if not serves(model, need)]
    if missing:
        return (
            f"{name} does not serve this decoder, which needs that {_NEED_WORDS[missing[0]]}; plain decoding would do"
        )
    why = model.refuses(plan)
    return f"{name} does not serve this plan: {why}" if why else ""


def check(model: Model, plan: Plan, needs: tuple[str, ...] = ()) -> None:
    """BenchError if the model refuses."""
    why = refusal(model, plan, needs)
    if why:
        raise BenchError(why)


NEEDS = ("lattice", "code_sizes", "n_classes", "native", "traits", "refuses", "start", "step", "answer")


def is_model(thing: object) -> bool:
    """Whether a thing has all that `Model` asks for, by name."""
    return all(hasattr(thing, need) for need in NEEDS)
