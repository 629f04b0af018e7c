"""Paces: how many cells each step takes.

Knows step sizes and the papers they come from. Refuses to know which cells. Every law follows from the lattice and the
number of steps T alone, except three. `native` takes the tied groups of the ranking that it cuts; `optimal` takes the
sizes that cost its walk the least tax on a Gaussian field; `profile` takes those that were fitted to a model. Laws
without T are applied to each level of a pyramid; laws in T steps count its cells, whatever level they are on.

N cells, step t = 1..T, D_t cells decoded after step t.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orderbench.orders.errors import BenchError, unknown
from orderbench.orders.field import optimal
from orderbench.orders.lattice import Grid, IntArray, Lattice
from orderbench.orders.ranking import Ranking
from orderbench.orders.spiral import shells_and_sides

Sizes = tuple[int, ...]


def native(ranking: Ranking) -> Sizes:
    """The order's own tied groups: rings, diagonals, region cells; one cell a step where nothing ties."""
    return ranking.native_sizes


def one(grid: Grid) -> Sizes:
    """One cell a step."""
    return (1,) * grid.n_cells


def ear_shells(grid: Grid) -> Sizes:
    """EAR in G steps (arXiv 2511.15499): the spiral's square grows by one row and one column a step.

    Sizes 1, 3, 5, ... on a G x G grid; on an oblong one the square is clipped to the grid.
    """
    shell_L, _ = shells_and_sides(grid)
    return tuple(np.unique(shell_L, return_counts=True)[1].tolist())


def ear_sides(grid: Grid) -> Sizes:
    """EAR in 2G - 1 steps (arXiv 2511.15499): one whole side of the spiral's square a step.

    Sizes 1, 1, 2, 2, 3, 3, ... on a G x G grid; on an oblong one the square is clipped to the grid.
    """
    _, side_L = shells_and_sides(grid)
    return tuple(np.unique(side_L, return_counts=True)[1].tolist())


def even(n: int, steps: int) -> Sizes:
    """As equal as whole numbers allow: D_t = floor(N t / T + 1/2)."""
    return _differences([(2 * n * t + steps) // (2 * steps) for t in range(steps + 1)])


def cosine(n: int, steps: int) -> Sizes:
    """ARPG's cosine law (arXiv 2503.10568): N cos(pi t / 2T) cells stay masked; starts small, ends large."""
    return _from_masked(n, [math.cos(math.pi * t / (2 * steps)) for t in range(1, steps + 1)])


def arccos(n: int, steps: int) -> Sizes:
    """ARPG's default law (arXiv 2503.10568): N (2/pi) arccos(t / T) cells stay masked; ends very large."""
    return _from_masked(n, [2 / math.pi * math.acos(t / steps) for t in range(1, steps + 1)])


def randar(n: int, steps: int) -> Sizes:
    """RandAR (arXiv 2412.01827): one cell, then D = floor(N (1 - cos(pi (k + 1) / 2T)) + 1), k = 1, 2, ..."""
    done = [0, 1]
    for k in range(1, steps):
        target = min(math.floor(n * (1 - math.cos(math.pi * (k + 1) / (2 * steps))) + 1), n)
        done.append(done[-1] + min(max(target - done[-1], 1), n - done[-1]))
    return _differences(done)


def halton(n: int, steps: int) -> Sizes:
    """Halton-MaskGIT (arXiv 2503.17076): D_t = max(t, floor(N (1 - (2/pi) arccos(t / T))))."""
    return _differences(
        [0] + [max(t, math.floor(n * (1 - 2 / math.pi * math.acos(t / steps)))) for t in range(1, steps + 1)]
    )


def lpd(n: int, steps: int) -> Sizes:
    """LPD (arXiv 2507.01957): the published table where we have it, else our fit of those tables.

    The fit: one cell, then the increments of a cosine scaled to N - 1 and rounded, their sum repaired where rounding
    left most, never decreasing. Within 1 of every published entry but (1024; 192), where it is within 2.
    """
    if (n, steps) in _LPD_PUBLISHED:
        return _LPD_PUBLISHED[n, steps]
    if steps == 1:
        return (n,)
    k = np.arange(1, steps)
    rise = np.cos(np.pi * k / (2 * steps)) - np.cos(np.pi * (k + 1) / (2 * steps))
    ideal = rise * (n - 1) / rise.sum()
    sizes = np.maximum(1, np.floor(ideal + 0.5)).astype(np.int64)
    while (missing := n - 1 - int(sizes.sum())) != 0:
        sign = 1 if missing > 0 else -1
        left = np.where((sizes > 1) | (sign > 0), np.round(sign * (ideal - sizes), 9), -np.inf)
        movable = np.argsort(-left, kind="stable")[: min(abs(missing), int(np.isfinite(left).sum()))]
        sizes[movable] += sign
    return (1, *np.sort(sizes).tolist())


_LPD_PUBLISHED: dict[tuple[int, int], Sizes] = {
    (256, 8): (1, 15, 24, 32, 40, 45, 49, 50),
    (256, 12): (1, 7, 11, 15, 19, 22, 25, 28, 30, 32, 33, 33),
    (256, 16): (1, 4, 6, 8, 11, 13, 15, 17, 19, 20, 22, 23, 24, 24, 24, 25),
    (256, 20): (1, 2, 4, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 18, 19, 19, 20, 20, 20),
    (256, 24): (*range(1, 12), 11, 12, 13, 14, 14, 14, 15, 15, 16, 16, 16, 17, 17),
    (256, 32): (1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, *[10] * 3, *[11] * 4, *[12] * 8),
    (1024, 48): (
        *range(1, 24), 23, 24, 25, 26, 26, 27, 28, 28, 29, 29, 30, 30, 31, 31, 32, 32, 32, *[33] * 7, 34,
    ),
}  # fmt: skip


def _differences(done: list[int]) -> Sizes:
    return tuple(after - before for before, after in itertools.pairwise(done))


def _from_masked(n: int, masked_share: list[float]) -> Sizes:
    """ARPG's clamp: every step decodes at least one cell and leaves at least one; the last takes all that remain."""
    done = [0]
    for share in masked_share[:-1]:
        masked = max(1, min(math.floor(n * share), n - done[-1] - 1))
        done.append(n - masked)
    return _differences([*done, n])


_BY_RANKING: dict[str, Callable[[Ranking], Sizes]] = {"native": native}
_BY_GRID: dict[str, Callable[[Grid], Sizes]] = {"one": one, "ear-shells": ear_shells, "ear-sides": ear_sides}
_BY_STEPS: dict[str, Callable[[int, int], Sizes]] = {
    "even": even,
    "cosine": cosine,
    "arccos": arccos,
    "randar": randar,
    "halton": halton,
    "lpd": lpd,
}
_BY_WALK: dict[str, Callable[[Lattice, Sequence[IntArray], int], Sizes]] = {"optimal": optimal}
_MEASURED = ("profile",)  # their sizes are found by the order's name: see `plan.cut`
_IN_STEPS = (*_BY_STEPS, *_BY_WALK, *_MEASURED)
_STARTS_WITH_ONE = ("randar", "lpd")


def pace_names() -> tuple[str, ...]:
    """Every pace as it is typed; those in T steps with ':T'."""
    return (*_BY_RANKING, *_BY_GRID, *(f"{name}:T" for name in _IN_STEPS))


def paces_in(steps: int) -> tuple[Pace, ...]:
    """Every pace that may cut an order into `steps` steps, the best known first: those without T, which have that many
    or not, then each law at T = steps. Which of them a lattice and an order serve, `plan.cut` says.

    >>> [str(pace) for pace in paces_in(8)][:6]
    ['native', 'one', 'ear-shells', 'ear-sides', 'cosine:8', 'even:8']
    """
    laws = (*sorted(_BY_STEPS, key=lambda name: name != "cosine"), *_BY_WALK)
    return (*(Pace(name) for name in (*_BY_RANKING, *_BY_GRID)), *(Pace(name, steps) for name in laws))


@dataclass(frozen=True)
class Pace:
    """A named law, with its number of steps T where it takes one.

    >>> str(Pace.parse("cosine:13")), Pace.parse("even:4").sizes(Grid(3, 3))
    ('cosine:13', (2, 3, 2, 2))
    """

    name: str
    steps: int | None = None

    def __post_init__(self) -> None:
        known = (*_BY_RANKING, *_BY_GRID, *_IN_STEPS)
        if self.name not in known:
            raise unknown("pace", self.name, known, "paces are written after @, as in raster@even:13")
        if self.name in _IN_STEPS and (self.steps is None or self.steps < 1):
            raise BenchError(f"the pace '{self.name}' needs a number of steps of 1 or more, as in {self.name}:13")

    @classmethod
    def parse(cls, text: str) -> Pace:
        """'native', 'one', 'ear-shells', 'ear-sides', or LAW:T; BenchError for anything else."""
        name, colon, steps = text.partition(":")
        if name not in _IN_STEPS:
            if colon and name in (*_BY_RANKING, *_BY_GRID):
                raise BenchError(f"the pace '{text}' takes no number of steps; write {name}")
            return cls(name)
        if not re.fullmatch(r"[0-9]{1,9}", steps) or int(steps) < 1:
            raise BenchError(f"the pace '{text}' needs a number of steps of 1 or more, as in {name}:13")
        return cls(name, int(steps))

    def __str__(self) -> str:
        return self.name if self.steps is None else f"{self.name}:{self.steps}"

    @property
    def needs_ranking(self) -> bool:
        """Whether the step sizes follow from a ranking and not from the lattice alone."""
        return self.name in (*_BY_RANKING, *_BY_WALK)

    @property
    def fits_walks(self) -> bool:
        """Whether the step sizes are fitted to the cells of the walks that they cut, in a given number of steps."""
        return self.name in _BY_WALK

    @property
    def measured(self) -> bool:
        """Whether the step sizes were fitted to a model, and stand in a profile by the order's name."""
        return self.name in _MEASURED

    def check(self, lattice: Lattice) -> None:
        """BenchError for T above the number of cells, and for T = 1 where the law begins with a single cell."""
        n = lattice.n_cells
        if self.steps is None:
            return
        least = 2 if self.name in _STARTS_WITH_ONE and n > 1 else 1
        if not least <= self.steps <= n:
            would_do = f"{least} to {n} would do" if least < n else f"{n} would do"
            raise BenchError(
                f"the pace '{self}' asks for {self.steps} step{'s' * (self.steps != 1)} on a {lattice} "
                f"{'grid' if isinstance(lattice, Grid) else 'pyramid'} of {n} "
                f"cell{'s' * (n != 1)}; {would_do}, as in {self.name}:{min(n, max(least, 13))}"
            )

    def sizes(self, lattice: Lattice, *rankings: Ranking) -> Sizes:
        """The step sizes, none 0, summing to the number of cells.

        rankings: what is cut, where `needs_ranking`; one, or some draws of an order that draws for every sample, whose
        tax is averaged. Raises BenchError as `check` does, and where rankings are needed and there are none.
        """
        self.check(lattice)
        if self.needs_ranking and not rankings:
            raise BenchError(f"the pace '{self}' cuts a ranking, and none was given; use a pace such as cosine:13")
        if self.name in _BY_RANKING:
            return _BY_RANKING[self.name](rankings[0])
        if self.steps is None:
            return tuple(itertools.chain.from_iterable(map(_BY_GRID[self.name], lattice.levels)))
        if self.measured:
            raise BenchError(f"the pace '{self}' depends on the order; name one, as in raster@{self}")
        if self.name in _BY_WALK:
            return _BY_WALK[self.name](lattice, [ranking.cells_L for ranking in rankings], self.steps)
        return _BY_STEPS[self.name](lattice.n_cells, self.steps)
