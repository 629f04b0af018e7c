"""Intervals: they cover what they promise to, in simulations with a known truth, and pairs are kept together."""

import math
from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest

from orderbench.orders import BenchError
from orderbench.reports.statistics import (
    Interval,
    Replicates,
    correspond,
    jackknife,
    jackknife_difference,
    jackknife_percent,
    mean_interval,
    median_interval,
    paired_mean,
    paired_ratio,
    share_difference,
    share_difference_apart,
    share_interval,
    spread,
    t_quantile,
)

TRIALS = 300


def covered(one: Callable[[np.random.Generator], Interval], truth: float) -> float:
    """The share of simulated intervals that hold the truth."""
    rng = np.random.default_rng(0)
    intervals = [one(rng) for _ in range(TRIALS)]
    return float(np.mean([i.low <= truth <= i.high for i in intervals if i.low is not None and i.high is not None]))


def replicates(x_N: np.ndarray, statistic: Callable[[np.ndarray], float], groups: int = 20) -> Replicates:
    group_N = np.arange(len(x_N)) % groups
    return statistic(x_N), [statistic(x_N[group_N != g]) for g in range(groups)]


def sample_mean(x: np.ndarray) -> float:
    return float(x.mean())


def variance(x: np.ndarray) -> float:
    return float(x.var())


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [(sample_mean, 0.0), (variance, 4.0), (lambda x: float(x.mean() ** 2 + math.sqrt(x.var())), 2.0)],
)
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_jackknife_coverage(statistic: Callable[[np.ndarray], float], truth: float, seeds: int) -> None:
    share = covered(lambda rng: jackknife([replicates(rng.normal(0, 2, 200), statistic) for _ in range(seeds)]), truth)
    assert 0.90 < share < 0.99 + 0.01 * (seeds == 3)  # the larger of two variances is cautious


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(1).normal(3, 2, 50)
    whole = jackknife([replicates(x, sample_mean, groups=50)])
    assert whole.error == pytest.approx(x.std(ddof=1) / math.sqrt(50))
    assert astuple(whole) == pytest.approx(astuple(mean_interval(x)))


def test_seeds_are_averaged_and_their_variances_added() -> None:
    a, b = (1.0, [0.9, 1.1, 1.2]), (2.0, [1.5, 2.5, 2.0])
    one, other, both = jackknife([a]), jackknife([b]), jackknife([a, b])
    assert both.value == 1.5
    assert one.error is not None
    assert other.error is not None
    assert both.error == pytest.approx(math.hypot(one.error, other.error) / 2)
    assert both.high == pytest.approx(1.5 + t_quantile(0.975, 4) * both.error)
    far = jackknife([a, a, (4.0, a[1])])  # seeds that differ by more than their groups
    assert far.error == pytest.approx(np.std([1, 1, 4], ddof=1) / math.sqrt(3))
    assert far.high == pytest.approx(2 + 4.302653 * far.error, rel=1e-6)
    near = jackknife([a, a, a])
    assert near.error == pytest.approx(one.error / math.sqrt(3))


def test_seeds_may_have_groups_of_their_own_but_sides_that_are_paired_may_not() -> None:
    a, b = (1.0, [0.9, 1.1, 1.2]), (2.0, [1.5, 2.5, 2.0, 2.2, 1.8])
    assert jackknife([a, b]).error is not None
    assert correspond([a, b], [a, b])
    assert correspond([a], [(1.0, None)])
    assert not correspond([a], [b])
    assert not correspond([a], [a, a])


def test_where_nothing_was_left_out_only_seeds_can_tell() -> None:
    assert jackknife([(1.0, None)]) == jackknife([(1.0, [1.0])]) == Interval(1.0)
    assert jackknife([(1.0, [0.0, 2.0]), (3.0, None)]) == Interval(2.0)
    assert jackknife([(1.0, None), (2.0, None), (3.0, None)]).error == pytest.approx(1 / math.sqrt(3))
    assert jackknife_difference([(1.0, None)], [(3.0, [1.0, 2.0])]) == Interval(2.0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_differences_of_paired_arms_cover_and_are_narrow(seeds: int) -> None:
    def arms(rng: np.random.Generator) -> tuple[list[Replicates], list[Replicates]]:
        shared = [rng.normal(0, 2, 200) for _ in range(seeds)]
        other = [x * 1.1 + rng.normal(0, 0.2, 200) for x in shared]
        return [replicates(x, variance) for x in shared], [replicates(x, variance) for x in other]

    assert 0.90 < covered(lambda rng: jackknife_difference(*arms(rng)), 0.88) < 0.99
    assert 0.90 < covered(lambda rng: jackknife_percent(*arms(rng)), 22.0) < 0.99
    baseline, other = arms(np.random.default_rng(3))
    paired, alone = jackknife_difference(baseline, other), jackknife(other)
    assert paired.value == pytest.approx(alone.value - jackknife(baseline).value)
    assert paired.error is not None
    assert alone.error is not None
    assert paired.error < 0.4 * alone.error


def test_a_tenth_less_is_a_tenth_less_whatever_the_noise() -> None:
    rng = np.random.default_rng(0)
    baseline = [replicates(rng.normal(0, 2, 100), variance) for _ in range(3)]
    less: list[Replicates] = [(0.9 * value, [0.9 * x for x in left_out or ()]) for value, left_out in baseline[:1]]
    assert astuple(jackknife_percent(baseline[:1], less)) == pytest.approx((-10, -10, -10, 0), abs=1e-9)
    same = jackknife_difference(baseline, baseline)
    assert astuple(same) == (0, 0, 0, 0)


@pytest.mark.parametrize("rounds", [5, 9, 20])
def test_the_same_arm_twice_has_a_ratio_of_one(rounds: int) -> None:
    """A machine that is now fast, now slow, and an outlier now and then: pairs do not mind."""

    def twice(rng: np.random.Generator) -> Interval:
        busy = np.exp(rng.normal(0, 0.5, rounds))
        a, b = (busy * np.exp(rng.normal(0, 0.02, rounds)) * rng.choice([1, 2], rounds, p=[0.95, 0.05]) for _ in "ab")
        return paired_ratio(a, b, resamples=300)  # type: ignore[arg-type]

    assert 0.88 < covered(twice, 1.0) <= 1.0


def test_a_ratio_is_of_pairs() -> None:
    other = [0.1, 0.4, 0.2, 0.3]
    ratio = paired_ratio([3 * x for x in other], other)
    assert astuple(ratio)[:3] == pytest.approx((3, 3, 3))
    assert paired_ratio([1.0, 2.0, 8.0], [1.0, 1.0, 1.0]).value == pytest.approx(2)
    assert paired_ratio([1.0, 2.0, 8.0], [1.0] * 3, seed=4) == paired_ratio([1.0, 2.0, 8.0], [1.0] * 3, seed=4)
    assert paired_ratio([2.0, 8.0], [1.0, 1.0]) == Interval(pytest.approx(4.0))  # type: ignore[arg-type]
    forth, back = (paired_ratio(*pair) for pair in ((other, other[::-1]), (other[::-1], other)))
    assert forth.low is not None
    assert back.high is not None
    assert forth.value * back.value == pytest.approx(1)


def test_bounds_of_a_median_hold_its_level_at_every_number_of_rounds() -> None:
    """Each lies between two order statistics, whose coverage is exact: that of a binomial law."""
    for n in range(3, 31):
        x = list(map(float, range(n)))
        found = median_interval(x, seed=n)
        assert found.low is not None
        assert found.high is not None
        outside = min(math.ceil(found.low), n - 1 - math.floor(found.high))
        coverage = 1 - 2 * sum(math.comb(n, k) for k in range(outside + 1)) / 2**n
        assert coverage >= (0.95 if n > 5 else {3: 0.75, 4: 0.875, 5: 0.9375}[n])


def test_a_percent_over_seeds_has_the_spread_of_the_ratio() -> None:
    a: list[Replicates] = [(1.0, None), (1.1, None), (0.9, None)]
    halves_more: list[Replicates] = [(1.5 * value, None) for value, _ in a]
    one_half_more: list[Replicates] = [(value + 0.5, None) for value, _ in a]
    assert astuple(jackknife_percent(a, halves_more)) == pytest.approx((50, 50, 50, 0), abs=1e-9)
    assert jackknife_percent(a, one_half_more).error == pytest.approx(50 * 0.1 / math.sqrt(3))


def test_medians_and_means() -> None:
    assert 0.88 < covered(lambda rng: median_interval(rng.exponential(1.0, 25).tolist()), math.log(2)) < 0.99
    assert 0.90 < covered(lambda rng: mean_interval(rng.normal(5, 1, 6)), 5.0) < 0.99
    assert median_interval([1.0, 5.0]) == Interval(3.0)
    assert mean_interval([2.0]) == Interval(2.0)
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3.0, "p90": pytest.approx(4.6), "iqr": 2.0, "min": 1, "n": 5}


def test_a_mean_of_differences_forgets_what_images_share() -> None:
    rng = np.random.default_rng(0)
    easy_N = rng.normal(1000, 200, 400)
    other_N = easy_N + rng.normal(3, 1, 400)
    difference = paired_mean(easy_N.astype(np.float32), other_N.astype(np.float32))
    assert difference.error == pytest.approx(1 / 20, rel=0.1)
    assert difference.value == pytest.approx(3, abs=0.15)
    assert 0.90 < covered(lambda rng: paired_mean(easy_N, easy_N + rng.normal(3, 1, 400)), 3.0) < 0.99


def test_another_unit() -> None:
    assert Interval(1.0, 0.5, 2.0, 0.25).scaled(1000) == Interval(1000.0, 500.0, 2000.0, 250.0)
    assert Interval(1.0, 0.5, 2.0, 0.25).scaled(-1) == Interval(-1.0, -2.0, -0.5, 0.25)
    assert Interval(3.0).scaled(2) == Interval(6.0)


@pytest.mark.parametrize(
    ("probability", "df", "value"),
    [  # printed tables
        (0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 3, 3.18245), (0.975, 4, 2.77645), (0.975, 5, 2.57058),
        (0.975, 9, 2.26216), (0.975, 10, 2.22814), (0.975, 19, 2.09302), (0.975, 30, 2.04227), (0.975, 60, 2.00030),
        (0.975, 120, 1.97993), (0.975, 1000, 1.96234), (0.95, 4, 2.13185), (0.995, 7, 3.49948), (0.9, 1, 3.07768),
        (0.5, 7, 0.0), (0.025, 5, -2.57058),
    ],
)  # fmt: skip
def test_t_quantiles_are_the_tables(probability: float, df: int, value: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(value, abs=6e-6 * max(1, abs(value)))


def test_the_expansion_of_t_goes_on_where_the_series_ends() -> None:
    at, after, later = (t_quantile(0.975, df) for df in (200, 201, 202))
    assert after - later == pytest.approx(at - after, rel=0.02)
    assert at == pytest.approx(1.9718962, abs=1e-7)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(58, 64, 0.8102, 0.9563), (10, 10, 0.7225, 1.0), (0, 64, 0.0, 0.0566)]
)
def test_a_share_has_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    found = share_interval([right / n], [n])
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    two = share_interval([right / n] * 2, [n] * 2)
    assert two == share_interval([right / n], [2 * n])


def test_seeds_that_lie_apart_count_as_fewer_images() -> None:
    alike, apart = share_interval([0.5, 0.5, 0.5], [1000] * 3), share_interval([0.3, 0.5, 0.7], [1000] * 3)
    assert alike.value == apart.value == pytest.approx(0.5)
    assert apart.high - apart.low > 5 * (alike.high - alike.low)  # type: ignore[operator]
    assert 0 < apart.low < apart.high < 1  # type: ignore[operator]


def test_a_paired_difference_of_shares_is_never_certain_and_stays_in_its_range() -> None:
    right = np.ones(64, bool)
    same = share_difference([(right, right)])
    assert same.value == 0
    assert same.high == -same.low == pytest.approx(0.0420, abs=1e-4)  # type: ignore[operator]
    five = right.copy()
    five[:5] = False
    fewer = share_difference([(right, five)])
    assert fewer.value == -5 / 64
    assert fewer.low < 0 < fewer.high  # type: ignore[operator] # McNemar's exact p is 0.06: nothing is shown
    ten = right.copy()
    ten[:10] = False
    assert share_difference([(right, ten)]).high < 0  # type: ignore[operator] # p is 0.002
    none = share_difference([(right, ~right)])
    assert (none.value, none.low) == (-1, -1)


def test_differences_of_shares_cover_whether_paired_or_not() -> None:
    rng = np.random.default_rng(0)
    held = {"paired": 0, "apart": 0}
    for _ in range(400):
        easy = rng.random(64)
        a, b = easy + 0.1 * rng.normal(size=64) < 0.9, easy + 0.1 * rng.normal(size=64) < 0.8
        paired = share_difference([(a, b)])
        one, two = (share_interval([side.mean()], [64]) for side in (a, b))
        apart = share_difference_apart(one, two)
        truth = -0.1  # but for what the noise moves at both ends, which is less than 0.01
        for name, found in (("paired", paired), ("apart", apart)):
            held[name] += found.low - 0.01 <= truth <= found.high + 0.01  # type: ignore[operator]
        assert apart.high - apart.low > paired.high - paired.low  # type: ignore[operator]
    assert held["paired"] >= 375
    assert held["apart"] >= held["paired"] - 5


def test_refusals() -> None:
    one: Replicates = (1.0, [1.0, 2.0, 3.0])
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: paired_ratio([1.0, 2.0], [1.0]), "2 samples of a baseline and 1 of an arm cannot be paired"),
        (lambda: paired_ratio([1.0, 2.0], [1.0, 0.0]), "a time of 0 seconds or less has no ratio; time longer"),
        (lambda: paired_mean([1.0], [1.0, 2.0]), "1 samples of a baseline and 2 of an arm"),
        (lambda: median_interval([]), "samples of shape (0,)"),
        (lambda: spread([1.0, math.nan]), "not all finite"),
        (lambda: jackknife([]), "samples of shape (0,)"),
        (lambda: jackknife([(math.inf, None)]), "not all finite"),
        (lambda: jackknife_difference([one], [one, one]), "a baseline of [3] groups by seed and an arm of [3, 3]"),
        (lambda: jackknife_difference([one], [(1.0, [1.0, 2.0])]), "give both the same seeds and samples"),
        (lambda: jackknife_percent([(-0.1, None)], [one]), "a baseline of -0.1 has no percent; compare the difference"),
        (lambda: t_quantile(1.0, 3), "Student's t has no quantile 1 at 3 degrees of freedom"),
        (lambda: t_quantile(0.9, 0), "no quantile 0.9 at 0 degrees"),
    ]
    for call, sentence in cases:
        with pytest.raises(BenchError) as refusal:
            call()
        assert sentence in str(refusal.value)
