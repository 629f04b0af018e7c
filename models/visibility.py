"""Visibility: who sees whom. All masks are made here, from step sizes alone.

Knows groups of a walk. Refuses to know networks, and whether they train or decode: a mask never depends on a train or
eval flag.

Content is fed in the order of the walk, the class first. So one mask serves all samples, also where each sample has a
walk of its own. A mask is bool, True where seen; its first axis is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from orderbench.orders import Plan

InGroup = Literal["block", "causal"]


def walk(plan: Plan, samples: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(n, L) int64: each sample's cells, first to last."""
    return torch.from_numpy(np.array(plan.cells_for(samples))).to(device)


def step_of_place(sizes: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(L,) int64: the step of every place of a walk."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)


def content_seen(sizes: Sequence[int], in_group: InGroup = "block", device: torch.device | str = "cpu") -> Tensor:
    """(1, S, S), S = 1 + L: the class sees itself. Content of step i sees the class and content of steps <= i, its own
    group both ways ('block', ARPG's decoding) or up to its own place ('causal')."""
    step_L = step_of_place(sizes, device)
    own_L = step_L if in_group == "block" else torch.arange(len(step_L), device=device)
    seen = torch.zeros(1, 1 + len(own_L), 1 + len(own_L), dtype=torch.bool, device=device)
    seen[:, :, 0] = True
    seen[:, 1:, 1:] = own_L[None, :] <= own_L[:, None]
    return seen


def query_seen(sizes: Sequence[int], device: torch.device | str = "cpu", *, joint: bool = False) -> Tensor:
    """(1, L, S), S = 1 + L: a query at each place of the walk sees the class and content of earlier steps. joint:
    (1, L, S + L); it also sees queries of the same step, which are asked together."""
    step_L = step_of_place(sizes, device)
    seen = torch.ones(1, len(step_L), 1 + len(step_L), dtype=torch.bool, device=device)
    seen[:, :, 1:] = step_L[None, :] < step_L[:, None]
    return torch.cat([seen, (step_L[None, :] == step_L[:, None])[None]], dim=2) if joint else seen


def as_bias(seen: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """0 where seen, -inf where not, as attention adds it; None, which hides nothing, stays None."""
    if seen is None:
        return None
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
