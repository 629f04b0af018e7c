"""What a shell offers after TAB: commands, flags, and names that cost nothing to look up."""

import os
import subprocess
import sys

import pytest
from test_cli import BENCH
from typer.testing import CliRunner

from orderbench.orders import BenchError
from orderbench.runs.cli import app
from orderbench.runs.completion import SHELLS, complete_arms, complete_paces, completion_script, shell_of


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ras", ["raster", "raster-reverse"]),
        ("raster,hil", ["raster,hilbert"]),
        ("radial@cos,raster@arc", ["radial@cos,raster@arccos:"]),
        ("radial@cosine:1", []),  # a number
        ("radial+nes", []),  # a decoder: its registry needs torch
        ("nothing-like-it", []),
    ],
)
def test_names_of_arms(typed: str, offered: list[str]) -> None:
    assert complete_arms(typed) == offered


def test_names_of_paces() -> None:
    assert complete_paces("native,ear") == ["native,ear-shells", "native,ear-sides"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bench compl", "completion"),
        ("bench run --no-b", "--no-baseline"),
        ("bench run --orders raster,hil", "raster,hilbert"),
        ("bench run --only quality,li", "quality,likelihood"),
        ("bench show hilb", "hilbert"),
    ],
)
def test_bash_is_answered(words: str, offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    asked = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, [], prog_name="bench").output.split() == [offered]


def test_the_command_itself_answers_and_stays_light() -> None:
    code = BENCH[-1].replace("main()", "sys.argv = ['bench']; main()").replace("from", "import sys; from", 1)
    environment = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": "bench run --orders hil", "COMP_CWORD": "3"}
    tail = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
    done = subprocess.run(
        [sys.executable, "-c", tail + code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["hilbert", "False"])


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell: str) -> None:
    assert "_BENCH_COMPLETE" in completion_script(shell)
    assert CliRunner().invoke(app, ["completion", shell]).output.rstrip("\n") == completion_script(shell).rstrip("\n")
    assert shell_of(f"/bin/{shell}") == shell


def test_other_shells_are_one_sentence() -> None:
    with pytest.raises(BenchError, match="no shell named 'bsh'; did you mean 'bash'"):
        completion_script("bsh")
    with pytest.raises(BenchError, match="'/bin/tcsh' is no shell with completion; name bash, zsh, fish"):
        shell_of("/bin/tcsh")
