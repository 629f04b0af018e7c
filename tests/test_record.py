"""The store: broken, foreign and older files are named, or brought up to date."""

import json
import shutil
from pathlib import Path

import pytest

from orderbench.runs import record as recording
from orderbench.runs.record import RecordProblem, Run, load_run, read_arrays


def test_broken_and_foreign_files_are_named(whole: Run, files: dict[str, str], tmp_path: Path) -> None:

    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    about = json.loads((folder / "run.json").read_text())
    trial = folder / "trials" / f"{about['trials'][0]}.json"
    good = trial.read_text()
    trial.write_text(good[:100])
    with pytest.raises(RecordProblem, match="is not a whole JSON document"):
        load_run(folder)
    trial.write_text('{"trial": "another"}')
    with pytest.raises(RecordProblem, match="is not the record of trial"):
        load_run(folder)
    trial.write_text(good)
    (folder / "run.json").write_text(json.dumps({**about, "schema": 99}))
    with pytest.raises(
        RecordProblem, match="has schema 99 and this orderbench reads up to 2; install a newer orderbench"
    ):
        load_run(folder)
    (folder / "run.json").write_text("[]")
    with pytest.raises(RecordProblem, match="holds a list, not a record"):
        load_run(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(RecordProblem, match="is not the record of a run of this suite"):
        load_run(folder)
    with pytest.raises(RecordProblem, match="there is no folder"):
        load_run(tmp_path / "nowhere")
    (folder / "x.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(RecordProblem, match="is not a whole file of arrays"):
        read_arrays(folder / "x.npz")


def test_older_schemas_are_brought_up_to_date(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    about = json.loads((folder / "run.json").read_text())
    old = {**about, "schema": 0, "pairs": about["arms"]}
    del old["arms"]
    (folder / "run.json").write_text(json.dumps(old))
    with pytest.raises(RecordProblem, match="has schema 0, which this orderbench cannot bring up to 1"):
        load_run(folder)
    monkeypatch.setitem(recording._MIGRATIONS, 0, lambda value: {**value, "arms": value["pairs"]})
    assert load_run(folder).about["arms"] == about["arms"]
