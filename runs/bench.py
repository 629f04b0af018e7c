"""The bench: what every measurement reads, and where it writes.

Knows the folder of a run. Refuses to know what is measured, and in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from orderbench.models.adapter import EightMembers
from orderbench.models.decode import Counters, Decoder, make_tile, run_tile
from orderbench.models.flops import counted, flops
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
    _counted: dict[tuple[str, bool], float | None] = field(default_factory=dict, repr=False, compare=False)

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

    def flops_per_image(
        self, arm: Arm, counters: Counters, sampling: Sampling, decoder: Decoder | None = None
    ) -> float | None:
        """Floating-point operations of all branches of guidance. decoder: in the place of the arm's own.

        Those of the shared network follow from counters. Those of any other torch module are counted while it decodes
        one sample, or a few where its work depends on what is drawn. None for what is no torch module.
        """
        subject, branches = self.subjects.of(arm.model), 2 if sampling.guidance.on else 1
        if subject.config is not None:
            return flops(subject.config, counters) * branches
        network = subject.model.network if isinstance(subject.model, EightMembers) else subject.model
        if not isinstance(network, torch.nn.Module):
            return None
        how, tried = decoder or arm.decoder, 8 if "varies" in arm.traits else 1
        key = (arm.name, how is arm.decoder)
        if key not in self._counted:
            plan = arm.plan(subject.model.lattice)
            tile = make_tile(subject.model, plan, range(tried), device=subject.device)
            try:
                self._counted[key] = counted(lambda: run_tile(tile, how)) / tried
            except Exception:  # a user's network may do what cannot be counted; that is no failure of its arm
                self._counted[key] = None
        found = self._counted[key]
        return None if found is None else found * branches


def set_up(
    agenda: Agenda, folder: Path, progress: Callable[[Trial, int, int], None], noticed: Callable[[str], None]
) -> Bench:
    """The bench of a run in its folder."""
    return Bench(agenda, {arm.name: arm for arm in agenda.lineup.arms}, folder, progress, noticed)
