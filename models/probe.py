"""Probing a model: what it says of fixed cells after fixed codes, so that two ways to one answer can be compared.

Knows the calls of a model. Refuses to judge: `models/contract.py` says what a difference means. What is said also
identifies a model whose weights cannot be read.

Answers are compared by the log-probabilities of some probing codes, so that any kind of answer can be tried. A model
that serves one order alone is tried along that order. One that serves any order is also asked for cells at random.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.answer import Answer, at
from orderbench.models.model import Model, refusal
from orderbench.models.visibility import walk
from orderbench.orders import BenchError, Plan, Pyramid, make_plan
from orderbench.orders.spelling import split_arm

TOLERANCE = 1e-4  # of the largest log-probability, or of 1 where they are smaller
SAMPLES, PROBES = 3, 6


class Broken(Exception):
    """A promise that is not kept: what was seen, and what it means."""


class Probe:
    """A model with labels, codes and walks to try it on: three samples, one cache at a time."""

    def __init__(self, model: Model, device: str) -> None:
        self.model, self.device = model, device
        self.L, self.C = model.lattice.n_cells, model.n_classes
        if self.L < 4:
            kind = "pyramid" if isinstance(model.lattice, Pyramid) else "grid"
            raise BenchError(
                f"a {model.lattice} {kind} is too small to tell models apart; the checks need 4 cells or more, as in "
                f"Grid(2, 2)"
            )
        rng = np.random.default_rng(0)
        self.labels_B = torch.arange(SAMPLES, device=device) % self.C
        drawn = [rng.integers(0, size, (SAMPLES, self.L)) for size in model.code_sizes]
        self.codes_BLK = torch.from_numpy(np.stack(drawn, -1)).to(device)
        probing = [np.resize(rng.permutation(size), PROBES) for size in model.code_sizes]
        self.probes_PK = torch.from_numpy(np.stack(probing, -1)).to(device)
        self.plans = dict(self._served())
        if not self.plans:
            raise BenchError(
                f"the model refuses every plan tried, also its own native arm '{model.native}'; `native` names the arm "
                f"that it was trained for, as in 'raster' or 'regions:m=2'"
            )
        self.before, self.last, self.asked = self._three()

    def _served(self) -> Iterable[tuple[str, Plan]]:
        """Plans that the model serves, by name: its native arm, and some that any-order models do."""
        few = max(2, min(8, self.L))
        native = split_arm(self.model.native)
        names = [str(native._replace(decoder=None, model=None)), f"raster@even:{few}", "radial", f"random@cosine:{few}"]
        if isinstance(self.model.lattice, Pyramid):
            names.append("scales")
        for name in dict.fromkeys(names):
            with contextlib.suppress(BenchError):  # on this lattice there is no such plan
                plan = make_plan(name, self.model.lattice)
                if not refusal(self.model, plan):
                    yield name, plan

    @property
    def any_order(self) -> bool:
        """Whether it follows walks drawn at random, so that any cells may be asked and fed."""
        return any(plan.per_sample for plan in self.plans.values())

    def groups(self, plan: Plan) -> tuple[Tensor, ...]:
        """The cells of every step, (B, G) each."""
        return torch.split(walk(plan, range(SAMPLES), self.device), list(plan.sizes), dim=1)

    def _three(self) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Groups that are fed first, one that is fed then, and one that is asked."""
        if self.any_order:
            few = max(1, self.L // 4)
            sizes = [few, max(2, few)]
            cells_BL = walk(make_plan("random@one", self.model.lattice), range(SAMPLES), self.device)
            a, b, c = torch.split(cells_BL, [*sizes, self.L - sum(sizes)], dim=1)
            return (a,), b, c
        plan = max(self.plans.values(), key=lambda plan: plan.n_steps > 2)
        groups = self.groups(plan)
        if len(groups) < 3:
            raise BenchError(f"the model's native arm '{self.model.native}' has {len(groups)} steps; 3 can be tried")
        middle = max(
            range(2, len(groups)), key=lambda index: groups[index].shape[1]
        )  # most is seen where many are asked
        return groups[: middle - 1], groups[middle - 1], groups[middle]

    @property
    def fed(self) -> tuple[Tensor, ...]:
        """All groups that are fed before cells are asked."""
        return (*self.before, self.last)

    def open(self, labels_B: Tensor | None = None) -> Any:
        """A cache with the class fed."""
        return self.model.start(self.labels_B if labels_B is None else labels_B, 1 + self.L)

    def feed(self, cache: Any, *groups: Tensor, codes_BLK: Tensor | None = None) -> Any:
        """The cache, after the codes of these groups of cells were fed."""
        codes = self.codes_BLK if codes_BLK is None else codes_BLK
        for cells_BG in groups:
            self.model.step(cache, at(codes, cells_BG), cells_BG)
        return cache

    def ask(self, cache: Any, cells_BQ: Tensor, **mask: Tensor) -> Tensor:
        """(B, Q, P) nats of the probing codes."""
        return self.heard(self.model.answer(cache, cells_BQ, **mask), cells_BQ)

    def heard(self, answer: Answer, cells_BQ: Tensor) -> Tensor:
        """(B, Q, P) nats of the probing codes in an answer: the same codes at every cell, so that what is said of two
        cells can be compared."""
        nats = [answer.log_prob(probe_K.expand(*cells_BQ.shape, -1)) for probe_K in self.probes_PK]
        return torch.stack(nats, dim=-1)

    def after(self, *groups: Tensor, ask: Tensor | None = None, codes_BLK: Tensor | None = None) -> Tensor:
        """What is said of some cells (of `asked`), from a fresh cache that was fed these groups."""
        return self.ask(self.feed(self.open(), *groups, codes_BLK=codes_BLK), self.asked if ask is None else ask)

    def other_codes(self, cells_BG: Tensor) -> Tensor:
        """The codes, with others at these cells."""
        sizes = torch.tensor(self.model.code_sizes, device=self.codes_BLK.device)
        other_BGK = (at(self.codes_BLK, cells_BG) + 1) % sizes
        return self.codes_BLK.scatter(1, cells_BG[..., None].expand_as(other_BGK), other_BGK)

    @cached_property
    def usual(self) -> Tensor:
        """What is said of the asked cells after all that is fed before them."""
        return self.after(*self.fed)


@torch.inference_mode()
def fingerprint(model: Model, device: str) -> str:
    """64 hex digits that tell two sets of weights apart where they cannot be read: the SHA-256 of what a model says of
    a few fixed cells after fixed codes.

    The log-probabilities are rounded to hundredths of a nat, since another number of threads or another processor moves
    them by some millionths. So one model has one fingerprint nearly always, and two have the same only if they agree
    to that. BenchError for a model that cannot be tried; whatever its own code raises is let through.
    """
    probe = Probe(model, device)
    nats = probe.after(*probe.fed, ask=probe.asked[:, :3]).double().cpu()
    rounded = (nats.nan_to_num(-1e6).clamp(-1e6, 1e6) * 100).round().to(torch.int64)
    return hashlib.sha256(np.ascontiguousarray(rounded.numpy(), "<i8").tobytes()).hexdigest()


def far(x: Tensor, y: Tensor) -> float:
    """The largest difference, as a share of the largest log-probability (of 1 where all are smaller)."""
    return float((x - y).abs().max() / x.abs().max().clamp(min=1))


def same(x: Tensor, y: Tensor, broken: str) -> str:
    """Broken, with that sentence, unless two answers agree; else how far they are apart, in words."""
    apart = far(x, y)
    if not apart <= TOLERANCE:
        raise Broken(f"{broken} (log-probabilities differ by {apart:.2g} of the largest; up to {TOLERANCE:g} would do)")
    return f"largest difference {apart:.1g}"


def differs(x: Tensor, y: Tensor, broken: str) -> None:
    """Broken, with that sentence, if two answers are the same."""
    if not far(x, y) > 1e-6:
        raise Broken(broken)
