"""Paces: the sheets' published sizes, and exactly T non-empty steps wherever a law is served."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbench.orders import (
    BenchError,
    Field,
    Grid,
    Pace,
    get_order,
    make_plan,
    order_names,
    parallel_tax,
    parse_lattice,
)
from orderbench.orders.field import factored, least_tax, optimal, span_taxes, step_taxes
from orderbench.orders.pace import paces_in

LAWS = ("even", "cosine", "arccos", "randar", "halton", "lpd")
SQUARE = Grid(16, 16)


def sizes(text: str, grid: Grid = SQUARE) -> list[int]:
    return list(Pace.parse(text).sizes(grid))


PUBLISHED = {
    # ARPG, the sheet's section 1.1
    "arccos:32": [6, 5, 5, 5, 5, 5, 5, 6, 5, 5, 6, 5, 6, 5, 6, 6, 6, 6, 6, 7, 6, 7, 7, 8, 8, 8, 9, 10, 11, 14, 17, 40],
    "arccos:16": [11, 10, 10, 11, 10, 11, 11, 12, 12, 13, 13, 15, 16, 19, 25, 57],
    "cosine:16": [2, 3, 7, 8, 11, 13, 15, 16, 19, 20, 22, 23, 23, 25, 24, 25],
    # RandAR, section 2.1
    "randar:32": [1, 1, 1, 2, 3, 4, 3, 5, 5, 6, 6, 7, 7, 8, 8, 8, 10, 9, 10, 10, 11, 11, 11, 12,
                  11, 12, 12, 13, 12, 12, 13, 12],
    # LPD, section 3.1 (tables)
    "lpd:20": [1, 2, 4, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 18, 19, 19, 20, 20, 20],
    "lpd:32": [1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 10, *[11] * 4, *[12] * 8],
    # Halton, section 5.1
    "halton:32": [*[5] * 7, 6, 5, 5, 6, 5, 6, 5, *[6] * 5, 7, 6, 7, 7, 8, 8, 8, 9, 10, 11, 14, 17, 41],
    "halton:12": [13, 14, 14, 14, 15, 15, 16, 17, 20, 22, 28, 68],
    # EAR, its sheet's section 3.1
    "ear-shells": list(range(1, 32, 2)),
    "ear-sides": [*sorted([*range(1, 16)] * 2), 16],
}  # fmt: skip


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_sizes(text: str) -> None:
    assert sizes(text) == PUBLISHED[text]


def test_published_features_of_longer_schedules() -> None:
    arccos, cosine, randar = sizes("arccos:64"), sizes("cosine:64"), sizes("randar:88")
    assert arccos[:8] == [3, 3, 2, 3, 2, 3, 2, 3]
    assert arccos[-8:] == [6, 5, 7, 7, 7, 10, 12, 28]
    assert (max(arccos), min(arccos), max(cosine)) == (28, 2, 7)
    assert cosine[:20] == [1] * 13 + [2, 3, 2, 2, 3, 3, 3]
    assert randar[:24] == [1] * 24
    assert randar[24] > 1
    assert sizes("halton:32", Grid(24, 24))[0] == 11
    assert sizes("halton:32", Grid(24, 24))[-5:] == [22, 25, 30, 39, 92]


def test_one_step_a_cell_is_all_ones() -> None:
    for law in LAWS:
        assert set(sizes(f"{law}:256")) == {1}


def test_ear_on_an_oblong_grid_clips_the_square() -> None:
    assert sizes("ear-shells", Grid(2, 4)) == [1, 3, 2, 2]
    assert sizes("ear-sides", Grid(2, 4)) == [1, 1, 2, 2, 2]


@given(st.sampled_from(LAWS), st.integers(1, 14), st.integers(1, 14), st.data())
def test_laws_give_exactly_T_steps_none_empty(law: str, rows: int, cols: int, data: st.DataObject) -> None:
    n = rows * cols
    T = data.draw(st.integers(2 if law in ("randar", "lpd") and n > 1 else 1, n))
    got = sizes(f"{law}:{T}", Grid(rows, cols))
    assert (len(got), sum(got)) == (T, n)
    assert min(got) >= 1
    if law == "lpd":
        assert got == sorted(got)
        assert got[0] == 1
    if law == "even":
        assert max(got) - min(got) <= 1


@pytest.mark.parametrize("law", LAWS)
def test_laws_serve_every_T_on_the_usual_lattices(law: str) -> None:
    for n in (16, 64, 256, 576):
        side = round(n**0.5)
        for T in range(2, n + 1):
            got = sizes(f"{law}:{T}", Grid(side, side))
            assert (len(got), sum(got), min(got) >= 1) == (T, n, True), T


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cosin:13", "no pace named 'cosin'; did you mean 'cosine'?"),
        ("cosine", "needs a number of steps of 1 or more, as in cosine:13"),
        ("even:0", "needs a number of steps of 1 or more, as in even:13"),
        ("even:x", "needs a number of steps"),
        ("even:-3", "needs a number of steps"),
        ("native:13", "takes no number of steps; write native"),
        ("even:257", "asks for 257 steps on a 16x16 grid of 256 cells; 1 to 256 would do, as in even:13"),
        ("randar:1", "asks for 1 step on a 16x16 grid of 256 cells; 2 to 256 would do, as in randar:13"),
    ],
)  # fmt: skip
def test_refusals_say_what_would_do(text: str, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        sizes(text)
    assert sentence in str(refusal.value)


def test_paces_check_themselves() -> None:
    with pytest.raises(BenchError, match="no pace named 'nonsense'"):
        Pace("nonsense", 4)
    with pytest.raises(BenchError, match="the pace 'even' needs a number of steps"):
        Pace("even")


# The sizes of least tax

POINTS = {  # bits per token on 16x16, exp(-d/4), 13 steps
    "raster@even:13": 0.2455, "raster@cosine:13": 0.2811, "raster@optimal:13": 0.2385,
    "radial": 0.1169, "radial@cosine:13": 0.1246, "radial@optimal:13": 0.1071,
    "halton@cosine:13": 0.0067, "halton@optimal:13": 0.0025,
    "dither@cosine:13": 0.0049, "dither@optimal:13": 0.0005, "designed@cosine:13": 0.0010,
}  # fmt: skip


@pytest.mark.parametrize("text", POINTS)
def test_the_points_that_were_known_before(text: str) -> None:
    assert parallel_tax(make_plan(text, SQUARE)) == pytest.approx(POINTS[text], abs=1e-4)


WALKS = [name for name in order_names() if name != "scales" and not get_order(name).sized and name != "regions"]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(WALKS), st.integers(2, 6), st.integers(2, 7), st.data())
def test_no_pace_of_as_many_steps_pays_less(name: str, rows: int, cols: int, data: st.DataObject) -> None:
    grid = Grid(rows, cols)
    steps = data.draw(st.integers(1, grid.n_cells))
    best = make_plan(f"{name}@optimal:{steps}", grid)
    assert best.n_steps == steps
    samples = range(8) if best.per_sample else range(1)  # a walk for every sample: the sizes are fitted to the first 8
    least = parallel_tax(best, samples=samples)
    for pace in paces_in(steps):
        try:
            other = make_plan(name, grid, str(pace))
        except BenchError:
            continue
        if other.n_steps == steps:
            assert least <= parallel_tax(other, samples=samples) + 1e-9


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(8)), st.integers(1, 8), st.sampled_from([1.0, 4.0, 12.0]))
def test_least_tax_is_the_least_of_all_cuts(walk: list[int], steps: int, length: float) -> None:
    covariance, cells_L = Field(length=length).covariance(Grid(2, 4)), np.array(walk)
    sizes = least_tax(span_taxes(factored(covariance, cells_L)), steps)
    edges = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), steps - 1)]
    cuts = [tuple(np.diff(one)) for one in edges]
    costs = [step_taxes(covariance, cells_L, cut).sum() for cut in cuts]
    assert step_taxes(covariance, cells_L, sizes).sum() == pytest.approx(min(costs), abs=1e-8)


def test_a_span_costs_what_a_step_of_its_cells_costs() -> None:
    covariance, cells_L = Field().covariance(Grid(3, 4)), np.random.default_rng(0).permutation(12)
    spans = span_taxes(factored(covariance, cells_L))
    taxes = step_taxes(covariance, cells_L, (3, 1, 5, 3))
    assert [spans[0, 3], spans[3, 4], spans[4, 9], spans[9, 12]] == pytest.approx(taxes.tolist(), abs=1e-12)
    assert math.isinf(spans[4, 4])


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(12)), st.sampled_from([0.5, 4.0, 30.0]))
def test_spans_obey_the_quadrangle_inequality_and_each_further_step_saves_less(walk: list[int], length: float) -> None:
    spans = span_taxes(factored(Field(length=length).covariance(Grid(3, 4)), np.array(walk)))
    for a, b, c, d in itertools.combinations(range(13), 4):
        assert spans[a, c] + spans[b, d] <= spans[a, d] + spans[b, c] + 1e-9
    edges = [np.cumsum([0, *least_tax(spans, steps)]) for steps in range(1, 13)]
    least = np.array([spans[edge[:-1], edge[1:]].sum() for edge in edges])
    assert np.diff(least).max() <= 1e-9
    assert np.diff(least, 2).min() >= -1e-8


def test_sizes_of_walks_that_samples_draw_are_fitted_to_eight_of_them() -> None:
    plan = make_plan("random@optimal:6", Grid(5, 5))
    assert plan.per_sample
    assert plan.sizes == optimal(Grid(5, 5), plan.cells_for(range(8)), 6) != optimal(Grid(5, 5), plan.cells_for([0]), 6)


DESIGNED = {  # on 16x16: the digests of the plans before sizes could be designed too
    "designed@cosine:13": "f8f995e67f74", "designed@even:8": "aaf275fb4a2a",
    "designed:length=12@cosine:8": "c8671b2def04",
}  # fmt: skip


def test_designed_at_other_paces_is_the_plan_that_it_was() -> None:
    digests = {text: make_plan(text, SQUARE).digest[:12] for text in DESIGNED}
    assert digests == DESIGNED


@pytest.mark.parametrize("length", [2, 12])
def test_designed_with_its_own_sizes_pays_less_than_any_other_order(length: int) -> None:
    grid, steps, field = Grid(8, 8), 9, Field(length=length)
    covariance = field.covariance(grid)
    designed = parallel_tax(make_plan(f"designed:length={length}@optimal:{steps}", grid), field)
    assert designed < parallel_tax(make_plan(f"designed:length={length}@cosine:{steps}", grid), field)
    for name in order_names():
        if name not in ("designed", "locality", "scales"):
            walks = make_plan(name, grid, "one").cells_for(range(4))[: 4 if get_order(name).per_sample else 1]
            spans = [span_taxes(factored(covariance, walk_L)) for walk_L in walks]
            other = np.mean([step_taxes(covariance, w, least_tax(np.mean(spans, axis=0), steps)).sum() for w in walks])
            assert designed < other / math.log(2) / grid.n_cells, name


@pytest.mark.parametrize(
    ("text", "lattice", "sentence"),
    [
        ("locality@optimal:13", "16", "cannot be built for those that optimal:13 fits to its cells; give it a pace"),
        ("raster@optimal:13", "1/2/4", "the field is defined on one grid"),
        ("designed@optimal:5", "1/2/4", "designs its step sizes on one grid and does not serve 1/2/4"),
        (
            "raster@optimal:300",
            "16",
            "the pace 'optimal:300' asks for 300 steps on a 16x16 grid of 256 cells; 1 to 256",
        ),
        ("designed@optimal:300", "16", "the pace 'optimal:300' asks for 300 steps"),
        ("raster@optimal", "16", "the pace 'optimal' needs a number of steps of 1 or more, as in optimal:13"),
    ],
)
def test_where_no_sizes_can_be_fitted(text: str, lattice: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        make_plan(text, parse_lattice(lattice))
