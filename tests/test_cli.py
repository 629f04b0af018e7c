"""`bench` as a user meets it: real processes, their output, their sentences, their exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orderbench.models import adaptive
from orderbench.orders import Plan, order_names
from orderbench.runs.cli_orders import ADAPTIVE

BENCH = [sys.executable, "-c", "from orderbench.runs.cli import main; main()"]


def bench(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", **environment}
    return subprocess.run([*BENCH, *arguments], capture_output=True, text=True, cwd=cwd, env=plain, check=False)


def good(*arguments: str, cwd: Path | None = None) -> str:
    done = bench(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["orders", "--help"], ["show", "--help"], ["train", "--help"]])
def test_help_has_examples(arguments: list[str]) -> None:
    assert "Examples:\n" in good(*arguments)


def test_version() -> None:
    assert re.fullmatch(r"orderbench \d+\.\d+\.\d+\n", good("--version"))


def test_every_command_line_in_a_help_text_works(tmp_path: Path) -> None:
    (tmp_path / "my_order.py").write_text(MY_ORDER)
    for command in ("orders", "show"):
        examples = re.findall(r"^  +bench (.*)$", good(command, "--help"), re.M)
        assert len(examples) >= 5
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
    table = good("orders", "--rank", "--grid", "5x4", "--steps", "3", "--seeds", "2")
    assert re.search(r"^ - +regions +- +not served *$", table, re.M)
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


MY_ORDER = """
import numpy as np
from orderbench.orders import Grid, Ranking, register_order

@register_order("rim-first", paper="none", idea="from the rim inwards, ring by ring")
def rim_first(grid: Grid, *, step: int = 1) -> Ranking:
    row, col = grid.row_L, grid.col_L
    depth = np.minimum.reduce([row, col, grid.rows - 1 - row, grid.cols - 1 - col])
    return Ranking(depth // max(step, 1))
"""


def test_an_order_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_order.py").write_text(MY_ORDER)
    assert good("orders", "--check", "my_order.py", cwd=tmp_path) == (
        "rim-first: keeps its contract on 11 of 11 grids, at every pace\n"
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
        "rim-first: keeps its contract on 5 of 11 grids, at every pace\n  it refuses the others, as in: squares only\n"
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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "radail"], "bench: no order named 'radail'; did you mean 'radial'?"),
        (["show", "raster,"], "bench: '' is not an arm"),
        (["show", "raster@evn:4"], "bench: no pace named 'evn'; did you mean 'even'?"),
        (["show", "radial:center=20x4"], "bench: the centre 20x4 lies outside a 16x16 grid"),
        (["show", "raster@even:0"], "needs a number of steps of 1 or more"),
        (["show", "raster", "--steps", "0"], "needs a number of steps of 1 or more"),
        (["show", "raster", "--steps", "300"], "asks for 300 steps on a 16x16 grid of 256 cells; 1 to 256 would do"),
        (["show", "raster", "--steps", "4", "--pace", "one"], "keep one of them"),
        (["show", "raster", "--grid", "0"], "a 0x0 grid holds no cell"),
        (["show", "raster", "--grid", "big"], "'big' is not a grid"),
        (["show", "raster", "--seed", "-1"], "the seed -1 is not served"),
        (["show", "raster", "--field", "gauss"], "no field named 'gauss'"),
        (["show", "raster", "--out", "map.jpg"], "'map.jpg' does not end in .png, .svg or .gif"),
        (["show", "raster", "--out", "no/such/folder/map.png"], "there is no folder 'no/such/folder'"),
        (["show", "raster", "--include", "no.py"], "there is no file 'no.py' to include"),
        (["orders", "radail"], "no order named 'radail'"),
        (["orders", "confidence"], "confidence chooses its cells as it decodes"),
        (["show", "raster,confidence@cosine:13"], "as in bench run --orders raster,confidence@cosine:13"),
        (["orders", "raster", "--check", "my.py"], "--check tests the orders of 'my.py'; leave raster away"),
        (["orders", "--check", "no.py"], "there is no file 'no.py' to include"),
        (["orders", "--rank", "--steps", "400"], "asks for 400 steps"),
        (["orders", "--rank", "--seeds", "0"], "--seeds 0 averages over nothing"),
        (["orders", "--rank", "--grid", "100"], "the field serves up to 4096"),
        (["orders", "--rank", "--length", "-4"], "the field's length is -4"),
        (["orders", "--steps", "4"], "--steps says something about --rank alone; add --rank"),
        (["orders", "--rank", "--markdown"], "are different answers; ask for one of them"),
        (["show", "raster", "--steps", "abc"], "'abc' is not a whole number; `bench show --help` shows what would do"),
        (["show", "raster", "--length", "abc"], "'abc' is not a number"),
        (["show", "raster", "--length", "nan"], "'nan' is not a number"),
        (["show", "raster", "--no-such-option"], "No such option: --no-such-option"),
        (["show", "raster", "--pace", ""], "no pace named ''"),
        (["show", "raster", "--json", "--out", "x.jpg"], "'x.jpg' does not end in"),
        (["show", "raster", "--out", "/dev/null.png/x.png"], "there is no folder"),
        (["show", "raster", "--out", "x" * 300 + ".png"], "could not be written"),
        (["no-such-command"], "No such command 'no-such-command'"),
        (["show"], "Missing argument"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = bench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert os.listdir(tmp_path) == []


def test_orders_that_choose_as_they_decode_are_named() -> None:
    assert set(ADAPTIVE) == set(adaptive._ADAPTIVE)
    assert all(f"{name}@PACE" in good("orders") for name in ADAPTIVE)


def test_mistakes_keep_json_off_stdout() -> None:
    done = bench("show", "radail", "--json")
    assert (done.returncode, done.stdout) == (2, "")


def test_bare_bench_shows_its_help() -> None:
    done = bench()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


def test_ranking_named_orders() -> None:
    document = json.loads(good("orders", "raster", "radial", "--rank", "--grid", "8", "--steps", "4", "--json"))
    assert [line["order"] for line in document["orders"]] == ["radial", "raster"]


@pytest.mark.parametrize("arguments", [["orders"], ["orders", "--json"], ["show", "raster", "--grid", "200", "--json"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    with subprocess.Popen([*BENCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*BENCH, "orders"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "bench: the output could not be written: the disk is full\n")


def test_ctrl_c_exits_with_130() -> None:
    with subprocess.Popen(
        [*BENCH, "orders", "--rank", "--grid", "60", "--seeds", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "bench: interrupted\n")


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "map.png").mkdir()
    done = bench("show", "raster", "--out", "map.png", cwd=tmp_path)
    assert done.returncode == 2
    assert "'map.png' could not be written: " in done.stderr
    assert os.listdir(tmp_path) == ["map.png"]
