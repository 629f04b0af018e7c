"""Speed in a run: all arms in turns, rounds that are kept, arms that fail alone."""

from pathlib import Path
from typing import Any

import pytest
from toy_runs import Killed, Silent, run, spec_of

from orderbench.models.transformer import Transformer
from orderbench.runs import latency
from orderbench.runs.record import load_run
from orderbench.runs.trials import Trial


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


def test_rounds_go_on_until_the_ratios_are_known_and_a_resumed_run_ends_alike(
    files: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of(files, orders=("raster", "radial@even:4"), only=("latency",), batch=1, rounds="auto:100%:60s")
    seen: list[tuple[int, int]] = []

    def die(trial: Trial, done: int, total: int) -> None:
        seen.append((done, total))
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        run(spec, tmp_path / "run", Silent(die))
    assert seen == [(1, 12), (2, 12), (3, 12), (4, 12)]  # what is supposed until there are intervals
    _, one = run(spec, tmp_path / "run", resume=True)
    (trial,) = one.done("latency")
    precision = trial["precision"]
    assert (precision["rounds"], precision["within"], trial["interrupted"]) == ("auto:100%:60s", 1.0, [])
    assert precision["reached"] == (precision["widest"] <= 1)
    assert len(trial["rounds"]) >= 6
    assert precision["spent_s"] == pytest.approx(
        sum(s["repeats"] * (s["tokens_s"] + s["pixels_s"]) for each in trial["rounds"] for s in each)
    )


def test_time_that_is_over_ends_the_rounds_and_the_record_says_that_they_are_coarse(
    files: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of(files, orders=("radial@even:4",), only=("latency",), batch=(2, 4), rounds="auto:0.1%:1s",
                   no_baseline=True)  # fmt: skip
    _, one = run(spec, tmp_path / "run")
    assert [trial["batch"] for trial in one.done("latency")] == [2, 4]
    for trial in one.done("latency"):
        made, spent_s = len(trial["rounds"]), trial["precision"]["spent_s"]
        assert made >= 3
        assert spent_s * (made + 1) / made > 1  # one more would have ended after the second that was given
        assert (trial["precision"]["reached"], trial["precision"]["widest"] > 0.001) == (False, True)


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
    monkeypatch.setattr(latency, "peak_memory", memory)
    _, one = run(spec, tmp_path / "run")
    (trial,) = one.trials.values()
    assert trial["status"] == "failed"
    assert len(trial["rounds"]) == 2
    monkeypatch.undo()
    _, whole = run(spec, tmp_path / "run", resume=True)
    (now,) = whole.done("latency")
    assert now["rounds"] == trial["rounds"]
