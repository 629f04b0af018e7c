"""The bench that measurements stand on: what they read, and where they write.

Knows the folder of a run. Refuses to know what is measured, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orderbench.models.decode import Counters
from orderbench.models.flops import flops
from orderbench.models.sampling import Sampling
from orderbench.orders import Grid
from orderbench.runs.arms import Arm
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject
from orderbench.runs.trials import Agenda, Trial, sampling_of


@dataclass(frozen=True)
class Bench:
    """What every measurement reads.

    arms: by name. fixed: the setting of all trials that are not about others. progress: to be called with a trial, how
    much of it is done, and of how much.
    """

    spec: RunSpec
    subject: Subject
    arms: Mapping[str, Arm]
    trials: tuple[Trial, ...]
    folder: Path
    fixed: Sampling
    progress: Callable[[Trial, int, int], None]

    @property
    def grid(self) -> Grid:
        """The model's."""
        return self.subject.model.lattice

    def file(self, trial: Trial) -> Path:
        """The record of a trial."""
        return self.folder / "trials" / f"{trial.id}.json"

    def data(self, trial: Trial, what: str) -> Path:
        """Some of its arrays."""
        return self.folder / "data" / f"{trial.id}.{what}.npz"

    def tiles(self, trial: Trial) -> Path:
        """Where its tiles are kept until it has all of them."""
        return self.folder / "tiles" / trial.id

    def flops_per_image(self, counters: Counters, sampling: Sampling) -> int | None:
        """Both branches of guidance; None for a user's own network."""
        config = self.subject.config
        return None if config is None else flops(config, counters) * (2 if sampling.guidance.on else 1)


def set_up(agenda: Agenda, folder: Path, progress: Callable[[Trial, int, int], None]) -> Bench:
    """The bench of a run in its folder."""
    fixed = sampling_of(agenda.spec, agenda.subject.recommended)
    arms = {arm.name: arm for arm in agenda.arms}
    return Bench(agenda.spec, agenda.subject, arms, agenda.trials, folder, fixed, progress)
