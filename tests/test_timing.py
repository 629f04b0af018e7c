"""The clock: who runs when, how often, and what is waited for. A false clock stands in for the machine's speed."""

import contextlib
import gc
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import toy_model

from orderbench.models.decode import decode_steps
from orderbench.orders import BenchError, make_plan
from orderbench.runs import timing
from orderbench.runs.timing import (
    Contender,
    Interruption,
    Sample,
    WarmUp,
    card_state,
    clock_state,
    old_set_aside,
    peak_memory,
    rounds,
    step_times,
    warm_up,
)

ONCE = {name: WarmUp(1, 0.0, (0.0,)) for name in (*"abcdef", "broken")}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class FalseClock:
    """Stands still but for what is said to take time; keeps who ran."""

    def __init__(self) -> None:
        self.now_s, self.ran = 100.0, list[str]()
        self.stopped_s = 0.0  # of this time, in which the process was stopped

    def takes(self, name: str, *seconds: float, pixels: bool = False) -> Contender:
        """A contender whose n-th generation lasts so long, the last one for good; with a pixel decoder or without. A
        negative time is one in which the process is stopped."""
        left = list(seconds)

        def generate() -> torch.Tensor:
            assert torch.is_inference_mode_enabled()
            assert not gc.isenabled()
            self.ran.append(name)
            taken_s = left.pop(0) if len(left) > 1 else left[0]
            self.now_s += abs(taken_s)
            self.stopped_s += max(0.0, -taken_s)
            return torch.zeros(2, 4)

        return Contender(name, generate, self.pixels if pixels else None)

    def pixels(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.shape == (2, 4)
        self.now_s += 0.01
        return tokens


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FalseClock:
    clock = FalseClock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now_s)
    monkeypatch.setattr(timing, "process_time", lambda: clock.now_s - clock.stopped_s)
    return clock


def orders_of(clock: FalseClock, **given: int) -> list[list[str]]:
    contenders = [clock.takes(name, 0.1) for name in "abcdef"]
    return [[s.name for s in one] for one in rounds(contenders, device="cpu", warm=ONCE, **given)]


def test_every_round_runs_all_in_an_order_of_its_own(clock: FalseClock) -> None:
    orders = orders_of(clock, rounds=8, seed=1)
    assert len(orders) == 8
    assert all(sorted(order) == list("abcdef") for order in orders)
    assert clock.ran == [name for order in orders for name in order]
    assert len({tuple(order) for order in orders}) > 4
    assert orders == orders_of(clock, rounds=8, seed=1)
    assert orders != orders_of(clock, rounds=8, seed=2)
    assert orders_of(clock, rounds=8, first_round=5, seed=1) == orders[5:]
    assert orders_of(clock, rounds=8, first_round=8, seed=1) == []


def test_a_sample_is_the_mean_of_its_generations_in_two_parts(clock: FalseClock) -> None:
    contender = clock.takes("a", 0.1, 0.2, 0.6, pixels=True)
    ((sample,),) = rounds([contender], rounds=1, device="cpu", warm={"a": WarmUp(3, 0.0, (0.1,))})
    assert (sample.name, sample.repeats) == ("a", 3)
    assert (sample.tokens_s, sample.pixels_s, sample.total_s) == pytest.approx((0.3, 0.01, 0.31))
    ((sample,),) = rounds([replace(contender, pixels=None)], rounds=1, device="cpu", warm=ONCE)
    assert sample == Sample("a", 1, pytest.approx(0.6), None)  # type: ignore[arg-type]
    assert sample.total_s == sample.tokens_s


def test_every_contender_has_a_pixel_decoder_of_its_own_or_none(clock: FalseClock) -> None:
    """Models of one run may have different tokenizers."""

    def slower(tokens: torch.Tensor) -> None:
        clock.now_s += 0.5

    contenders = [clock.takes("a", 0.1, pixels=True), clock.takes("b", 0.1), clock.takes("c", 0.1)]
    contenders[2] = replace(contenders[2], pixels=slower)
    (samples,) = rounds(contenders, rounds=1, device="cpu", warm=ONCE)
    assert {s.name: s.pixels_s for s in samples} == {"a": pytest.approx(0.01), "b": None, "c": pytest.approx(0.5)}
    assert all(s.tokens_s == pytest.approx(0.1) for s in samples)


@pytest.mark.parametrize(
    ("seconds", "with_pixels", "repeats", "generations"),
    [
        ((9.0, 0.03), False, 7, 4),  # the first, whatever it compiles, does not count
        ((0.03, 0.03), True, 5, 4),  # 0.04 with pixels
        ((1.0, 0.16, 0.06), False, 4, 3),  # the fastest counts; twice is enough here
        ((1.0, 0.5), False, 1, 2),
    ],
)
def test_samples_are_made_long_enough(
    clock: FalseClock, seconds: tuple[float, ...], with_pixels: bool, repeats: int, generations: int
) -> None:
    contenders = [clock.takes("a", *seconds, pixels=with_pixels), clock.takes("b", 1.0)]
    warm = warm_up(contenders, device="cpu", least_s=0.2)
    assert list(warm) == ["a", "b"]
    assert warm["a"].repeats == repeats
    assert warm["a"].first_s == pytest.approx(seconds[0] + 0.01 * with_pixels)
    assert 1 + len(warm["a"].again_s) == generations == clock.ran.count("a")
    assert warm["b"].repeats == 1


def test_a_clock_that_does_not_tick_divides_nothing_by_zero(clock: FalseClock) -> None:
    assert warm_up([clock.takes("a", 0.0)], device="cpu")["a"].repeats < 1e6


def test_a_round_in_which_the_process_was_stopped_is_told_and_measured_again(clock: FalseClock) -> None:
    told: list[Interruption] = []
    warm = {"a": WarmUp(1, 0.1, (0.1,)), "b": WarmUp(1, 0.1, (0.1,))}
    contenders = [clock.takes("a", 0.1, 0.12, -6.0, 0.1), clock.takes("b", 0.1)]
    made = list(rounds(contenders, rounds=4, device="cpu", warm=warm, interrupted=told.append))
    assert [(one.round, one.name, one.again) for one in told] == [(2, "a", True)]
    assert told[0].longer_s == pytest.approx(5.9)
    assert len(made) == 4
    assert max(sample.total_s for one in made for sample in one) == pytest.approx(0.12)
    assert clock.ran.count("b") == 5  # with it, all of the round


def test_a_machine_that_stops_again_and_again_is_told_and_ends(clock: FalseClock) -> None:
    told: list[Interruption] = []
    walk = rounds([clock.takes("a", -6.0)], rounds=1, device="cpu", warm={"a": WarmUp(1, 0.1, (0.1,))},
                  interrupted=told.append)  # fmt: skip
    assert [[sample.idle_s for sample in one] for one in walk] == [[pytest.approx(6.0)]]
    assert [one.again for one in told] == [True, True, False]


@pytest.mark.parametrize("seconds", [0.5, -0.9, -0.2])
def test_a_slow_sample_and_a_short_wait_are_no_interruption(clock: FalseClock, seconds: float) -> None:
    told: list[Interruption] = []
    contender = clock.takes("a", 0.1, seconds, 0.1)
    made = list(rounds([contender], rounds=3, device="cpu", warm={"a": WarmUp(1, 0.1, (0.1,))},
                       interrupted=told.append))  # fmt: skip
    assert (told, len(made)) == ([], 3)


def test_rounds_without_an_end_are_the_callers_to_end(clock: FalseClock) -> None:
    walk = rounds([clock.takes("a", 0.1)], rounds=None, first_round=3, device="cpu", warm=ONCE)
    assert [next(walk)[0].name for _ in range(4)] == ["a"] * 4


def test_rounds_warm_up_by_themselves(clock: FalseClock) -> None:
    contenders = [clock.takes("a", 5.0, 0.25), clock.takes("b", 5.0, 0.06)]
    (samples,) = rounds(contenders, rounds=1, device="cpu")
    assert sorted((s.name, s.repeats, round(s.tokens_s, 6)) for s in samples) == [("a", 1, 0.25), ("b", 4, 0.06)]
    assert clock.ran[:6] == ["a", "a", "b", "b", "b", "b"]


def test_two_of_one_name_are_refused() -> None:
    one = Contender("raster", lambda: torch.zeros(1))
    with pytest.raises(BenchError, match="contenders raster, raster are not told apart; give every one a name"):
        warm_up([one, one], device="cpu")


def test_what_a_contender_raises_is_let_through_and_nothing_stays_switched_off(clock: FalseClock) -> None:
    def broken() -> torch.Tensor:
        raise RuntimeError("out of order")

    contenders = [Contender("broken", broken)]
    runs: list[Callable[[], object]] = [
        lambda: warm_up(contenders, device="cpu"),
        lambda: list(rounds(contenders, rounds=1, device="cpu", warm=ONCE)),
        lambda: step_times(broken, "cpu"),
        lambda: peak_memory(broken, "cpu"),
    ]
    for run in runs:
        with pytest.raises(RuntimeError, match="out of order"):
            run()
        assert gc.isenabled()
        assert not torch.is_inference_mode_enabled()
    walk = rounds([clock.takes("a", 0.1)], rounds=2, device="cpu", warm=ONCE)
    next(walk)
    assert gc.isenabled()  # between rounds, whoever walks them is left alone
    assert not torch.is_inference_mode_enabled()


def test_step_times_are_one_number_a_step(clock: FalseClock) -> None:
    started = []

    def steps() -> Iterator[int]:
        started.append(clock.now_s)
        for index in range(4):
            clock.now_s += 0.1 * (index + 1) * len(started)
            yield index
        clock.now_s += 50.0  # after the last step is no step

    times = step_times(steps, "cpu", repeats=2)
    assert len(started) == 3  # the first to warm up
    assert times == [pytest.approx([0.2, 0.4, 0.6, 0.8]), pytest.approx([0.3, 0.6, 0.9, 1.2])]
    assert len(step_times(steps, "cpu", repeats=1, warm=True)) == 1
    assert len(started) == 4


def test_old_garbage_is_set_aside_for_a_while_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    frozen = [0, 7]
    monkeypatch.setattr(gc, "get_freeze_count", lambda: frozen.pop(0))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: done.append("unfreeze"))
    with contextlib.suppress(KeyboardInterrupt), old_set_aside():
        assert done == ["freeze"]
        raise KeyboardInterrupt
    assert done == ["freeze", "unfreeze"]
    with old_set_aside():  # set aside before, by somebody else
        pass
    assert done == ["freeze", "unfreeze"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_decoding_is_timed_by_step(device: str) -> None:
    model = toy_model().to(device)
    plan = make_plan("radial", model.lattice)
    times = step_times(lambda: decode_steps(model, plan, range(2), device=device), device, repeats=3)
    assert [len(one) for one in times] == [plan.n_steps] * 3
    assert all(second > 0 for one in times for second in one)


@pytest.mark.parametrize("device", DEVICES)
def test_peak_memory_sees_what_was_touched_and_freed(device: str) -> None:
    size = 64 * 1024 * 1024
    if device == "cpu" and not os.access("/proc/self/clear_refs", os.W_OK):
        assert peak_memory(lambda: None, device)["how"] == "not measured on this system"
        return
    for _ in range(2):  # the mark is set back: the second time it is no less
        peak = bytes_of(peak_memory(lambda: torch.ones(size // 4, device=device), device))
        assert peak["added_bytes"] == peak["peak_bytes"] - peak["before_bytes"]
        assert 0.95 * size < peak["added_bytes"] < 1.5 * size
    again = peak_memory(lambda: None, device)
    assert bytes_of(again)["added_bytes"] < 0.25 * size
    assert again["how"] == ("resident set of the process" if device == "cpu" else "CUDA allocator")
    assert (again["reserved_bytes"] is None) == (device == "cpu")


def bytes_of(peak: dict[str, int | str | None]) -> dict[str, int]:
    return {key: value for key, value in peak.items() if isinstance(value, int)}


def test_where_the_mark_cannot_be_set_back_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, text: str) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    peak = peak_memory(lambda: None, "cpu")
    assert peak.pop("how") == "not measured on this system"
    assert set(peak.values()) == {None}


@pytest.mark.parametrize("device", DEVICES)
def test_the_state_of_the_clock_is_a_plain_value(device: str) -> None:
    state = json.loads(json.dumps(clock_state(device)))
    assert state["load_average"] is None or len(state["load_average"]) == 3
    assert (state["gpu"] is None) == (device == "cpu")
    assert device == "cpu" or state["gpu"]["name"] == torch.cuda.get_device_name()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("570.86, 1980, 1985, 34\n", ("570.86", 1980, 1985, 34)),
        ("570.86, [N/A], 1985, [N/A]\n", ("570.86", None, 1985, None)),
        ("", (None, None, None, None)),
        (None, (None, None, None, None)),
    ],
)
def test_nvidia_smi_may_say_little_or_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: str | None, said: tuple[object, ...]
) -> None:
    def run(command: list[str], **_: object) -> object:
        assert "--id=GPU-1234" in command
        if answer is None:
            raise subprocess.CalledProcessError(6, command)
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    monkeypatch.setattr("orderbench.runs.device.shutil.which", lambda _: "nvidia-smi")
    monkeypatch.setattr("orderbench.runs.device.subprocess.run", run)
    assert tuple(card_state("1234").values()) == said
    monkeypatch.setattr("orderbench.runs.device.shutil.which", lambda _: None)
    assert set(card_state("1234").values()) == {None}
