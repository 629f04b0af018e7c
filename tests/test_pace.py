"""Paces: the sheets' published sizes, and exactly T non-empty steps wherever a law is served."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbench.orders import BenchError, Grid, Pace

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
