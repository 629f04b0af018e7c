"""`bench orders` and `bench show`: lists, rankings, maps, and orders of one's own."""

import json
import os
import re
from pathlib import Path

import pytest
from test_cli import bench, good

from orderbench.orders import Plan, order_names

MY_ORDER = """
import numpy as np
from orderbench.orders import Grid, Ranking, register_order

@register_order("rim-first", paper="none", idea="from the rim inwards, ring by ring")
def rim_first(grid: Grid, *, step: int = 1) -> Ranking:
    row, col = grid.row_L, grid.col_L
    depth = np.minimum.reduce([row, col, grid.rows - 1 - row, grid.cols - 1 - col])
    return Ranking(depth // max(step, 1))
"""


def test_every_command_line_in_a_help_text_works(tmp_path: Path) -> None:
    (tmp_path / "my_order.py").write_text(MY_ORDER)
    for command, least in (("orders", 5), ("show", 5)):
        examples = re.findall(r"^  +bench (.*)$", good(command, "--help"), re.M)
        assert len(examples) >= least
        for example in examples:
            good(*example.split(), cwd=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".pyc" and file.is_file()) == [
        "my_order.py", "orders.png", "spiral.gif",
    ]  # fmt: skip


def test_orders_lists_every_order() -> None:
    listed = good("orders")
    assert all(re.search(rf"^{name} ", listed, re.M) for name in order_names())
    document = json.loads(good("orders", "--json"))
    assert [entry["name"] for entry in document] == list(order_names())
    radial = next(entry for entry in document if entry["name"] == "radial")
    assert [option["name"] for option in radial["options"]] == ["center", "metric", "rounding", "width", "rings"]


def test_orders_by_name_lists_their_options() -> None:
    text = " ".join(good("orders", "radial", "locality").split())
    assert "center cell, middle, corner, random, or RxC (default cell)" in text
    assert "draws one ranking a sample; built for its step sizes, so it needs a pace" in text
    assert "raster" not in text


def test_rank_puts_designed_first_and_raster_behind_radial() -> None:
    document = json.loads(good("orders", "--rank", "--grid", "16", "--steps", "13", "--json"))
    names = [line["order"] for line in document["orders"]]
    assert names[0] == "designed"
    assert names.index("radial") < names.index("raster")
    raster = document["orders"][names.index("raster")]
    assert (raster["best_pace"], raster["best_bits"]) == ("optimal:13", pytest.approx(0.2385, abs=1e-4))
    assert raster["tax_bits"] == pytest.approx(0.2811, abs=1e-4)
    table = good("orders", "--rank", "--grid", "5x4", "--steps", "3", "--seeds", "2")
    assert re.search(r"^ - +regions +- +- +not served *$", table, re.M)
    assert "not served: regions:m=2 does not divide a 5x4 grid; m=1 would do, as in regions:m=1\n" in table
    assert "A prediction from geometry, not a measurement" in " ".join(table.split())


def test_show_draws_the_plan() -> None:
    text = good("show", "radial:center=3x4@native", "--grid", "5")
    assert text.splitlines()[0] == "radial:center=3x4  5x5 grid, 6 steps"
    assert text.splitlines()[4] == "4 3 2 1 0 "
    assert "sizes   1, 3, 4, 6 x2, 5" in text
    assert "bits per token on the field exp(-d/4)" in text


def test_show_says_which_sample_it_shows() -> None:
    assert "each sample draws its own; seed 3, sample 0 is shown" in good("show", "random@even:4", "--seed", "3")


def test_show_json_is_the_plan() -> None:
    document = json.loads(good("show", "halton@cosine:13", "--json"))
    plan = Plan.from_json(document)
    assert plan.digest == document["digest"]
    assert document["about"]["arm"] == "halton@cosine:13"
    assert document["about"]["parallel_tax_bits_per_token"] == pytest.approx(0.00673, abs=1e-4)
    several = json.loads(good("show", "raster,random", "--json", "--grid", "4"))
    assert [Plan.from_json(one).per_sample for one in several] == [False, True]


def test_steps_means_cosine() -> None:
    assert good("show", "raster", "--steps", "5", "--grid", "4") == good("show", "raster@cosine:5", "--grid", "4")


@pytest.mark.parametrize("ending", ["png", "svg", "gif"])
def test_maps_are_written_whole_and_the_same_each_time(tmp_path: Path, ending: str) -> None:
    import PIL.Image

    for name in ("a", "b"):
        assert good(
            "show", "radial,random@even:5", "--grid", "6x9", "--out", f"{name}.{ending}", cwd=tmp_path
        ).endswith(f"wrote {name}.{ending}\n")
    first, second = (tmp_path / f"a.{ending}").read_bytes(), (tmp_path / f"b.{ending}").read_bytes()
    assert first == second
    assert sorted(os.listdir(tmp_path)) == [f"a.{ending}", f"b.{ending}"]
    if ending == "svg":
        assert b"<svg" in first
    else:
        with PIL.Image.open(tmp_path / f"a.{ending}") as image:
            assert min(image.size) > 150
            assert getattr(image, "n_frames", 1) >= (7 if ending == "gif" else 1)


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[" not in good("show", "radial")
    assert "\x1b[" in bench("show", "radial", NO_COLOR="", FORCE_COLOR="1", TERM="xterm-256color").stdout


def test_wide_grids_fit_the_terminal() -> None:
    lines = good("show", "raster", "--grid", "4x40").splitlines()
    assert [len(line) for line in lines[1:5]] == [80] * 4
    assert lines[1].startswith("@@@@")  # without colour, steps are shades
    assert lines[4].endswith("....")
    assert "(no map: 101 columns do not fit here; --out map.png draws it)" in good("show", "raster", "--grid", "1x101")


def test_an_order_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_order.py").write_text(MY_ORDER)
    assert good("orders", "--check", "my_order.py", cwd=tmp_path) == (
        "rim-first: keeps its contract on 13 of 13 lattices, at every pace\n"
    )
    assert "rim-first:step=2  8x8 grid, 2 steps" in good(
        "show", "rim-first:step=2", "--include", "my_order.py", "--grid", "8", cwd=tmp_path
    )
    assert "rim-first" in good("orders", "--include", "my_order.py", cwd=tmp_path)


def test_a_broken_order_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(MY_ORDER.replace("return Ranking(depth", "return Ranking(grid.no_such_thing"))
    done = bench("orders", "--check", "bad.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "rim-first: breaks its contract\n  on a 1x1 grid: the order 'rim-first' of" in done.stdout
    assert "raised AttributeError" in done.stdout
    assert "Traceback" not in done.stderr
    findings = json.loads(bench("orders", "--check", "bad.py", "--json", cwd=tmp_path).stdout)
    assert findings["rim-first"]["findings"][0]["where"] == "a 1x1 grid"
    for command in (["show", "rim-first", "--include"], ["orders", "--check"]):
        shown = bench(*command, "bad.py", "--debug", cwd=tmp_path)
        assert shown.returncode == 2
        assert "in rim_first" in shown.stderr  # the author's own line, for the author


def test_a_partial_order_says_which_grids_it_serves(tmp_path: Path) -> None:
    body = MY_ORDER.replace(
        "    row, col", "    if grid.rows != grid.cols:\n        raise BenchError('squares only')\n    row, col"
    )
    (tmp_path / "mine.py").write_text(body.replace("import Grid", "import BenchError, Grid"))
    assert good("orders", "--check", "mine.py", cwd=tmp_path) == (
        "rim-first: keeps its contract on 6 of 13 lattices, at every pace\n"
        "  it refuses the others, as in: squares only\n"
    )


def test_what_an_order_prints_stays_off_stdout(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "print('loaded')\n" + MY_ORDER.replace("    row, col", "    print('ranked')\n    row, col")
    )
    done = bench("show", "rim-first", "--include", "loud.py", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["sizes"]
    assert "loaded\nranked\n" in done.stderr


def test_brackets_in_an_idea_are_only_brackets(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(MY_ORDER.replace("from the rim inwards", "[red]inwards[/bold]"))
    assert "[red]inwards[/bold]" in good("orders", "--include", "odd.py", cwd=tmp_path)
    assert "[red]inwards[/bold]" in good("orders", "rim-first", "--include", "odd.py", cwd=tmp_path)


def test_orders_that_choose_as_they_decode_are_named() -> None:
    assert "`bench decoders` lists them" in good("orders").replace(" \n", " ")
    assert "confidence@PACE" in good("decoders")


def test_decoders_are_listed_with_options_and_traits(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from orderbench.models.decode import plain_steps, register_decoder\n"
        "@register_decoder('mine', paper='none', idea='[red]as plain[/red]', exact=True)\n"
        "def mine(tile, *, window: int = 4):\n    return plain_steps(tile)\n"
    )
    listed = good("decoders", "--include", "mine.py", cwd=tmp_path)
    assert "[red]as plain[/red]" in listed
    assert "options window" in listed
    told = good("decoders", "mine", "nested", "--include", "mine.py", cwd=tmp_path)
    assert "gives the codes of one cell at a time" in told
    assert "overwrites codes that were decoded" in told
    (mine,) = json.loads(good("decoders", "mine", "--include", "mine.py", "--json", cwd=tmp_path))
    assert (mine["exact"], mine["rewrites"], mine["options"][0]["default"]) == (True, False, "4")
    done = bench("decoders", "nestd")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no decoder named 'nestd'; did you mean 'nested'?" in done.stderr


def test_a_pyramid_is_drawn_level_by_level_and_has_no_tax(tmp_path: Path) -> None:
    told = good("show", "scales,radial", "--grid", "1/2/4")
    assert told.count("1/2/4 pyramid") == 2
    assert "\n0 \n\n1 1 \n1 1 \n\n2 2 2 2 \n" in told
    assert told.count("tax     none") == 2
    document = json.loads(good("show", "scales", "--grid", "1/2/4", "--json"))
    assert document["sizes"] == [1, 4, 16]
    assert document["about"]["parallel_tax_bits_per_token"] is None
    done = bench("show", "designed@even:3", "--grid", "1/2/4")
    assert (done.returncode, done.stdout) == (2, "")
    good("show", "scales", "--grid", "1/2/4", "--out", "map.png", cwd=tmp_path)
    done = bench("orders", "--rank", "--grid", "1/2/4", "--steps", "4")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pyramid" in done.stderr


def test_ranking_named_orders() -> None:
    document = json.loads(good("orders", "raster", "radial", "--rank", "--grid", "8", "--steps", "4", "--json"))
    assert [line["order"] for line in document["orders"]] == ["radial", "raster"]


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "map.png").mkdir()
    done = bench("show", "raster", "--out", "map.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "'map.png' could not be written: " in done.stderr
    assert os.listdir(tmp_path) == ["map.png"]
