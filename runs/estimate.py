"""What a run will cost, before it is run: exact counts of every arm, and seconds from two short trials.

Knows counters and a calibration. Refuses to promise: a machine that is busy later takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
    """Seconds of a pass by itself; and, of one sample, of one token through one pass, and of one slot of the cache that
    a pass reads."""

    pass_s: float
    token_s: float
    read_s: float

    def decode_s(self, counters: Counters, batch: int) -> float:
        """Seconds of decoding a batch."""
        return float(np.dot(_terms(counters, batch), (self.pass_s, self.token_s, self.read_s)))


def _terms(counters: Counters, batch: int) -> tuple[float, float, float]:
    """Passes, work, and slots read: a query alone reads them all for itself, a group shares."""
    tokens, pairs = counters.content_tokens + counters.query_tokens, counters.content_pairs + counters.query_pairs
    return counters.passes, batch * _work(counters), batch * pairs * 2 * counters.passes / tokens


def _work(counters: Counters) -> float:
    """Tokens through either pass; a pair of attention counts for a small part of a token."""
    return counters.content_tokens + counters.query_tokens + (counters.content_pairs + counters.query_pairs) / 200


def calibrate(subject: Subject, spec: RunSpec) -> Pace:
    """Decode 1 and 16 samples in rings, and 16 in rows of few cells at a time, twice each."""
    grid, sampling = subject.model.lattice, sampling_of(spec, subject.recommended)
    narrow = f"raster@even:{max(1, grid.rows * grid.cols // 4)}"
    times, terms = [], []
    for name, batch in (("radial", 1), ("radial", 16), (narrow, 16)):
        arm = parse_arm(name)
        for _ in range(2):  # the first one warms up
            tile = make_tile(subject.model, arm.plan(grid, 0), range(batch), sampling=sampling, seed=0,
                             in_group="block", device=subject.device)  # fmt: skip
            began = time.perf_counter()
            run_tile(tile, arm.decoder)
            taken_s = time.perf_counter() - began
        times.append(taken_s)
        terms.append(_terms(count(arm, grid), batch))
    shares, kept = np.array(terms) / np.array(times)[:, None], [0, 1, 2]  # shares: relative errors are what counts
    while True:
        costs = np.linalg.lstsq(shares[:, kept], np.ones(3))[0]
        if costs.min() >= 0:
            return Pace(*(float(costs[kept.index(i)]) if i in kept else 0.0 for i in range(3)))
        kept.pop(int(costs.argmin()))  # noise made it less than nothing


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
            seconds[trial.id] = 1 + 2 * spec.held_out * pace.token_s * _work(single)
        else:
            one = [pace.decode_s(c, trial.batch) for c in counted.values()]
            again = 2 * pace.decode_s(single, trial.batch)
            uncached = trial.batch == 1 and not spec.quick
            rare = pace.decode_s(count(parse_arm(BASELINE), grid, uncached=True), 1) if uncached else 0.0
            # every contender lasts 0.2 s at least, and is run for warm-up, rounds and memory
            seconds[trial.id] = (spec.rounds + 3) * (sum(max(0.2, s) for s in one) + again + rare)
    return seconds
