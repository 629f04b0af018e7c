"""The information profile of a model along a walk: what it says of every code, given the first codes of the walk alone.

Knows how one feeding and a few askings measure that, and what a step of any size would lose. Refuses to know paces, and
which sizes are chosen.

Content is fed once, causally, so that no slot knows of a later one. Then asking under a mask that shows the first `a`
slots gives f(i | a): the bits of the code at place i, given the codes of the places before a. A step from place a to
before place b loses the sum of f(i | a) - f(i | i) over its places (docs/tax.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from orderbench.models.answer import at
from orderbench.models.likelihood import check_codes, to_bits
from orderbench.models.model import Model, check, serves
from orderbench.models.visibility import content_seen, query_seen, walk
from orderbench.orders import BenchError, Plan


def begins(n_cells: int, every: int) -> tuple[int, ...]:
    """The places where a step may begin: each of the first 4 * every, then each `every`-th. All of them at every = 1.

    >>> begins(16, 2)
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14)
    """
    return tuple(place for place in range(n_cells) if place < 4 * every or place % every == 0)


@torch.inference_mode()
def profile(
    model: Model, codes_BLK: Tensor, labels_B: Tensor, plan: Plan, places: Sequence[int], samples: Sequence[int]
) -> Tensor:
    """(B, E + 1, L) float64 bits by place of the walk: row e given the first places[e] codes, NaN for these; the last
    row given all codes before the own.

    The walk is the plan's, whatever its sizes. The model needs the trait 'masks', and cells that are asked together
    must not see each other.
    """
    check(model, plan.singly(), ("masks",))
    if serves(model, "joint"):
        raise BenchError(
            "cells that this model is asked together see each other, so what it says of one depends on the step; its "
            "steps cannot be fitted, and a pace such as cosine:13 would do"
        )
    if serves(model, "shifted"):
        raise BenchError(
            "this model tells each cell by codes that were fed before it in its own walk, whatever step asks it, so "
            "its steps cannot be fitted; its native pace would do"
        )
    check_codes(model, codes_BLK, labels_B)
    cells_BL = walk(plan, samples, codes_BLK.device)
    B, L = cells_BL.shape
    singly = (1,) * L
    cache = model.start(labels_B, L)
    if L > 1:
        content = content_seen(singly, "causal", codes_BLK.device)
        model.step(cache, at(codes_BLK, cells_BL[:, :-1]), cells_BL[:, :-1], seen=content[:, 1:L, :L])
    walked_BLK = at(codes_BLK, cells_BL)
    bits_BEL = torch.full((B, len(places) + 1, L), torch.nan, dtype=torch.float64)
    for row, place in enumerate(places):
        shown = torch.ones(1, L - place, 1 + place, dtype=torch.bool, device=codes_BLK.device)
        answer = model.answer(cache, cells_BL[:, place:], seen=shown)
        bits_BEL[:, row, place:] = to_bits(answer.log_prob(walked_BLK[:, place:])).double().cpu()
    answer = model.answer(cache, cells_BL, seen=query_seen(singly, codes_BLK.device)[:, :, :L])
    bits_BEL[:, -1] = to_bits(answer.log_prob(walked_BLK)).double().cpu()
    return bits_BEL


def span_bits(profile_BEL: Tensor, places: Sequence[int]) -> Tensor:
    """(B, E, E + 1) bits that a step loses which begins at places[e] and ends before places[e'], or before L at the
    last; infinity unless it holds a cell."""
    ends = torch.tensor([*places, profile_BEL.shape[2]])
    lost_BEL = (profile_BEL[:, :-1] - profile_BEL[:, -1:]).nan_to_num(0.0).cumsum(-1)
    sums = torch.cat([torch.zeros_like(lost_BEL[..., :1]), lost_BEL], dim=-1)  # of the places before each
    return sums[..., ends].masked_fill(ends <= ends[:-1, None], torch.inf)
