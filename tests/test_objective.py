"""Objectives of a user's mixture file: what no training could follow is refused before it begins."""

from typing import Any

import pytest

from orderbench.models.mixtures import objective_of
from orderbench.models.objective import RANDOM_ONLY, objective_to_plain
from orderbench.orders import BenchError

RASTER = {"order": "raster", "paces": ["one"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mixture": [{**RASTER, "share": 1.5}, {**RASTER, "share": -0.5}]}, "raster with the share -0.5 and 1 paces"),
        ({"mixture": [{**RASTER, "share": 1.0, "paces": []}]}, "raster with the share 1 and 0 paces"),
        ({"mixture": [{**RASTER, "share": 0.5}]}, "the mixture's shares sum to 0.5; they must sum to 1"),
        ({"nested": 1.5}, "the objective's nested is 1.5; it is a share, from 0 to 1"),
        ({"noise": -0.1}, "the objective's noise is -0.1"),
        ({"label_drop": float("nan")}, "the objective's label_drop is nan"),
        ({"terms": []}, "an objective has one corruption and one term or more"),
        ({"terms": ["cf"]}, "no objective term named 'cf'"),
    ],
)
def test_a_mixture_that_cannot_be_trained_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        objective_of({**objective_to_plain(RANDOM_ONLY), **change}, "mixture.json")
