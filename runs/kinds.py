"""The kinds of trials, in one table: how each is measured, what it will take, and what it is called.

Knows every measurement by its module. Refuses to know when a trial is measured, and where its record goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orderbench.runs import bits, latency, repair, samples
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Workload
from orderbench.runs.trials import Trial


def _never(trial: Trial) -> bool:
    return False


def _always(trial: Trial) -> bool:
    return True


def _reconstructs(trial: Trial) -> bool:
    return trial.arm.startswith("reconstructed")


@dataclass(frozen=True)
class Kind:
    """One kind of trial.

    measure: to the body of its record. seconds: its estimate. title, listed: what it is called in a sentence and in a
    list, with {trial} filled in. reads_held_out: whether it needs codes of images that the model never saw. of_an_arm:
    whether it is one arm's. shared: whether every process takes part in it, or the first one alone. grows: whether its
    record is written as it is measured, and a failure keeps what is there.
    """

    measure: Callable[[Trial, Bench], dict[str, Any] | None]
    seconds: Callable[[Trial, Workload], float]
    title: str = "{trial.kind} of {trial.arm}"
    listed: str = "{trial.arm}"
    reads_held_out: Callable[[Trial], bool] = _never
    of_an_arm: bool = True
    shared: bool = False
    grows: bool = False


_SEEDED = "{trial.arm}  seed {trial.seed}"

KINDS = {
    "likelihood": Kind(bits.measure, bits.seconds, reads_held_out=_always),
    "floor": Kind(samples.measure_floor, samples.floor_seconds, reads_held_out=_reconstructs, of_an_arm=False),
    "tuning": Kind(samples.measure, samples.seconds, listed=_SEEDED, shared=True),
    "quality": Kind(samples.measure, samples.seconds, listed=_SEEDED, shared=True),
    "repair": Kind(repair.measure, repair.seconds, reads_held_out=_always),
    "latency": Kind(
        latency.measure,
        latency.seconds,
        title="speed at batch {trial.batch}",
        listed="batch {trial.batch}, all arms in turns",
        of_an_arm=False,
        grows=True,
    ),
}


def kind_of(trial: Trial) -> Kind:
    """The kind of a trial."""
    return KINDS[trial.kind]


def title(trial: Trial) -> str:
    """A trial in a sentence."""
    return kind_of(trial).title.format(trial=trial)


def listed(trial: Trial) -> str:
    """What a trial measures, in a list that names its kind and its setting besides."""
    return kind_of(trial).listed.format(trial=trial)
