"""What decoding costs: exact counts of an arm without a model, and seconds of a count, from three short trials.

Knows counters and a linear model of them. Refuses to know trials, and to promise: a machine that is busy later takes
longer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from orderbench.models.decode import Counters, make_tile, run_tile, uncached_steps
from orderbench.models.sampling import PLAIN, Sampling
from orderbench.orders import BenchError, Grid
from orderbench.runs.arms import Arm, parse_arm
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
    tile = make_tile(_Nothing(grid), plan, [0], sampling=PLAIN, seed=0, in_group="block", device="cpu")
    run_tile(tile, uncached_steps if uncached else arm.decoder)
    return tile.counters


@dataclass(frozen=True)
class Cost:
    """A linear cost model: fixed seconds per pass, plus, per sample, seconds per token and per cache slot read."""

    pass_s: float
    token_s: float
    read_s: float

    def decode_s(self, counters: Counters, batch: int) -> float:
        """Seconds of decoding a batch."""
        return float(np.dot(_terms(counters, batch), (self.pass_s, self.token_s, self.read_s)))

    def tokens_s(self, counters: Counters) -> float:
        """Seconds of one sample's tokens alone, as if they all went through in one pass."""
        return self.token_s * _work(counters)


@dataclass(frozen=True)
class Workload:
    """How much there is to do: what was asked, the grid, and one sample's counters of every arm and of the baseline."""

    spec: RunSpec
    grid: Grid
    counters: Mapping[str, Counters]


def _terms(counters: Counters, batch: int) -> tuple[float, float, float]:
    """Passes, work, and slots read: a query alone reads them all for itself, a group shares."""
    tokens, pairs = counters.content_tokens + counters.query_tokens, counters.content_pairs + counters.query_pairs
    return counters.passes, batch * _work(counters), batch * pairs * 2 * counters.passes / tokens


def _work(counters: Counters) -> float:
    """Tokens through either pass; a pair of attention counts for a small part of a token."""
    return counters.content_tokens + counters.query_tokens + (counters.content_pairs + counters.query_pairs) / 200


def calibrate(subject: Subject, sampling: Sampling) -> Cost | None:
    """Decode 1 and 16 samples in rings, and 16 in rows of few cells at a time, twice each.

    None where the model cannot decode: it answers what is not finite, wants more memory than there is, or, being a
    user's own, raises whatever it raises. An error of our own is none of these.
    """
    grid = subject.model.lattice
    problems = Exception if subject.config is None else BenchError
    narrow = f"raster@even:{max(1, grid.rows * grid.cols // 4)}"
    times, terms = [], []
    for name, batch in (("radial", 1), ("radial", 16), (narrow, 16)):
        arm = parse_arm(name)
        plan = arm.plan(grid, 0)
        for _ in range(2):  # the first one warms up
            try:
                tile = make_tile(subject.model, plan, range(batch), sampling=sampling, seed=0, in_group="block",
                                 device=subject.device)  # fmt: skip
                began = time.perf_counter()
                run_tile(tile, arm.decoder)
            except problems:
                return None
            taken_s = time.perf_counter() - began
        times.append(taken_s)
        terms.append(_terms(count(arm, grid), batch))
    return fit(np.array(terms), np.array(times))


def fit(terms_N3: np.ndarray, times_N: np.ndarray) -> Cost:
    """The costs that explain the times best, relative errors counting; none is less than nothing."""
    shares_N3, kept = terms_N3 / times_N[:, None], [0, 1, 2]
    while True:
        costs = np.linalg.lstsq(shares_N3[:, kept], np.ones(len(times_N)))[0]
        if costs.min() >= 0:
            return Cost(*(float(costs[kept.index(i)]) if i in kept else 0.0 for i in range(3)))
        kept.pop(int(costs.argmin()))  # noise made it less than nothing
