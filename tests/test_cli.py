"""`bench` as a user meets it: real processes, their output, their sentences, their exit codes."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = [sys.executable, "-c", "from orderbench.runs.cli import main; main()"]


def hears_ctrl_c() -> None:
    """In a new process: a shell that starts the suite in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


def test_help_has_a_short_name() -> None:
    assert good("show", "-h") == good("show", "--help")


def test_version() -> None:
    assert re.fullmatch(r"orderbench \d+\.\d+\.\d+\n", good("--version"))


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
        (["orders", "raster", "--check", "my.py"], "--check tests the orders of 'my.py'; leave raster out"),
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


def test_mistakes_keep_json_off_stdout() -> None:
    done = bench("show", "radail", "--json")
    assert (done.returncode, done.stdout) == (2, "")


def test_bare_bench_shows_its_help() -> None:
    done = bench()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


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
        preexec_fn=hears_ctrl_c,
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "bench: interrupted\n")
