"""Mixtures: which orders and paces a model is trained on, by name, from a file or from a card.

Knows the shape of an ObjectiveConfig as plain values. Refuses to know what training does with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orderbench.models.objective import RANDOM_ONLY, SHIPPED, ObjectiveConfig, Share
from orderbench.orders import BenchError

MIXTURES = {"shipped": SHIPPED, "random": RANDOM_ONLY}


def objective_named(name: str) -> ObjectiveConfig:
    """An objective with a mixture by name, or from a JSON file that holds an ObjectiveConfig."""
    if name in MIXTURES:
        return MIXTURES[name]
    if not Path(name).is_file():
        raise BenchError(f"no mixture named '{name}'; {', '.join(MIXTURES)} would do, or a JSON file, as in mix.json")
    try:
        value = json.loads(Path(name).read_text())
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
