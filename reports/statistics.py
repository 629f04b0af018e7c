"""Intervals: how far a measured number can be trusted.

Knows samples and pairs of them. Refuses to know what was measured, where it is kept and how it is shown.

All intervals have the level 0.95 and are pointwise. A bootstrap (Efron and Tibshirani, 1993) draws pairs anew, never
the arms apart; a jackknife (Shao and Tu, 1995) leaves out one group of samples at a time, for statistics that repeated
samples would bias, such as a distance between covariances. Shares are counts, with intervals of counts. Differences are
other minus baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from orderbench.orders import BenchError
from orderbench.runs.intervals import FEWEST, LEVEL, numbers, paired
from orderbench.runs.intervals import Interval as Interval
from orderbench.runs.intervals import median_interval as median_interval
from orderbench.runs.intervals import paired_ratio as paired_ratio

_EXACT_DF = 200  # beyond it the expansion of the t quantile is right to ten digits

Replicates = tuple[float, Sequence[float] | None]  # a statistic, and it again without each group; None: not computed


def disjoint(one: Interval, two: Interval) -> bool:
    """Whether two intervals do not meet; not where one has none."""
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return False
    return one.high < two.low or two.high < one.low


# Times: those of runs, and what follows from them


def quotient(a: Interval, b: Interval) -> Interval:
    """a / b of two independent measurements above 0: their intervals' log widths add up as squares; no interval where
    one has none."""
    value = a.value / b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Interval(value)
    down = math.hypot(math.log(a.value / a.low), math.log(b.high / b.value))
    up = math.hypot(math.log(a.high / a.value), math.log(b.value / b.low))
    return Interval(value, value * math.exp(-down), value * math.exp(up))


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """median, p90, iqr (interquartile range), min and n of raw samples, in their unit."""
    x = numbers(samples)
    q25, median, q75, p90 = np.quantile(x, [0.25, 0.5, 0.75, 0.9]).tolist()
    return {"median": median, "p90": p90, "iqr": q75 - q25, "min": float(x.min()), "n": len(x)}


# Means, such as bits over images


def mean_interval(samples: Sequence[float] | np.ndarray) -> Interval:
    """The mean with its standard error and Student's t; one sample has no interval."""
    x = numbers(samples)
    value = float(x.mean())
    if len(x) < 2:
        return Interval(value)
    return _around(value, float(x.var(ddof=1)) / len(x), len(x) - 1)


def paired_mean(baseline_N: Sequence[float] | np.ndarray, other_N: Sequence[float] | np.ndarray) -> Interval:
    """The mean of other - baseline over the same images; BenchError if the lengths differ."""
    baseline, other = paired(baseline_N, other_N)
    return mean_interval(other - baseline)


# Statistics of a whole sample, such as a Frechet distance: jackknives over groups, one for each seed


def jackknife(seeds: Sequence[Replicates]) -> Interval:
    """The mean over seeds of a statistic, each seed given as (value, the values without each of its G groups).

    One seed's variance is (G - 1) / G times the summed squares around the mean of the values left out; groups are of
    about one size, and a seed may have its own G. With S seeds the variances add up to sum / S^2; from three seeds on,
    the values' own variance over seeds counts instead where it is larger. Student's t, with all G - 1 or with S - 1
    degrees of freedom. No interval where a seed has no values left out and there are fewer than three.
    """
    values, left_out = _unpacked(seeds)
    return _stratified(float(values.mean()), values, None if left_out is None else [x / len(values) for x in left_out])


def jackknife_difference(baseline: Sequence[Replicates], other: Sequence[Replicates]) -> Interval:
    """Other minus baseline, seed by seed and group by group: what the arms share, such as noise and labels, cancels.

    BenchError if seeds or groups do not correspond.
    """
    (a, a_out), (b, b_out) = _corresponding(baseline, other)
    left_out = None
    if a_out is not None and b_out is not None:
        left_out = [(y - x) / len(a) for x, y in zip(a_out, b_out, strict=True)]
    return _stratified(float((b - a).mean()), b - a, left_out)


def jackknife_percent(baseline: Sequence[Replicates], other: Sequence[Replicates]) -> Interval:
    """The same difference in percent of the baseline: -10 is a tenth less. Both are means over seeds.

    BenchError also for a baseline of 0 or less, such as an unbiased kernel distance of nearly equal sets.
    """
    (a, a_out), (b, b_out) = _corresponding(baseline, other)
    left_out, wholes = None, [a.mean()]
    if a_out is not None and b_out is not None:  # one seed's group left out, the other seeds whole
        of = [a.mean() + (x - a[s]) / len(a) for s, x in enumerate(a_out)]
        wholes += [one.min() for one in of]
        with np.errstate(all="ignore"):  # what has no percent is refused below
            left_out = [
                100 * ((b.mean() + (y - b[s]) / len(b)) / whole - 1)
                for s, (whole, y) in enumerate(zip(of, b_out, strict=True))
            ]
    if min(wholes) <= 0:
        raise BenchError(f"a baseline of {min(wholes):g} has no percent; compare the difference itself")
    ratio = b.mean() / a.mean()  # seeds vary by what they add to it: its derivative, not the difference's
    return _stratified(100 * float(ratio - 1), 100 * (b - ratio * a) / a.mean(), left_out)


def _stratified(value: float, values_S: np.ndarray, left_out: list[np.ndarray] | None) -> Interval:
    """left_out: the value without each group of each seed, up to a constant."""
    found = []
    if left_out is not None:
        variance = sum((len(x) - 1) / len(x) * float(((x - x.mean()) ** 2).sum()) for x in left_out)
        found.append((variance, sum(len(x) - 1 for x in left_out)))
    if len(values_S) >= FEWEST:
        found.append((float(values_S.var(ddof=1)) / len(values_S), len(values_S) - 1))
    return _around(value, *max(found)) if found else Interval(value)


def _unpacked(seeds: Sequence[Replicates]) -> tuple[np.ndarray, list[np.ndarray] | None]:
    values = numbers([value for value, _ in seeds])
    parts = [numbers(left_out) for _, left_out in seeds if left_out is not None and len(left_out) >= 2]
    return values, parts if len(parts) == len(values) else None


def correspond(baseline: Sequence[Replicates], other: Sequence[Replicates]) -> bool:
    """Whether both have the same seeds and, where values were left out, as many groups: whether they can be paired."""
    pairs = list(zip(baseline, other, strict=False))
    return len(baseline) == len(other) and all(not (a and b) or len(a) == len(b) for (_, a), (_, b) in pairs)


def _corresponding(
    baseline: Sequence[Replicates], other: Sequence[Replicates]
) -> tuple[tuple[np.ndarray, list[np.ndarray] | None], tuple[np.ndarray, list[np.ndarray] | None]]:
    if not correspond(baseline, other):
        groups = [[len(left_out or ()) for _, left_out in side] for side in (baseline, other)]
        raise BenchError(
            f"a baseline of {groups[0]} groups by seed and an arm of {groups[1]} cannot be paired; give both the same "
            f"seeds and samples"
        )
    return _unpacked(baseline), _unpacked(other)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing the mean of theirs. None where a side is all equal.

    >>> rank_correlation([1, 2, 2, 9], [10, 20, 20, 21])
    1.0
    """
    ranks_N, theirs_N = (_ranks(np.asarray(values, dtype=float)) for values in (one, other))
    if np.ptp(ranks_N) == 0 or np.ptp(theirs_N) == 0:
        return None
    return round(float(np.corrcoef(ranks_N, theirs_N)[0, 1]), 12)


def _ranks(values_N: np.ndarray) -> np.ndarray:
    _, place_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ranks_N: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place_N]
    return ranks_N


# Shares, such as how many images are given their label: a count among n, never outside 0 to 1 and never exact


def share_interval(shares: Sequence[float], counts: Sequence[int]) -> Interval:
    """The mean over seeds of a share, each of so many images: the score interval of Wilson (1927), within [0, 1].

    Where three seeds or more lie further apart than such counts would, the images count as fewer: n over the design
    effect (Kish, 1965).
    """
    p_S, n_S = paired(shares, counts)
    value, n = min(1.0, max(0.0, float(p_S.mean()))), float(n_S.sum())
    if len(p_S) >= FEWEST and 0 < value < 1:
        n /= max(1.0, float(p_S.var(ddof=1)) / len(p_S) / (value * (1 - value) / n))
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return Interval(value, min(value, max(0.0, middle - half)), max(value, min(1.0, middle + half)))


def share_difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Interval:
    """Other minus baseline of a share over the same images, within [-1, 1]; seeds add up.

    pairs: by seed, (N,) bool of the baseline and of the other, image by image. The adjusted interval of Bonett and
    Price (2012, doi 10.1002/sim.5324): one image more that only the one has right, and one that only the other has.
    So no agreement of a few images is taken for certain. Where three seeds or more lie further apart than that, their
    own variance counts. BenchError if lengths differ.
    """
    sides = [paired(baseline, other) for baseline, other in pairs]
    n = sum(len(a) for a, _ in sides)
    gained, lost = (float(sum(((b > a) if up else (b < a)).sum() for a, b in sides)) for up in (True, False))
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    variance, quantile = (up + down - (up - down) ** 2) / (n + 2), NormalDist().inv_cdf((1 + LEVEL) / 2)
    apart_S = np.array([float((b - a).mean()) for a, b in sides])
    if len(sides) >= FEWEST and apart_S.var(ddof=1) / len(sides) > variance:
        variance, quantile = float(apart_S.var(ddof=1)) / len(sides), t_quantile((1 + LEVEL) / 2, len(sides) - 1)
    value, half = (gained - lost) / n, quantile * math.sqrt(variance)
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return Interval(value, min(low, value), max(high, value))


def share_difference_apart(baseline: Interval, other: Interval) -> Interval:
    """Other minus baseline of two shares of which only the counts are known, not which images they share: their score
    intervals, squared and added (Newcombe, 1998, method 10). Wider than a paired one; no interval where one has none.
    """
    value = other.value - baseline.value
    if baseline.low is None or baseline.high is None or other.low is None or other.high is None:
        return Interval(value)
    down = math.hypot(other.value - other.low, baseline.high - baseline.value)
    up = math.hypot(other.high - other.value, baseline.value - baseline.low)
    return Interval(value, max(-1.0, value - down), min(1.0, value + up))


# Student's t


def t_quantile(probability: float, df: int) -> float:
    """The value that Student's t with `df` degrees of freedom, 1 or more, stays below with this probability in (0, 1).

    Up to 200 degrees the finite series of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4, bisected; beyond, their
    expansion around the normal quantile, 26.7.5.

    >>> f"{t_quantile(0.975, 2):.4f}"
    '4.3027'
    """
    if not 0 < probability < 1 or df < 1:
        raise BenchError(
            f"Student's t has no quantile {probability:g} at {df} degrees of freedom; 0.975 and 1 would do"
        )
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    if df > _EXACT_DF:
        z = NormalDist().inv_cdf(probability)
        return (
            z
            + (z**3 + z) / (4 * df)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
        )
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_within(angle, df) < 2 * probability - 1 else (low, angle)
    return math.sqrt(df) * math.tan((low + high) / 2)


def _t_within(angle: float, df: int) -> float:
    """The probability that |t| is at most sqrt(df) tan(angle)."""
    total, term = 0.0, math.cos(angle) if df % 2 else 1.0
    for power in range(1 + df % 2, df, 2):
        total += term
        term *= math.cos(angle) ** 2 * power / (power + 1)
    if df % 2:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _around(value: float, variance: float, df: int) -> Interval:
    error = math.sqrt(variance)
    half = t_quantile((1 + LEVEL) / 2, df) * error
    return Interval(value, value - half, value + half, error)
