"""The contract of an order, as checks that anyone can run: `bench orders --check my_order.py`.

Knows what every order must keep on every lattice, at every pace. Refuses to know any order in particular. The tests of
this project run the same checks over all registered orders.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import typing
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orderbench.orders.errors import BenchError, OrderFault
from orderbench.orders.lattice import Grid, Lattice, Pyramid
from orderbench.orders.order import BoundOrder, Order, get_order, parse_order
from orderbench.orders.pace import Pace, pace_names
from orderbench.orders.plan import Plan, make_plan
from orderbench.orders.spelling import spell
from orderbench.orders.streams import generator

GRIDS = tuple(
    Grid(rows, cols)
    for rows, cols in [(1, 1), (1, 2), (1, 7), (5, 1), (2, 2), (3, 3), (4, 6), (7, 5), (8, 8), (9, 12), (16, 16)]
)
LATTICES: tuple[Lattice, ...] = (*GRIDS, Pyramid.parse("1/2/4"), Pyramid.parse("2x3/4x6/8"))
SEEDED_FROM = 16  # from so many cells on, six seeds must give more than one plan


class BrokenPromise(Exception):
    """What an order promised and did not keep; the sentence says what to do about it."""


@dataclass(frozen=True)
class OrderFinding:
    """A broken promise, and where."""

    where: str
    problem: str
    fault: OrderFault | None = None  # with its cause, for the order's author

    def __str__(self) -> str:
        return f"on {self.where}: {self.problem}"


def paces_on(grid: Lattice, order: Order | None = None) -> list[Pace]:
    """Every pace that needs no file, or every one of these that an order may be asked for on a lattice. Those in T
    steps are taken with few steps, with some, and with as many as there are cells."""
    n = grid.n_cells
    few = min(2, n)
    built, designs = (False, True) if order is None else (order.sized, order.joint is not None or not order.sized)
    laws = {name: Pace.parse(name.replace(":T", ":2")) for name in pace_names()}
    names = [name for name, law in laws.items() if not (built and name == "native") and not law.measured]
    if not designs or not isinstance(grid, Grid):
        names = [name for name in names if not laws[name].fits_walks]
    plain = [Pace(name) for name in names if not name.endswith(":T")]
    return plain + [
        Pace(name[:-2], T) for name in names if name.endswith(":T") for T in sorted({few, max(few, n // 3), n})
    ]


def check_plan(plan: Plan, pace: Pace) -> None:
    """BrokenPromise unless the plan holds every cell once, in the steps asked for, and is equal after JSON."""
    n = plan.lattice.n_cells
    for cells_L in plan.cells_for([0, 1]):
        if not np.array_equal(np.sort(cells_L), np.arange(n)):
            raise BrokenPromise(f"at pace {pace} its cells are not every cell once")
    if sum(plan.sizes) != n or min(plan.sizes) < 1 or pace.steps not in (None, plan.n_steps):
        raise BrokenPromise(f"at pace {pace} its steps {plan.sizes} do not cut {n} cells as asked")
    if Plan.from_json(json.loads(json.dumps(plan.to_json()))) != plan:
        raise BrokenPromise(f"at pace {pace} its JSON does not read back to the same plan")


def check_on(text: str, grid: Lattice, paces: list[Pace] | None = None) -> None:
    """All promises of one order, options included, on one lattice.

    At every pace the plan holds every cell once, in non-empty steps. The same seed gives the same plan. Nothing is
    taken from global randomness. If the order draws, another seed gives another plan. Raises BrokenPromise, and
    BenchError where the order refuses.
    """
    bound = parse_order(text)
    for pace in paces or paces_on(grid, bound.order):
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


@dataclass(frozen=True)
class OrderVerdict:
    """What the suite found about one order: broken promises (none if it keeps its contract), lattices that it serves,
    and how it refuses the others."""

    findings: tuple[OrderFinding, ...]
    served: tuple[Lattice, ...]
    refusals: tuple[str, ...]


def check_order(name: str, include: Sequence[str] = ()) -> OrderVerdict:
    """The whole suite over a registered order; it stops at the first grid on which a promise is broken.

    include: files that a fresh process must include to find the order.
    """
    served: list[Lattice] = []
    refusals: list[str] = []
    findings: list[OrderFinding] = []
    for grid in LATTICES:
        try:
            check_on(name, grid)
        except OrderFault as fault:
            findings = [OrderFinding(_place(grid), str(fault), fault)]
            break
        except BenchError as refusal:
            refusals.append(str(refusal))
        except BrokenPromise as broken:
            findings = [OrderFinding(_place(grid), str(broken))]
            break
        else:
            served.append(grid)
    if not findings:
        if served:
            findings = [*_check_options(name, served), *_check_elsewhere(name, served[-1], include)]
        else:
            findings = [OrderFinding("every grid tried", f"it refuses them all; it said: {refusals[-1]}")]
    return OrderVerdict(tuple(findings), tuple(served), tuple(refusals))


def _check_elsewhere(name: str, grid: Lattice, include: Sequence[str]) -> Iterator[OrderFinding]:
    try:
        if digest_elsewhere(name, grid, include) == plan_and_cells_digest(name, grid):
            return
        problem = "another process makes another plan; do not rank by hash(), id() or the order of a set"
    except OrderFault as fault:
        problem = str(fault)
    yield OrderFinding(_place(grid), problem)


def plan_and_cells_digest(name: str, grid: Lattice) -> str:
    """A digest of the plan and of the first samples' cells, at a pace that every order serves."""
    plan = make_plan(name, grid, "even:1")
    return hashlib.sha256(plan.digest.encode() + plan.cells_for([0, 1]).tobytes()).hexdigest()


def digest_elsewhere(name: str, grid: Lattice, include: Sequence[str]) -> str:
    """`plan_and_cells_digest`, made in a fresh process with another hash seed."""
    program = (
        "import sys; from orderbench.orders import include_file, parse_lattice; "
        "from orderbench.orders.contract import plan_and_cells_digest; "
        "name, grid, *files = sys.argv[1:]; [include_file(file) for file in files]; "
        "print(plan_and_cells_digest(name, parse_lattice(grid)))"
    )
    done = subprocess.run(  # noqa: S603 (our own interpreter and program)
        [sys.executable, "-c", program, name, str(grid), *include],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "20251224"},
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise OrderFault(f"a fresh process could not make the plan of '{name}': it said {said}")
    return done.stdout.strip().splitlines()[-1]


def _check_options(name: str, served: list[Lattice]) -> Iterator[OrderFinding]:
    """Every choice of a Literal is served. Booleans and numbers are served, or refused by BenchError."""
    order = get_order(name)
    grids = served[-2:]
    for option in order.options:
        literal = typing.get_origin(option.kind) is typing.Literal
        values = typing.get_args(option.kind) if literal else _TRIED.get(option.kind, ())
        for value in values:
            text = f"{name}:{option.name}={spell(value)}"
            try:
                for grid in grids:
                    with warnings.catch_warnings():
                        warnings.simplefilter("error")
                        check_on(text, grid, [Pace("even", 1), Pace("one")])
            except (OrderFault, BrokenPromise) as problem:
                yield OrderFinding(
                    _place(grid), f"{text}: {problem}", problem if isinstance(problem, OrderFault) else None
                )
            except BenchError as refusal:
                if literal:
                    yield OrderFinding(_place(grid), f"{text} is in its signature but not served: {refusal}")
    for given in ("no-such-option=1", *(f"{o.name}=no.such.value" for o in order.options if o.kind is not str)):
        try:
            parse_order(f"{name}:{given}")
        except BenchError:
            continue
        except Exception as problem:
            yield OrderFinding(
                "any grid", f"{name}:{given} raises {type(problem).__name__} ({problem}) instead of BenchError"
            )
        else:
            yield OrderFinding("any grid", f"{name}:{given} is taken, although it means nothing")


_TRIED: dict[Any, tuple[Any, ...]] = {
    bool: (True, False),
    int: (0, -1, 2, 10**6),
    float: (0.0, -1.0, 0.5, 2.0, 1e-300, 1e6),
}


def _drawn_again(plan: Plan) -> np.ndarray:
    """(2, L): the cells of samples 0 and 1, from the order's function itself, past any cache."""
    if plan.recipe is None:
        return plan.cells_for([0, 1])
    return np.stack([plan.recipe.rank(plan.lattice, sample).cells_L for sample in (0, 1)])


def _draws(bound: BoundOrder, grid: Lattice) -> bool:
    """Whether the order, with these options, takes anything from its generator."""
    if not bound.order.seeded:
        return False
    rng = generator(0, "order")
    untouched = str(rng.bit_generator.state)
    bound.rank(grid, rng=rng, sizes=Pace("even", 4).sizes(grid) if bound.order.sized else None)
    return str(rng.bit_generator.state) != untouched


def _place(lattice: Lattice) -> str:
    return f"a {lattice} {'grid' if isinstance(lattice, Grid) else 'pyramid'}"


def _global_randomness() -> tuple[object, ...]:
    _, keys, position, *_ = np.random.get_state()  # the legacy global state is what an order must leave alone
    return np.asarray(keys).tobytes(), position, random.getstate()
