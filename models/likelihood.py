"""What a plan lets each prediction see: exact logits, without a cache.

Knows plans and masks. Refuses to know sampling. The masks are built here, from the plan alone, never from a train or
eval flag; cached decoding is tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Grid, Plan

InGroup = Literal["block", "causal"]


def walk(plan: Plan, samples: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(n, L) int64: each sample's cells, first to last, as a tensor of its own."""
    return torch.from_numpy(np.array(plan.cells_for(samples))).to(device)


def visibility(cells_NL: Tensor, sizes: tuple[int, ...], in_group: InGroup = "block") -> tuple[Tensor, Tensor]:
    """Who sees whom, for content in raster order behind the class: (N, S, S) and (N, L, S) bool, S = 1 + L.

    Content of group i sees the class and content of groups <= i, its own group both ways ('block', ARPG's decoding) or
    up to its own place in the walk ('causal'). The query of the j-th cell of the walk sees the class and content of
    groups before its own.
    """
    N, L = cells_NL.shape
    device = cells_NL.device
    step_L = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    place_NL = torch.empty_like(cells_NL).scatter_(1, cells_NL, torch.arange(L, device=device).expand(N, L))
    step_of_cell = torch.empty_like(cells_NL).scatter_(1, cells_NL, step_L.expand(N, L))
    own = step_of_cell if in_group == "block" else place_NL
    content = torch.zeros(N, 1 + L, 1 + L, dtype=torch.bool, device=device)
    content[:, :, 0] = True
    content[:, 1:, 1:] = own[:, None, :] <= own[:, :, None]
    query = torch.ones(N, L, 1 + L, dtype=torch.bool, device=device)
    query[:, :, 1:] = step_of_cell[:, None, :] < step_L[None, :, None]
    return content, query


def as_bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where seen, -inf where not."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))


def check_tokens(model: Transformer, tokens_BL: Tensor, labels_B: Tensor) -> None:
    """BenchError for tokens or labels of another shape or range than the model's."""
    c = model.config
    if tokens_BL.ndim != 2 or tokens_BL.shape[1] != c.grid.n_cells or len(tokens_BL) != len(labels_B):
        raise BenchError(
            f"tokens of shape {tuple(tokens_BL.shape)} and labels of shape {tuple(labels_B.shape)} do not fit "
            f"a model of a {c.grid} grid; (B, {c.grid.n_cells}) and (B,) would do"
        )
    if tokens_BL.min() < 0 or tokens_BL.max() >= c.codes:
        raise BenchError(
            f"tokens reach from {int(tokens_BL.min())} to {int(tokens_BL.max())}; 0 to {c.codes - 1} would do"
        )
    check_labels(model, labels_B)


def check_labels(model: Transformer, labels_B: Tensor) -> None:
    """BenchError for labels out of range."""
    c = model.config
    if labels_B.min() < 0 or labels_B.max() > c.classes:
        raise BenchError(
            f"labels reach from {int(labels_B.min())} to {int(labels_B.max())}; 0 to {c.classes - 1} are classes and "
            f"{c.classes} is none of them"
        )


def check_lattice(lattice: Grid, plan: Plan) -> None:
    """BenchError if the plan is for another lattice than the model's."""
    if plan.lattice != lattice:
        raise BenchError(
            f"the plan is for a {plan.lattice} grid and the model's weights for {lattice}; make the plan with "
            f"--grid {lattice}"
        )


def plan_logits(
    model: Transformer,
    tokens_BL: Tensor,
    labels_B: Tensor,
    plan: Plan,
    *,
    samples: Sequence[int] | None = None,
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L, V) fp32: row j is the prediction of the plan's j-th cell (of the sample's own j-th cell where plans
    differ per sample), under exactly the visibility that it has when it is decoded.

    tokens_BL: int64 in [0, V), raster order. labels_B: int64 in [0, C], C for none. samples: whose cells, default 0,
    1, ...
    """
    check_lattice(model.lattice, plan)
    check_tokens(model, tokens_BL, labels_B)
    chosen = range(len(tokens_BL)) if samples is None else samples
    cells_NL = walk(plan, chosen if plan.per_sample else [0], tokens_BL.device)
    return logits_along(model, tokens_BL, labels_B, cells_NL, plan.sizes, in_group)


def logits_along(
    model: Transformer,
    tokens_BL: Tensor,
    labels_B: Tensor,
    cells_NL: Tensor,
    sizes: tuple[int, ...],
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L, V) fp32: `plan_logits` of cells that are laid out already; N is B, or 1 where all samples share them."""
    content, query = visibility(cells_NL, sizes, in_group)
    places_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device).expand_as(tokens_BL)
    dtype = model.head.weight.dtype
    return model.full_logits(
        labels_B, tokens_BL, places_BL, cells_NL.expand_as(tokens_BL), as_bias(content, dtype), as_bias(query, dtype)
    )


def crop_logits(model: Transformer, codes_BM: Tensor, labels_B: Tensor, known_BM: Tensor, targets_BQ: Tensor) -> Tensor:
    """(B, Q, V) fp32: one nested step. Known cells and the class see each other both ways; every target sees all of
    them, a known target its own current code too; nothing sees a target.

    codes_BM: the current codes of the cells known_BM; targets_BQ: cells, known or not.
    """
    return model.full_logits(labels_B, codes_BM, known_BM, targets_BQ, None, None)


def bits_of(logits_BLV: Tensor, tokens_BL: Tensor, cells_BL: Tensor) -> Tensor:
    """(B, L) bits of the true codes at the cells that `plan_logits` predicted, in the plan's order."""
    true_BL = tokens_BL.gather(1, cells_BL)
    nats = F.cross_entropy(logits_BLV.flatten(0, 1), true_BL.flatten(), reduction="none")
    return nats.view(true_BL.shape) / float(np.log(2))
