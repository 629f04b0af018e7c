"""Plans: a ranking cut into steps, frozen and checked.

Knows which cells are decoded in which step. Refuses to know the model, the clock and the name of the order that it came
from: two orders that rank alike give equal plans, with one digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np

from orderbench.orders.errors import BenchError
from orderbench.orders.lattice import Grid, IntArray, Lattice, lattice_from_json
from orderbench.orders.order import BoundOrder, parse_order
from orderbench.orders.pace import Pace
from orderbench.orders.profile import profiled
from orderbench.orders.ranking import Ranking
from orderbench.orders.spelling import split_arm
from orderbench.orders.streams import check_seed, generator

SCHEMA = 1
_FITTED = 8  # draws of an order that draws for every sample, to which its step sizes are fitted


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How each sample's cells are drawn: the order's canonical spelling and the seed.

    built_for: the step sizes that were given to an order built for step sizes; None for any other order.
    """

    order: str
    seed: int
    built_for: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        bound = parse_order(self.order)
        if not bound.per_sample or bound.order.sized != (self.built_for is not None):
            raise BenchError(
                f"'{self.order}' with step sizes {_short(self.built_for)} is no recipe; give an order that draws for "
                f"each sample, and step sizes only if it is built for them, as in order='random', built_for=None"
            )
        object.__setattr__(self, "order", str(bound))

    def rank(self, lattice: Lattice, sample: int) -> Ranking:
        """The ranking of one sample."""
        rng = generator(self.seed, "order", sample)
        return parse_order(self.order).rank(lattice, rng=rng, sizes=self.built_for)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Every cell once, in steps.

    lattice: where the cells are.
    sizes: how many cells each step takes; none 0, summing to L.
    cells: (L,) int64, first to last, the same for every sample; None if each sample has its own.
    recipe: how each sample's cells are drawn; None if all samples share `cells`.

    Exactly one of `cells` and `recipe` is given. `cells_for` serves both. Raises BenchError for anything that is not
    a partition of the lattice into non-empty steps. Plans are equal if their digests are.

    >>> Plan(lattice=Grid(1, 3), cells=[2, 0, 1], sizes=(1, 2)).step_of_cell()
    array([1, 1, 0])
    """

    lattice: Lattice
    sizes: tuple[int, ...]
    cells: IntArray | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        n = self.lattice.n_cells
        sizes = _plain("step sizes", self.sizes)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not len(sizes) or sizes.min() < 1 or sizes.sum() != n:
            raise BenchError(
                f"step sizes {_short(self.sizes)} do not cut {n} cells; they must be whole numbers of 1 or more "
                f"with the sum {n}"
            )
        object.__setattr__(self, "sizes", tuple(sizes.tolist()))
        if (self.cells is None) == (self.recipe is None):
            raise BenchError("a plan takes either cells, shared by all samples, or the recipe of each sample's cells")
        if self.cells is not None:
            given = _plain("cells", self.cells)
            if given.dtype.kind not in "iu" or given.shape != (n,) or not np.array_equal(np.sort(given), np.arange(n)):
                raise BenchError(
                    f"cells {_short(given.tolist())} are not every cell of a {_kind(self.lattice)} once; "
                    f"give a permutation of 0..{n - 1}"
                )
            cells = given.astype(np.int64)  # a copy, so that the caller cannot change the plan
            cells.setflags(write=False)
            object.__setattr__(self, "cells", cells)

    @property
    def n_steps(self) -> int:
        """How many steps."""
        return len(self.sizes)

    @property
    def per_sample(self) -> bool:
        """Whether each sample has cells of its own."""
        return self.recipe is not None

    def cells_for(self, sample_indices: Sequence[int]) -> IntArray:
        """(n, L) int64: each sample's cells, first to last."""
        if any(sample < 0 for sample in sample_indices):
            raise BenchError(f"samples count from 0, and {min(sample_indices)} was asked for; ask for 0 or more")
        if self.recipe is None:
            assert self.cells is not None  # noqa: S101 (checked in __post_init__)
            return np.broadcast_to(self.cells, (len(sample_indices), self.lattice.n_cells))
        cells_NL = np.empty((len(sample_indices), self.lattice.n_cells), np.int64)
        for place, sample in enumerate(sample_indices):
            cells_NL[place] = _drawn(self.recipe, self.lattice, int(sample))
        return cells_NL

    def step_of_cell(self, sample: int = 0) -> IntArray:
        """(L,) int64, by cell index: the step, from 0, that decodes each cell of one sample."""
        step_L = np.empty(self.lattice.n_cells, np.int64)
        step_L[self.cells_for([sample])[0]] = np.repeat(np.arange(self.n_steps), self.sizes)
        return step_L

    def singly(self) -> Plan:
        """The same cells in the same order, one a step."""
        return replace(self, sizes=(1,) * self.lattice.n_cells)

    def to_json(self) -> dict[str, Any]:
        """A plain value, digest included; `from_json` turns it back."""
        return {**self._content, "digest": self.digest}

    @classmethod
    def from_json(cls, value: object) -> Plan:
        """The plan in a value that `to_json` made; a key `about` is a comment.

        Raises BenchError for a newer schema, unknown keys, and content that does not have the digest it names.
        """
        if not isinstance(value, Mapping) or not {"schema", "lattice", "sizes"} <= set(value):
            raise BenchError("this is not a plan; `bench show ORDER --json` prints one")
        if value["schema"] != SCHEMA:
            raise BenchError(
                f"the plan has schema {value['schema']!r} and this version reads {SCHEMA}; update orderbench"
            )
        extra = set(value) - {"schema", "lattice", "sizes", "cells", "recipe", "digest", "about"}
        if extra:
            raise BenchError(f"the plan has unknown keys {sorted(extra)}; `bench show ORDER --json` prints a clean one")
        recipe = value.get("recipe")
        if recipe is not None:
            if not isinstance(recipe, Mapping) or set(recipe) != {"order", "seed", "built_for"}:
                raise BenchError(f"{recipe!r} is not a recipe; it holds order, seed and built_for")
            built_for, order = recipe["built_for"], recipe["order"]
            if not isinstance(order, str) or not (built_for is None or _is_whole_numbers(built_for)):
                raise BenchError(f"{recipe!r} is not a recipe; its order is a text, built_for a list of whole numbers")
            recipe = Recipe(order=order, seed=recipe["seed"], built_for=None if built_for is None else tuple(built_for))
        plan = cls(
            lattice=lattice_from_json(value["lattice"]), sizes=value["sizes"], cells=value.get("cells"), recipe=recipe
        )
        if value.get("digest", plan.digest) != plan.digest:
            raise BenchError(
                f"the plan names the digest {value['digest']} but its content has {plan.digest}; it was changed "
                f"after it was written, so write it again with `bench show ORDER --json`"
            )
        return plan

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of lattice, sizes and cells; of the recipe and seed, not of a table, if each
        sample draws its own."""
        text = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {"schema": SCHEMA, "lattice": self.lattice.to_json(), "sizes": list(self.sizes)}
        if self.recipe is not None:
            built_for = self.recipe.built_for
            content["recipe"] = {
                "order": self.recipe.order,
                "seed": self.recipe.seed,
                "built_for": None if built_for is None else list(built_for),
            }
        elif self.cells is not None:
            content["cells"] = self.cells.tolist()
        return content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Plan({_kind(self.lattice)}, {self.n_steps} steps, digest {self.digest[:12]})"


def make_plan(order: str, lattice: Lattice, pace: str | None = None, seed: int = 0) -> Plan:
    """The plan of an order at a pace.

    order: 'radial:center=3x4:width=2', or with its pace, 'radial@even:13'. pace: default 'native'. seed: for orders
    that draw; the others do not depend on it. A shared draw is the one that sample 0 would make.

    Raises BenchError for anything misspelt, and where the order cannot serve the lattice or the pace.

    >>> make_plan("radial", Grid(16, 16)).sizes
    (1, 4, 8, 16, 20, 32, 32, 36, 46, 36, 20, 4, 1)
    """
    bound, chosen = _parse(order, pace)
    return cut(bound, chosen, lattice, seed)


def spell_arm(order: str, pace: str | None = None) -> str:
    """The canonical spelling of an order at a pace, one for all ways to write it; '@native' is left out.

    >>> spell_arm("radial:width=1.0:center=3.0x4"), spell_arm("raster", "even:13")
    ('radial:center=3x4', 'raster@even:13')
    """
    bound, chosen = _parse(order, pace)
    return str(bound) if chosen.name == "native" else f"{bound}@{chosen}"


def _parse(order: str, pace: str | None) -> tuple[BoundOrder, Pace]:
    spelled, own_pace, decoder, model = split_arm(order)
    for mark, what, part in (("+", "decoder", decoder), ("~", "model", model)):
        if part is not None:
            raise BenchError(f"'{order}' names a {what}, which does not change a plan; leave '{mark}{part}' out")
    if own_pace is not None and pace is not None and own_pace != pace:
        raise BenchError(f"'{order}' is paced {own_pace} and the pace {pace} was asked for too; give one of them")
    return parse_order(spelled), Pace.parse(next((given for given in (own_pace, pace) if given is not None), "native"))


def cut(bound: BoundOrder, pace: Pace, lattice: Lattice, seed: int = 0) -> Plan:
    """The plan of a bound order at a pace; BenchError where the order cannot serve the lattice or the pace."""
    if pace.measured:
        pace.check(lattice)
        sizes: tuple[int, ...] | None = profiled(str(bound), lattice, cast(int, pace.steps))
    else:
        sizes = None if pace.needs_ranking else pace.sizes(lattice)
    if pace.fits_walks and bound.order.joint is not None:
        pace.check(lattice)
        return Plan(lattice=lattice, **bound.design(lattice, cast(int, pace.steps)))
    if bound.order.sized and sizes is None:
        why = f"cannot be built for those that {pace} fits to its cells" if pace.steps else f"has no {pace} groups"
        raise BenchError(
            f"'{bound}' is built for its step sizes and {why}; give it a pace, as in {bound}@cosine:{pace.steps or 13}"
        )
    built_for = sizes if bound.order.sized else None
    if bound.per_sample:
        recipe = Recipe(order=str(bound), seed=seed, built_for=built_for)
        first = recipe.rank(lattice, 0)  # drawn here, so that an order that refuses does so now
        if pace.fits_walks:
            sizes = pace.sizes(lattice, first, *(recipe.rank(lattice, sample) for sample in range(1, _FITTED)))
        sizes = sizes or pace.sizes(lattice, first)
        if pace.needs_ranking and not pace.fits_walks:
            for sample in range(1, 4):  # samples share step sizes; a few draws show whether they can
                if pace.sizes(lattice, recipe.rank(lattice, sample)) != sizes:
                    raise BenchError(
                        f"'{bound}' has other {pace} groups in each sample, and samples share their step sizes; "
                        f"give it a pace, as in {bound}@cosine:13, or share one draw with {bound}:shared=true"
                    )
        return Plan(lattice=lattice, sizes=sizes, recipe=recipe)
    ranking = bound.rank(lattice, rng=generator(seed, "order"), sizes=built_for)
    return Plan(lattice=lattice, sizes=sizes or pace.sizes(lattice, ranking), cells=ranking.cells_L)


@lru_cache(maxsize=512)
def _drawn(recipe: Recipe, lattice: Lattice, sample: int) -> IntArray:
    cells_L = recipe.rank(lattice, sample).cells_L
    cells_L.setflags(write=False)
    return cells_L


def forget_drawn() -> None:
    """Forget drawn cells, so that the next request draws them again; for measurements of that time."""
    _drawn.cache_clear()


def draw(order: str, lattice: Lattice, pace: str | None = None, seed: int = 0) -> str:
    """A small picture: the step, from 0, of each cell (of sample 0); levels of a pyramid apart."""
    plan = make_plan(order, lattice, pace, seed)
    width = len(str(plan.n_steps - 1))
    levels = lattice.split(plan.step_of_cell())
    return "\n\n".join("\n".join(" ".join(f"{step:{width}d}" for step in row) for row in level) for level in levels)


def _kind(lattice: Lattice) -> str:
    return f"{lattice} {'grid' if isinstance(lattice, Grid) else 'pyramid'}"


def _plain(what: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as problem:
        raise BenchError(f"{what} {_short(values)} are not a list of whole numbers") from problem


def _is_whole_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _short(values: object) -> str:
    text = str(list(values)) if isinstance(values, list | tuple) else str(values)
    return text if len(text) <= 60 else f"{text[:56]} ..."
