"""Intervals of times: medians, and ratios that are paired within rounds.

Knows samples and pairs of them. Refuses to know what was timed. A run asks here whether it has timed enough, and
reports ask here what they print (`reports/statistics.py` has the other intervals): both go by the same interval.

All intervals have the level 0.95 and are pointwise. A bootstrap (Efron and Tibshirani, 1993) draws pairs anew, never
the arms apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orderbench.orders import BenchError

LEVEL = 0.95
FEWEST = 3  # samples that a bootstrap says something from


@dataclass(frozen=True)
class Interval:
    """A value and its interval of level 0.95, in the value's unit; None where there are too few samples for one.

    error: the standard error, where the interval rests on one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None

    def scaled(self, factor: float) -> Interval:
        """In another unit, `factor` of which make one of this one."""
        low, high = (None if bound is None else bound * factor for bound in (self.low, self.high))
        error = None if self.error is None else self.error * abs(factor)
        return Interval(self.value * factor, *((low, high) if factor >= 0 else (high, low)), error)

    def inverse(self) -> Interval:
        """1 / value, for a ratio seen from the other side; both bounds on one side of 0."""
        low, high = (None if bound is None else 1 / bound for bound in (self.high, self.low))
        return Interval(1 / self.value, low, high)

    def plain(self) -> dict[str, float | None]:
        """For JSON: value, low, high; None where there is no bound."""
        return {"value": self.value, "low": self.low, "high": self.high}


def paired_ratio(
    baseline_s: Sequence[float], other_s: Sequence[float], *, seed: int = 0, resamples: int = 2000
) -> Interval:
    """How many times faster the other is: exp of the median of log(baseline / other) over the rounds.

    baseline_s, other_s: seconds, one each a round, above 0. A percentile bootstrap over rounds, its bounds moved
    outwards to the order statistics that hold the level. Fewer than three rounds have no interval; that of three to
    five holds less than its level (0.75, 0.875, 0.9375). BenchError if the lengths differ.
    """
    baseline, other = paired(baseline_s, other_s)
    if min(baseline.min(), other.min()) <= 0:
        raise BenchError("a time of 0 seconds or less has no ratio; time longer samples")
    logs = np.log(baseline / other)
    low, high = _bootstrap_median(logs, seed, resamples)
    bounds = (None if bound is None else math.exp(bound) for bound in (low, high))
    return Interval(math.exp(np.median(logs)), *bounds)


def median_interval(samples: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> Interval:
    """The median with a percentile bootstrap; fewer than three samples have no interval."""
    x = numbers(samples)
    return Interval(float(np.median(x)), *_bootstrap_median(x, seed, resamples))


def _bootstrap_median(x_N: np.ndarray, seed: int, resamples: int) -> tuple[float | None, float | None]:
    """Bounds of a percentile bootstrap, moved outwards where they hold less than their level: of few samples the
    medians of resamples are so few different numbers that their percentiles miss (7 samples: 0.875)."""
    N = len(x_N)
    if N < FEWEST:
        return None, None
    rng = np.random.default_rng(seed)
    medians = np.median(x_N[rng.integers(0, N, (resamples, N))], axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    ordered, outside = np.sort(x_N), _outside(N)
    return min(low, float(ordered[outside])), max(high, float(ordered[N - 1 - outside]))


def _outside(N: int) -> int:
    """How many of N ordered samples may lie beyond either bound with the level still held: the median misses the k-th
    smallest and the k-th largest with the probability that fewer than k of N fair coins fall to one side. 0 also below
    six samples, of which even the outermost hold less."""
    missed, outside = 0.0, 0
    for k in range(N // 2):
        missed += 2 * math.comb(N, k) / 2**N
        if missed > 1 - LEVEL:
            break
        outside = k
    return outside


# What comes in


def numbers(samples: Any) -> np.ndarray:
    """One row of finite numbers; BenchError for anything else."""
    x = np.asarray(samples, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise BenchError(
            f"samples of shape {x.shape} that are {'finite' if np.isfinite(x).all() else 'not all finite'} have no "
            f"interval; one row of finite numbers would do"
        )
    return x


def paired(baseline: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of as many numbers; BenchError for anything else."""
    a, b = numbers(baseline), numbers(other)
    if len(a) != len(b):
        raise BenchError(
            f"{len(a)} samples of a baseline and {len(b)} of an arm cannot be paired; give as many of each"
        )
    return a, b
