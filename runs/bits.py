"""Bits of held-out images: exact, in parallel, as the plan decodes and one cell at a time.

Knows what a parallel step loses: the difference of the two, image by image. Refuses to draw a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.decode import step_bits
from orderbench.models.likelihood import bits_of, plan_logits, walk
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Field, Plan, parallel_tax
from orderbench.runs.arms import BASELINE
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Cost, Workload
from orderbench.runs.record import read_arrays, write_arrays
from orderbench.runs.trials import Trial

_CHUNK = 50  # images a pass


def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Bits per token of an arm, their tax, and both by step and by cell."""
    assert bench.subject.held_out is not None  # noqa: S101 (planned only where there are some)
    arm = bench.arms[trial.arm]
    plan = arm.plan(bench.grid, trial.seed)
    tokens_NL, labels_N = (part[: bench.spec.held_out] for part in bench.subject.held_out)
    total = len(tokens_NL) * (1 if plan.n_steps == bench.grid.n_cells else 2)
    bits_NL = _bits(bench, plan, tokens_NL, labels_N, lambda done: bench.progress(trial, done, total))
    singly_NL = bits_NL
    if plan.n_steps < bench.grid.n_cells:
        singly_NL = _singly_bits(
            bench, plan, tokens_NL, labels_N, lambda done: bench.progress(trial, len(tokens_NL) + done, total)
        )
    cells_NL = plan.cells_for(range(len(tokens_NL)) if plan.per_sample else [0])
    starts = np.cumsum([0, *plan.sizes[:-1]])
    walked = [np.take_along_axis(bits, np.broadcast_to(cells_NL, bits.shape), 1) for bits in (bits_NL, singly_NL)]
    by_step, singly_by_step = (np.add.reduceat(walk.mean(0), starts) / np.array(plan.sizes) for walk in walked)
    write_arrays(bench.data(trial, "bits"), {"bits_N": bits_NL.mean(1), "singly_N": singly_NL.mean(1)})
    differences_N = (bits_NL - singly_NL).mean(1)
    return {
        "n": len(tokens_NL),
        "plan_digest": plan.digest,
        "n_steps": plan.n_steps,
        "bits_per_token": float(bits_NL.mean()),
        "bits_se": _standard_error(bits_NL.mean(1)),
        "singly_bits_per_token": float(singly_NL.mean()),
        "tax_bits": float(differences_N.mean()),
        "tax_se": _standard_error(differences_N),
        "predicted_tax_bits": predicted_tax(plan),
        "field": str(Field()),
        "bits_by_step": by_step,
        "singly_bits_by_step": singly_by_step,
        "bits_by_cell": bits_NL.mean(0),
        "singly_bits_by_cell": singly_NL.mean(0),
    }


def seconds(trial: Trial, cost: Cost, work: Workload) -> float:
    """The time of two passes over every image, whatever the plan."""
    return 1 + 2 * work.spec.held_out * cost.tokens_s(work.counters[BASELINE])


def predicted_tax(plan: Plan) -> float | None:
    """Bits per token that the plan's steps lose on the default field; None where the field is too large to ask."""
    if plan.lattice.n_cells > 1024:
        return None  # the field's covariance is dense
    return round(parallel_tax(plan, Field(), range(4)), 9)  # the digits behind change with the threads of BLAS


def _singly_bits(
    bench: Bench, plan: Plan, tokens_NL: Tensor, labels_N: Tensor, each: Callable[[int], object]
) -> np.ndarray:
    """`_bits` of the same cells one at a time, kept for other plans of the same cells."""
    singly = plan.singly()
    file = bench.folder / "data" / f"singly-{singly.digest[:16]}.npz"
    if file.is_file():
        kept = read_arrays(file)["bits_NL"]
        if kept.shape == tuple(tokens_NL.shape):
            return kept
    bits_NL = _bits(bench, singly, tokens_NL, labels_N, each)
    write_arrays(file, {"bits_NL": bits_NL})
    return bits_NL


@torch.inference_mode()
def _bits(bench: Bench, plan: Plan, tokens_NL: Tensor, labels_N: Tensor, each: Callable[[int], object]) -> np.ndarray:
    """(N, L) float32 bits of every code, by cell index."""
    model, parts = bench.subject.model, []
    for start in range(0, len(tokens_NL), _CHUNK):
        samples = range(start, min(len(tokens_NL), start + _CHUNK))
        tokens_BL = tokens_NL[samples.start : samples.stop].to(bench.subject.device)
        labels_B = labels_N[samples.start : samples.stop].to(bench.subject.device)
        if isinstance(model, Transformer):
            logits_BLV = plan_logits(model, tokens_BL, labels_B, plan, samples=samples)
            cells_BL = walk(plan, samples if plan.per_sample else [0], bench.subject.device).expand_as(tokens_BL)
            walked_BL = bits_of(logits_BLV, tokens_BL, cells_BL)
            bits_BL = torch.empty_like(walked_BL).scatter_(1, cells_BL, walked_BL)
        else:
            bits_BL = step_bits(model, plan, tokens_BL, labels_B.tolist(), samples=samples)
        if not bits_BL.isfinite().all():
            raise BenchError("the model's logits are not finite; its weights hold NaN or infinity")
        parts.append(bits_BL.cpu().numpy())
        each(samples.stop)
    return np.concatenate(parts)


def _standard_error(values_N: np.ndarray) -> float | None:
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else None
