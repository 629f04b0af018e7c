"""Rankings: what an order says, before anything is cut into steps.

Knows ranks and ties. Refuses to know step sizes: a pace cuts a ranking, and a plan keeps the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orderbench.orders.errors import OrderFault
from orderbench.orders.lattice import IntArray


@dataclass(frozen=True, init=False, eq=False, slots=True)
class Ranking:
    """A ranking of cells with ties.

    rank_L: (L,) whole numbers, by cell index; the lowest comes first; cells of equal rank form a native group.
        Gaps are allowed and closed.
    walk_L: (L,) numbers, by cell index, which order the cells within a tie (then the cell index does). It matters
        only where a pace cuts a group. Default: the cell index.

    Raises OrderFault for anything else.
    """

    rank_L: IntArray  # 0, 1, 2, ... without gaps
    cells_L: IntArray  # the cells, first to last
    native_sizes: tuple[int, ...]  # the sizes of the tied groups

    def __init__(self, rank_L: npt.ArrayLike, walk_L: npt.ArrayLike | None = None) -> None:
        rank = _vector("rank_L", rank_L)
        if not np.issubdtype(rank.dtype, np.integer):
            raise OrderFault(
                f"rank_L must hold whole numbers, not {rank.dtype}; round distances before ranking by them"
            )
        walk = np.arange(len(rank)) if walk_L is None else _vector("walk_L", walk_L)
        if len(walk) != len(rank):
            raise OrderFault(f"walk_L has {len(walk)} entries and rank_L {len(rank)}; give one per cell in both")
        if not np.isfinite(walk).all():
            raise OrderFault("walk_L holds a value that is not finite; give every cell a number")
        _, dense, counts = np.unique(rank, return_inverse=True, return_counts=True)
        cells_L = np.lexsort((walk, dense)).astype(np.int64)
        for array in (dense, cells_L):
            array.setflags(write=False)
        object.__setattr__(self, "rank_L", dense.astype(np.int64, copy=False))
        object.__setattr__(self, "cells_L", cells_L)
        object.__setattr__(self, "native_sizes", tuple(counts.tolist()))


def _vector(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as problem:
        raise OrderFault(f"{name} must be one number per cell: {problem}") from problem
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise OrderFault(f"{name} must be one number per cell, shape (L,), not shape {array.shape} of {array.dtype}")
    return array
