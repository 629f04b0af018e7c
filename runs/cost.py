"""What decoding costs: seconds of a count, from three short trials, for every model of a run.

Knows counters and a linear model of them. Refuses to know trials, and to promise: a machine that is busy later takes
longer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from orderbench.models.counting import count
from orderbench.models.decode import Counters, make_tile, run_tile
from orderbench.models.sampling import Sampling
from orderbench.orders import BenchError
from orderbench.runs.arms import Arm, parse_arm, refused_arm
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject


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
    """How much there is to do: what was asked, one sample's counters of every arm, and the cost of each arm's model.
    singly: counters of one cell a step on each arm's lattice. again: the arm that is timed twice, '' for none;
    uncached: what that one counts without a cache, None where it is not timed so."""

    spec: RunSpec
    counters: Mapping[str, Counters]
    singly: Mapping[str, Counters]
    costs: Mapping[str, Cost]
    again: str = ""
    uncached: Counters | None = None
    expected: Mapping[str, Mapping[int, Counters]] = field(default_factory=dict)
    held_to_one: frozenset[str] = frozenset()

    def decode_s(self, arm: str, batch: int) -> float:
        """Seconds of decoding a batch of an arm."""
        by_batch = self.expected.get(arm)
        near = None if by_batch is None else by_batch[min(by_batch, key=lambda one: abs(one - batch))]
        return self.costs[arm].decode_s(near or self.counters[arm], batch)

    def singly_s(self, arm: str, batch: int) -> float:
        """Seconds of decoding a batch of an arm's cells one at a time."""
        return self.costs[arm].decode_s(self.singly[arm], batch)


def _terms(counters: Counters, batch: int) -> tuple[float, float, float]:
    """Passes, work, and slots read: a query alone reads them all for itself, a group shares."""
    tokens, pairs = counters.content_tokens + counters.query_tokens, counters.content_pairs + counters.query_pairs
    return counters.passes, batch * _work(counters), batch * pairs * 2 * counters.passes / tokens


def _work(counters: Counters) -> float:
    """Tokens through either pass; a pair of attention counts for a small part of a token."""
    return counters.content_tokens + counters.query_tokens + (counters.content_pairs + counters.query_pairs) / 200


def calibrate(subject: Subject, sampling: Sampling) -> Cost | None:
    """Decode 1 and 16 samples in rings, and 16 in rows of few cells at a time, twice each; of a model that serves
    neither, its native arm.

    None where the model cannot decode. Its answers may not be finite, or it may need more memory than there is. A
    user's own model may raise anything. Any other error of our own model is a bug, and is let through.
    """
    problems = Exception if subject.config is None else BenchError
    times, terms = [], []
    for arm, batch in _tried(subject):
        plan = arm.plan(subject.model.lattice)
        for _ in range(2):  # the first one warms up
            try:
                tile = make_tile(subject.model, plan, range(batch), sampling=sampling, device=subject.device)
                began = time.perf_counter()
                run_tile(tile, arm.decoder)
            except problems:
                return None
            taken_s = time.perf_counter() - began
        times.append(taken_s)
        terms.append(_terms(count(plan, arm.decoder), batch))
    return fit(np.array(terms), np.array(times))


def _tried(subject: Subject) -> list[tuple[Arm, int]]:
    """Arms and batches that are timed."""
    narrow = f"raster@even:{max(1, subject.model.lattice.n_cells // 4)}"
    served = []
    for name in ("radial", narrow, subject.model.native):
        arm = parse_arm(name)
        try:
            if not refused_arm(arm, subject.model):
                served.append(arm)
        except BenchError:  # no such plan on this lattice
            continue
    return [(served[0], 1), (served[0], 16), (served[min(1, len(served) - 1)], 16)] if served else []


def fit(terms_N3: np.ndarray, times_N: np.ndarray) -> Cost | None:
    """The costs that explain the times best, by relative errors; none is negative. None without times."""
    if not len(times_N):
        return None
    shares_N3, kept = terms_N3 / times_N[:, None], [0, 1, 2]
    while True:
        costs = np.linalg.lstsq(shares_N3[:, kept], np.ones(len(times_N)))[0]
        if costs.min() >= 0:
            return Cost(*(float(costs[kept.index(i)]) if i in kept else 0.0 for i in range(3)))
        kept.pop(int(costs.argmin()))  # noise made it negative
