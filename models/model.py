"""What a network must offer to be decoded, and how it says what it serves.

Knows the calls that decoding makes, and the names of what a network can do besides. Refuses to know how a network
computes. `orderbench.models.Transformer` is a model, and a user's own network may be one; `models/contract.py` tests
them.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from orderbench.models.answer import Answer
from orderbench.orders import BenchError, Grid, Lattice, Plan

Trait = Literal["masks", "slots", "joint", "causal", "shifted"]
TRAITS: dict[str, str] = {
    "masks": "feeding and asking take a mask `seen`",
    "slots": "feeding can name the slots it writes, each sample's own",
    "joint": "cells asked together see each other",
    "shifted": "outputs of what was fed tell the cells of its own walk, so asking takes no mask",
    "causal": "a unit or a cell sees nothing that is fed or asked behind it, also within a group",
}

_NEED_WORDS = {**TRAITS, "rewind": "fed codes can be taken back (refill and rewind)",
               "law": "a cell holds one code, whose law can be told"}  # fmt: skip


@runtime_checkable
class Model(Protocol):
    """A network that decodes.

    The cache holds slots. Slot 0 is the class, and every unit that is fed takes one more slot, whatever the network
    keeps for it. A mask is bool, True where seen; its first axis is B, or 1 if all samples share it.
    """

    @property
    def lattice(self) -> Lattice:
        """Where the cells are."""

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V_1, ..., V_K): how many values each of the K codes of a cell takes."""

    @property
    def n_classes(self) -> int:
        """C, the number of classes; the label C means no class."""

    @property
    def native(self) -> str:
        """The arm that the network was trained for, as in 'raster' or 'regions:m=2@native'."""

    @property
    def traits(self) -> frozenset[Trait]:
        """What its calls serve besides; see `TRAITS`."""

    def refuses(self, plan: Plan) -> str:
        """Why it cannot follow a plan on its lattice, as a part of a sentence; empty if it can."""

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
        """Feed decoded codes. Without a mask they see every slot fed before, and each other.

        seen, with the trait 'masks': (B or 1, G, S), over all S slots, those that are written now included. slots_BG,
        with the trait 'slots', and only together with `seen`: int64, the slots that these units write. S is then the
        number of slots that the mask covers.
        """

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Answer:
        """What the network says of these cells, given the slots fed so far, in fp32.

        seen, with the trait 'masks': (B or 1, Q, S), over the slots. With the trait 'joint' it is (B or 1, Q, S + Q),
        over the slots and then the cells asked together. Without a mask all slots are seen, and with the trait 'joint'
        also all cells asked together. A network with the trait 'causal' hides besides what is behind.
        """


@runtime_checkable
class Rewindable(Model, Protocol):
    """A model that can forget what it was fed, which corrections need."""

    def refill(self, cache: Any, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group, each seeing all."""

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots."""


@runtime_checkable
class Narrowing(Model, Protocol):
    """A model whose samples can leave a batch, so that a decoder spends nothing on those that are done."""

    def keep(self, cache: Any, rows_B: Tensor) -> None:
        """Forget all samples but these. rows_B: int64, no more than there were; row i of the cache becomes that of
        rows_B[i]."""


@runtime_checkable
class Meeting(Model, Protocol):
    """A model that must know its tokenizer before it decodes, such as one whose inputs are made from the codebook."""

    def meet(self, codec: Any) -> None:
        """Called once, with the `Codec` between its codes and pixels, or None where there is none. BenchError for a
        tokenizer that does not belong to it, and for none if it cannot do without."""


def serves(model: object, need: str) -> bool:
    """Whether a model has a trait, or, for 'rewind' and 'keep', the calls of `Rewindable` and `Narrowing`."""
    if need == "rewind":
        return all(callable(getattr(model, name, None)) for name in ("refill", "rewind"))
    if need == "law":
        return len(getattr(model, "code_sizes", ())) == 1
    if need == "keep":
        return callable(getattr(model, "keep", None))
    return need in getattr(model, "traits", ())


def refusal(model: Model, plan: Plan, needs: tuple[str, ...] = (), name: str = "the model") -> str:
    """Why a model cannot decode a plan with a decoder that has these needs, as a sentence; empty if it can."""
    if plan.lattice != model.lattice:
        kind = "grid" if isinstance(plan.lattice, Grid) else "pyramid"
        return (
            f"the plan is for a {plan.lattice} {kind} and {name}'s weights for {model.lattice}; make the plan with "
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
    """Whether an object has everything that `Model` lists, by name."""
    return all(hasattr(thing, need) for need in NEEDS)
