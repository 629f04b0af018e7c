"""Orders: the contract over the whole registry, the sheets' reference orders, and refusals that help."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbench.orders import BenchError, Grid, draw, make_plan, order_names
from orderbench.orders.contract import check_on, check_order, check_plan, paces_on
from orderbench.orders.order import get_order

SQUARE = Grid(16, 16)


def steps(text: str, rows: int, cols: int | None = None) -> list[list[int]]:
    """The rank (or step) of every cell, as the sheets print it."""
    return [[int(step) for step in line.split()] for line in draw(text, Grid(rows, cols or rows)).splitlines()]


# The contract


@pytest.mark.parametrize("name", order_names())
def test_every_registered_order_keeps_the_contract(name: str) -> None:
    verdict = check_order(name)
    assert verdict.findings == ()
    assert len(verdict.served) >= {"regions": 4, "scales": 2}.get(name, 11)


@settings(max_examples=12)
@pytest.mark.parametrize("name", order_names())
@given(rows=st.integers(1, 9), cols=st.integers(1, 9), data=st.data())
def test_plans_on_any_grid_at_any_pace(name: str, rows: int, cols: int, data: st.DataObject) -> None:
    grid = Grid(rows, cols)
    pace = data.draw(st.sampled_from(paces_on(grid, get_order(name))))
    seed = data.draw(st.integers(0, 2**63 - 1))
    if name == "scales" or (name == "regions" and (rows % 2 or cols % 2)):  # all others serve every grid
        with pytest.raises(BenchError, match=r"would do|as in --grid 1/2/4/8"):
            make_plan(name, grid, str(pace), seed)
        return
    plan = make_plan(name, grid, str(pace), seed)
    check_plan(plan, pace)
    check_on(name, grid, [pace])


VARIANTS = [
    *(f"radial:center={c}" for c in ("cell", "middle", "corner", "random", "3x4", "0.5x2.25")),
    *(f"radial:metric={m}:rounding={r}"
      for m in ("euclid", "chebyshev", "manhattan") for r in ("ceil", "floor", "round")),
    "radial:width=0.3", "radial:width=7", "radial:rings=5", "radial:rings=3:metric=chebyshev:center=middle",
    "regions:m=1", "regions:m=4", "regions:m=8", "random:shared=true", "locality:shared=true", "locality:theta=0:rho=0",
    "locality:theta=3:rho=4", "designed:field=power:length=2:power=1.5", "designed:length=40",
    "wavefront:w=1", "wavefront:w=40", "quadtree:grow=4", "skeleton:group=5",
]  # fmt: skip


@pytest.mark.parametrize("text", VARIANTS)
def test_options_keep_the_contract(text: str) -> None:
    check_on(text, Grid(8, 8))
    if not text.startswith("regions"):
        check_on(text, Grid(6, 9))


@given(
    center=st.sampled_from(["cell", "middle", "corner", "random"]),
    metric=st.sampled_from(["euclid", "chebyshev", "manhattan"]),
    rings=st.integers(1, 40), rows=st.integers(1, 12), cols=st.integers(1, 12),
)  # fmt: skip
def test_rings_are_as_many_as_asked_or_refused_with_a_number_that_works(
    center: str, metric: str, rings: int, rows: int, cols: int
) -> None:
    grid, text = Grid(rows, cols), f"radial:center={center}:metric={metric}"
    try:
        assert make_plan(f"{text}:rings={rings}", grid).n_steps == rings
    except BenchError as refusal:
        offered = int(str(refusal).rsplit("rings=", 1)[1])
        assert make_plan(f"{text}:rings={offered}", grid).n_steps == offered
        nearer = range(max(1, rings - abs(offered - rings) + 1), rings + abs(offered - rings))
        for between in nearer:
            with pytest.raises(BenchError, match="not served"):
                make_plan(f"{text}:rings={between}", grid)


# Reference orders of the sheets


def test_par_rank_matrices() -> None:
    assert steps("regions@one", 4) == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    six = steps("regions@one", 6)
    assert [six[0], six[1], six[3]] == [[0, 4, 8, 1, 5, 9], [12, 16, 20, 13, 17, 21], [2, 6, 10, 3, 7, 11]]
    eight = steps("regions:m=4@one", 8)
    assert [eight[0], eight[2]] == [[0, 16, 1, 17, 2, 18, 3, 19], [4, 20, 5, 21, 6, 22, 7, 23]]


@pytest.mark.parametrize(("side", "m", "n_steps"), [(24, 2, 147), (24, 4, 51), (16, 2, 67), (16, 4, 31)])
def test_par_steps(side: int, m: int, n_steps: int) -> None:
    plan = make_plan(f"regions:m={m}", Grid(side, side))
    assert plan.sizes == (1,) * m**2 + (m**2,) * (side**2 // m**2 - 1)
    assert plan.n_steps == n_steps


def test_ear_spiral() -> None:
    assert steps("spiral", 4) == [[6, 7, 8, 9], [5, 0, 1, 10], [4, 3, 2, 11], [15, 14, 13, 12]]
    assert steps("spiral", 6) == [
        [20, 21, 22, 23, 24, 25], [19, 6, 7, 8, 9, 26], [18, 5, 0, 1, 10, 27],
        [17, 4, 3, 2, 11, 28], [16, 15, 14, 13, 12, 29], [35, 34, 33, 32, 31, 30],
    ]  # fmt: skip
    first = [(7, 7), (7, 8), (8, 8), (8, 7), (8, 6), (7, 6), (6, 6), (6, 7), (6, 8), (6, 9), (7, 9), (8, 9), (9, 9),
             (9, 8), (9, 7), (9, 6), (9, 5)]  # fmt: skip
    cells = make_plan("spiral", SQUARE).cells_for([0])[0]
    assert [divmod(int(cell), 16) for cell in cells[:17]] == first
    assert divmod(int(cells[-1]), 16) == (15, 0)


def walk_a_spiral(rows: int, cols: int) -> list[int]:
    """EAR's walk in words: right, down, left, up; arms 1, 1, 2, 2, ...; keep what lies on the grid."""
    row, col, cells, arm, turn = (rows - 1) // 2, (cols - 1) // 2, [], 1, 0
    cells.append(row * cols + col)
    while len(cells) < rows * cols:
        for _ in range(arm):
            row, col = row + (0, 1, 0, -1)[turn % 4], col + (1, 0, -1, 0)[turn % 4]
            if 0 <= row < rows and 0 <= col < cols:
                cells.append(row * cols + col)
        turn += 1
        arm += turn % 2 == 0
    return cells


@given(rows=st.integers(1, 12), cols=st.integers(1, 12))
def test_spiral_is_the_walk(rows: int, cols: int) -> None:
    walk = walk_a_spiral(rows, cols)
    assert make_plan("spiral", Grid(rows, cols)).cells_for([0])[0].tolist() == walk
    assert make_plan("spiral-in", Grid(rows, cols)).cells_for([0])[0].tolist() == walk[::-1]


@pytest.mark.parametrize("side", [4, 9, 16])
def test_the_spirals_squares_fill_up(side: int) -> None:
    cells = make_plan("spiral", Grid(side, side)).cells_for([0])[0]
    for k in range(1, side + 1):
        rows, cols = np.divmod(cells[: k * k], side)
        assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == (k, k)


def test_halton_starts_as_released() -> None:
    cells = make_plan("halton", SQUARE).cells_for([0])[0]
    assert [divmod(int(c), 16) for c in cells[:6]] == [(8, 5), (4, 10), (12, 1), (2, 7), (10, 12), (6, 3)]


@pytest.mark.parametrize(
    ("side", "points"), [(8, 79), (12, 319), (16, 685), (24, 2201), (32, 2292), (48, 7070), (64, 10363)]
)
def test_halton_reaches_every_cell_after_the_published_number_of_points(side: int, points: int) -> None:
    from orderbench.orders.scatter import radical_inverse

    i = np.arange(1, points + 1)
    cells = radical_inverse(i, 2, side) * side + radical_inverse(i, 3, side)
    assert len(np.unique(cells)) == side * side
    assert len(np.unique(cells[:-1])) == side * side - 1


def test_nar_diagonals() -> None:
    plan = make_plan("diagonal", SQUARE)
    assert plan.sizes == (*range(1, 17), *range(15, 0, -1))
    assert plan.cells_for([0])[0][3:6].tolist() == [2, 17, 32]  # by increasing row: the top right first


RINGS = {
    "radial": [1, 4, 8, 16, 20, 32, 32, 36, 46, 36, 20, 4, 1],
    "radial:center=middle:metric=chebyshev": [4, 12, 20, 28, 36, 44, 52, 60],
    "radial:metric=chebyshev": [1, 8, 16, 24, 32, 40, 48, 56, 31],
    "radial:rounding=floor": [1, 8, 16, 20, 24, 40, 36, 48, 38, 16, 8, 1],
    "radial:center=middle": [4, 8, 20, 20, 28, 32, 44, 52, 24, 20, 4],
    "radial:center=middle:rounding=floor": [4, 8, 20, 20, 28, 32, 44, 52, 24, 20, 4],
}


@pytest.mark.parametrize("text", RINGS)
def test_ring_sizes(text: str) -> None:
    assert list(make_plan(text, SQUARE).sizes) == RINGS[text]


def test_radial_manhattan_takes_17_steps() -> None:
    plan = make_plan("radial:metric=manhattan", SQUARE)
    assert (plan.n_steps, plan.sizes[:3], max(plan.sizes), plan.sizes[-2:]) == (17, (1, 4, 8), 30, (4, 1))


def test_radial_centres() -> None:
    assert make_plan("radial:center=3x4", SQUARE).cells_for([0])[0][0] == 3 * 16 + 4
    assert make_plan("radial:center=corner", SQUARE).cells_for([0])[0][0] == 0
    assert make_plan("radial", Grid(5, 8)).cells_for([0])[0][0] == 2 * 8 + 4
    assert make_plan("radial:center=8x8", SQUARE) == make_plan("radial", SQUARE)
    assert make_plan("radial:center=random", SQUARE, seed=1) == make_plan("radial:center=random", SQUARE, seed=1)
    assert not make_plan("radial:center=random", SQUARE).per_sample


def test_radial_walks_a_ring_clockwise_from_the_top() -> None:
    assert steps("radial:metric=chebyshev@one", 3) == [[8, 1, 2], [7, 0, 3], [6, 5, 4]]


@given(rows=st.integers(1, 20), cols=st.integers(1, 20))
def test_hilbert_steps_to_neighbours(rows: int, cols: int) -> None:
    row, col = np.divmod(make_plan("hilbert", Grid(rows, cols)).cells_for([0])[0], cols)
    leap = abs(np.diff(row)) + abs(np.diff(col))
    assert (leap == 1).sum() >= rows * cols - 2  # at most one step is longer
    assert leap.max(initial=1) <= 2


def test_dither_is_the_bayer_matrix() -> None:
    assert steps("dither", 4) == [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
    eight = np.array(steps("dither", 8))
    quarter = np.array(steps("dither", 4))
    assert (eight == np.block([[4 * quarter, 4 * quarter + 2], [4 * quarter + 3, 4 * quarter + 1]])).all()


def chebyshev_apart(cells: np.ndarray, side: int) -> int:
    rows, cols = np.divmod(cells, side)
    distance = np.maximum(abs(rows[:, None] - rows), abs(cols[:, None] - cols))
    return int(distance[~np.eye(len(cells), dtype=bool)].min())


def test_locality_keeps_its_groups_apart_and_near_what_is_decoded() -> None:
    plan = make_plan("locality@lpd:20", SQUARE)
    starts = np.cumsum([0, *plan.sizes])
    for cells in plan.cells_for([0, 1, 2]):
        groups = [cells[a:b] for a, b in itertools.pairwise(starts)]
        apart = [chebyshev_apart(group, 16) for group in groups[1:]]
        # The second step has one near cell and the one farthest from it; then the repulsion holds; the last cannot.
        assert apart[0] >= 8
        assert min(apart[:8]) >= 3
        assert apart[-1] == 1
        first, second = divmod(int(groups[0][0]), 16), divmod(int(groups[1][0]), 16)
        assert abs(first[0] - second[0]) + abs(first[1] - second[1]) == 1  # closeness 1 takes a side neighbour


@pytest.mark.parametrize("grid", [Grid(16, 16), Grid(5, 9), Grid(9, 4), Grid(1, 6)])
def test_a_wavefront_lies_between_diagonals_and_raster(grid: Grid) -> None:
    assert make_plan("wavefront:w=1", grid) == make_plan("diagonal", grid)
    assert make_plan(f"wavefront:w={grid.cols}", grid) == make_plan(f"wavefront:w={10**9}", grid)
    assert make_plan(f"wavefront:w={grid.cols}", grid) == make_plan("raster", grid)
    for w in range(1, grid.cols):
        step_RC = make_plan(f"wavefront:w={w}", grid).step_of_cell().reshape(grid.rows, grid.cols)
        assert (step_RC[1:, 0] > step_RC[:-1, w - 1]).all()  # a row begins once the row above has w cells
        assert (np.diff(step_RC, axis=1) > 0).all()  # one cell a row and step


def test_every_step_of_a_quadtree_is_balanced() -> None:
    plan = make_plan("quadtree", SQUARE)
    assert plan.sizes == (1, 1, 2, 4, 8, 16, 32, 64, 128)
    step_RC = plan.step_of_cell().reshape(16, 16)
    for step, side in itertools.product(range(9), (8, 4, 2)):
        taken = (step_RC == step).reshape(16 // side, side, 16 // side, side).sum((1, 3))
        assert taken.max() - taken.min() <= 1  # of quarters of any depth
    assert make_plan("quadtree:grow=4", SQUARE).sizes == (1, 3, 12, 48, 192)
    assert make_plan("quadtree@one", SQUARE) == make_plan("dither", SQUARE)


def test_a_skeleton_leaves_cells_that_have_neighbours_on_all_sides() -> None:
    plan = make_plan("skeleton", SQUARE)
    assert plan.sizes == (1,) * 128 + (128,)
    assert make_plan("skeleton:group=16", SQUARE).sizes == (16,) * 8 + (128,)
    step_RC = plan.step_of_cell().reshape(16, 16)
    rows, cols = np.nonzero(step_RC == 128)
    assert set((rows + cols) % 2) == {1}
    assert make_plan("skeleton", Grid(1, 1)).sizes == (1,)


def test_random_is_one_draw_a_sample_or_one_a_plan() -> None:
    each, shared = make_plan("random", SQUARE), make_plan("random:shared=true", SQUARE)
    a, b = each.cells_for([0, 1])
    assert (a != b).any()
    assert np.array_equal(each.cells_for([1, 0])[1], a)
    assert np.array_equal(shared.cells_for([5])[0], a)  # the shared draw is sample 0's


# Refusals


@pytest.mark.parametrize(
    ("text", "grid", "sentence"),
    [
        ("radail", "16", "no order named 'radail'; did you mean 'radial'?"),
        ("Raster", "16", "'Raster' in 'Raster' is not a name"),
        ("", "16", "'' is not an arm"),
        ("radial@", "16", "'radial@' is not an arm"),
        ("radial:witdh=2", "16", "no option of radial named 'witdh'; did you mean 'width'?"),
        ("raster:width=2", "16", "raster takes no option, but width=2 was given"),
        ("radial:width", "16", "'width' in 'radial:width' is not an option; options are written KEY=VALUE"),
        ("radial:width=2:width=3", "16", "gives width twice"),
        ("radial:width=two", "16", "radial:width=two is not served; width takes a ring's width in cells"),
        ("radial:width=nan", "16", "radial:width=nan is not served"),
        ("radial:width=1e-300", "16", "radial:width=1e-300 is not served; a ring's width is 0.001 or more"),
        ("radial:rings=0", "8", "the nearest number that would do is 1, as in radial:rings=1"),
        ("raster@even:\uff11\uff13", "16", "needs a number of steps of 1 or more"),
        ("radial:width=1_0", "16", "radial:width=1_0 is not served"),
        ("radial:width=0", "16", "radial:width=0 is not served; a ring's width is 0.001 or more"),
        ("radial:metric=cosine", "16", "metric takes euclid, chebyshev, manhattan, as in radial:metric=euclid"),
        ("radial:center=left", "16", "center takes cell, middle, corner, random, or RxC, as in radial:center=cell"),
        ("radial:center=3x16", "16", "the centre 3x16 lies outside a 16x16 grid; rows 0 to 15 and columns 0 to 15"),
        ("radial:rings=99", "8", "the nearest number that would do is 11, as in radial:rings=11"),
        ("radial:rings=3:width=2", "8", "radial takes rings, or width and rounding, not both"),
        ("regions", "5x4", "regions:m=2 does not divide a 5x4 grid; m=1 would do, as in regions:m=1"),
        ("regions:m=5", "12x8", "m=1, 2, 4 would do, as in regions:m=4"),
        ("regions:m=two", "12x8", "m takes regions a side; it must divide rows and columns"),
        ("wavefront:w=0", "16", "wavefront:w=0 is not served; 1 or more would do, as in wavefront:w=4"),
        ("quadtree:grow=3", "16", "quadtree:grow=3 is not served; grow takes 2, 4, as in quadtree:grow=2"),
        ("skeleton:group=0", "16", "skeleton:group=0 is not served; 1 or more would do, as in skeleton:group=4"),
        ("random:shared=maybe", "16", "shared takes true, false: one draw for all samples, as in random:shared=false"),
        ("locality", "16", "'locality' is built for its step sizes and has no native groups; give it a pace, as in"),
        ("designed", "16", "has no native groups; give it a pace, as in designed@cosine:13"),
        ("designed@cosine:13", "33", "designed serves up to 1024 cells, such as 32x32, and a 33x33 grid has 1089"),
        ("designed:length=0@cosine:13", "8", "length=0 is not served; length is above 0, as in designed:length=2"),
        ("locality:rho=-1@cosine:13", "8", "both are 0 or more"),
        ("raster+nested", "8", "names a decoder, which does not change a plan; leave '+nested' out"),
        ("raster@even:999", "8", "asks for 999 steps on a 8x8 grid of 64 cells; 1 to 64 would do"),
    ],
)  # fmt: skip
def test_refusals_say_what_was_given_and_what_would_do(text: str, grid: str, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        make_plan(text, Grid.parse(grid))
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**63, "0"])
def test_seeds_are_whole_numbers(seed: object) -> None:
    with pytest.raises(BenchError, match="give a whole number of 0 or more, as in --seed 0"):
        make_plan("random", SQUARE, seed=seed)  # type: ignore[arg-type]


def test_a_pace_is_given_once() -> None:
    with pytest.raises(BenchError, match="is paced even:4 and the pace one was asked for too"):
        make_plan("raster@even:4", SQUARE, pace="one")
    assert make_plan("raster@even:4", SQUARE, pace="even:4").n_steps == 4
