"""Running: whatever happens to a run, its records are whole, and a resumed run is the run it would have been."""

import errno
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import Killed, Silent, numbers, run, spec_of

from orderbench.models import processes
from orderbench.orders import BenchError
from orderbench.reports.results import results_of
from orderbench.runs import record as recording
from orderbench.runs.execute import execute
from orderbench.runs.record import RecordProblem, Run, load_run
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import make_agenda


def test_a_run_holds_every_trial_with_its_numbers(whole: Run) -> None:
    assert [arm["name"] for arm in whole.about["arms"]] == [
        "raster", "raster@even:4", "radial", "radial+nested", "halton@cosine:4",
    ]  # fmt: skip
    assert list(whole.trials) == whole.about["trials"]
    assert {t["status"] for t in whole.trials.values()} == {"done"}
    kinds = [t["kind"] for t in whole.trials.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"likelihood": 4, "floor": 3, "quality": 5, "repair": 1}
    for trial in whole.done("quality"):
        quality = trial["quality"][0]
        assert quality["n"] == 150
        assert quality["n_reference"] == 60
        assert quality["fd"]["value"] > 0
        assert len(quality["fd"]["left_out"]) == quality["groups"] == 16
        tokens_NL = whole.arrays(trial["trial"], "tokens")["tokens_NL"]
        assert tokens_NL.shape == (150, 16)
        assert tokens_NL.max() < 11
        features = whole.arrays(trial["trial"], f"features-{quality['space']}")
        assert features["features_ND"].shape == (150, 8)
    assert not list((whole.folder / "tiles").iterdir())


def test_the_document_of_records_names_every_field(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    _, timed = run(spec_of(files, only=("latency",), orders=("radial",), correction=("off",)), tmp_path / "timed")
    document = (Path(__file__).parents[1] / "docs" / "record-format.md").read_text()
    records = [whole.about, timed.about, *whole.trials.values(), *timed.trials.values()]
    values = {"versions", "build", "variables", "objective", "mixture"}  # keyed by what is there, or the model's own
    by_name = {
        *values,
        "counters",
        "counters_exact",
        "flops_per_image",
        "setup_s",
        "warm_up",
        "memory",
        "step_s",
        "plan",
        "config",
        "refused",
    }

    def fields(value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for one in value:
                yield from fields(one)
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                if name == "models":
                    yield from fields(list(inner.values()))
                elif name not in by_name:
                    yield from fields(inner)

    found = {name for record in records for name in fields(record)}
    assert {"environments", "cores_logical", "rounds", "tokens_s", "damage_rate", "fd_extrapolated", "native"} <= found
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", document))))
    assert not found - named


def test_a_run_from_before_a_setting_existed_goes_on(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["config"].pop("first_seed") == 0
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    silent = Silent()
    run(spec_of(files), tmp_path / "run", silent, resume=True)
    assert silent.done == list(whole.trials)


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_and_resumed_it_is_the_same_run(
    whole: Run, files: dict[str, str], tmp_path: Path, seed: int
) -> None:
    rng, folder, spec = random.Random(seed), tmp_path / "run", spec_of(files)  # noqa: S311 (moments, not secrets)

    def die(*_: object) -> None:
        if rng.random() < 0.3:
            raise Killed

    deaths, ended = 0, False
    while not ended:
        try:
            run(spec, folder, Silent(die), resume=(folder / "run.json").exists())
            ended = True
        except Killed:
            deaths += 1
    assert deaths > 0
    assert numbers(load_run(folder)) == numbers(whole)
    assert len(load_run(folder).about["environments"]) == deaths + 1


def test_an_arm_that_fails_is_recorded_and_the_others_go_on(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(files, only=("quality",), samples=64)
    subjects = load_subjects(spec)

    def refuse(*_: object) -> None:
        raise BenchError("there is no memory for 64 samples at once")

    monkeypatch.setattr(subjects.own.model, "refill", refuse)  # only nested correction refills
    folder = tmp_path / "run"
    ended = execute(make_agenda(spec, subjects), folder, Silent())
    trials = load_run(folder).trials
    assert len(ended.failed) == 2
    for name, trial in trials.items():
        nested = "nested" in trial["arm"]
        assert trial["status"] == ("failed" if nested else "done"), name
        assert not nested or trial["reason"] == "there is no memory for 64 samples at once"
    monkeypatch.undo()
    assert run(spec, folder, resume=True)[0].failed == ()
    assert {t["status"] for t in load_run(folder).trials.values()} == {"done"}


def test_fail_fast_stops_at_the_first(files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(files, only=("quality",), samples=64)
    subjects = load_subjects(spec)
    monkeypatch.setattr(subjects.own.model, "answer", lambda *_, **__: 1 / 0)
    ended = execute(make_agenda(spec, subjects), tmp_path / "run", Silent(), fail_fast=True)
    assert len(ended.failed) == 1
    trials = load_run(tmp_path / "run").trials
    assert [t["status"] for t in trials.values()] == ["done"] * 3 + ["failed"]
    assert "ZeroDivisionError" in list(trials.values())[-1]["reason"]
    assert "1 / 0" in list(trials.values())[-1]["traceback"]


def test_a_model_that_answers_nan_fails_by_name(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("raster@even:4",), samples=64)
    subjects = load_subjects(spec)
    with torch.no_grad():
        subjects.own.model.head.weight[0, 0] = float("nan")  # type: ignore[attr-defined]
    ended = execute(make_agenda(spec, subjects), tmp_path / "run", Silent())
    assert len(ended.failed) == 4  # quality and likelihood of the arm and of its baseline
    reasons = {t["reason"] for t in load_run(tmp_path / "run").trials.values() if t["status"] == "failed"}
    assert all("logits are not finite" in reason for reason in reasons)


def test_a_run_is_not_written_over_and_only_the_same_run_is_resumed(whole: Run, files: dict[str, str]) -> None:
    with pytest.raises(RecordProblem, match="holds a run already; go on with it by --resume, or name another place"):
        run(spec_of(files), whole.folder)
    with pytest.raises(RecordProblem, match=r"holds a run of another config.samples \(150, not 200\)"):
        run(spec_of(files, samples=200), whole.folder, resume=True)
    with pytest.raises(RecordProblem, match=r"holds a run of another config.orders\[1\] \(radial, not spiral\)"):
        run(spec_of(files, orders=("raster", "spiral")), whole.folder, resume=True)
    silent = Silent()
    run(spec_of(files), whole.folder, silent, resume=True)
    assert silent.done == list(whole.trials)
    assert silent.ended_trials == []


def test_data_that_changed_makes_another_run(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    with np.load(files["data"]) as arrays:
        changed = dict(arrays)
    changed["test_images"] = 255 - changed["test_images"]
    np.savez(tmp_path / "pictures.npz", **changed)
    shutil.copytree(whole.folder, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    about["config"]["data"] = str(tmp_path / "pictures.npz")
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert about["models"]["model"]["held_out"]["images"] == 60
    assert len(about["spaces"][0]["reference_sha256"]) == 64
    with pytest.raises(RecordProblem, match=r"holds a run of another models.model.held_out.sha256"):
        run(spec_of({**files, "data": str(tmp_path / "pictures.npz")}), tmp_path / "run", resume=True)


def test_runs_of_an_older_kind_are_gone_on_with_or_the_sentence_says_what_else(
    files: dict[str, str], tmp_path: Path
) -> None:
    spec, folder = spec_of(files, orders=("radial",), only=("likelihood",)), tmp_path / "run"
    run(spec, folder)
    stored = json.loads((folder / "run.json").read_text())
    named = load_subjects(spec)
    named.own.about["class_names"] = ["a", "b", "c"]
    execute(make_agenda(spec, named), folder, Silent(), resume=True)  # an older run did not name its classes
    stored["arms"] = [arm for arm in stored["arms"] if arm["name"] != "raster"]
    stored["trials"] = [trial for trial in stored["trials"] if "raster" not in trial]
    (folder / "run.json").write_text(json.dumps(stored))
    said = "when the baseline raster was no arm.*`bench report .*run` still reads it.*--out run-2"
    with pytest.raises(RecordProblem, match=said):
        run(spec, folder, resume=True)


def test_there_must_be_a_run_to_resume(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RecordProblem, match="holds no run to go on with; leave --resume out"):
        run(spec_of(files), tmp_path / "nothing", resume=True)


def test_two_runs_in_one_folder_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with recording.sole_writer(folder), pytest.raises(RecordProblem, match="another process is running in"):
        run(spec_of(files), folder)


def test_a_folder_that_cannot_be_made(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordProblem, match=r"cannot hold a run: .*; name another place"):
        run(spec_of(files), tmp_path / "file" / "run")


def test_a_full_disk_stops_the_run_with_everything_kept(
    whole: Run, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, written = tmp_path / "run", os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(recording.os, "fsync", full)
    with pytest.raises(RecordProblem, match="could not be written: the disk is full; what was there before is kept"):
        run(spec_of(files), folder)
    monkeypatch.undo()
    assert load_run(folder).trials
    assert not list(folder.rglob(".part-*"))
    run(spec_of(files), folder, resume=True)
    assert numbers(load_run(folder)) == numbers(whole)


def test_a_factory_is_measured_like_any_model(files: dict[str, str], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_wrapped.py").write_text(
        "from orderbench.models.shipped import load_weights\n"
        "class Own:\n"
        "    def __init__(self, inner): self.inner = inner\n"
        "    def __getattr__(self, name): return getattr(self.__dict__['inner'], name)\n"
        f"def build(): return Own(load_weights({files['model']!r}).network)\n"
    )
    monkeypatch.chdir(tmp_path)
    changes = {"orders": ("radial", "radial+nested"), "samples": 64}
    _, own = run(spec_of(files, model="my_wrapped:build", **changes), tmp_path / "own")
    _, ours = run(spec_of(files, **changes), tmp_path / "ours")
    for one, two in zip(own.done(), ours.done(), strict=True):
        assert one.get("tokens_digest") == two.get("tokens_digest")
        assert one.get("bits_per_token", 0) == pytest.approx(two.get("bits_per_token", 0), abs=1e-5)
    assert own.done("quality")[0]["flops_per_image"] is None


def test_adaptive_orders_run_beside_plans(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("confidence@cosine:4", "confidence:rule=threshold:tau=0.3"), samples=64)
    _, one = run(spec, tmp_path / "run")
    _, paced, free = one.done("quality")
    assert (paced["arm"], paced["plan_digest"]) == ("confidence@cosine:4", None)
    assert paced["counters"]["passes"] == paced["n_steps"] == 4
    assert free["counters"]["passes"] == free["n_steps"] < one.about["arms"][-1]["n_steps"]
    assert not free["counters_exact"]
    _, *bits = one.done("likelihood")
    assert [trial["arm"] for trial in bits] == ["confidence@cosine:4", "confidence:rule=threshold:tau=0.3"]
    for trial in bits:
        assert (trial["plan_digest"], trial["predicted_tax_bits"]) == (None, None)
        assert trial["tax_bits"] == pytest.approx(trial["bits_per_token"] - trial["singly_bits_per_token"])
    assert len(bits[0]["bits_by_step"]) == 4
    rows = {row.arm: row for row in results_of(one).arms}
    assert rows["confidence:rule=threshold:tau=0.3"].n_steps == free["n_steps"]
    assert "tax" in rows["confidence@cosine:4"].figures


def test_processes_that_share_no_folder_are_told_so(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderbench.runs.execute.n_processes", lambda: 2)
    monkeypatch.setattr("orderbench.runs.execute.gather", lambda own: [own, False])  # the other one does not see it
    with pytest.raises(RecordProblem, match=r"process 1 of 2 does not see '.*', where the first one writes; name a "):
        run(spec_of(files), tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_a_process_that_has_ended_is_named_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*given: object) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:59073")

    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes.dist, "all_gather_object", closed)
    with pytest.raises(BenchError, match=r"another process has ended, .* so start all of them again, with --resume"):
        processes.gather(1)
