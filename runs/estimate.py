"""What a run will take, before it is run: seconds of every trial.

Knows the agenda. Refuses to know what each kind of trial costs: the table of kinds does.
"""

from __future__ import annotations

from orderbench.runs.arms import BASELINE, parse_arm
from orderbench.runs.cost import Workload, calibrate, count
from orderbench.runs.kinds import kind_of
from orderbench.runs.trials import Agenda, sampling_of


def estimate_s(agenda: Agenda) -> dict[str, float]:
    """Seconds of every trial, by id; within a factor of two on an idle machine. Empty where the model cannot decode:
    its trials will find out why, and record it. BenchError for an arm that asks for what is not served."""
    spec, subject = agenda.spec, agenda.subject
    grid = subject.model.lattice
    counters = {arm.name: count(arm, grid) for arm in (*agenda.arms, parse_arm(BASELINE))}
    cost = calibrate(subject, sampling_of(spec, subject.recommended))
    if cost is None:
        return {}
    work = Workload(spec, grid, counters)
    return {trial.id: kind_of(trial).seconds(trial, cost, work) for trial in agenda.trials}
