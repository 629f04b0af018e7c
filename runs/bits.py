"""Bits of held-out images: exact, in parallel, as the plan decodes and one cell at a time. A decoder that chooses its
cells is forced to take their codes.

Knows what a parallel step loses: the difference of the two, image by image. Refuses to draw a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.likelihood import chosen_bits, plan_bits
from orderbench.models.model import refusal
from orderbench.orders import BenchError, Field, Plan
from orderbench.orders import predicted_tax as tax_on_the_field
from orderbench.runs.arms import Arm
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Workload
from orderbench.runs.record import RecordProblem, read_kept, write_arrays, write_kept
from orderbench.runs.subject import Subject
from orderbench.runs.trials import Trial

_CHUNK = 50  # images a pass
_NOT_FINITE = "the model's logits are not finite; its weights hold NaN or infinity"


def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Bits per cell of an arm, their tax, and both by step and by cell; of K codes a cell together.

    The tax is None where the model does not serve the same cells one at a time.
    """
    arm, subject = bench.arms[trial.arm], bench.subjects.of(trial.model)
    assert subject.held_out is not None  # noqa: S101 (planned only where there are some)
    plan = arm.plan(subject.model.lattice, trial.seed)
    codes_NLK, labels_N = (part[: bench.spec.held_out] for part in subject.held_out)
    if arm.order is None:
        return _of_chosen(trial, bench, arm, plan, codes_NLK, labels_N)
    n, parallel = len(codes_NLK), plan.n_steps < plan.lattice.n_cells
    has_singly = not parallel or not refusal(subject.model, plan.singly())
    total = n * (2 if parallel and has_singly else 1)
    bits_NL = _bits(subject, plan, codes_NLK, labels_N, lambda done: bench.progress(trial, done, total))
    singly_NL = bits_NL if not parallel else None
    if parallel and has_singly:
        singly_NL = _singly_bits(bench, subject, plan, codes_NLK, labels_N,
                                 lambda done: bench.progress(trial, n + done, total))  # fmt: skip
    cells_NL = plan.cells_for(range(n) if plan.per_sample else [0])
    step_NL = np.empty_like(cells_NL)
    np.put_along_axis(step_NL, cells_NL, np.repeat(np.arange(plan.n_steps), plan.sizes)[None], 1)
    return _body(trial, bench, bits_NL, singly_NL, step_NL) | {
        "plan_digest": plan.digest,
        "n_steps": plan.n_steps,
        "predicted_tax_bits": predicted_tax(plan),
        "field": str(Field()),
    }


def _of_chosen(trial: Trial, bench: Bench, arm: Arm, plan: Plan, codes_NLK: Tensor, labels_N: Tensor) -> dict[str, Any]:
    """The same of a decoder that chooses its cells: it decodes the held-out codes, and its steps are counted. Nothing
    predicts its tax, since it has no plan."""
    subject, parts, n = bench.subjects.of(trial.model), [], len(codes_NLK)
    for start in range(0, n, _CHUNK):
        samples = range(start, min(n, start + _CHUNK))
        codes_BLK, labels_B = (one[samples.start : samples.stop].to(subject.device) for one in (codes_NLK, labels_N))
        parts.append(chosen_bits(subject.model, plan, arm.decoder, codes_BLK, labels_B, samples=samples,
                                 seed=trial.seed))  # fmt: skip
        if not parts[-1].bits_BL.isfinite().all():
            raise BenchError(_NOT_FINITE)
        bench.progress(trial, samples.stop, n)
    singly = [part.singly_BL for part in parts if part.singly_BL is not None]
    step_NL = torch.cat([part.step_BL for part in parts]).cpu().numpy()
    bits_NL = torch.cat([part.bits_BL for part in parts]).cpu().numpy()
    singly_NL = torch.cat(singly).cpu().numpy() if singly else None
    steps = float((1 + step_NL.max(1)).mean())
    return _body(trial, bench, bits_NL, singly_NL, step_NL) | {
        "plan_digest": None,
        "n_steps": int(steps) if steps.is_integer() else steps,
        "predicted_tax_bits": None,
        "field": None,
    }


def _body(
    trial: Trial, bench: Bench, bits_NL: np.ndarray, singly_NL: np.ndarray | None, step_NL: np.ndarray
) -> dict[str, Any]:
    """What follows from bits, whoever decided on the cells. step_NL: the step of every cell; one row where all images
    share it."""
    both = [bits_NL] if singly_NL is None else [bits_NL, singly_NL]
    by_step = [_by_step(step_NL, bits) for bits in both]
    arrays = dict(zip(("bits_N", "singly_N"), (bits.mean(1) for bits in both), strict=False))
    write_arrays(bench.data(trial, "bits"), arrays)
    differences_N = None if singly_NL is None else (bits_NL - singly_NL).mean(1)
    return {
        "n": len(bits_NL),
        "bits_per_token": float(bits_NL.mean()),
        "bits_se": _standard_error(bits_NL.mean(1)),
        "singly_bits_per_token": None if singly_NL is None else float(singly_NL.mean()),
        "tax_bits": None if differences_N is None else float(differences_N.mean()),
        "tax_se": None if differences_N is None else _standard_error(differences_N),
        "bits_by_step": by_step[0],
        "singly_bits_by_step": None if singly_NL is None else by_step[1],
        "bits_by_cell": bits_NL.mean(0),
        "singly_bits_by_cell": None if singly_NL is None else singly_NL.mean(0),
    }


def seconds(trial: Trial, work: Workload) -> float:
    """The time of two passes over every image, whatever the plan."""
    return 1 + 2 * work.spec.held_out * work.costs[trial.arm].tokens_s(work.singly[trial.arm])


def predicted_tax(plan: Plan) -> float | None:
    """Bits per token that the plan's steps lose on the default field; None where the field says nothing of it."""
    tax = tax_on_the_field(plan)
    return None if tax is None else round(tax, 9)  # the digits behind change with the threads of BLAS


def _by_step(step_NL: np.ndarray, bits_NL: np.ndarray) -> np.ndarray:
    """(n_steps,): the mean over the cells of every step."""
    steps = np.broadcast_to(step_NL, bits_NL.shape).ravel()
    means: np.ndarray = np.bincount(steps, bits_NL.ravel().astype(np.float64)) / np.bincount(steps)
    return means


def _singly_bits(
    bench: Bench, subject: Subject, plan: Plan, codes_NLK: Tensor, labels_N: Tensor, each: Callable[[int], object]
) -> np.ndarray:
    """`_bits` of the same cells one at a time, kept for other plans of the same cells."""
    singly = plan.singly()
    of = "" if subject is bench.subjects.own else f"-{subject.name}"
    file = bench.folder / "data" / f"singly-{singly.digest[:16]}{of}.npz"
    origin = [singly.digest, subject.about.get("sha256"), subject.describe_held_out(), len(codes_NLK)]
    try:
        kept = read_kept(file, origin)
    except RecordProblem as problem:
        bench.noticed(f"{str(problem).partition('; ')[0]}: these bits are computed again")
        kept = None
    if kept is not None:
        return kept["bits_NL"]
    bits_NL = _bits(subject, singly, codes_NLK, labels_N, each)
    write_kept(file, {"bits_NL": bits_NL}, origin)
    return bits_NL


def _bits(
    subject: Subject, plan: Plan, codes_NLK: Tensor, labels_N: Tensor, each: Callable[[int], object]
) -> np.ndarray:
    """(N, L) float32 bits of every cell, by cell index."""
    parts = []
    for start in range(0, len(codes_NLK), _CHUNK):
        samples = range(start, min(len(codes_NLK), start + _CHUNK))
        codes_BLK = codes_NLK[samples.start : samples.stop].to(subject.device)
        labels_B = labels_N[samples.start : samples.stop].to(subject.device)
        bits_BL = plan_bits(subject.model, codes_BLK, labels_B, plan, samples=samples)
        if not bits_BL.isfinite().all():
            raise BenchError(_NOT_FINITE)
        parts.append(bits_BL.cpu().numpy())
        each(samples.stop)
    return np.concatenate(parts)


def _standard_error(values_N: np.ndarray) -> float | None:
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else None
