"""Mixtures: which orders and paces a model is trained on, by name, from a file or from a card.

Knows the shape of an ObjectiveConfig as plain values, and which parts of a mixture walk as an order does. Refuses to
know what training does with it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from orderbench.models.objective import RANDOM_ONLY, SHIPPED, ObjectiveConfig, Share
from orderbench.orders import BenchError, Lattice, make_plan
from orderbench.orders.documents import read_document
from orderbench.orders.files import reason_of
from orderbench.orders.pace import Pace

MIXTURES = {"shipped": SHIPPED, "random": RANDOM_ONLY}


def objective_named(name: str) -> ObjectiveConfig:
    """An objective with a mixture by name, or from a JSON file that holds an ObjectiveConfig."""
    if name in MIXTURES:
        return MIXTURES[name]
    if not Path(name).is_file():
        raise BenchError(f"no mixture named '{name}'; {', '.join(MIXTURES)} would do, or a JSON file, as in mix.json")
    try:
        value = read_document(Path(name))
    except OSError as problem:
        raise BenchError(f"'{name}' could not be read: {reason_of(problem)}; name another file") from problem
    except ValueError as problem:
        raise BenchError(f"'{name}' is not JSON: {problem}; a card of trained weights holds a mixture") from problem
    return objective_of(value, name)


def objective_of(value: dict[str, Any], name: str) -> ObjectiveConfig:
    """An ObjectiveConfig from plain values, as a card holds them."""
    try:
        shares = tuple(Share(order=s["order"], paces=tuple(s["paces"]), share=s["share"]) for s in value["mixture"])
        others: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key != "mixture"
        }
        return ObjectiveConfig(mixture=shares, **others)
    except (KeyError, TypeError, ValueError) as problem:
        raise BenchError(f"'{name}' is not a mixture: {problem}; a card of trained weights holds one") from problem


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
