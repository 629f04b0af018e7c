"""What a command prints may be lost, and its exit code is not: closed streams, readers that leave, poor encodings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from kept import RECORD
from test_cli import BENCH
from typer.testing import CliRunner

from orderbench.runs.shell import JsonOption, patient_streams, print_json

UNDECIDED = ["check", str(RECORD), "--min-speedup", "radial/raster=999", "--markdown"]  # 4: it has too few rounds


def run(words: list[str], before: Callable[[], object] = lambda: None, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a real process. before: called in it, to close or replace a stream."""
    done = subprocess.run(
        [*BENCH, *words], capture_output=True, text=True, errors="replace", check=False, preexec_fn=before,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def nobody_reads() -> None:
    read, written = os.pipe()
    os.close(read)
    os.dup2(written, 1)


def full_disk() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (lambda: os.close(1), "bench: the output could not be written: stdout is closed\n"),
        (nobody_reads, ""),
        (full_disk, "bench: the output could not be written: the disk is full\n"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_verdict_is_kept_whatever_becomes_of_the_output(before: Callable[[], object], told: str) -> None:
    assert run(UNDECIDED, before) == (4, "", told)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_signs_that_cannot_be_encoded_are_replaced(encoding: str) -> None:
    code, out, err = run(UNDECIDED, PYTHONIOENCODING=encoding)
    assert (code, err) == (4, "")
    assert "| ? inconclusive | `radial` |" in out


def test_a_closed_stderr_sends_nothing_to_stdout() -> None:
    assert run(["show", "raster@evn:4", "--json"], lambda: os.close(2)) == (2, "", "")


def test_help_whose_reader_leaves_is_no_error() -> None:
    assert run(["--help"], nobody_reads, PYTHONIOENCODING="ascii") == (0, "", "")


def test_known_signs_get_their_plain_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "3 \u00b1 1 \u2265 2 \u2192 \u2764 \udcff".encode("ascii", "orderbench.replaced") == b"3 +- 1 >= 2 -> ? \\xff"
    )
    stream = sys.stdout
    with patient_streams() as lost:
        assert sys.stdout is stream  # pytest's, which is none of ours
        assert lost() == ""
    assert sys.stdout is stream


def test_json_is_one_document_whatever_a_users_code_prints() -> None:
    app = typer.Typer()

    @app.command()
    def command(as_json: JsonOption = False) -> None:
        print("a user's model says hello")
        if as_json:
            print_json({"one": 1})

    done = CliRunner().invoke(app, ["--json"])
    assert json.loads(done.stdout) == {"one": 1}
    assert "hello" in done.stderr
    assert "hello" in CliRunner().invoke(app, []).stdout  # and it is in force for one command alone
