"""Runs of other models than ours: several beside each other, one that serves its own order alone, and other shapes."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import Silent, numbers, run, spec_of
from toys import toy_model

from orderbench.models.counting import count
from orderbench.models.decode import DECODERS, Counters, make_tile, parse_decoder, run_tile, uncached_steps
from orderbench.models.shipped import load_weights
from orderbench.orders import BenchError, make_plan
from orderbench.reports.results import results_of
from orderbench.runs import cli, estimate, latency
from orderbench.runs.arms import parse_arm
from orderbench.runs.cost import Workload
from orderbench.runs.record import Run, load_run
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.timing import warm_up
from orderbench.runs.trials import make_agenda

ALL = ("quality", "likelihood", "latency")
REFUSAL = "par does not serve this plan: it was trained for regions:m=2 in its own groups"


@pytest.fixture(scope="module", autouse=True)
def short_samples() -> Iterator[None]:
    """What is asked here is who is timed, not how long it takes: samples need not be long enough for the clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "warm_up", partial(warm_up, least_s=0.01))
        yield


def two(files: dict[str, str], **changes: Any) -> RunSpec:
    """The model of the files, and beside it one of a single order."""
    asked: dict[str, Any] = {
        "orders": ("raster", "radial", "regions~par", "raster~par"), "correction": ("off",), "samples": 64,
        "held_out": 10, "rounds": 2, "batch": 2, "only": ALL, "model": (files["model"], "par=toys:regions_model"),
    }  # fmt: skip
    return spec_of(files, **{**asked, **changes})


@pytest.fixture(scope="module")
def both(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    ended, one = run(two(files), tmp_path_factory.mktemp("runs") / "both")
    assert ended.failed == ()
    return one


def test_a_run_of_two_models_says_whose_everything_is(both: Run) -> None:
    about = both.about
    assert (about["schema"], list(about["models"])) == (2, ["model", "par"])
    own, par = about["models"]["model"], about["models"]["par"]
    assert (own["native"], own["baseline"], own["ratio"]) == ("raster", "raster", True)
    assert (par["native"], par["baseline"], par["ratio"]) == ("regions", "regions~par", False)
    assert (par["name"], par["factory"], own.get("factory")) == ("toys:regions_model", True, None)
    assert par["tokenizer"] == own["tokenizer"]
    assert par["held_out"] == own["held_out"]
    assert par["sha256"] != own["sha256"]
    arms = {arm["name"]: arm for arm in about["arms"]}
    assert {name: arm["model"] for name, arm in arms.items()} == {
        "raster": "model", "radial": "model", "regions~par": "par",
    }  # fmt: skip
    assert (arms["regions~par"]["order"], arms["regions~par"]["sizes"]) == ("regions", [1, 1, 1, 1, 4, 4, 4])
    assert about["refused"] == {"raster~par": REFUSAL}


def test_trials_of_both_models_are_measured(both: Run) -> None:
    found = [(t["kind"], t["arm"]) for t in both.done()]
    assert found == [
        *(("likelihood", arm) for arm in ("raster", "radial", "regions~par")),
        *(("floor", name) for name in ("real", "reconstructed", "noise")),  # of the one tokenizer that both have
        *(("quality", arm) for arm in ("raster", "radial", "regions~par")),
        ("latency", ""), ("latency", ""),
    ]  # fmt: skip
    digests = {t["arm"]: t["tokens_digest"] for t in both.done("quality")}
    assert len(set(digests.values())) == 3
    bits = {t["arm"]: t for t in both.done("likelihood")}
    assert bits["radial"]["tax_bits"] is not None
    apart = bits["regions~par"]
    assert apart["bits_per_token"] > 0
    assert len(apart["bits_by_step"]) == 7
    singly = [key for key, value in apart.items() if value is None]
    assert singly == ["singly_bits_per_token", "tax_bits", "tax_se", "singly_bits_by_step", "singly_bits_by_cell"]
    assert set(both.arrays(apart["trial"], "bits")) == {"bits_N"}


def test_the_own_models_numbers_are_those_of_a_run_without_the_other(
    both: Run, files: dict[str, str], tmp_path: Path
) -> None:
    alone = spec_of(files, orders=("raster", "radial"), correction=("off",), samples=64, held_out=10)
    expected = numbers(run(alone, tmp_path / "alone")[1])
    found = numbers(both)
    assert expected
    assert all(found[name] == trial for name, trial in expected.items())


def test_speed_is_measured_with_the_baseline_of_every_model(both: Run) -> None:
    for trial in both.done("latency"):
        names = {"raster", "radial", "regions~par", "A/A"} | ({"uncached"} if trial["batch"] == 1 else set())
        assert all({sample["name"] for sample in taken} == names for taken in trial["rounds"])
        assert all(sample["pixels_s"] > 0 for taken in trial["rounds"] for sample in taken)
        assert set(trial["memory"]) == set(trial["setup_s"]) == set(trial["warm_up"]) == names
        assert trial["flops_per_image"]["raster"] == trial["flops_per_image"]["A/A"] > 0
        assert trial["flops_per_image"]["regions~par"] > 0  # as torch counts them while it decodes
    first = both.done("latency")[0]
    assert {name: len(steps[0]) for name, steps in first["step_s"].items()} == {
        "raster": 16, "radial": 4, "regions~par": 7,
    }  # fmt: skip
    results = results_of(both)
    assert results.row("radial").speedup[1].value > 0
    assert results.row("regions~par").speedup == {}


def test_baselines_that_nobody_asked_for_are_arms_of_every_model(files: dict[str, str], tmp_path: Path) -> None:
    spec = two(files, orders=("radial@one", "regions~par", "radial~old"), only=("latency",), batch=1, rounds=1,
               model=(files["model"], "par=toys:regions_model", "old=toys:eight_members"))  # fmt: skip
    _, one = run(spec, tmp_path / "run")
    (trial,) = one.done("latency")
    assert {sample["name"] for sample in trial["rounds"][0]} == {
        "raster", "regions~par", "raster~old", "radial@one", "radial~old", "A/A", "uncached",
    }  # fmt: skip
    assert [arm["name"] for arm in one.about["arms"]] == [
        "raster",
        "raster~old",
        "radial@one",
        "regions~par",
        "radial~old",
    ]
    assert {name: model["baseline"] for name, model in one.about["models"].items()} == {
        "model": "raster", "par": "regions~par", "old": "raster~old",
    }  # fmt: skip


def test_a_run_without_a_baseline_times_what_was_asked_for_alone(files: dict[str, str], tmp_path: Path) -> None:
    spec = two(files, orders=("radial", "regions~par"), only=("latency",), batch=1, rounds=1, no_baseline=True)
    agenda = make_agenda(spec, load_subjects(spec))
    assert estimate.estimate_s(agenda).keys() == {trial.id for trial in agenda.trials}
    _, one = run(spec, tmp_path / "run")
    (trial,) = one.done("latency")
    assert {sample["name"] for sample in trial["rounds"][0]} == {"radial", "regions~par"}
    assert [(model["baseline"], model["ratio"]) for model in one.about["models"].values()] == [(None, False)] * 2


def test_a_run_of_two_models_is_resumed_and_another_is_not(both: Run, files: dict[str, str]) -> None:
    silent = Silent()
    run(two(files), both.folder, silent, resume=True)
    assert (silent.done, silent.ended_trials) == (list(both.trials), [])
    changed = two(files, model=(files["model"], "par=toys:regions_model", "more=toys:eight_members"))
    with pytest.raises(BenchError, match=r"holds a run of another config\.model"):
        run(changed, both.folder, resume=True)


def test_an_arm_that_fails_leaves_those_of_the_other_model_alone(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = two(files, batch=1, rounds=1)
    subjects = load_subjects(spec)
    with torch.no_grad():
        subjects.of("par").model.head.weight.fill_(float("nan"))  # type: ignore[attr-defined]
    monkeypatch.setattr("toy_runs.load_subjects", lambda _: subjects)
    ended, one = run(spec, tmp_path / "run")
    failed = {(t["kind"], t["arm"]) for t in one.trials.values() if t["status"] == "failed"}
    assert failed == {("likelihood", "regions~par"), ("quality", "regions~par")}
    (speed,) = one.done("latency")
    assert list(speed["failed_arms"]) == ["regions~par"]
    assert len(ended.failed) == 3


# What is loaded, under which names


def test_models_have_names_and_a_tokenizer_each_where_one_is_given(files: dict[str, str]) -> None:
    def names(*model: str, **more: Any) -> list[str]:
        return list(load_subjects(spec_of(files, model=model, **more)).by_name)

    assert names(files["model"]) == ["model"]
    assert names("mine=" + files["model"]) == ["mine"]
    assert names(files["model"], "toys:regions_model") == ["model", "toys"]
    with pytest.raises(BenchError, match="two models are called 'toys'; name them apart, as in --model toys-2=toys:"):
        names("toys:regions_model", "toys:eight_members")
    models, tokenizers = ("toys:regions_model", f"mine={files['model']}"), (f"mine={files['tokenizer']}",)
    bare = spec_of(files, model=models, tokenizer=tokenizers, data=None, space=(), only=("latency",))
    subjects = load_subjects(bare)
    assert (subjects.own.codec is None, subjects.of("mine").codec is None) == (True, False)
    assert subjects.of("") is subjects.own
    assert subjects.models.keys() == {"", "mine"}


def test_what_one_of_the_models_cannot_is_said_and_the_rest_measured(files: dict[str, str], tmp_path: Path) -> None:
    spec = two(files, model=(files["model"], "chained=toys:chained_model"), orders=("radial", "radial~chained"),
               batch=1, rounds=1)  # fmt: skip
    agenda = make_agenda(spec, load_subjects(spec))
    assert agenda.notes == (
        "chained: quality and likelihood are skipped, since the shipped tokenizer has 16 codes on 16x16 and chained "
        "5 x 4 x 3 on 4x4; name the model's own, as in --tokenizer chained=FILE --data FOLDER",
    )
    assert {trial.arm for trial in agenda.trials if trial.kind in ("likelihood", "quality")} == {"raster", "radial"}
    _, one = run(spec, tmp_path / "run")
    assert "radial~chained" in one.done("latency")[0]["step_s"]


@pytest.mark.parametrize(
    ("factory", "orders", "arms"),
    [
        ("pyramid_model", ("scales",), ["scales@one", "scales", "scales+nested", "halton@cosine:8"]),
        ("chained_model", ("radial",), ["raster", "radial", "radial+nested", "halton@cosine:4"]),
        ("regions_model", ("regions",), ["regions"]),
        ("eight_members", ("raster",), ["raster", "raster@even:4", "halton@cosine:4"]),
    ],
)
def test_models_of_other_shapes_are_timed_and_estimated(
    factory: str, orders: tuple[str, ...], arms: list[str], files: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of(files, model=(f"toys:{factory}",), tokenizer=(), data=None, space=(), orders=orders,
                   only=("latency",), batch=1, rounds=1)  # fmt: skip
    subjects = load_subjects(spec)
    agenda = make_agenda(spec, subjects)
    assert min(estimate.estimate_s(agenda).values()) > 0
    ended, one = run(spec, tmp_path / "run")
    assert ended.failed == ()
    assert [arm["name"] for arm in one.about["arms"]] == arms
    (trial,) = one.done("latency")
    assert trial["failed_arms"] == {}
    for name in arms:
        arm = parse_arm(name)
        counted = count(arm.plan(subjects.own.model.lattice), arm.decoder)
        assert {**trial["counters"][name], "cache_bytes": 0} == asdict(counted), name


# Counts


def counted(counters: Counters) -> dict[str, float]:
    """What depends on the plan alone."""
    return {name: value for name, value in asdict(counters).items() if name != "cache_bytes"}


PACED = [name for name in DECODERS.names() if not DECODERS.get(name).drafts]  # the others' passes are drawn


@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:5", "regions"])
@pytest.mark.parametrize("name", [*PACED, "nested:every=2:window=1", "uncached"])
def test_an_estimates_counters_are_those_of_a_decoded_tile(name: str, text: str) -> None:
    model = toy_model(4, 4)
    plan = make_plan(text, model.lattice)
    decoder = uncached_steps if name == "uncached" else parse_decoder(name)
    tile = make_tile(model, plan, range(3))
    run_tile(tile, decoder)
    assert counted(tile.counters) == counted(count(plan, decoder))
    assert tile.counters.passes == plan.n_steps
    if name == "uncached":
        starts = [sum(plan.sizes[:step]) for step in range(plan.n_steps)]
        assert tile.counters.content_tokens == sum(1 + start for start in starts)  # all that is known, at every step


def test_what_is_estimated_is_what_is_measured(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Workload] = []

    def keep(*parts: Any) -> Workload:
        works.append(Workload(*parts))
        return works[-1]

    monkeypatch.setattr(estimate, "Workload", keep)
    spec = two(files, orders=("radial", "radial+nested", "confidence@cosine:4", "regions~par"), only=("latency",),
               batch=1, rounds=1)  # fmt: skip
    agenda = make_agenda(spec, load_subjects(spec))
    estimate.estimate_s(agenda)
    _, one = run(spec, tmp_path / "run")
    (work,), (trial,) = works, one.done("latency")
    expected = {name: counted(counters) for name, counters in work.counters.items()}
    assert work.again == "raster"
    assert work.uncached is not None
    expected |= {"A/A": expected["raster"], "uncached": counted(work.uncached)}
    measured = {name: counted(Counters(**counters)) for name, counters in trial["counters"].items()}
    assert measured == expected
    assert set(trial["counters_exact"].values()) == {True}


# The command


def bench_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `bench run`, in this process."""
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--device", "cpu", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0), *capsys.readouterr()


def test_refused_arms_at_the_command_line(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ("--model", files["model"], "--model", "par=toys:regions_model", "--only", "latency", "--batch", "1")
    folder = str(tmp_path / "run")
    code, out, err = bench_run(
        monkeypatch, capsys, *models, "--orders", "regions~par,raster~par", "--rounds", "1", "--no-report", "--json",
        "--out", folder,
    )  # fmt: skip
    assert code == 0, err
    assert err.splitlines()[0] == f"bench: raster~par is left out: {REFUSAL}"
    document = json.loads(out)
    assert [arm["arm"] for arm in document["arms"]] == ["regions~par"]
    assert load_run(folder).about["refused"] == {"raster~par": REFUSAL}
    code, out, err = bench_run(monkeypatch, capsys, *models, "--orders", "raster~par,radial~par", "--dry-run")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"bench: raster~par is left out: {REFUSAL}; radial~par is left out: {REFUSAL}"]
    code, out, err = bench_run(monkeypatch, capsys, *models, "--orders", "raster~ear", "--dry-run")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert (
        "names the model 'ear', and the run has model, par alone; name its weights too, as in --model ear=FILE" in err
    )


def test_the_model_of_the_files_can_be_named(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = f"mine={files['model']}"
    assert load_weights(files["model"]).sha256 == load_subjects(spec_of(files, model=mine)).own.about["sha256"]
    code, out, err = bench_run(
        monkeypatch, capsys, "--model", mine, "--orders", "radial,radial~mine", "--only", "latency", "--dry-run",
        "--json", "--batch", "1",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert [trial["kind"] for trial in json.loads(out)["trials"]] == ["latency"]
