"""The naive networks of tests/reference_onestack.py against what their descriptions promise, and against each other."""

import math
import random
from collections.abc import Callable

import pytest
import torch
from reference_onestack import (
    FAMILIES,
    decoding,
    diagonal_plan,
    ear_plan,
    par_mask,
    par_plan,
    parameter_count,
    random_weights,
    raster_plan,
    teacher_forced,
    turned,
    turns,
)
from torch import Tensor

TINY = {"codes": 11, "classes": 3, "width": 32, "heads": 2, "layers": 2}
HEADS = 2
Plan = tuple[list[int], list[int]]


def shuffled(side: int) -> Plan:
    """Any order, in groups of 1, 2, 3, 4, ..."""
    cells = list(range(side * side))
    random.Random(5).shuffle(cells)  # noqa: S311
    sizes = []
    while (left := len(cells) - sum(sizes)) > 0:
        sizes.append(min(len(sizes) + 1, left))
    return cells, sizes


def one_by_one(side: int) -> Plan:
    return shuffled(side)[0], [1] * side * side


CASES: list[tuple[str, Callable[[int], Plan]]] = [
    ("llamagen", raster_plan),
    ("par", lambda side: par_plan(side, 2)),
    ("ear", lambda side: ear_plan(side, "shells")),
    ("ear", lambda side: ear_plan(side, "sides")),
    ("ear-adaln", lambda side: ear_plan(side, "sides")),
    ("randar", one_by_one),
    ("lpd", shuffled),
    ("lpd", one_by_one),
    ("nar", diagonal_plan),
]


def sample(side: int, seed: int = 0) -> list[int]:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(TINY["codes"], (side * side,), generator=g).tolist()


def assert_same(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max()) < 1e-10


# ---- Orders ----------------------------------------------------------------------------------------------------------


def ranks(plan: Plan, side: int) -> list[list[int]]:
    cells, sizes = plan
    assert sorted(cells) == list(range(side * side))
    assert sum(sizes) == side * side
    return [[cells.index(row * side + col) for col in range(side)] for row in range(side)]


def test_par_ranks() -> None:
    assert ranks(par_plan(4, 2), 4) == [[0, 4, 1, 5], [8, 12, 9, 13], [2, 6, 3, 7], [10, 14, 11, 15]]
    six = ranks(par_plan(6, 2), 6)
    assert [six[0], six[1], six[3]] == [[0, 4, 8, 1, 5, 9], [12, 16, 20, 13, 17, 21], [2, 6, 10, 3, 7, 11]]
    eight = ranks(par_plan(8, 4), 8)
    assert [eight[0], eight[2]] == [[0, 16, 1, 17, 2, 18, 3, 19], [4, 20, 5, 21, 6, 22, 7, 23]]


@pytest.mark.parametrize(("side", "m", "steps"), [(24, 2, 147), (24, 4, 51), (16, 2, 67), (16, 4, 31)])
def test_par_steps(side: int, m: int, steps: int) -> None:
    assert len(par_plan(side, m)[1]) == steps


def test_ear_ranks() -> None:
    assert ranks(ear_plan(4, "sides"), 4) == [[6, 7, 8, 9], [5, 0, 1, 10], [4, 3, 2, 11], [15, 14, 13, 12]]
    assert ranks(ear_plan(6, "shells"), 6) == [
        [20, 21, 22, 23, 24, 25],
        [19, 6, 7, 8, 9, 26],
        [18, 5, 0, 1, 10, 27],
        [17, 4, 3, 2, 11, 28],
        [16, 15, 14, 13, 12, 29],
        [35, 34, 33, 32, 31, 30],
    ]
    cells, _ = ear_plan(16, "sides")
    first = [(7, 7), (7, 8), (8, 8), (8, 7), (8, 6), (7, 6), (6, 6), (6, 7), (6, 8), (6, 9), (7, 9), (8, 9), (9, 9)]
    assert [divmod(cell, 16) for cell in cells[:13]] == first
    assert divmod(cells[-1], 16) == (15, 0)
    assert divmod(ear_plan(24, "sides")[0][0], 24) == (11, 11)


def test_ear_steps_and_positions() -> None:
    """1, 3, 5, ..., 31 and 1, 1, 2, 2, ..., 15, 15, 16; 482 and 497 slots are pushed through the network."""
    shells, sides = ear_plan(16, "shells")[1], ear_plan(16, "sides")[1]
    assert shells == list(range(1, 32, 2))
    assert sides == [k for k in range(1, 16) for _ in range(2)] + [16]
    assert [1 + 256 - sizes[-1] + 256 for sizes in (shells, sides)] == [482, 497]


@pytest.mark.parametrize("side", [4, 5, 6, 16])
def test_every_step_of_ear_completes_a_rectangle(side: int) -> None:
    cells, sizes = ear_plan(side, "sides")
    for step in range(len(sizes)):
        done = [divmod(cell, side) for cell in cells[: sum(sizes[: step + 1])]]
        rows, cols = {row for row, _ in done}, {col for _, col in done}
        assert len(done) == len(rows) * len(cols)
        assert abs(len(rows) - len(cols)) <= 1


def test_diagonals() -> None:
    assert diagonal_plan(3) == ([0, 1, 3, 2, 4, 6, 5, 7, 8], [1, 2, 3, 2, 1])
    assert len(diagonal_plan(16)[1]) == 31


def test_par_mask_rows() -> None:
    assert par_mask(19, 4).sum(1).tolist()[:16] == [1, 2, 3, 4, *[8] * 4, *[12] * 4, *[16] * 4]
    for row in par_mask(16, 4).tolist():  # what is seen is a beginning of the sequence
        assert row == sorted(row, reverse=True)


# ---- Sizes -----------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "llamagen": {
        "B": 110_888_448,
        "L": 342_910_976,
        "XL": 774_699_520,
        "XXL": 1_410_972_672,
        "3B": 3_096_659_200,
    },
    "ear": {"B": 98_306_304, "L": 326_134_784, "XL": 753_729_280},
    "ear-adaln": {"B": 140_828_928, "L": 477_277_184, "XL": 1_107_900_160},
    "randar": {"L": 342_912_000, "XL": 774_700_800, "XXL": 1_410_974_208},
    "lpd": {"L": 337_157_120, "XL": 751_947_520, "XXL": 1_412_184_576},
    "nar": {"B": 130_551_552, "M": 295_453_696, "L": 372_536_320, "XL": 815_991_040, "XXL": 1_464_454_656},
}


@pytest.mark.parametrize(
    ("family", "size", "count"), [(f, s, count) for f, sizes in PUBLISHED.items() for s, count in sizes.items()]
)
def test_published_sizes(family: str, size: str, count: int) -> None:
    assert parameter_count(family, size) == count


@pytest.mark.parametrize(("size", "width"), [("L", 1024), ("XL", 1280), ("XXL", 1536), ("3B", 3200)])
@pytest.mark.parametrize("m", [2, 4])
def test_par_adds_its_bridges_alone(size: str, width: int, m: int) -> None:
    assert parameter_count("par", size, m=m) == PUBLISHED["llamagen"][size] + (m * m - 1) * width


# ---- Logits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 6])
@pytest.mark.parametrize(("family", "plan"), CASES)
def test_decoding_sees_what_training_sees(family: str, plan: Callable[[int], Plan], side: int) -> None:
    weights = random_weights(family, **TINY, side=side, seed=1)
    codes = sample(side)
    args = (family, weights, codes, 2, *plan(side))
    assert_same(teacher_forced(*args, heads=HEADS), decoding(*args, heads=HEADS))


def test_three_layers_and_sixteen_regions() -> None:
    weights = random_weights("par", **TINY | {"layers": 3}, side=8, seed=1, m=4)
    args = ("par", weights, sample(8), 0, *par_plan(8, 4))
    assert_same(teacher_forced(*args, heads=HEADS), decoding(*args, heads=HEADS))


def test_float32_weights_give_float32_logits_nearby() -> None:
    weights = random_weights("lpd", **TINY, side=4, seed=1)
    single = {name: value.float() for name, value in weights.items()}
    args = (sample(4), 2, *shuffled(4))
    near = teacher_forced("lpd", single, *args, heads=HEADS)
    assert near.dtype == torch.float32
    assert float((near - teacher_forced("lpd", weights, *args, heads=HEADS)).abs().max()) < 1e-5


def test_the_first_query_of_a_randar_step_alone_is_teacher_forced() -> None:
    weights = random_weights("randar", **TINY, side=4, seed=1)
    cells, sizes = shuffled(4)
    forced, decoded = (
        way("randar", weights, sample(4), 1, cells, sizes, heads=HEADS) for way in (teacher_forced, decoding)
    )
    at = 0
    for size in sizes:
        assert_same(forced[cells[at]], decoded[cells[at]])
        for cell in cells[at + 1 : at + size]:
            assert float((forced[cell] - decoded[cell]).abs().max()) > 1e-3
        at += size


@pytest.mark.parametrize("way", [teacher_forced, decoding])
@pytest.mark.parametrize(("family", "plan"), [*CASES, ("randar", shuffled)])
def test_a_changed_token_moves_all_that_is_later_and_nothing_else(
    family: str, plan: Callable[[int], Plan], way: Callable[..., Tensor]
) -> None:
    weights = random_weights(family, **TINY, side=4, seed=1)
    cells, sizes = plan(4)
    if family == "randar" and way is teacher_forced:
        sizes = [1] * 16  # its training knows no groups
    step = len(sizes) // 2
    before, after = sum(sizes[:step]), sum(sizes[: step + 1])
    codes = sample(4)
    changed = list(codes)
    changed[cells[before]] = (codes[cells[before]] + 1) % TINY["codes"]
    a, b = (way(family, weights, c, 2, cells, sizes, heads=HEADS) for c in (codes, changed))
    moved = [float((a[cell] - b[cell]).abs().max()) for cell in cells]
    assert max(moved[:after]) < 1e-12
    assert min(moved[after:]) > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_and_every_label_counts(family: str) -> None:
    """Codes, classes and positions in use are rows; any other tensor moves the logits as a whole."""
    plan = dict(CASES)[family]
    weights = random_weights(family, **TINY, side=4, seed=1)
    codes = [k % TINY["codes"] for k in range(16)]
    base = teacher_forced(family, weights, codes, 2, *plan(4), heads=HEADS)
    for label in (0, 1, TINY["classes"]):
        other = teacher_forced(family, weights, codes, label, *plan(4), heads=HEADS)
        assert float((other - base).abs().max()) > 1e-3
    for name, value in weights.items():
        if name == "fake_latent":  # the dropped class, asked for above
            continue
        g = torch.Generator().manual_seed(0)
        noise = 0.1 * torch.randn(value.shape, generator=g, dtype=value.dtype)
        other = teacher_forced(family, weights | {name: value + noise}, codes, 2, *plan(4), heads=HEADS)
        assert float((other - base).abs().max()) > 1e-4, name


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_of_a_size_that_a_tolerance_can_see(family: str) -> None:
    plan = dict(CASES)[family]
    weights = random_weights(family, **TINY, side=4, seed=1)
    logits = teacher_forced(family, weights, sample(4), 2, *plan(4), heads=HEADS)
    assert logits.shape == (16, 11)
    assert 0.3 < float(logits.std()) < 3
    assert float(logits.std(0).min()) > 0.02  # cells differ
    assert math.isfinite(float(logits.sum()))


def test_neighbouring_channels_turn_together_first_by_row_then_by_column() -> None:
    x = torch.tensor([[1.0, 0, 1, 0, 0, 1, 0, 1]] * 2, dtype=torch.float64)  # two heads of two pairs
    cos, sin = turns([2 * 4 + 3, None], 4, 4, x)
    row, col = (math.cos(2), math.sin(2)), (math.cos(3), math.sin(3))
    expected = torch.tensor([*row, *col, -row[1], row[0], -col[1], col[0]], dtype=torch.float64)
    assert_same(turned(x, cos, sin, 2), torch.stack([expected, torch.zeros(8)]))
    eight, _ = turns([5], 4, 8, x)  # cell (1, 1): the second frequency is 10000 ** (-1 / 2)
    assert_same(eight[0], torch.tensor([1, 0.01, 1, 0.01], dtype=torch.float64).cos())


def test_the_class_key_has_score_zero_and_its_query_looks_evenly() -> None:
    """LlamaGen's class slot is turned by cos = sin = 0: the q and k rows of its projection never matter there."""
    weights = random_weights("llamagen", **TINY, side=4, seed=1)
    plan, codes = raster_plan(4), sample(4)
    base = teacher_forced("llamagen", weights, codes, 2, *plan, heads=HEADS)
    projection = weights["layers.0.attention.wqkv.weight"].clone()
    projection[:64] *= 3
    other = weights | {"layers.0.attention.wqkv.weight": projection}
    moved = (teacher_forced("llamagen", other, codes, 2, *plan, heads=HEADS) - base).abs().amax(1)
    assert float(moved[0]) == 0
    assert float(moved[1:].min()) > 1e-6
