"""`bench run`: whatever happens to it, its records are whole, and a resumed run is the run it would have been."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_cli import BENCH, bench
from toys import toy_model, toy_tokens

from orderbench.models.config import FeatureConfig, TokenizerConfig
from orderbench.models.decode import step_bits
from orderbench.models.features import FeatureNet
from orderbench.models.likelihood import bits_of, plan_logits, walk
from orderbench.models.objective import SHIPPED
from orderbench.models.shipped import load_weights
from orderbench.models.tokenizer import Tokenizer
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Grid
from orderbench.runs import execute as executing
from orderbench.runs import record as recording
from orderbench.runs.arms import expand_arms, parse_arm, training_share
from orderbench.runs.estimate import estimate_s
from orderbench.runs.execute import Ended, Trial, execute, plan_trials
from orderbench.runs.export import export_run
from orderbench.runs.record import RecordProblem, Run, load_run, read_arrays
from orderbench.runs.spec import QUICK, RunSpec, effective, read_config, read_tune
from orderbench.runs.subject import load_subject


class Silent:
    """A watcher that remembers; `at` is called before every progress."""

    def __init__(self, at: Any = None) -> None:
        self.at, self.ended_trials = at, []  # type: ignore[var-annotated]

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        self.done = list(done)

    def progress(self, trial: Trial, done: int, total: int) -> None:
        if self.at is not None:
            self.at(trial, done, total)

    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        self.ended_trials.append((trial.id, record["status"]))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model on 4x4, its tokenizer, a feature network and 8x8 pictures, all with random content."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tokenizer_config, features_config = (
        TokenizerConfig(codes=11, width=8),
        FeatureConfig(classes=3, width=4, features=8),
    )
    model = toy_model(4, 4)
    networks = {
        "model": (model, {"model": asdict(model.config)}),
        "tokenizer": (Tokenizer(tokenizer_config), {"tokenizer": asdict(tokenizer_config)}),
        "features": (FeatureNet(features_config), {"features": asdict(features_config)}),
    }
    for name, (network, about) in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"about": json.dumps(about)})
    rng = np.random.default_rng(0)
    splits: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        splits[f"{split}_images"] = rng.integers(0, 256, (60, 8, 8), np.uint8)
        splits[f"{split}_labels"] = np.arange(60) % 3
    np.savez(folder / "pictures.npz", **splits)  # type: ignore[arg-type]
    return {"data": str(folder / "pictures.npz"), **{n: str(folder / f"{n}.safetensors") for n in networks}}


def spec_of(files: dict[str, str], **changes: Any) -> RunSpec:
    spec = RunSpec(
        orders=("raster", "radial"), samples=150, held_out=30, rounds=2, batch=2, threads=1, device="cpu",
        only=("quality", "likelihood"), model=files["model"], tokenizer=files["tokenizer"], data=files["data"],
        space=(files["features"],),
    )  # fmt: skip
    return replace(spec, **changes)


def run(spec: RunSpec, folder: Path, watcher: Silent | None = None, **how: Any) -> tuple[Ended, Run]:
    ended = execute(spec, load_subject(spec), folder, watcher or Silent(), **how)
    return ended, load_run(folder)


def numbers(one: Run) -> dict[str, Any]:
    """What a resumed run must share: everything but times."""
    timeless = ("wall_s", "ended", "decode_s")
    return {name: {key: value for key, value in t.items() if key not in timeless} for name, t in one.trials.items()}


@pytest.fixture(scope="session")
def whole(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing happened to."""
    return run(spec_of(files), tmp_path_factory.mktemp("runs") / "whole")[1]


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
        "flops_per_image",
        "setup_s",
        "warm_up",
        "memory",
        "step_s",
        "plan",
        "config",
        "model",
    }

    def fields(value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for one in value:
                yield from fields(one)
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                if name not in by_name:
                    yield from fields(inner)

    found = {name for record in records for name in fields(record)}
    assert {"environments", "cores_logical", "rounds", "tokens_s", "damage_rate", "fd_extrapolated"} <= found
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", document))))
    assert not found - named


def test_replicates_begin_where_they_are_told_to(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("radial",), correction=("off",), only=("quality",), samples=64)
    _, three = run(replace(spec, seeds=3), tmp_path / "three")
    _, later = run(replace(spec, seeds=2, first_seed=1), tmp_path / "later")
    assert [trial["seed"] for trial in later.done("quality")] == [1, 2]
    assert [t["tokens_digest"] for t in later.done("quality")] == [t["tokens_digest"] for t in three.done("quality")][
        1:
    ]


def test_a_run_from_before_a_setting_existed_goes_on(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["config"].pop("first_seed") == 0
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    silent = Silent()
    run(spec_of(files), tmp_path / "run", silent, resume=True)
    assert silent.done == list(whole.trials)


def test_arms_of_one_seed_share_noise_and_another_seed_has_its_own(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(
        files, orders=("radial+nested:margin=1e6", "radial+nested:rule=never"), seeds=2, samples=64, only=("quality",)
    )
    _, one = run(spec, tmp_path / "run")
    digests = {(t["arm"], t["seed"]): t["tokens_digest"] for t in one.done("quality")}
    assert digests["radial+nested:rule=never", 0] == digests["radial+nested:margin=1000000", 0]
    assert digests["radial+nested:rule=never", 0] != digests["radial+nested:rule=never", 1]


def test_likelihood_is_that_of_the_plan_and_its_tax_is_paired(whole: Run) -> None:
    by_arm = {t["arm"]: t for t in whole.done("likelihood")}
    assert by_arm["raster"]["tax_bits"] == 0
    assert by_arm["raster@even:4"]["singly_bits_per_token"] == by_arm["raster"]["bits_per_token"]
    for arm, trial in by_arm.items():
        bits = whole.arrays(trial["trial"], "bits")
        assert np.mean(bits["bits_N"]) == pytest.approx(trial["bits_per_token"], abs=1e-6)
        assert trial["tax_bits"] == pytest.approx(np.mean(bits["bits_N"] - bits["singly_N"]), abs=1e-6)
        sizes = next(a["sizes"] for a in whole.about["arms"] if a["name"] == arm)
        assert np.average(trial["bits_by_step"], weights=sizes) == pytest.approx(trial["bits_per_token"], abs=1e-5)
        assert np.mean(trial["bits_by_cell"]) == pytest.approx(trial["bits_per_token"], abs=1e-5)


class Killed(BaseException):
    """What no code of ours may catch."""


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


def flags_of(files: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in files.items() if name in ("model", "tokenizer", "data")]


def killed_until_done(start: list[str], folder: Path, rng: random.Random) -> int:
    """Starts a run, sends SIGKILL a moment after it wrote one to four records, resumes it, and so on until one ends by
    itself; how many were killed."""
    trials = folder / "trials"

    def written() -> list[tuple[str, int]]:
        return sorted((file.name, file.stat().st_mtime_ns) for file in trials.glob("[!.]*.json"))  # whole ones

    for kills in range(60):
        going = ["run", "--resume", "--out", str(folder)] if (folder / "run.json").exists() else start
        process = subprocess.Popen(
            [*BENCH, *going],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        before, wanted = written(), rng.randint(1, 4)
        while process.poll() is None and wanted:
            time.sleep(0.005)
            if (now := written()) != before:
                before, wanted = now, wanted - 1
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, error
            return kills
    raise AssertionError("never done")


def test_real_sigkills_lose_nothing(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start = ["run", "--orders", "raster,radial", "--samples", "150", "--held-out", "30", "--rounds", "2",
             "--batch", "2", "--only", "quality,likelihood", "--threads", "1", "--device", "cpu",
             "--space", files["features"], *flags_of(files), "--out", str(folder)]  # fmt: skip
    assert killed_until_done(start, folder, random.Random(7)) >= 2  # noqa: S311
    done = numbers(load_run(folder))
    assert done.keys() == numbers(whole).keys()
    assert done == numbers(whole)


def test_real_sigkills_keep_every_round_that_was_timed(files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start = ["run", "--orders", "radial", "--correction", "off", "--rounds", "5", "--batch", "2", "--only", "latency",
             "--threads", "1", "--device", "cpu", *flags_of(files), "--out", str(folder)]  # fmt: skip
    assert killed_until_done(start, folder, random.Random(3)) >= 2  # noqa: S311
    for trial in load_run(folder).done("latency"):
        assert len(trial["rounds"]) == 5
        for each in trial["rounds"]:
            names = ["A/A", "radial", "raster"] + ["uncached"] * (trial["batch"] == 1)
            assert sorted(sample["name"] for sample in each) == names


def test_two_processes_decode_the_same_run(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "orderbench.runs", "--orders", "raster,radial", "--samples", "150", "--held-out", "30",
               "--rounds", "2", "--batch", "2", "--only", "quality,likelihood", "--threads", "1", "--device", "cpu",
               "--space", files["features"], *flags_of(files), "--out", str(folder), "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failed"] == []
    assert numbers(load_run(folder)) == numbers(whole)


def test_an_arm_that_fails_is_recorded_and_the_others_go_on(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(files, only=("quality",), samples=64)
    subject = load_subject(spec)

    def refuse(*_: object) -> None:
        raise BenchError("there is no memory for 64 samples at once")

    monkeypatch.setattr(subject.model, "refill", refuse)  # only nested correction refills
    folder = tmp_path / "run"
    ended = execute(spec, subject, folder, Silent())
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
    subject = load_subject(spec)
    monkeypatch.setattr(subject.model, "logits", lambda *_: 1 / 0)
    ended = execute(spec, subject, tmp_path / "run", Silent(), fail_fast=True)
    assert len(ended.failed) == 1
    trials = load_run(tmp_path / "run").trials
    assert [t["status"] for t in trials.values()] == ["done"] * 3 + ["failed"]
    assert "ZeroDivisionError" in list(trials.values())[-1]["reason"]
    assert "1 / 0" in list(trials.values())[-1]["traceback"]


def test_a_model_that_answers_nan_fails_by_name(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("raster@even:4",), samples=64)
    subject = load_subject(spec)
    with torch.no_grad():
        subject.model.head.weight[0, 0] = float("nan")  # type: ignore[attr-defined]
    ended = execute(spec, subject, tmp_path / "run", Silent())
    assert len(ended.failed) == 2
    reasons = {t["reason"] for t in load_run(tmp_path / "run").trials.values() if t["status"] == "failed"}
    assert all("logits are not finite" in reason for reason in reasons)


def test_latency_is_measured_in_turns_and_goes_on_where_it_was(files: dict[str, str], tmp_path: Path) -> None:
    spec, folder = spec_of(files, only=("latency",), rounds=3), tmp_path / "run"

    def die(trial: Trial, done: int, total: int) -> None:
        if trial.batch == 1 and done == 2:
            raise Killed

    with pytest.raises(Killed):
        run(spec, folder, Silent(die))
    (partial,) = load_run(folder).trials.values()
    assert (partial["status"], len(partial["rounds"])) == ("partial", 2)
    _, one = run(spec, folder, resume=True)
    first, second = one.done("latency")
    assert first["rounds"][:2] == partial["rounds"]
    for trial in (first, second):
        names = {"raster", "raster@even:4", "radial", "radial+nested", "halton@cosine:4", "A/A"}
        names |= {"uncached"} if trial["batch"] == 1 else set()
        assert len(trial["rounds"]) == 3
        for each in trial["rounds"]:
            assert {s["name"] for s in each} == names
            assert all(s["tokens_s"] > 0 and s["pixels_s"] > 0 for s in each)
        assert trial["counters"]["raster"]["passes"] == 16
        assert trial["counters"]["A/A"] == trial["counters"]["raster"]
        assert trial["memory"]["raster"]["peak_bytes"] > 0
    assert {name: len(steps[0]) for name, steps in first["step_s"].items()} == {
        "raster": 16, "raster@even:4": 4, "radial": 4, "radial+nested": 4, "halton@cosine:4": 4,
    }  # fmt: skip


def test_tuning_tries_other_seeds_and_keeps_the_best(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("radial",), correction=("off",), only=("quality",), samples=64,
                   tune={"guidance": (1.0, 3.0), "temperature": (0.5, 1.0)})  # fmt: skip
    _, one = run(spec, tmp_path / "run")
    tried = one.done("tuning")
    assert len(tried) == 4
    assert {t["seed"] for t in tried} == {1_000_000}
    best = min(tried, key=lambda t: t["quality"][0]["fd"]["value"])
    fixed, tuned = one.done("quality")
    assert (fixed["setting"], tuned["setting"], tuned["seed"]) == ("fixed", "tuned", 0)
    assert tuned["sampling"] == best["sampling"]


def test_a_setting_is_chosen_when_all_were_tried(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(files, orders=("radial@cosine:4",), only=("quality",), samples=64, tune={"temperature": (0.5, 2.0)})
    real = executing.decode

    def decode(*given: Any, **how: Any) -> Any:
        if how["sampling"].temperature == 2.0:
            raise RuntimeError("no room today")
        return real(*given, **how)

    monkeypatch.setattr(executing, "decode", decode)
    ended, one = run(spec, tmp_path / "run")
    assert len(ended.failed) == 2
    reasons = {t["reason"] for t in one.trials.values() if t["status"] == "failed"}
    assert "the setting temperature=2.0 could not be tried, so none is chosen for radial@cosine:4" in reasons
    monkeypatch.undo()
    run(spec, tmp_path / "run", resume=True)
    _, never_failed = run(spec, tmp_path / "other")
    assert numbers(load_run(tmp_path / "run")) == numbers(never_failed)


def test_settings_to_tune_are_looked_at_before_anything_is_measured(files: dict[str, str]) -> None:
    with pytest.raises(BenchError, match=r"--tune temperature=banana is not a number; as in --tune temperature=0.9,1"):
        spec_of(files, tune={"temperature": ("banana",)})
    with pytest.raises(BenchError, match=r"--tune top_k=4.5 is not a whole number"):
        spec_of(files, tune={"top_k": (4.5,)})
    spec = spec_of(files, tune={"temperature": (0.0,)})
    with pytest.raises(BenchError, match="temperature"):
        plan_trials(spec, expand_arms(("radial",), (), (), Grid(4, 4)), load_subject(spec))


# Speed


def test_an_arm_that_cannot_be_timed_leaves_the_others_their_times(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refill(*given: Any) -> None:
        raise RuntimeError("no room today")

    spec = spec_of(files, orders=("radial",), only=("latency",), batch=1)
    monkeypatch.setattr(Transformer, "refill", refill)
    ended, one = run(spec, tmp_path / "run")
    (trial,) = one.done("latency")
    assert ended.failed == (trial["trial"],)
    assert list(trial["failed_arms"]) == ["radial+nested"]
    assert "no room today" in trial["failed_arms"]["radial+nested"]
    timed = {"raster", "radial", "halton@cosine:4", "A/A", "uncached"}
    assert [{sample["name"] for sample in taken} for taken in trial["rounds"]] == [timed, timed]
    assert set(trial["step_s"]) == timed - {"A/A", "uncached"}
    monkeypatch.undo()
    ended, one = run(spec, tmp_path / "run", resume=True)
    assert ended.failed == ()
    assert "radial+nested" in one.done("latency")[0]["step_s"]


def test_rounds_outlive_a_failure_after_them(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def memory(*given: Any) -> None:
        raise RuntimeError("nobody can say")

    spec = spec_of(files, orders=("radial@cosine:4",), correction=("off",), only=("latency",), batch=1)
    monkeypatch.setattr(executing, "peak_memory", memory)
    _, one = run(spec, tmp_path / "run")
    (trial,) = one.trials.values()
    assert trial["status"] == "failed"
    assert len(trial["rounds"]) == 2
    monkeypatch.undo()
    _, whole = run(spec, tmp_path / "run", resume=True)
    (now,) = whole.done("latency")
    assert now["rounds"] == trial["rounds"]


# The folder


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
    assert about["subject"]["held_out"]["images"] == 60
    assert len(about["subject"]["spaces"][0]["reference_sha256"]) == 64
    with pytest.raises(RecordProblem, match=r"holds a run of another subject.held_out.sha256"):
        run(spec_of({**files, "data": str(tmp_path / "pictures.npz")}), tmp_path / "run", resume=True)


def test_there_must_be_a_run_to_resume(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RecordProblem, match="holds no run to go on with; leave --resume away"):
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


def test_broken_and_foreign_files_are_named(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    import shutil

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
        RecordProblem, match="has schema 99 and this orderbench reads up to 1; install a newer orderbench"
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
    import shutil

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


# What is asked


def test_the_effective_configuration_can_be_fed_back(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    read = read_config(str(whole.folder / "run.json"))
    assert RunSpec.from_json(read, "it") == spec_of(files)
    spec = spec_of(files, tune={"guidance": (1.0, "constant:scale=2")}, steps=(8, 13))
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json())), "it") == spec


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('orders = ["raster"]\nsampels = 3\n', "no key in .*named 'sampels'; did you mean 'samples'"),
        ('samples = "many"\n', "gives samples as 'many', and it takes a whole number"),
        ("samples = true\n", "gives samples as True"),
        ("samples = 0\n", "samples is 0; give a whole number of 1 or more, as in --samples 8"),
        ("steps = [8]\npace = [\"even:8\"]\n", "--steps and --pace both cut orders into steps"),
        ("only = [\"speed\"]\n", "no measurement named 'speed'"),
        ('dtype = "fp8"\n', "a dtype of 'fp8' is not served; fp32 or bf16"),
        ("orders = []\n", "no order was asked for"),
        ("only = []\n", "no measurement was asked for; name some, as in --only quality,likelihood"),
        ("tune = {top-k = [inf]}\n", "top_k=inf is not a whole number"),
        ("tune = {temperature = [nan]}\n", "temperature=nan is not a number"),
        ("tune = [3]\n", r"gives tune as \[3\], and it takes lists by name"),
        ("schema = 1\nconfig = 5\n", "holds no settings; a run.json of this suite keeps them under 'config'"),
        ("first-seed = -1\n", "first_seed is -1; give a whole number of 0 or more, as in --first-seed 8"),
        ("first-seed = 999_999\nseeds = 2\n", "2 replicates from seed 999999 on reach the seeds"),
        ("tune = {guidence = [1, 2]}\n", "no setting to tune named 'guidence'; did you mean 'guidance'"),
        ("orders = [\n", "is not TOML"),
    ],
)  # fmt: skip
def test_configurations_are_strict(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(BenchError, match=sentence):
        RunSpec.from_json(read_config(str(file)), f"'{file.name}'")


def test_quick_beats_a_file_and_numbers_beside_it_beat_quick() -> None:
    assert effective({"samples": 5000}, {"quick": True})["samples"] == QUICK["samples"]
    assert effective({"samples": 5000}, {"quick": True, "samples": 9})["samples"] == 9
    assert effective({"samples": 5000, "quick": True}, {})["samples"] == 5000
    assert effective({"quick": True}, {"batch": 2}) == {**QUICK, "quick": True, "batch": 2}
    assert effective({"samples": 5000}, {"samples": 9}) == {"samples": 9}


def test_tuned_values_are_read(tmp_path: Path) -> None:
    assert read_tune(["guidance=1,1.5,constant:scale=2", "top-k=0,4"]) == {
        "guidance": [1.0, 1.5, "constant:scale=2"],
        "top_k": [0.0, 4.0],
    }
    assert read_tune(["guidance=1", "guidance=1,2"]) == {"guidance": [1.0, 2.0]}
    with pytest.raises(BenchError, match="names no values; write NAME=V,V"):
        read_tune(["guidance"])


def test_orders_multiply_by_paces_and_corrections() -> None:
    grid = Grid(16, 16)
    ladder = ["raster", "raster@even:13", "radial", "radial+nested", "halton@cosine:13"]
    assert [arm.name for arm in expand_arms(["raster", "radial"], [], [], grid)] == ladder
    multiplied = expand_arms(["radial", "halton@one"], ["cosine:8"], ["off", "nested:margin=1"], grid)
    assert [arm.name for arm in multiplied] == [
        "radial@cosine:8", "radial@cosine:8+nested", "halton@one", "halton@one+nested",
    ]  # fmt: skip
    assert [arm.name for arm in expand_arms(["radial@cosine:8"], [], [], grid)] == ["radial@cosine:8"]
    assert parse_arm("confidence:noise=4.5@cosine:13").name == "confidence@cosine:13"
    with pytest.raises(BenchError, match="it needs a pace and takes no correction, as in confidence@cosine:13"):
        parse_arm("confidence")
    with pytest.raises(BenchError, match="did you mean 'radial'"):
        expand_arms(["radail"], [], [], grid)


def test_a_share_of_training_goes_by_the_walk_and_not_by_its_spelling() -> None:
    grid = Grid(16, 16)
    share = {arm: training_share(parse_arm(arm), SHIPPED, grid)[0] for arm in (
        "radial", "radial:center=8x8", "raster", "regions:m=1", "spiral", "hilbert", "confidence@cosine:13",
    )}  # fmt: skip
    assert share["radial"] == share["radial:center=8x8"] == 0.2
    assert share["raster"] == share["regions:m=1"] == 0.25
    assert share["spiral"] == 0.05
    assert share["hilbert"] == share["confidence@cosine:13"] == 0


def test_what_cannot_be_measured_is_refused(files: dict[str, str]) -> None:
    spec = spec_of(files, tokenizer=None, data=None, space=(), only=("quality",))
    subject = load_subject(spec)
    with pytest.raises(BenchError, match="nothing of quality can be measured on this model: quality needs a tokenizer"):
        plan_trials(spec, expand_arms(["raster"], [], [], Grid(4, 4)), subject)
    with pytest.raises(BenchError, match="no shipped model named 'nothing'; known: fashion-model"):
        load_subject(spec_of(files, model="nothing"))
    with pytest.raises(BenchError, match="no feature space named 'lite'; did you mean 'lite0'"):
        load_subject(spec_of(files, space=("lite",)))
    for wrong in ({"guidance": "abc"}, {"temperature": 0.0}, {"top_p": 2.0}):
        spec = spec_of(files, **wrong)
        with pytest.raises(BenchError):
            plan_trials(spec, expand_arms(["raster"], [], [], Grid(4, 4)), load_subject(spec))


def test_a_models_own_likelihood_is_that_of_its_steps(files: dict[str, str]) -> None:
    """Any model that keeps the protocol has one; for ours it equals the one pass of plan_logits."""
    model = load_weights(files["model"]).network
    tokens_BL, labels_B = toy_tokens(model, 5)
    for arm in ("raster", "radial", "random@cosine:4"):
        plan = parse_arm(arm).plan(Grid(4, 4), 3)
        with torch.inference_mode():
            logits_BLV = plan_logits(model, tokens_BL, labels_B, plan)
        cells_BL = walk(plan, range(5) if plan.per_sample else [0]).expand_as(tokens_BL)
        expected = torch.empty(5, 16).scatter_(1, cells_BL, bits_of(logits_BLV, tokens_BL, cells_BL))
        found = step_bits(model, plan, tokens_BL, labels_B.tolist(), samples=range(5))
        assert torch.allclose(found, expected, atol=1e-4), arm


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


def test_what_is_no_module_keeps_its_own_precision(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_bare.py").write_text(
        "class Own:\n"
        "    lattice, n_codes, n_classes = None, 2, 1\n"
        "    start = step = logits = refill = rewind = None\n"
        "def build(): return Own()\n"
        "def built():\n"
        "    from orderbench.models.shipped import load_weights\n"
        f"    return load_weights({files['model']!r}).network\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="no torch module, so its weights cannot be cast to bf16"):
        load_subject(spec_of(files, model="my_bare:build", dtype="bf16"))
    subject = load_subject(spec_of(files, model="my_bare:built", dtype="bf16"))
    assert {p.dtype for p in subject.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    assert len(subject.about["model"]["sha256"]) == 64


def test_nothing_that_was_asked_is_dropped_for_want_of_a_tokenizer(files: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="--data and --space need a tokenizer"):
        load_subject(spec_of(files, tokenizer=None))


def test_a_model_that_cannot_decode_is_no_reason_for_no_run(files: dict[str, str]) -> None:
    spec = spec_of(files)
    subject = load_subject(spec)
    with torch.no_grad():
        subject.model.head.weight.fill_(float("nan"))  # type: ignore[attr-defined]
    arms = expand_arms(spec.orders, (), (), Grid(4, 4))
    assert estimate_s(plan_trials(spec, arms, subject), arms, spec, subject) == {}


def test_adaptive_orders_run_beside_plans(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("confidence@cosine:4",), samples=64)
    _, one = run(spec, tmp_path / "run")
    (trial,) = one.done("quality")
    assert trial["plan_digest"] is None
    assert trial["counters"]["passes"] == 4
    assert not one.done("likelihood")


# The command


def test_the_command_prints_one_document_and_leaves_a_run(files: dict[str, str], tmp_path: Path) -> None:
    asked = ["run", "--orders", "radial@cosine:4", "--samples", "64", "--held-out", "10", "--rounds", "1",
             "--batch", "1",
             "--threads", "1", "--device", "cpu", "--space", files["features"], *flags_of(files)]  # fmt: skip
    done = bench(*asked, "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["failed"] == []
    assert document["arms"][0]["figures"]["fd"]["value"] > 0
    left = bench("run", "--resume", "--out", str(tmp_path / "run"), "--dry-run", "--json")
    assert json.loads(left.stdout) == {"trials": [], "done_before": 6, "estimate_s": 0}
    listed = bench(*asked, "--dry-run", "--json")
    trials = json.loads(listed.stdout)["trials"]
    assert [t["kind"] for t in trials] == ["likelihood", "floor", "floor", "floor", "quality", "latency"]
    assert all(t["estimate_s"] > 0 for t in trials)
    nothing = bench("run", "--resume", "--out", str(tmp_path / "nothing"))
    assert nothing.returncode == 2
    assert "holds no run to go on with; leave --resume away to start one" in nothing.stderr
    again = bench(*asked, "--out", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "holds a run already" in again.stderr
    shown = bench("run", "--resume", "--out", str(tmp_path / "run"))
    assert shown.returncode == 0, shown.stderr
    assert "radial@cosine:4" in shown.stdout
    assert shown.stdout.rstrip().endswith(str(tmp_path / "run" / "report" / "report.html"))
    shutil.rmtree(tmp_path / "run" / "report")
    bare = bench("run", "--resume", "--out", str(tmp_path / "run"), "--no-report")
    assert bare.returncode == 0, bare.stderr
    assert bare.stdout.rstrip().endswith(f"records: {tmp_path / 'run'}")
    assert not (tmp_path / "run" / "report").exists()


def test_interrupted_it_says_how_to_go_on(files: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BENCH, "run", "--orders", "raster", "--samples", "640", "--seeds", "60", "--only", "quality",
         "--threads", "1", "--device", "cpu", "--space", files["features"], *flags_of(files),
         "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    tiles = tmp_path / "run" / "tiles"
    while process.poll() is None and not (tiles.is_dir() and list(tiles.rglob("*.npz"))):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted; what was measured is kept, and `bench run --resume --out" in error
    assert error.count("bench: interrupted") == 1


def test_samples_are_exported_for_other_tools(whole: Run, tmp_path: Path) -> None:
    written = export_run(whole, tmp_path / "new", npz=True, png=True)
    assert len(written) == 2 * len(whole.done("quality"))
    for trial, array, folder in zip(whole.done("quality"), written[::2], written[1::2], strict=True):
        with np.load(array) as found:
            images, labels = found["arr_0"], found["arr_1"]
        assert (images.shape, images.dtype, labels.dtype) == ((150, 8, 8, 3), np.uint8, np.int64)
        assert (labels == np.arange(150) % 3).all()
        pictures = whole.arrays(trial["trial"], "pictures")["images_Nhwc"]
        assert (images[:40, ..., :1] == pictures).all()
        files = sorted(folder.iterdir())
        assert [files[0].name, files[-1].name, len(files)] == ["000000-0.png", "000149-2.png", 150]
        assert (np.asarray(Image.open(files[7])) == images[7, ..., 0]).all()
    assert bench("export", str(whole.folder)).returncode == 2


def test_help_has_examples() -> None:
    done = bench("run", "--help")
    assert done.returncode == 0
    assert "bench run --orders raster,radial\n" in done.stdout
    assert executing.FLOORS == ("real", "reconstructed", "noise")
