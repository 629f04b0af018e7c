"""What a run will cost, before it is run: exact counts of every arm, and seconds from two short trials.

Knows counters and a calibration. Refuses to promise: a machine that is busy later takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orderbench.models.decode import TILE, Counters, make_tile, run_tile, uncached_steps
from orderbench.orders import BenchError, Grid
from orderbench.runs.arms import BASELINE, Arm, parse_arm
from orderbench.runs.execute import ERROR_RATES, Trial, sampling_of
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject


class _Nothing:
    """A model that computes nothing, so that decoding with it only counts."""

    def __init__(self, lattice: Grid) -> None:
        self.lattice, self.n_codes, self.n_classes = lattice, 2, 1

    def start(self, labels_B: Tensor, slots: int) -> object:
        return object()

    def step(self, cache: object, tokens_BG: Tensor, cells_BG: Tensor, bias_GS: Tensor | None = None) -> None: ...

    def logits(self, cache: object, cells_BQ: Tensor) -> Tensor:
        return torch.zeros(*cells_BQ.shape, 2)

    def refill(self, cache: object, labels_B: Tensor, tokens_BM: Tensor, cells_BM: Tensor) -> None: ...

    def rewind(self, cache: object, slots: int) -> None: ...


def count(arm: Arm, grid: Grid, uncached: bool = False) -> Counters:
    """Exact counters of one sample of an arm, without a model; `cache_bytes` stays 0."""
    plan = arm.plan(grid, 0)
    tile = make_tile(_Nothing(grid), plan, [0], sampling=sampling_of(RunSpec(), {}), seed=0, in_group="block",
                     device="cpu")  # fmt: skip
    run_tile(tile, uncached_steps if uncached else arm.decoder)
    return tile.counters


@dataclass(frozen=True)
class Pace:
    """Seconds of a pass by itself, and of one token through one pass, of one sample."""

    pass_s: float
    token_s: float

    def decode_s(self, counters: Counters, batch: int) -> float:
        """Seconds of decoding a batch."""
        return self.pass_s * counters.passes + self.token_s * batch * _work(counters)


def _work(counters: Counters) -> float:
    """Tokens through either pass; a pair of attention counts for a small part of a token."""
    return counters.content_tokens + counters.query_tokens + (counters.content_pairs + counters.query_pairs) / 200


def calibrate(subject: Subject, spec: RunSpec) -> Pace:
    """Decode 1 and 16 samples in rings, twice each."""
    arm = parse_arm("radial")
    plan, sampling = arm.plan(subject.model.lattice, 0), sampling_of(spec, subject.recommended)
    times = []
    for batch in (1, 16):
        for _ in range(2):  # the first one warms up
            tile = make_tile(subject.model, plan, range(batch), sampling=sampling, seed=0, in_group="block",
                             device=subject.device)  # fmt: skip
            began = time.perf_counter()
            run_tile(tile, arm.decoder)
            taken_s = time.perf_counter() - began
        times.append(taken_s)
    counters = count(arm, subject.model.lattice)
    token_s = max(0.0, times[1] - times[0]) / 15 / _work(counters)
    return Pace(max(0.0, times[0] - token_s * _work(counters)) / counters.passes, token_s)


def estimate_s(trials: Sequence[Trial], arms: Sequence[Arm], spec: RunSpec, subject: Subject) -> dict[str, float]:
    """Seconds of every trial, by id; within a factor of two on an idle machine. Empty where the model cannot decode:
    its trials will find out why, and record it. BenchError for an arm that asks for what is not served."""
    if not trials:
        raise BenchError("there is no trial to estimate")
    grid = subject.model.lattice
    counted = {arm.name: count(arm, grid) for arm in (*arms, parse_arm(BASELINE))}
    single = counted[parse_arm(BASELINE).name]
    try:
        pace = calibrate(subject, spec)
    except Exception:
        return {}
    seconds = {}
    for trial in trials:
        if trial.kind in ("quality", "tuning"):
            tiles = -(-spec.samples // TILE)
            seconds[trial.id] = tiles * pace.decode_s(counted[trial.arm], TILE) + 0.004 * spec.samples
        elif trial.kind == "floor":
            seconds[trial.id] = 1 + 0.004 * spec.samples
        elif trial.kind == "repair":
            seconds[trial.id] = len(ERROR_RATES) * pace.decode_s(counted[trial.arm], spec.repaired)
        elif trial.kind == "likelihood":
            seconds[trial.id] = 2 * spec.held_out * pace.token_s * _work(single)
        else:
            one = [pace.decode_s(c, trial.batch) for c in counted.values()]
            again = 2 * pace.decode_s(single, trial.batch)
            uncached = trial.batch == 1 and not spec.quick
            rare = pace.decode_s(count(parse_arm(BASELINE), grid, uncached=True), 1) if uncached else 0.0
            # every contender lasts 0.2 s at least, and is run for warm-up, rounds and memory
            seconds[trial.id] = (spec.rounds + 3) * (sum(max(0.2, s) for s in one) + again + rare)
    return seconds
