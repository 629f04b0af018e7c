"""Cores: how many this process may use, how many are idle, and how many threads that makes.

Knows the affinity of a process, quotas of control groups and the counters of the kernel. Refuses to know what is
computed. Threads that share fewer cores wait for each other at every operation: two threads on a machine that is busy
took several times as long as one (docs/log.md).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # who sets one of these has chosen the number of threads
WINDOW_S = 0.2  # over which idle cores are counted


@dataclass(frozen=True)
class Cores:
    """usable: by the affinity of this process. quota: what its control groups allow, in cores; None: all. idle: how
    many of the usable ones nobody uses now; None where the system does not say."""

    usable: int
    quota: float | None
    idle: float | None


def count_cores(root: Path = Path("/"), window_s: float = WINDOW_S) -> Cores:
    """The cores of this process, watched for `window_s`. root: where the system's files lie."""
    numbers = _affinity()
    return Cores(len(numbers), cpu_quota(root), idle_cores(numbers, root, window_s))


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processor time that the control groups of this process allow, as a number of cores; None for no limit.

    The least of its group and all groups above, of version 2 (`cpu.max`) or 1 (`cpu.cfs_quota_us`). In a container the
    path of the group may not be there; then that of the container itself counts.
    """
    found = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if controllers == "":
                found += _quotas(root / "sys/fs/cgroup", path)
            elif "cpu" in controllers.split(","):
                found += [
                    quota for name in ("cpu", controllers) for quota in _quotas(root / f"sys/fs/cgroup/{name}", path)
                ]
    return min(found, default=None)


def _quotas(top: Path, path: str) -> list[float]:
    """The limits of a group and of those above it, in cores."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    limits = [_quota(top.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return [limit for limit in limits if limit is not None]


def _quota(group: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        words = (group / "cpu.max").read_text().split()
        return None if words[:1] == ["max"] else int(words[0]) / int(words[1])
    with contextlib.suppress(OSError, ValueError):
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    return None


def idle_cores(numbers: frozenset[int], root: Path = Path("/"), window_s: float = WINDOW_S) -> float | None:
    """How many of some cores are idle, on average over a moment in which this process sleeps; None where the system
    does not say."""
    try:
        before = _ticks(numbers, root)
        time.sleep(window_s)
        after = _ticks(numbers, root)
    except (OSError, ValueError, IndexError):
        return None
    return idle_between(before, after)


def _ticks(numbers: frozenset[int], root: Path) -> dict[str, tuple[int, int]]:
    """Of each core: ticks spent idle, and all ticks."""
    ticks = {}
    for line in (root / "proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in numbers:
            spent = [int(count) for count in counts[:8]]  # the two after these are parts of the first two
            ticks[name] = (spent[3] + spent[4], sum(spent))
    return ticks


def idle_between(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> float | None:
    """The number of idle cores between two counts of (idle, all) ticks; None if nothing was counted.

    >>> idle_between({"cpu0": (0, 0), "cpu1": (5, 10)}, {"cpu0": (15, 20), "cpu1": (5, 30)})
    0.75
    """
    shares = [
        (after[name][0] - idle) / (after[name][1] - total)
        for name, (idle, total) in before.items()
        if name in after and after[name][1] > total
    ]
    return sum(shares) if shares else None


def choose_threads(most: int, cores: Cores, *, by_load: bool = True) -> tuple[int, str]:
    """How many threads do not wait for each other, from 1 to `most`, and why, in one sentence.

    most: what the library would take. by_load: whether cores that others use count too; without it the number is the
    same whenever this machine is asked.

    >>> choose_threads(8, Cores(8, None, 7.6))
    (8, '8 threads, as many as cores are idle')
    >>> choose_threads(8, Cores(8, 2.5, 8.0))
    (2, '2 threads, since a quota allows this process 2.5 cores')
    >>> choose_threads(2, Cores(2, None, 0.4))
    (1, '1 thread, since about 0.4 of 2 cores are idle, so times will vary')
    """
    limits = [(most, ""), (cores.usable, f"this process may use {cores.usable} cores")]
    if cores.quota is not None:
        limits.append((int(cores.quota), f"a quota allows this process {cores.quota:.3g} cores"))
    if by_load and cores.idle is not None:
        limits.append(
            (round(cores.idle), f"about {cores.idle:.1f} of {cores.usable} cores are idle, so times will vary")
        )
    n, why = min(limits, key=lambda limit: max(1, limit[0]))
    n = max(1, n)
    free = "as many as " + ("cores are idle" if by_load else "this process may use")
    return n, f"{n} thread{'s' * (n > 1)}, " + (f"since {why}" if why else free)


def doubt(threads: int, cores: Cores) -> str:
    """Why so many threads, which somebody asked for, will wait for each other; empty if they will not."""
    if cores.quota is not None and threads > max(1.0, cores.quota):
        return f"{threads} threads share a quota of {cores.quota:.3g} cores and will wait for each other"
    if cores.idle is not None and cores.idle < threads - 0.5:
        return f"about {cores.idle:.1f} of {cores.usable} cores are idle, so {_count(threads)} will wait and times vary"
    return ""


def _count(threads: int) -> str:
    return f"{threads} threads" if threads > 1 else "one thread"
