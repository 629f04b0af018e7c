"""The parallel tax: its definition by brute force, its reference points, and the order designed to pay least."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbench.orders import BenchError, Field, Grid, make_plan, order_names, parallel_tax, rank_orders, tax_by_step
from orderbench.orders.designed import exchange, greedy
from orderbench.orders.field import step_taxes

SQUARE = Grid(16, 16)
FIELDS = [Field(), Field(length=1), Field(length=12), Field("power", 2.0, 1.5), Field("power", 4.0, 0.5)]


def brute_force_tax(plan_text: str, grid: Grid, field: Field) -> float:
    """From the definition: Gaussian entropies of whole conditional distributions, by Schur complements, no Cholesky."""
    plan = make_plan(plan_text, grid)
    points = [divmod(cell, grid.cols) for cell in range(grid.n_cells)]
    covariance = np.array([[field_value(field, math.dist(a, b)) + 1e-6 * (a == b) for b in points] for a in points])
    total, known = 0.0, []
    cells = plan.cells_for([0])[0].tolist()
    for size in plan.sizes:
        now, cells = cells[:size], cells[size:]
        conditional = covariance[np.ix_(now, now)]
        if known:
            across = covariance[np.ix_(now, known)]
            conditional = conditional - across @ np.linalg.solve(covariance[np.ix_(known, known)], across.T)
        entropy = 0.5 * math.log((2 * math.pi * math.e) ** size * np.linalg.det(conditional))
        singles = sum(0.5 * math.log(2 * math.pi * math.e * variance) for variance in conditional.diagonal())
        total += singles - entropy
        known += now
    return total / math.log(2) / grid.n_cells


def field_value(field: Field, d: float) -> float:
    return math.exp(-d / field.length) if field.kind == "exp" else (1 + d / field.length) ** -field.power


@pytest.mark.parametrize("field", FIELDS, ids=str)
@pytest.mark.parametrize(
    "text", ["raster@even:3", "radial", "diagonal", "checkerboard", "halton@cosine:5", "random@even:2"]
)
def test_tax_equals_the_definition(text: str, field: Field) -> None:
    plan = make_plan(text, Grid(4, 4))
    assert parallel_tax(plan, field) == pytest.approx(brute_force_tax(text, Grid(4, 4), field), abs=1e-8)


@pytest.mark.parametrize(
    ("text", "tax"), [("raster@even:13", 0.2455), ("radial@native", 0.1169), ("halton@cosine:13", 0.00673)]
)
def test_reference_points(text: str, tax: float) -> None:
    assert parallel_tax(make_plan(text, SQUARE)) == pytest.approx(tax, abs=1e-4)


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_one_cell_at_a_time_pays_nothing_and_one_step_pays_most(field: Field) -> None:
    for name in ("raster", "radial@one", "random", "designed@one"):
        assert parallel_tax(make_plan(name, Grid(6, 7)), field) == 0
    everything = parallel_tax(make_plan("raster@even:1", Grid(6, 7)), field)
    assert everything == pytest.approx(parallel_tax(make_plan("halton@even:1", Grid(6, 7)), field))
    assert everything > parallel_tax(make_plan("halton@even:2", Grid(6, 7)), field) > 0


def test_steps_add_up() -> None:
    plan = make_plan("radial", SQUARE)
    taxes = tax_by_step(plan)
    assert taxes.shape == (13,)
    assert taxes[0] == 0  # a single cell
    assert taxes.sum() / 256 == pytest.approx(parallel_tax(plan))


@pytest.mark.parametrize(
    "field", [Field(length=0.1), Field(), Field(length=1000), Field("power", 100.0, 0.01)], ids=str
)
def test_stable_on_32x32(field: Field) -> None:
    for text in ("raster@even:13", "radial", "checkerboard", "halton@cosine:13"):
        taxes = tax_by_step(make_plan(text, Grid(32, 32)), field)
        assert np.isfinite(taxes).all()
        assert taxes.min() > -1e-9


@given(rows=st.integers(1, 6), cols=st.integers(1, 6), seed=st.integers(0, 99))
def test_cutting_a_step_in_two_never_costs(rows: int, cols: int, seed: int) -> None:
    n = rows * cols
    plans = [
        make_plan(f"random:shared=true@even:{T}", Grid(rows, cols), seed=seed) for T in (1, min(2, n), min(4, n), n)
    ]
    taxes = [parallel_tax(plan) for plan in plans]
    assert all(after <= before + 1e-12 for before, after in zip(taxes, taxes[1:], strict=False))  # noqa: RUF007


def test_ranking_is_by_the_best_pace_beside_equal_step_sizes_and_averages_what_draws() -> None:
    lines = rank_orders(Grid(8, 8), "cosine:6", seeds=3)
    assert {line.order for line in lines} == set(order_names())
    assert lines[-1].order == "scales"  # it serves pyramids alone
    taxes = [round(line.best_bits, 12) for line in lines[:-1]]  # type: ignore[arg-type]
    assert taxes == sorted(taxes)
    assert all(line.best_bits <= line.tax_bits + 1e-12 for line in lines[:-1])  # type: ignore[operator]
    by_name = {line.order: line for line in lines}
    assert by_name["locality"].best_pace != "optimal:6"  # it is built for sizes, and cannot wait for them
    assert {by_name[name].best_pace for name in ("raster", "halton", "random", "designed")} == {"optimal:6"}
    best = [parallel_tax(make_plan("random@optimal:6", Grid(8, 8), seed=seed)) for seed in range(3)]
    assert by_name["random"].best_bits == pytest.approx(np.mean(best))
    assert by_name["random"].plans == 3
    assert by_name["random"].spread_bits is not None
    assert by_name["radial"].plans == 1
    drawn = [parallel_tax(make_plan("random@cosine:6", Grid(8, 8), seed=seed)) for seed in range(3)]
    assert by_name["random"].tax_bits == pytest.approx(np.mean(drawn))


def test_ranking_names_what_it_could_not_serve() -> None:
    last = {line.order: line for line in rank_orders(Grid(5, 5), "cosine:4", seeds=1) if line.tax_bits is None}
    assert set(last) == {"regions", "scales"}
    assert "m=1, 5 would do" in (last["regions"].refusal or "")


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"kind": "gauss"}, "no field named 'gauss'; exp or power would do"),
        ({"length": 0.0}, "the field's length is 0; it must be above 0, as in --length 2"),
        ({"kind": "power", "power": -1.0}, "the field's power is -1; it must be above 0, as in --power 2"),
        ({"length": math.inf}, "the field's length is inf"),
    ],
)
def test_fields_check_themselves(keywords: dict[str, object], sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        Field(**keywords)  # type: ignore[arg-type]
    assert sentence in str(refusal.value)


def test_too_large_a_lattice_for_the_field_is_refused() -> None:
    with pytest.raises(BenchError, match="the field serves up to 4096"):
        parallel_tax(make_plan("raster", Grid(65, 64)))


# The designed order


@pytest.mark.parametrize("steps", [8, 13, 20, 32])
def test_designed_beats_every_other_order_on_its_field(steps: int) -> None:
    lines = rank_orders(SQUARE, f"cosine:{steps}")
    assert lines[0].order == "designed"  # at the pace that suits each
    common = sorted(line.tax_bits for line in lines if line.tax_bits is not None)
    assert lines[0].tax_bits == common[0] < 0.6 * common[1]


def test_designed_beats_the_plain_greedy_it_starts_from() -> None:
    covariance, sizes = Field().covariance(SQUARE), make_plan("raster@cosine:13", SQUARE).sizes
    start = greedy(covariance, sizes)
    before, after = (
        step_taxes(covariance, cells, sizes).sum() for cells in (start, exchange(covariance, start, sizes))
    )
    assert after < before
    assert parallel_tax(make_plan("designed@cosine:13", SQUARE)) <= after / math.log(2) / 256 + 1e-9


def test_exchange_ends_where_no_trade_between_neighbouring_steps_gains() -> None:
    grid, plan = Grid(4, 5), make_plan("designed@even:4", Grid(4, 5))
    covariance, cells, sizes = Field().covariance(grid), plan.cells_for([0])[0], plan.sizes
    edges = np.cumsum([0, *sizes])
    least = step_taxes(covariance, cells, sizes).sum()
    for step in range(len(sizes) - 1):
        for i in range(edges[step], edges[step + 1]):
            for j in range(edges[step + 1], edges[step + 2]):
                traded = cells.copy()
                traded[[i, j]] = traded[[j, i]]
                assert step_taxes(covariance, traded, sizes).sum() > least - 2e-7


@pytest.mark.parametrize("length", [1, 40])
def test_designed_for_another_field_is_another_plan_and_better_there(length: int) -> None:
    field = Field(length=float(length))
    own = make_plan(f"designed:length={length}@cosine:8", Grid(10, 10))
    default = make_plan("designed@cosine:8", Grid(10, 10))
    assert own != default
    assert parallel_tax(own, field) < parallel_tax(default, field)
