"""Repair: errors put into held-out codes, and what a correction does about them.

Knows the rates that are tried. Refuses to know how a correction works.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orderbench.models.correction import measure_repair
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Workload
from orderbench.runs.trials import Trial

ERROR_RATES = (0.05, 0.1, 0.2)


def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """How many injected errors are repaired, and how many right codes are damaged, at every rate."""
    arm, subject = bench.arms[trial.arm], bench.subjects.of(trial.model)
    assert subject.held_out is not None  # noqa: S101 (planned only where there are some)
    n, sampling = bench.spec.repaired, bench.fixed(subject)
    codes_BLK, labels = subject.held_out[0][:n].to(subject.device), subject.held_out[1][:n].tolist()
    rates = []
    for done, rate in enumerate(ERROR_RATES, start=1):
        repair = measure_repair(
            subject.model,
            arm.plan(subject.model.lattice, trial.seed),
            codes_BLK,
            labels,
            rate,
            decoder=arm.decoder,
            sampling=sampling,
            seed=trial.seed,
        )
        rates.append(asdict(repair))
        bench.progress(trial, done, len(ERROR_RATES))
    return {"n": len(codes_BLK), "sampling": sampling.to_json(), "rates": rates}


def seconds(trial: Trial, work: Workload) -> float:
    """The time of decoding once for every rate."""
    return len(ERROR_RATES) * work.decode_s(trial.arm, work.spec.repaired)
