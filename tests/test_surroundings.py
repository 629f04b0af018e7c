"""What a run finds around it: names, permissions, environments, and users' code that fails in any way."""

import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import run, spec_of

from orderbench.models.mixtures import objective_named
from orderbench.models.processes import join_processes
from orderbench.models.train import Progress
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Ranking, include_file, make_plan, parse_lattice, register_order
from orderbench.orders.errors import said
from orderbench.runs import cli, record, training
from orderbench.runs.factory import call_factory
from orderbench.runs.record import sole_writer, write_json
from orderbench.runs.training import TrainSpec, train

BENCH = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> BENCH:
    """`bench` in this process: exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), *capsys.readouterr()

    return call


# Users' code


class Rude(BaseException):
    """What a user's library may raise."""

    def __str__(self) -> str:
        raise SystemExit("no words")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("problem", [Rude, Speechless, SystemExit, GeneratorExit])
def test_an_exception_of_any_kind_is_one_sentence(
    problem: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> None:
        raise problem

    monkeypatch.setattr(sys.modules[__name__], "build", build, raising=False)
    monkeypatch.setitem(sys.modules, "rude_module", sys.modules[__name__])
    with pytest.raises(BenchError, match=rf"'rude_module:build\(\)' raised {problem.__name__}"):
        call_factory("rude_module:build")

    @register_order("rude", idea="raises", paper="none")
    def rude(grid: Any) -> Ranking:
        raise problem

    with pytest.raises(BenchError, match=f"the order 'rude' of .* raised {problem.__name__}"):
        make_plan("rude", parse_lattice("4"))


def test_ctrl_c_is_no_failure_of_users_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[__name__], "build", build, raising=False)
    monkeypatch.setitem(sys.modules, "rude_module", sys.modules[__name__])
    with pytest.raises(KeyboardInterrupt):
        call_factory("rude_module:build")


def test_what_cannot_be_said_is_said_so() -> None:
    assert said(Speechless()) == "Speechless: (its text raised ValueError)"
    assert said(Rude()) == "Rude: (its text raised SystemExit)"


def test_an_included_file_that_leaves_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("class Own(BaseException): pass\nraise Own('bye')\n")
    with pytest.raises(BenchError, match="could not be included: it raised Own: bye"):
        include_file(tmp_path / "leaves.py")


def test_a_model_that_leaves_fails_its_arm_alone(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    answer = Transformer.answer

    def rude_at_first(self: Transformer, *asked: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise Rude
        return answer(self, *asked, **more)

    monkeypatch.setattr(Transformer, "answer", rude_at_first)
    ended, done = run(spec_of(files, only=("likelihood",), correction=("off",)), tmp_path / "run")
    assert len(ended.failed) == 1
    assert done.failed == ended.failed
    assert done.trials[ended.failed[0]]["reason"] == "Rude: (its text raised SystemExit)"
    assert len(done.done()) == len(done.trials) - 1 > 0


# Names and permissions


@pytest.mark.parametrize(
    "words",
    [["report", "x" * 300], ["run", "--resume", "--out", "x" * 300], ["compare", "a/" + "x" * 300, "b"]],
)
def test_names_that_are_too_long_are_one_sentence(words: list[str], bench: BENCH) -> None:
    code, out, err = bench(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "xxx" in err


def test_what_may_not_be_read_is_one_sentence(bench: BENCH, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(folder: str | Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(Path(folder) / "trials"))

    monkeypatch.setattr(record, "load_run", forbidden)
    code, out, err = bench("report", "somebody-elses")
    assert (code, out) == (2, "")
    assert err == "bench: 'somebody-elses/trials' cannot be used: Permission denied; name another file or folder\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--out", ""], "--out is empty; give --out FOLDER, or leave it out"),
        (["run", "--config="], "--config is empty; give --config FILE"),
        (["train", "model", "--out", "x", "--tokenizer", ""], "--tokenizer is empty; give --tokenizer FILE"),
        (["run", "--guidance", ""], "--guidance is empty; give --guidance "),
        (["baseline", "x", "--out", ""], "--out is empty"),
    ],
)
def test_an_empty_name_is_no_place(words: list[str], sentence: str, bench: BENCH) -> None:
    code, out, err = bench(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert sentence in err


def test_a_baseline_that_cannot_be_written_advises_what_helps(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError) as run_failed:
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(BenchError) as other_failed:
        write_json(tmp_path / "file" / "a.json", {}, record.ELSEWHERE)
    assert "--resume" in str(run_failed.value)
    assert "--resume" not in str(other_failed.value)
    assert "name another place" in str(other_failed.value)


def test_mixtures_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    mixture = {"mixture": [{"order": "raster", "paces": ["one"], "share": 1.0}]}
    (tmp_path / "mix.json").write_text(json.dumps(mixture), encoding="utf-8-sig")
    assert [share.order for share in objective_named(str(tmp_path / "mix.json")).mixture] == ["raster"]


# Environments


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'; torchrun sets these"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 and RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "did not find each other"),
    ],
)
def test_half_an_environment_of_torchrun_is_one_sentence(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BenchError, match=sentence):
        join_processes("cpu")


def test_what_others_tell_matplotlib_is_dropped(bench: BENCH, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MPLBACKEND", "module://no_such_backend"), ("SOURCE_DATE_EPOCH", "yesterday")):
        monkeypatch.setenv(name, value)
        assert bench("--version")[0] == 0
        assert name not in os.environ


def test_a_device_that_is_not_there_is_short(bench: BENCH) -> None:
    code, out, err = bench("doctor", "--model", "toys:no_such", "--device", "xpu")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert len(err) < 300
    assert "the device 'xpu' is not there" in err


# Training


def spec_of_training(folder: Path, files: dict[str, str], **changes: Any) -> TrainSpec:
    asked: dict[str, Any] = {"what": "tokenizer", "out": folder, "data": files["data"], "device": "cpu", "steps": 2}
    return TrainSpec(**{**asked, "batch": 4, "every": 1, "side": 8, "threads": 1, **changes})


def nothing(*_: object) -> None:
    pass


def test_a_training_is_alone_in_its_folder(files: dict[str, str], tmp_path: Path) -> None:
    def another(_: Progress) -> None:
        with pytest.raises(BenchError, match=r"another process is running in '.*here'; wait for it"):
            train(spec_of_training(tmp_path / "here", files, resume=True), nothing, nothing)

    old = os.umask(0o027)
    try:
        train(spec_of_training(tmp_path / "here", files), another, nothing)
    finally:
        os.umask(old)
    with sole_writer(tmp_path / "here"):
        pass  # free again
    for name in ("tokenizer.safetensors", "tokenizer.card.json", "checkpoint.pt"):
        assert stat.S_IMODE((tmp_path / "here" / name).stat().st_mode) == 0o640, name


def test_ctrl_c_in_a_training_says_how_to_go_on(
    files: dict[str, str], tmp_path: Path, bench: BENCH, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "here"

    def interrupted(*_: object) -> None:
        out.mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    words = ["train", "tokenizer", "--out", str(out)]
    assert bench(*words) == (
        130,
        "",
        "bench: interrupted before the first checkpoint; --every N writes them more often\n",
    )
    (out / "checkpoint.pt").write_bytes(b"")
    code, _, err = bench(*words)
    assert code == 130
    assert f"`bench train tokenizer --resume --out {out}`" in err
