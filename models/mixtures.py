"""Mixtures: which orders and paces a model is trained on, by name, from a file or from a card.

Knows the shape of an ObjectiveConfig as plain values, and which parts of a mixture walk as an order does. Refuses to
know what training does with it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_type_hints

from orderbench.models.objective import RANDOM_ONLY, SHIPPED, ObjectiveConfig, Share
from orderbench.orders import BenchError, Lattice, make_plan
from orderbench.orders.documents import Line, misfit, read_document
from orderbench.orders.errors import unknown
from orderbench.orders.files import reason_of
from orderbench.orders.pace import Pace

ALONE = ("raster", "radial", "halton")  # parts of the shipped mixture that are also mixtures of their own
MIXTURES = {
    "shipped": SHIPPED,
    "random": RANDOM_ONLY,
    **{
        f"{part.order}-only": replace(SHIPPED, mixture=(replace(part, share=1.0),))
        for part in SHIPPED.mixture
        if part.order in ALONE
    },
    "random-only": RANDOM_ONLY,
}


def objective_named(name: str) -> ObjectiveConfig:
    """An objective with a mixture by name, or from a JSON file that holds an ObjectiveConfig."""
    if name in MIXTURES:
        return MIXTURES[name]
    if not Path(name).is_file():
        raise BenchError(f"no mixture named '{name}'; {', '.join(MIXTURES)} would do, or a JSON file, as in mix.json")
    try:
        value = read_document(Path(name))
    except OSError as problem:
        raise BenchError(f"'{name}' could not be read: {reason_of(problem)}; name a JSON file") from problem
    except ValueError as problem:
        raise BenchError(f"'{name}' is not JSON: {problem}; a card of trained weights holds a mixture") from problem
    return objective_of(value, name)


class PartAbout(TypedDict):
    """One part of a mixture."""

    order: Line
    paces: list[Line]
    share: float


class ObjectiveAbout(TypedDict):
    """An ObjectiveConfig as plain values; it knows their ranges itself."""

    mixture: list[PartAbout]
    nested: NotRequired[float]
    noise: NotRequired[float]
    corruptions: NotRequired[list[Line]]
    label_drop: NotRequired[float]
    terms: NotRequired[list[Line]]


def objective_of(value: Any, name: str) -> ObjectiveConfig:
    """An ObjectiveConfig from plain values, as a card holds them; BenchError for values of another form, and for keys
    that it has not."""
    unlike = misfit(value, ObjectiveAbout)
    known = tuple(get_type_hints(ObjectiveAbout))
    foreign = [] if unlike else [key for key in value if key not in known]
    if foreign:
        raise unknown(f"key of a mixture in '{name}'", foreign[0], known, "a card of trained weights holds one")
    if unlike:
        raise BenchError(f"'{name}' is not a mixture: it {unlike}; a card of trained weights holds one")
    shares = tuple(Share(order=s["order"], paces=tuple(s["paces"]), share=s["share"]) for s in value["mixture"])
    others: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key != "mixture"
    }
    return ObjectiveConfig(mixture=shares, **others)


def parts_of(objective: ObjectiveConfig, order: str, lattice: Lattice) -> tuple[Share, ...]:
    """The parts of a mixture that follow an order, however either is spelled."""
    return tuple(part for part in objective.mixture if _same_walk(part.order, order, lattice))


@cache
def _same_walk(one: str, two: str, lattice: Lattice) -> bool:
    """Whether two spellings walk this lattice alike, as `radial` and `radial:center=8x8` do on 16x16."""
    if one == two:
        return True
    try:
        plans = [make_plan(order, lattice, "one") for order in (one, two)]
    except BenchError:
        return False
    return not any(plan.per_sample for plan in plans) and plans[0].digest == plans[1].digest


def trained_pace(objective: ObjectiveConfig, order: str, lattice: Lattice, steps: int) -> str | None:
    """The pace at which most batches followed an order in exactly so many steps; None where none did."""
    shares: dict[str, float] = {}
    for part in parts_of(objective, order, lattice):
        for pace in part.paces:
            law = Pace.parse(pace)
            if (law.steps or make_plan(part.order, lattice, pace).n_steps) == steps:
                shares[pace] = shares.get(pace, 0.0) + part.share / len(part.paces)
    return max(shares, key=lambda pace: shares[pace], default=None)
