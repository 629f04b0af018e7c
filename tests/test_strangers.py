"""A stranger's folder can do nothing: it runs no code, leads no write elsewhere, hides no signs in a terminal."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from kept import RECORD, printed
from toy_runs import Killed, Silent, run, spec_of
from typer.testing import CliRunner

from orderbench.orders import BenchError
from orderbench.orders.documents import read_document
from orderbench.orders.errors import printable
from orderbench.orders.files import check_folder, check_target
from orderbench.reports.check import Rules, check, to_junit, to_markdown
from orderbench.reports.results import results_of
from orderbench.reports.summary import summary
from orderbench.runs import cli_results
from orderbench.runs.cli import app
from orderbench.runs.export import write_pictures
from orderbench.runs.record import RecordProblem, Run, load_run, write_arrays

EVIL = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The kept record of the current schema, in a folder of its own."""
    return Path(shutil.copytree(RECORD.parent / "schema-2", tmp_path / "run"))


def changed(file: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def refused(*words: str) -> str:
    """The sentence of a command that ends with BenchError."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, BenchError), (result.exception, result.output)
    sentence = str(result.exception)
    assert "\n" not in sentence
    return sentence


# Code


@pytest.mark.parametrize("how", ["config", "resume"])
@pytest.mark.parametrize("setting", ["include", "model", "data"])
def test_code_and_downloads_that_a_file_names_wait_for_a_flag(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, setting: str
) -> None:
    mark, code = tmp_path / "mark", tmp_path / "stranger.py"
    code.write_text(EVIL.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    value = {"include": [str(code)], "model": ["stranger:build"], "data": f"download:{tmp_path / 'fetched'}"}[setting]
    changed(folder / "run.json", lambda about: about["config"].update({"model": [], setting: value}))
    where = ["--config", str(folder / "run.json")] if how == "config" else ["--resume", "--out", str(folder)]
    told = refused("run", *where, "--dry-run")
    what = "a download" if setting == "data" else "code"
    assert f"run.json' asks for {what}, which a file alone may not; if you trust what it names, name it too" in told
    assert f"--{setting} " in told
    assert not mark.exists()
    assert not (tmp_path / "fetched").exists()
    if setting == "include" and how == "config":
        refused("run", *where, "--dry-run", "--include", str(code))  # it registers nothing
        assert mark.exists()


# Writing


def test_writing_follows_no_link_and_leaves_no_folder(folder: Path, tmp_path: Path, files: dict[str, str]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, words in (("report", ["report", str(folder)]), ("export", ["export", str(folder), "--npz"])):
        (folder / name).symlink_to(elsewhere)
        assert f"'{name}' in it is a link, and writing follows none" in refused(*words)
    for folders, words in (
        (("report/figures", "report/tables"), ["report", str(folder)]),
        (("mine/figures",), ["history", str(folder), "--out", str(tmp_path / "mine")]),
        (("paper/paper",), ["report", str(folder), "--paper", "--out", str(tmp_path / "paper")]),
    ):
        for inner in folders:
            place = (folder if inner.startswith("report") else tmp_path) / inner
            if place.parent.is_symlink():
                place.parent.unlink()
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(elsewhere)
            assert f"'{place.name}' in it is a link, and writing follows none" in refused(*words)
            place.unlink()
    pictures = np.zeros((1, 2, 2, 1), np.uint8)
    (tmp_path / "raster").symlink_to(elsewhere)
    with pytest.raises(BenchError, match="'raster' in it is a link"):
        write_pictures(tmp_path / "raster", pictures, np.zeros(1, np.int64))
    for name in ("trials", "data", "tiles", "report"):
        mine = tmp_path / f"mine-{name}"
        mine.mkdir()
        (mine / name).symlink_to(elsewhere)
        with pytest.raises(RecordProblem, match=f"'{name}' in it is a link"):
            run(spec_of(files), mine)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").symlink_to(elsewhere / "made")
    with pytest.raises(RecordProblem, match="cannot hold a run"):
        run(spec_of(files), tmp_path / "locked")
    assert list(elsewhere.iterdir()) == []


def test_one_check_of_targets(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    door = socket.socket(socket.AF_UNIX)
    monkey = os.getcwd()
    os.chdir(tmp_path)  # names of sockets are short
    door.bind("door")
    os.chdir(monkey)
    check_target(tmp_path / "plain")
    check_target(tmp_path / "nothing")
    for name, why in (("link", "a link"), ("dangling", "a link"), ("pipe", "no plain file"), ("door", "no plain file"),
                      ("", "no plain file"), ("/dev/null", "no plain file")):  # fmt: skip
        with pytest.raises(OSError, match=why):
            check_target(tmp_path / name)
    with pytest.raises(OSError, match="no name of a file"):
        check_target(Path())
    door.close()
    check_folder(tmp_path, "nothing")
    with pytest.raises(OSError, match="'plain' in it is no folder"):
        check_folder(tmp_path, "plain")


@pytest.mark.parametrize("target", ["link", "pipe", "folder", "/dev/null"])
def test_no_command_writes_at_what_is_no_plain_file(folder: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    out = str(tmp_path / target)
    if target == "link":
        (tmp_path / "link.png").symlink_to(tmp_path / "victim")
        assert "could not be written: it is a link" in refused("show", "radial", "--out", f"{out}.png")
    for words in (["baseline", str(folder), "--out", out],
                  ["check", str(folder), "--min-speedup", "radial+nested/raster=1", "--junit", out],
                  ["fit-pace", "--out", out]):  # fmt: skip
        told = refused(*words)
        assert f"'{out}' could not be written: it is" in told
        assert f"; name another place, as in {words[-2]} " in told
    assert (tmp_path / "victim").read_text() == "mine"
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("verdict", "code"), [(3, 3), (4, 4), (0, 2)])
def test_a_verdict_outlives_the_file_that_should_hold_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: int, code: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(cli_results, "write_whole", full)
    monkeypatch.setattr("orderbench.reports.check.exit_code", lambda findings: verdict)
    words = ["check", str(folder), "--min-speedup", "radial+nested/raster=1", "--junit", str(tmp_path / "x.xml")]
    result = CliRunner().invoke(app, words, standalone_mode=False)
    assert (result.return_value, "could not be written: the disk is full" in result.stderr) == (code, True)
    assert "min-speedup" in result.stdout


# Reading


@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "", "x" * 300, "a\n"])
def test_names_of_trials_lead_nowhere(folder: Path, name: str) -> None:
    changed(folder / "run.json", lambda about: about["trials"].append(name))
    with pytest.raises(RecordProblem, match=r"gives trials\[\d+\] as .*, and the name of a file, without folders"):
        load_run(folder)
    with pytest.raises(RecordProblem, match="is no name of arrays of a run"):
        Run(folder, {}, {}).arrays(name, "bits")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "labels", [np.array(["../../x"] * 32), np.zeros((32, 2), int), np.zeros(7, int), np.full(32, 0.5), np.zeros(0, int)]
)
def test_arrays_of_another_kind_are_refused(folder: Path, labels: np.ndarray) -> None:
    write_arrays(folder / "data" / "a.tokens.npz", {"tokens_NL": np.zeros((32, 16), int), "labels_N": labels})
    with pytest.raises(RecordProblem, match=r"a.tokens.npz' holds labels_N (as|of) "):
        load_run(folder).arrays("a", "tokens")


def test_a_pipe_is_no_document_and_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")
    with pytest.raises(RecordProblem, match="could not be read: it is no plain file"):
        load_run(folder)
    for words in (["check", str(RECORD), "--rules"], ["check", str(RECORD), "--baseline"], ["run", "--config"]):
        assert "it is no plain file" in refused(*words, str(folder / "run.json"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested deeper than 64 levels"),
        (b'{"a": ' + b"9" * 400 + b"}", "a whole number of more than 18 digits"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of too many digits"),
        (b'{"a": 1e999}', "a number that is not finite"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": 1, "a": 2}', "it gives 'a' twice"),
        (b"\xff\xfe{}", "can't decode"),
        (b"", "Expecting value"),
    ],
)
def test_a_document_that_cannot_be_is_one_reason(tmp_path: Path, content: bytes, sentence: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_document(file)
    rules = tmp_path / "x.toml"
    rules.write_bytes(b"a = " + b"[" * 50_000)
    with pytest.raises(ValueError, match="nested deeper"):
        read_document(rules, toml=True)
    file.write_bytes(b"\xef\xbb\xbf" + b'{"a": "b"}')
    assert read_document(file) == {"a": "b"}


# Text

SIGNS = "\x1b]0;title\x07\x1b[31mred\x1b[0m\x00\x9b2J\u202eback\u2066\ufeff\ud800"


def test_no_text_of_a_record_reaches_a_terminal_as_a_command(folder: Path) -> None:
    assert printable(SIGNS) == "redback"
    about = json.loads((folder / "run.json").read_text())
    failing = next(name for name in about["trials"] if name.startswith("quality-raster"))
    changed(folder / "trials" / f"{failing}.json", lambda t: t.update(status="failed", reason=SIGNS + " <b> | `x` $y$"))
    changed(folder / "run.json", lambda about: about["spaces"][0].update(reference=SIGNS + "<script>"))
    changed(folder / "run.json", lambda about: about["refused"].update({SIGNS: SIGNS}))
    results = results_of(load_run(folder))
    shown = printed(summary(results, 100), 100)
    assert "redback" in shown
    assert not set("\x1b\x00\x9b\u202e\u2066\ufeff\ud800") & set(shown)
    findings = check(results, None, Rules(min_speedup={"radial+nested/raster": 1}))
    table = to_markdown(findings)
    assert "failed: redback &#60;b&#62; &#124; &#96;x&#96; $y$ |" in table
    assert ElementTree.fromstring(to_junit(findings)).tag == "testsuite"  # noqa: S314 (our own)
    sentence = str(BenchError(f"a name of a record, {SIGNS}"))
    assert sentence == "a name of a record, redback"


@pytest.mark.parametrize("name", ["a b", "$x^2$", "<b>", "a|b", "`a`", "", "'", "a\\b"])
def test_an_arm_of_another_spelling_is_refused(folder: Path, name: str) -> None:
    changed(folder / "run.json", lambda about: about["arms"][0].update(name=name))
    with pytest.raises(RecordProblem, match=r"gives arms\[0\].name as .*, and the spelling of an arm"):
        load_run(folder)


# Going on


def test_what_is_broken_is_measured_again(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    ids = {kind: next(name for name in whole.about["trials"] if name.startswith(f"{kind}-ra")) for kind in
           ("quality", "likelihood")}  # fmt: skip
    parallel = next(name for name in whole.about["trials"] if name.startswith("likelihood-radial-"))
    broken = {
        folder / "trials" / f"{ids['quality']}.json": b'{"trial": 3}',
        folder / "data" / f"{ids['likelihood']}.bits.npz": b"PK\x03\x04 no",
        folder / "trials" / f"{parallel}.json": b"",
    }
    for file, content in broken.items():
        file.write_bytes(content)
    for file in (folder / "data").glob("singly-*.npz"):
        write_arrays(file, {"bits_NL": np.zeros((30, 16), np.float32)})  # readable, and not what was computed
    kept = Silent()
    run(spec_of(files), folder, kept, resume=True)
    assert {name for name, _ in kept.ended_trials} == {ids["quality"], ids["likelihood"], parallel}
    told = "\n".join(kept.sentences)
    assert told.count(": it is measured again") == 3
    assert ": these bits are computed again" in told
    again = load_run(folder)
    for name in ids.values():
        assert again.trials[name]["status"] == "done"
    for name in (*ids.values(), parallel):
        body = {key: value for key, value in again.trials[name].items() if key not in ("ended", "wall_s", "decode_s")}
        assert body == {key: whole.trials[name][key] for key in body}


def test_a_tile_of_something_else_is_decoded_again(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    def stop(trial: Any, done: int, total: int) -> None:
        if trial.kind == "quality" and done >= 128:
            raise Killed

    folder = tmp_path / "run"
    spec = spec_of(files, only=("quality",))
    with pytest.raises(Killed):
        run(spec, folder, Silent(stop))
    (tiles,) = (folder / "tiles").iterdir()
    one, two = sorted(tiles.iterdir())
    shutil.copy(one, two)  # whole, and of other samples
    kept = Silent()
    run(spec, folder, kept, resume=True)
    assert [sentence.endswith("these samples are decoded again") for sentence in kept.sentences] == [True]
    name = next(name for name in whole.about["trials"] if name.startswith("quality-ra"))
    assert load_run(folder).trials[name]["tokens_digest"] == whole.trials[name]["tokens_digest"]


def test_a_folder_that_is_gone_or_another_stops_the_run(files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    spec = spec_of(files, only=("quality",))

    def remove(trial: Any, done: int, total: int) -> None:
        shutil.rmtree(folder)

    with pytest.raises(RecordProblem, match=r"'.*run' was removed or replaced while this run was writing there; start"):
        run(spec, folder, Silent(remove))
    assert not folder.exists()

    def replace(trial: Any, done: int, total: int) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / ".lock").touch()  # as a second run makes it

    with pytest.raises(RecordProblem, match="was removed or replaced"):
        run(spec, folder, Silent(replace))
    assert os.listdir(folder) == [".lock"]


def test_two_runs_of_one_folder(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, only=("quality",))

    def second(trial: Any, done: int, total: int) -> None:
        with pytest.raises(RecordProblem, match=r"another process is running in .*; wait for it, or name"):
            run(spec_of(files, samples=70), tmp_path / "run", resume=True)
        raise RecordProblem("seen")

    with pytest.raises(RecordProblem, match="seen"):
        run(spec, tmp_path / "run", Silent(second))


def test_records_of_other_numbers_of_samples_never_mix(whole: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    name = next(name for name in whole.about["trials"] if name.startswith("quality-ra"))
    changed(folder / "trials" / f"{name}.json", lambda trial: trial.update(n=70))
    with pytest.raises(RecordProblem, match=r"gives n as 70, and its run.json asks for 150; remove it, and --resume"):
        load_run(folder)
