"""Rounds: when there are enough, from what was asked and from what the clock has told so far."""

import numpy as np
import pytest

from orderbench.orders import BenchError
from orderbench.reports.check import SPEEDUP_LOSS
from orderbench.reports.statistics import quotient
from orderbench.runs.intervals import Interval, paired_ratio
from orderbench.runs.latency import widest_interval
from orderbench.runs.rounds import FEWEST, LEAST, Rounds, parse_rounds, widest, width


def test_rounds_are_spelled_in_one_way() -> None:
    assert parse_rounds("auto") == Rounds()
    assert parse_rounds("auto:2.5%:90s") == Rounds(None, 0.025, 90.0)
    for text in ("1", "9", "auto", "auto:3%", "auto:5%:60s", "auto:2.5%:0090.50s"):
        assert parse_rounds(str(parse_rounds(text))) == parse_rounds(text)
    for text in ("", "0", "-1", "auto:", "auto:3", "auto:3%:", "auto:60s:3%", "1e3", "\uff19", "9999999999", "Auto"):
        with pytest.raises(BenchError, match="is not served; a number would do, or auto, auto:3% and auto:3%:60s"):
            parse_rounds(text)


def test_a_number_of_rounds_is_kept_however_precise_they_are() -> None:
    assert [Rounds(3).enough(made, 0.0, 1e9) for made in (0, 2, 3)] == [False, False, True]


def test_auto_ends_when_every_interval_is_narrow_or_time_is_over() -> None:
    auto = Rounds(None, 0.05, 60.0)
    assert not auto.enough(FEWEST - 1, 0.001, 1.0)  # the interval of so few holds less than it says
    assert auto.enough(FEWEST, 0.05, 1.0)
    assert not auto.enough(FEWEST, 0.051, 1.0)
    assert not auto.enough(FEWEST, None, 1.0)
    assert auto.enough(20, 0.2, 59.0)  # the next one would end after 60 s
    assert not auto.enough(20, 0.2, 50.0)
    assert not auto.enough(LEAST - 1, None, 1e6)  # fewer have no interval at all
    assert auto.enough(LEAST, 0.2, 1e6)
    assert not auto.reached(LEAST, 0.01)


def test_how_many_it_will_be_follows_from_the_width_and_the_time() -> None:
    auto = Rounds(None, 0.05, 100.0)
    assert auto.expected(10, 0.10, 1.0) == 40  # half the width takes four times the rounds
    assert auto.expected(10, 0.10, 50.0) == 20  # if there is time for them
    assert Rounds(7).expected(2, 0.5, 1e9) == 7
    assert (Rounds(7).supposed(1.0), auto.supposed(50.0), auto.supposed(1e9)) == (7, LEAST, LEAST)


def test_a_run_that_reached_the_default_passes_a_gate_made_from_itself() -> None:
    """Whatever the noise: a speed-up over the same speed-up, both as far from known as `auto` allows."""
    share = Rounds().within
    for low, high in ((1 / (1 + share), 1 + share), (1.0, 1 + share), (1 / (1 + share), 1.0)):
        ratio = Interval(3.0, 3.0 * low, 3.0 * high)
        assert width(ratio.value, ratio.low, ratio.high) == pytest.approx(share)
        kept = quotient(ratio, ratio).low
        assert kept is not None
        assert kept > 1 - SPEEDUP_LOSS / 100


def test_the_widest_interval_is_that_of_the_worst_ratio() -> None:
    rng = np.random.default_rng(0)
    noise = {"raster": 0.01, "radial": 0.01, "halton": 0.2, "A/A": 0.01}
    rounds = [
        [{"name": name, "tokens_s": float(np.exp(rng.normal(0, sd))), "pixels_s": None, "repeats": 1}
         for name, sd in noise.items()]
        for _ in range(12)
    ]  # fmt: skip
    against = dict.fromkeys(noise, "raster")
    times = {name: [s["tokens_s"] for one in rounds for s in one if s["name"] == name] for name in noise}
    worst = paired_ratio(times["raster"], times["halton"])
    assert widest_interval(rounds, against) == width(worst.value, worst.low, worst.high)
    assert widest_interval(rounds[:2], against) is None
    assert (widest_interval(rounds, {"raster": "raster", "radial": "raster"}) or 1) < 0.05
    alone = widest_interval(rounds, {"halton": "halton", "radial": "raster", "raster": "raster"})
    assert alone is not None  # no ratio of halton: its times count
    assert alone > 0.05
    assert widest([]) is None
    assert widest([0.1, None]) is None
