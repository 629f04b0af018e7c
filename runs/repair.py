"""Repair: errors put into held-out codes, and what a correction does about them.

Knows the rates that are tried. Refuses to know how a correction works.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orderbench.models.correction import measure_repair
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Cost, Workload
from orderbench.runs.trials import Trial, describe_sampling

ERROR_RATES = (0.05, 0.1, 0.2)


def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """How many injected errors are repaired, and how many right codes are damaged, at every rate."""
    assert bench.subject.held_out is not None  # noqa: S101 (planned only where there are some)
    arm, (tokens_NL, labels_N) = bench.arms[trial.arm], bench.subject.held_out
    n = bench.spec.repaired
    tokens_BL, labels = tokens_NL[:n].to(bench.subject.device), labels_N[:n].tolist()
    rates = []
    for done, rate in enumerate(ERROR_RATES, start=1):
        repair = measure_repair(
            bench.subject.model,
            arm.plan(bench.grid, trial.seed),
            tokens_BL,
            labels,
            rate,
            decoder=arm.decoder,
            sampling=bench.fixed,
            seed=trial.seed,
        )
        rates.append(asdict(repair))
        bench.progress(trial, done, len(ERROR_RATES))
    return {"n": len(tokens_BL), "sampling": describe_sampling(bench.fixed), "rates": rates}


def seconds(trial: Trial, cost: Cost, work: Workload) -> float:
    """The time of decoding once for every rate."""
    return len(ERROR_RATES) * cost.decode_s(work.counters[trial.arm], work.spec.repaired)
