"""Locality: near cells that are decoded, far from cells of the same step.

LPD, "Locality-aware Parallel Decoding" (arXiv 2507.01957): a step takes cells next to decoded ones, which are well
predicted, but none close to another cell of the same step, from which it would not be independent.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import Grid, IntArray
from orderbench.orders.order import register_order
from orderbench.orders.ranking import Ranking
from orderbench.orders.spelling import spell


@register_order(
    "locality",
    paper="LPD, arXiv 2507.01957",
    idea="beside decoded cells, apart from cells of the same step; built for its step sizes, one draw a sample",
    per_sample=True,
)
def locality(
    grid: Grid,
    *,
    rng: np.random.Generator,
    sizes: tuple[int, ...],
    theta: Annotated[float, "closeness from which a cell counts as near, 0 or more"] = 1.0,
    rho: Annotated[int, "rows and columns kept free around a cell of the same step, 0 or more"] = 2,
) -> Ranking:
    """The paper's released algorithm. The closeness of a free cell is the sum of 1 / distance to the decoded cells
    among its eight neighbours. A step first takes near cells (closeness >= theta), closest first, ties shuffled, none
    within Chebyshev distance rho of another; then, repeatedly, the cell of the rest that lies farthest (Euclidean)
    from the step's own.
    """
    if theta < 0 or rho < 0:
        raise BenchError(
            f"locality:theta={spell(theta)}:rho={rho} is not served; both are 0 or more, as in locality:theta=1:rho=2"
        )
    closeness = np.zeros((grid.rows + 2, grid.cols + 2))  # with a border, so that every cell has eight neighbours
    free_L = np.ones(grid.n_cells, bool)
    order: list[int] = []
    for size in sizes:
        free = rng.permutation(np.flatnonzero(free_L))
        score = closeness[1:-1, 1:-1].ravel()[free]
        by_score = np.argsort(-np.round(score, 9), kind="stable")
        group = _group(grid, free[by_score], score[by_score] >= theta - 1e-9, size, rho) if order else free[:1].tolist()
        if not order and size > 1:  # the paper's first step is a single cell; ours may be larger
            group = _farthest(grid, free[1:], group, size)
        free_L[group] = False
        order += group
        for cell in group:
            row, col = divmod(cell, grid.cols)
            closeness[row : row + 3, col : col + 3] += _CLOSENESS
    rank_L = np.empty(grid.n_cells, np.int64)
    rank_L[order] = np.arange(grid.n_cells)
    return Ranking(rank_L)


_CLOSENESS = np.array([[0.5**0.5, 1, 0.5**0.5], [1, 0, 1], [0.5**0.5, 1, 0.5**0.5]])


def _group(grid: Grid, free: IntArray, near: np.ndarray, size: int, rho: int) -> list[int]:
    """One step's cells, in the order they are picked. `free` is sorted, closest first; `near` marks its near cells."""
    blocked = np.zeros((grid.rows, grid.cols), bool)
    group: list[int] = []
    passed_over: list[int] = []
    walk = free[near].tolist()
    for place, cell in enumerate(walk):
        if len(group) == size:
            passed_over += walk[place:]
            break
        row, col = divmod(cell, grid.cols)
        if blocked[row, col]:
            passed_over.append(cell)
            continue
        group.append(cell)
        blocked[max(0, row - rho) : row + rho + 1, max(0, col - rho) : col + rho + 1] = True
    return _farthest(grid, np.array([*free[~near].tolist(), *passed_over], np.int64), group, size)


def _farthest(grid: Grid, pool: IntArray, group: list[int], size: int) -> list[int]:
    """`group` filled to `size` from the pool: each time the cell whose nearest cell of the group is farthest."""
    group = list(group)
    if len(group) == size:
        return group
    if not group:  # no near cell at all: the pool is shuffled within equal closeness, so its first is a random pick
        group.append(int(pool[0]))
        pool = pool[1:]
    rows, cols = np.divmod(pool, grid.cols)
    nearest = np.full(len(pool), np.inf)
    for cell in group:
        nearest = np.minimum(nearest, (rows - cell // grid.cols) ** 2 + (cols - cell % grid.cols) ** 2)
    while len(group) < size:
        pick = int(nearest.argmax())
        cell = int(pool[pick])
        group.append(cell)
        nearest = np.minimum(nearest, (rows - cell // grid.cols) ** 2 + (cols - cell % grid.cols) ** 2)
        nearest[pick] = -1
    return group
