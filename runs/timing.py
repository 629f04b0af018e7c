"""The clock: whole generations in rounds, steps in a pass of their own, and peak memory.

Knows callables and devices. Refuses to know how an arm is spelled, what a model is and where results go.

What keeps the numbers honest: everything is warmed up first, and that is kept apart; a sample repeats its generation
until it is long enough for the clock; every round runs all contenders in a drawn order, so that ratios can be paired
within rounds; the device is waited for around whole generations, never inside one; a round in which the process was
stopped for long is told and measured again. The noise floor is the caller's: the baseline entered a second time under
another name.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.orders import BenchError
from orderbench.orders.streams import check_seed
from orderbench.runs.device import nvidia_smi
from orderbench.runs.environment import load_average

LEAST_S = 0.2  # shorter samples are mostly noise on a shared machine
STOPPED_S = 1.0  # a process that waits its turn on a shared machine is not idle for so long at a time
_TRIES = 3  # of a round that is interrupted
_WARM_RUNS = 3


@dataclass(frozen=True)
class Contender:
    """One thing timed. generate: a whole generation of a batch, which returns its codes on the device. pixels: its
    pixel decoder, given the codes that were just made; None where there is none."""

    name: str
    generate: Callable[[], Tensor]
    pixels: Callable[[Tensor], object] | None = None


@dataclass(frozen=True)
class WarmUp:
    """What came before the first round. repeats: generations that make up one sample. first_s: the first generation,
    with whatever it compiled or allocated; again_s: those after it, which `repeats` follows from. Both include the
    pixel decoder."""

    repeats: int
    first_s: float
    again_s: tuple[float, ...]


@dataclass(frozen=True)
class Sample:
    """Seconds of one generation, the mean over `repeats` of them in a row. tokens_s: the network's part; pixels_s: the
    pixel decoder's, measured in the same generations, None where there is none. idle_s: of the whole sample, in which
    no thread of the process ran."""

    name: str
    repeats: int
    tokens_s: float
    pixels_s: float | None
    idle_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Both parts."""
        return self.tokens_s + (self.pixels_s or 0.0)


@dataclass(frozen=True)
class Interruption:
    """A sample that was cut into, as by SIGSTOP or a machine that slept: it took `longer_s` seconds more than its
    contender takes. again: whether its round was measured again; else it was kept, after several tries."""

    round: int
    name: str
    longer_s: float
    again: bool


def warm_up(
    contenders: Sequence[Contender],
    *,
    device: torch.device | str,
    least_s: float = LEAST_S,
) -> dict[str, WarmUp]:
    """Run every contender whole, pixel decoder included, then again to see how many generations last `least_s`.

    By name, in the order given. The fastest of one to three warm runs counts, so that a busy moment of the machine
    makes no sample too short. BenchError for two contenders of one name.
    """
    names = [contender.name for contender in contenders]
    if len(set(names)) != len(names):
        raise BenchError(f"contenders {', '.join(names)} are not told apart; give every one a name of its own")
    warm = {}
    for contender in contenders:
        with _undisturbed():
            first_s = sum(_generation(contender, device))
            again_s: list[float] = []
            while not again_s or (len(again_s) < _WARM_RUNS and sum(again_s) < least_s):
                again_s.append(sum(_generation(contender, device)))
        repeats = max(1, math.ceil(least_s / max(min(again_s), 1e-6)))
        warm[contender.name] = WarmUp(repeats, first_s, tuple(again_s))
    return warm


def rounds(
    contenders: Sequence[Contender],
    *,
    rounds: int | None,
    first_round: int = 0,
    seed: int = 0,
    device: torch.device | str,
    warm: Mapping[str, WarmUp] | None = None,
    interrupted: Callable[[Interruption], object] = lambda _: None,
) -> Iterator[list[Sample]]:
    """Rounds `first_round` to `rounds` - 1, or without end: one sample of every contender, in the order in which they
    ran.

    The order is drawn by (seed, round) alone, so a run that was cut off goes on with the orders that it would have had.
    warm: what `warm_up` of these contenders returned in this process, for those who keep it; by default they are warmed
    up here. interrupted: told of every sample that was cut into. Its round is measured again, three times at most. Such
    a sample took over three times as long as this contender usually does, and for most of that, a second or more, the
    process did not run. Whatever a contender raises is let through.
    """
    check_seed(seed)
    warm = warm_up(contenders, device=device) if warm is None else warm
    usual_s = {name: list(one.again_s) for name, one in warm.items()}
    for number in itertools.count(first_round) if rounds is None else range(first_round, rounds):
        order = np.random.default_rng([seed, number]).permutation(len(contenders))
        for left in reversed(range(_TRIES)):
            gc.collect()
            samples = [_sample(contenders[i], warm[contenders[i].name].repeats, device) for i in order]
            longer_s = {one.name: _longer_s(one, float(np.median(usual_s[one.name]))) for one in samples}
            stopped = {name: longer for name, longer in longer_s.items() if longer > 0}
            for name, longer in stopped.items():
                interrupted(Interruption(number, name, longer, again=left > 0))
            if not stopped:
                break
        for one in samples:
            usual_s[one.name].append(one.total_s)
        yield samples


def _longer_s(sample: Sample, usual_s: float) -> float:
    """How many seconds too long a sample was because the process was stopped; 0 where it was not."""
    taken_s, expected_s = sample.total_s * sample.repeats, usual_s * sample.repeats
    stopped = sample.idle_s > max(STOPPED_S, taken_s / 2) and taken_s > 3 * expected_s
    return taken_s - expected_s if stopped else 0.0


def _sample(contender: Contender, repeats: int, device: torch.device | str) -> Sample:
    with _undisturbed():
        ran_s = process_time()
        parts = [_generation(contender, device) for _ in range(repeats)]
        ran_s = process_time() - ran_s
    tokens_s, pixels_s = (sum(part) / repeats for part in zip(*parts, strict=True))
    idle_s = max(0.0, (tokens_s + pixels_s) * repeats - ran_s)
    return Sample(contender.name, repeats, tokens_s, None if contender.pixels is None else pixels_s, idle_s)


def _generation(contender: Contender, device: torch.device | str) -> tuple[float, float]:
    """Seconds of the network's part and of the pixel decoder's."""
    _wait_for(device)
    began = perf_counter()
    tokens = contender.generate()
    _wait_for(device)
    made = perf_counter()
    if contender.pixels is None:
        return made - began, 0.0
    contender.pixels(tokens)
    _wait_for(device)
    return made - began, perf_counter() - made


@contextmanager
def old_set_aside() -> Iterator[None]:
    """While it is open, collections of garbage look through what was made since it was opened: a collection before
    every round takes a few milliseconds, and not the tenth of a second that all modules take.

    Where somebody has set things aside already, as a server does before it forks, theirs stay as they are.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients, and no garbage collection that falls on whoever happens to run."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()


def _wait_for(device: torch.device | str) -> None:
    """Until an accelerator has done what it was told; a processor has done it already."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind != "cpu":
        getattr(torch, kind).synchronize()


def step_times(
    steps: Callable[[], Iterable[object]], device: torch.device | str, *, repeats: int = 3, warm: bool = False
) -> list[list[float]]:
    """Seconds of every step, one list a repeat: a diagnostic, since waiting for the device at each step slows it down.

    steps: starts a generation anew and yields once a step; a step's time is what passes until its yield, which for
    cached decoding includes feeding the group before. One generation more than `repeats` is run, first, to warm up; not
    where the same steps are warm.
    """
    times: list[list[float]] = []
    for _ in range(repeats + (not warm)):
        gc.collect()
        with _undisturbed():
            times.append([])
            _wait_for(device)
            began = perf_counter()
            for _ in steps():
                _wait_for(device)
                now = perf_counter()
                times[-1].append(now - began)
                began = now
    return times if warm else times[1:]


def peak_memory(generate: Callable[[], object], device: torch.device | str) -> dict[str, int | str | None]:
    """The most memory that one generation held, as a plain value; warm up before, or what is allocated once counts too.

    peak_bytes, before_bytes and the difference added_bytes: on CUDA the tensors that its allocator knows, and
    reserved_bytes what it held for them, which is what the card needs; on a processor under Linux the resident set of
    the whole process, its high-water mark set back by writing 5 to /proc/self/clear_refs (man 5 proc). None is not
    measured; how says how it was, or that it was not.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()  # so that what is reserved is this generation's need, not an earlier one's
        torch.cuda.reset_peak_memory_stats(device)
        before_bytes = torch.cuda.memory_allocated(device)
        with _undisturbed():
            generate()
        torch.cuda.synchronize(device)
        peak_bytes, reserved_bytes = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return _peak("CUDA allocator", peak_bytes, before_bytes, reserved_bytes)
    if torch.device(device).type == "cpu" and _forget_high_water():
        before_bytes = _resident_bytes("VmRSS")
        with _undisturbed():
            generate()
        return _peak("resident set of the process", max(before_bytes, _resident_bytes("VmHWM")), before_bytes)
    return _peak("not measured on this system")


def _peak(
    how: str, peak_bytes: int | None = None, before_bytes: int | None = None, reserved_bytes: int | None = None
) -> dict[str, int | str | None]:
    added_bytes = None if peak_bytes is None or before_bytes is None else peak_bytes - before_bytes
    return {
        "peak_bytes": peak_bytes,
        "before_bytes": before_bytes,
        "added_bytes": added_bytes,
        "reserved_bytes": reserved_bytes,
        "how": how,
    }


def _forget_high_water() -> bool:
    """Whether the kernel set the high-water mark back to what is resident now."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: hand freed pages back, or the next generation would hide in them
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return Path("/proc/self/status").exists()
    except OSError:
        return False


def _resident_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def clock_state(device: torch.device | str) -> dict[str, Any]:
    """What bears on the clock at this moment, as a plain value: take it at the start and at the end.

    load_average: over 1, 5 and 15 minutes, None where the system has none. gpu: None on a processor; else name and
    total_bytes, and from nvidia-smi driver, sm_clock_mhz, max_sm_clock_mhz and temperature_c, None where it is missing
    or does not say.
    """
    gpu: dict[str, Any] | None = None
    if torch.device(device).type == "cuda":
        about = torch.cuda.get_device_properties(device)
        gpu = {"name": about.name, "total_bytes": about.total_memory, **card_state(getattr(about, "uuid", None))}
    return {"load_average": load_average(), "gpu": gpu}


def card_state(uuid: object) -> dict[str, str | int | None]:
    """Driver, clocks and temperature of a CUDA card now, as nvidia-smi says them; None for what it does not say."""
    fields = ("driver_version", "clocks.sm", "clocks.max.sm", "temperature.gpu")
    driver, *numbers = nvidia_smi(fields, uuid, units=False).values()
    keys = ("sm_clock_mhz", "max_sm_clock_mhz", "temperature_c")
    whole = (int(number) if number is not None and number.isdigit() else None for number in numbers)
    return {"driver": driver or None, **dict(zip(keys, whole, strict=True))}
