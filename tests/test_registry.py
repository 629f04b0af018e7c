"""Registering: names, signatures, files and entry points; and what the contract finds in a stranger's order."""

import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from orderbench.orders import (
    BenchError,
    Grid,
    Ranking,
    get_order,
    include_file,
    make_plan,
    order_names,
    register_order,
    registry,
)
from orderbench.orders.contract import check_order
from orderbench.orders.order import ENTRY_POINTS


def add(function: object, name: str = "mine", **keywords: bool) -> None:
    register_order(name, paper="p", idea="i", **keywords)(function)  # type: ignore[type-var]


def write(folder: Path, body: str) -> str:
    file = folder / "my_order.py"
    file.write_text(
        "import numpy as np\nfrom orderbench.orders import Grid, Ranking, register_order\n" + textwrap.dedent(body)
    )
    return str(file)


def test_a_registered_order_is_an_order() -> None:
    def mine(grid: Grid, *, turn: int = 0, way: Literal["up", "down"] = "up") -> Ranking:
        return Ranking((np.arange(grid.n_cells) + turn) % grid.n_cells)

    add(mine)
    assert "mine" in order_names()
    assert make_plan("mine:turn=1:way=down", Grid(2, 2)).cells_for([0])[0].tolist() == [3, 0, 1, 2]


def test_a_name_taken_twice_is_an_error() -> None:
    with pytest.raises(
        BenchError, match=r"two orders want the name 'raster', one of orderbench\.orders\.raster and one of"
    ):
        add(lambda grid: Ranking(np.arange(grid.n_cells)), "raster")


@pytest.mark.parametrize("name", ["Mine", "my order", "", "mine@one", "-mine", "my:order"])
def test_names_are_lower_case_words(name: str) -> None:
    with pytest.raises(BenchError, match="cannot name an order; use lower-case words joined by -"):
        add(lambda grid: grid, name)


def no_grid() -> Ranking: ...
def positional(grid: Grid, width: int = 1) -> Ranking: ...
def undefaulted(grid: Grid, *, width: int) -> Ranking: ...
def untyped(grid: Grid, *, width=1) -> Ranking: ...  # type: ignore[no-untyped-def]
def strange(grid: Grid, *, width: list[int] | None = None) -> Ranking: ...
def swallow(grid: Grid, **options: int) -> Ranking: ...
def misfit(grid: Grid, *, width: int = 1.5) -> Ranking: ...  # type: ignore[assignment]
def unspeakable(grid: Grid, *, word: str = "a b:c") -> Ranking: ...
def nan(grid: Grid, *, c: float = float("nan")) -> Ranking: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (no_grid, "must take the grid first"),
        (positional, "must take 'width' by keyword, after a `*`"),
        (undefaulted, "must give 'width' a type and a default, as in `width: int = 1`"),
        (untyped, "must give 'width' a type and a default"),
        (strange, "bool, int, float, str, Literal or a class with `parse` would do"),
        (swallow, "must take 'options' by keyword"),
        (misfit, "gives 'width' the default 1.5, which is none of its values"),
        (unspeakable, "gives 'word' the default 'a b:c', which is none of its values"),
        (nan, "gives 'c' the default nan, which is none of its values"),
    ],
)
def test_signatures_that_cannot_be_options_are_refused(function: object, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        add(function)
    assert sentence in str(refusal.value)


def test_per_sample_needs_a_generator() -> None:
    with pytest.raises(BenchError, match=r"is per sample: its function must name `rng`"):
        add(lambda grid: grid, per_sample=True)


def test_an_order_that_raises_or_returns_rubbish_is_named() -> None:
    add(lambda grid: 1 / 0, "raises")
    add(lambda grid: np.arange(grid.n_cells), "array")
    add(lambda grid: Ranking(np.arange(grid.n_cells + 1)), "long")
    with pytest.raises(
        BenchError, match=r"the order 'raises' of .* raised ZeroDivisionError: division by zero on a 4x4"
    ):
        make_plan("raises", Grid(4, 4))
    with pytest.raises(BenchError, match=r"the order 'array' of .* returned a ndarray; return Ranking\(rank_L\)"):
        make_plan("array", Grid(4, 4))
    with pytest.raises(BenchError, match=r"the order 'long' of .* ranked 17 cells of a 4x4 grid; rank_L must hold 16"):
        make_plan("long", Grid(4, 4))


def test_native_groups_that_differ_by_sample_are_refused_with_a_way_out() -> None:
    def blobs(grid: Grid, *, rng: np.random.Generator) -> Ranking:
        return Ranking(rng.integers(0, 3, grid.n_cells))

    add(blobs, "blobs", per_sample=True)
    with pytest.raises(BenchError, match=r"'blobs' has other native groups in each sample.*as in blobs@cosine:13"):
        make_plan("blobs", Grid(6, 6))
    assert make_plan("blobs@even:4", Grid(6, 6)).per_sample
    assert not make_plan("blobs:shared=true", Grid(6, 6)).per_sample


# Files


GOOD = """
    @register_order("inward", paper="none", idea="corners first")
    def inward(grid: Grid, *, stride: int = 1) -> Ranking:
        return Ranking(-np.minimum(grid.row_L, grid.col_L))
"""


def test_a_file_adds_its_orders(tmp_path: Path) -> None:
    assert include_file(write(tmp_path, GOOD)) == ("inward",)
    assert check_order("inward", [str(tmp_path / "my_order.py")]).findings == ()
    assert get_order("inward").origin == "orderbench_included_my_order"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("x = 1", "registers no order; decorate a function with @register_order"),
        ("1 / 0", "could not be included: it raised ZeroDivisionError"),
        ("raise ValueError('two\\nlines')", "it raised ValueError: two lines; --debug"),
        ("raise SystemExit(0)", "could not be included: it raised SystemExit: 0"),
        ("register_order('x', paper='p', idea=3)(lambda grid: grid)", "must say its paper and its idea in words"),
        ("def broken(:", "could not be included: it raised SyntaxError"),
        ("register_order('raster', paper='', idea='')(lambda grid: grid)", "two orders want the name 'raster'"),
    ],
)
def test_files_that_cannot_be_included(tmp_path: Path, body: str, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        include_file(write(tmp_path, body))
    assert sentence in str(refusal.value)


def test_no_such_file() -> None:
    with pytest.raises(BenchError, match=r"there is no file 'no\.py' to include"):
        include_file("no.py")


BROKEN = {
    "it draws from global randomness": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking(np.random.permutation(grid.n_cells))
    """,
    "the same seed gives another plan": """
        import itertools
        calls = itertools.count()
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking(np.roll(np.arange(grid.n_cells), next(calls)))
    """,
    "six seeds give one plan": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid, *, rng: np.random.Generator) -> Ranking:
            rng.random()
            return Ranking(np.arange(grid.n_cells))
    """,
    "ranked 16 cells of": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking(np.arange(16))
    """,
    "raised IndexError": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking(np.arange(grid.n_cells)[[5]])
    """,
    "rank_L must hold whole numbers": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking(np.arange(grid.n_cells) / 2)
    """,
    "raised SystemExit: 3": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            raise SystemExit(3)
    """,
    "bad:flip=true: the order 'bad:flip=true' of": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid, *, flip: bool = False) -> Ranking:
            return None if flip else Ranking(np.arange(grid.n_cells))
    """,
    "bad:width=0: the order 'bad:width=0' of": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid, *, width: int = 1) -> Ranking:
            return Ranking(np.arange(grid.n_cells) // width)
    """,
    "on a 1x2 grid: the order 'bad' of orderbench_included_my_order on a 1x2 grid: rank_L must hold whole": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            rank = np.arange(grid.n_cells)
            return Ranking(rank if grid.rows == grid.cols else rank / 2)
    """,
    "it refuses them all; it said: only 3x3x3": """
        from orderbench.orders import BenchError
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            raise BenchError("only 3x3x3")
    """,
    "bad:c=no.such.value raises RuntimeError": """
        class Strange:
            @classmethod
            def parse(cls, text):
                raise RuntimeError("no") if text != "fine" else None
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid, *, c: Strange | None = None) -> Ranking:
            return Ranking(np.arange(grid.n_cells))
    """,
    "another process makes another plan": """
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid) -> Ranking:
            return Ranking([hash(str(cell)) for cell in range(grid.n_cells)])
    """,
    "bad:way=down is in its signature but not served": """
        from typing import Literal
        from orderbench.orders import BenchError
        @register_order("bad", paper="p", idea="i")
        def bad(grid: Grid, *, way: Literal["up", "down"] = "up") -> Ranking:
            if way == "down":
                raise BenchError("not down")
            return Ranking(np.arange(grid.n_cells))
    """,
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_the_contract_finds_what_is_wrong(tmp_path: Path, sentence: str) -> None:
    file = write(tmp_path, BROKEN[sentence])
    include_file(file)
    findings = [str(finding) for finding in check_order("bad", [file]).findings]
    assert any(sentence in finding for finding in findings), findings


# Entry points


def test_installed_orders_are_found_and_broken_ones_do_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger_orders.py").write_text(
        "import numpy as np\nfrom orderbench.orders import Ranking, register_order\n"
        "@register_order('stranger', paper='p', idea='i')\ndef stranger(grid):\n"
        "    return Ranking(np.arange(grid.n_cells))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("stranger", "stranger_orders:stranger", ENTRY_POINTS),
        EntryPoint("lost", "no_such_module_anywhere:lost", ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_loaded", set())
    monkeypatch.setattr(registry, "_BROKEN", {})
    assert "stranger" in order_names()
    assert make_plan("stranger", Grid(2, 2)).n_steps == 4
    with pytest.raises(BenchError, match=r"the order 'lost' is installed but did not load: .*ModuleNotFoundError"):
        get_order("lost")
