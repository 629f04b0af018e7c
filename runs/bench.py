"""The bench: what every measurement reads, and where it writes.

Knows the folder of a run. Refuses to know what is measured, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orderbench.models.decode import Counters
from orderbench.models.flops import flops
from orderbench.models.sampling import Sampling
from orderbench.runs.arms import Arm
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject, Subjects
from orderbench.runs.trials import Agenda, Trial, sampling_of


@dataclass(frozen=True)
class Bench:
    """What every measurement reads.

    arms: by name. progress: called with a trial, how much of it is done, and how much there is. noticed: called with a
    sentence on what was broken and is made again.
    """

    agenda: Agenda
    arms: Mapping[str, Arm]
    folder: Path
    progress: Callable[[Trial, int, int], None]
    noticed: Callable[[str], None]

    @property
    def spec(self) -> RunSpec:
        """What was asked."""
        return self.agenda.spec

    @property
    def subjects(self) -> Subjects:
        """All models."""
        return self.agenda.subjects

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials of the run."""
        return self.agenda.trials

    def fixed(self, subject: Subject) -> Sampling:
        """The fixed setting of a model: that of all its trials but tuning and tuned ones."""
        return sampling_of(self.spec, subject.recommended)

    def file(self, trial: Trial) -> Path:
        """The record of a trial."""
        return self.folder / "trials" / f"{trial.id}.json"

    def data(self, trial: Trial, what: str) -> Path:
        """The file of some of its arrays; what: 'tokens', 'pictures' and the like."""
        return self.folder / "data" / f"{trial.id}.{what}.npz"

    def tiles(self, trial: Trial) -> Path:
        """Where its tiles are kept until it has all of them."""
        return self.folder / "tiles" / trial.id

    def flops_per_image(self, subject: Subject, counters: Counters, sampling: Sampling) -> float | None:
        """Floating-point operations of all branches of guidance; None where the network's are not known."""
        config = subject.config
        return None if config is None else flops(config, counters) * (2 if sampling.guidance.on else 1)


def set_up(
    agenda: Agenda, folder: Path, progress: Callable[[Trial, int, int], None], noticed: Callable[[str], None]
) -> Bench:
    """The bench of a run in its folder."""
    return Bench(agenda, {arm.name: arm for arm in agenda.lineup.arms}, folder, progress, noticed)
