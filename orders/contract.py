"""The contract of an order, as checks that anyone can run: `bench orders --check my_order.py`.

Knows what every order must keep on every grid, at every pace. Refuses to know any order in particular; this project's
own tests run the same checks over its own registry.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault
from orderbench.orders.lattice import Grid
from orderbench.orders.pace import Pace, pace_names
from orderbench.orders.plan import Plan, make_plan
from orderbench.orders.registry import BoundOrder, get_order, parse_order
from orderbench.orders.spelling import spell
from orderbench.orders.streams import generator

GRIDS = tuple(
    Grid(rows, cols)
    for rows, cols in [(1, 1), (1, 2), (1, 7), (5, 1), (2, 2), (3, 3), (4, 6), (7, 5), (8, 8), (9, 12), (16, 16)]
)
SEEDED_FROM = 16  # cells from which six seeds may be asked for more than one plan


class BrokenPromise(Exception):
    """What an order promised and did not keep; the sentence says what to do about it."""


@dataclass(frozen=True)
class Finding:
    """A broken promise, and where."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"on {self.where}: {self.problem}"


def paces_on(grid: Grid, *, native: bool = True) -> list[Pace]:
    """Every pace; the laws in T steps with few, some and as many steps as there are cells."""
    n = grid.n_cells
    few = min(2, n)
    names = [name for name in pace_names() if native or name != "native"]
    plain = [Pace(name) for name in names if not name.endswith(":T")]
    return plain + [
        Pace(name[:-2], T) for name in names if name.endswith(":T") for T in sorted({few, max(few, n // 3), n})
    ]


def check_plan(plan: Plan, pace: Pace) -> None:
    """BrokenPromise unless the plan is a partition in the asked steps and survives JSON with its digest."""
    n = plan.lattice.n_cells
    for cells_L in plan.cells_for([0, 1]):
        if not np.array_equal(np.sort(cells_L), np.arange(n)):
            raise BrokenPromise(f"at pace {pace} its cells are not every cell once")
    if sum(plan.sizes) != n or min(plan.sizes) < 1 or pace.steps not in (None, plan.n_steps):
        raise BrokenPromise(f"at pace {pace} its steps {plan.sizes} do not cut {n} cells as asked")
    if Plan.from_json(json.loads(json.dumps(plan.to_json()))) != plan:
        raise BrokenPromise(f"at pace {pace} its JSON does not read back to the same plan")


def check_on(text: str, grid: Grid, paces: list[Pace] | None = None) -> None:
    """All promises of one order, options included, on one grid.

    Partition into non-empty steps at every pace; the same seed, the same plan; nothing taken from global randomness;
    another seed, another plan, where the order draws. Raises BrokenPromise; BenchError where the order refuses.
    """
    bound = parse_order(text)
    for pace in paces or paces_on(grid, native=not bound.order.sized):
        state = _global_randomness()
        plan = make_plan(text, grid, str(pace))
        check_plan(plan, pace)
        if _global_randomness() != state:
            raise BrokenPromise("it draws from global randomness; name `rng` in its signature and draw from that")
        again = make_plan(text, grid, str(pace))
        if again != plan or not np.array_equal(_drawn_again(again), plan.cells_for([0, 1])):
            raise BrokenPromise(f"at pace {pace} the same seed gives another plan; draw from `rng` alone")
    if grid.n_cells >= SEEDED_FROM and _draws(bound, grid):
        pace_text = "even:4"
        drawn = {make_plan(text, grid, pace_text, seed).cells_for([0])[0].tobytes() for seed in range(6)}
        if len(drawn) == 1:
            raise BrokenPromise("it draws from `rng`, and six seeds give one plan; let the ranking depend on the draw")


def check_order(name: str, include: list[str] | None = None) -> Iterator[Finding]:
    """Every promise that a registered order breaks; none if it keeps the contract.

    include: files that a fresh process must include to find the order.
    """
    served = []
    refusals = []
    for grid in GRIDS:
        try:
            check_on(name, grid)
        except OrderFault as fault:
            yield Finding(f"a {grid} grid", str(fault))
            return
        except BenchError as refusal:
            refusals.append(str(refusal))
        except BrokenPromise as broken:
            yield Finding(f"a {grid} grid", str(broken))
            return
        else:
            served.append(grid)
    if not served:
        yield Finding("every grid tried", f"it refuses them all; it said: {refusals[-1]}")
        return
    yield from _check_options(name, served[-1])
    digest = plan_and_cells_digest(name, served[-1])
    if digest_elsewhere(name, served[-1], include or []) != digest:
        yield Finding(
            f"a {served[-1]} grid",
            "another process makes another plan; do not rank by hash(), id() or the order of a set",
        )


def plan_and_cells_digest(name: str, grid: Grid) -> str:
    """A digest of the plan and of the first samples' cells, at a pace that every order serves."""
    plan = make_plan(name, grid, "even:1")
    return hashlib.sha256(plan.digest.encode() + plan.cells_for([0, 1]).tobytes()).hexdigest()


def digest_elsewhere(name: str, grid: Grid, include: list[str]) -> str:
    """`plan_and_cells_digest`, made in a fresh process with another hash seed."""
    program = (
        "import sys; from orderbench.orders import Grid, include_file; "
        "from orderbench.orders.contract import plan_and_cells_digest; "
        "name, grid, *files = sys.argv[1:]; [include_file(file) for file in files]; "
        "print(plan_and_cells_digest(name, Grid.parse(grid)))"
    )
    done = subprocess.run(  # noqa: S603 (our own interpreter and program)
        [sys.executable, "-c", program, name, str(grid), *include],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "20251224"},
        check=False,
    )
    if done.returncode:
        raise OrderFault(f"a fresh process could not make the plan of '{name}': {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip().splitlines()[-1]


def _check_options(name: str, grid: Grid) -> Iterator[Finding]:
    order = get_order(name)
    for option in order.options:
        for choice in typing.get_args(option.kind) if typing.get_origin(option.kind) is typing.Literal else ():
            text = f"{name}:{option.name}={spell(choice)}"
            try:
                make_plan(text, grid, "even:1")
            except BenchError as refusal:
                yield Finding(f"a {grid} grid", f"{text} is in its signature but not served: {refusal}")
    wrong = ["no-such-option=1", *(f"{o.name}=no.such.value" for o in order.options if o.kind is not str)]
    for given in wrong:
        try:
            parse_order(f"{name}:{given}")
        except BenchError:
            continue
        except Exception as problem:
            yield Finding(
                "any grid", f"{name}:{given} raises {type(problem).__name__} ({problem}) instead of BenchError"
            )
        else:
            yield Finding("any grid", f"{name}:{given} is taken, although it means nothing")


def _drawn_again(plan: Plan) -> np.ndarray:
    """(2, L): the cells of samples 0 and 1, from the order's function itself, past any cache."""
    if plan.recipe is None:
        return plan.cells_for([0, 1])
    return np.stack([plan.recipe.rank(plan.lattice, sample).cells_L for sample in (0, 1)])


def _draws(bound: BoundOrder, grid: Grid) -> bool:
    """Whether the order, with these options, takes anything from its generator."""
    if not bound.order.seeded:
        return False
    rng = generator(0, "order")
    untouched = str(rng.bit_generator.state)
    bound.rank(grid, rng=rng, sizes=Pace("even", 4).sizes(grid) if bound.order.sized else None)
    return str(rng.bit_generator.state) != untouched


def _global_randomness() -> tuple[object, ...]:
    _, keys, position, *_ = np.random.get_state()  # the legacy global state is what an order must leave alone
    return np.asarray(keys).tobytes(), position, random.getstate()
