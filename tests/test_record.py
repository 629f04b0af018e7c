"""The store: broken and foreign files are named, older ones brought up to date, and every field is documented."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from kept import RECORD, own

from orderbench.reports.conditions import unlike
from orderbench.reports.results import results_of
from orderbench.reports.snapshot import conditions_in, read_snapshot, snapshot
from orderbench.runs import schema
from orderbench.runs.migration import trial_from_1
from orderbench.runs.record import RecordProblem, Run, load_run, read_arrays


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The kept record of schema 1, in a folder of its own."""
    return Path(shutil.copytree(RECORD, tmp_path / "run"))


def test_broken_and_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
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
    (folder / "run.json").write_text(json.dumps({**about, "schema": 0}))
    with pytest.raises(RecordProblem, match="has schema 0, which this orderbench cannot bring up to 2"):
        load_run(folder)
    for content, sentence in (
        ({**about, "setting": None}, "run.json' lacks setting; it is no whole record of a run"),
        ({**about, "schema": 2}, "run.json' lacks models, spaces, device, refused; it is no whole record of a run"),
        ({**about, "subject": {}}, r"has schema 1 and lacks part of what that schema holds \(KeyError: 'model'\)"),
        ([], "holds a list, not a record"),
        ({}, "is not the record of a run of this suite"),
    ):
        (folder / "run.json").write_text(json.dumps(content))
        with pytest.raises(RecordProblem, match=sentence):
            load_run(folder)
    with pytest.raises(RecordProblem, match="there is no folder"):
        load_run(tmp_path / "nowhere")
    (folder / "x.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(RecordProblem, match="is not a whole file of arrays"):
        read_arrays(folder / "x.npz")
    (folder / "y.npz").mkdir()
    with pytest.raises(RecordProblem, match="cannot be read: it is a folder; a plain file that you may read would do"):
        read_arrays(folder / "y.npz")


# Schema 1


def test_a_run_in_a_notebook_is_one_line(record: Run) -> None:
    shown = repr(record)
    assert shown.startswith(f"<run '{record.folder}' of raster, raster@even:4, radial")
    assert shown.endswith(f": {len(record.done())} of {len(record.about['trials'])} trials done>")
    assert "\n" not in shown
    assert len(shown) < 400


def test_a_record_of_schema_1_is_brought_up_to_date_and_its_files_stay(folder: Path) -> None:
    before = (folder / "run.json").read_text()
    stored = json.loads(before)
    about = load_run(folder).about
    assert (folder / "run.json").read_text() == before
    assert (about["schema"], list(about["models"]), about["device"], about["refused"]) == (2, ["toy-model"], "cpu", {})
    model = about["models"]["toy-model"]
    assert (model["lattice"], model["code_sizes"], model["native"]) == ("4x4", [11], "raster")
    assert (model["baseline"], model["ratio"], model["setting"]) == ("raster", True, stored["setting"])
    tokenizer = stored["subject"]["tokenizer"]
    assert model["tokenizer"] == {"name": tokenizer["name"], "sha256": tokenizer["sha256"], "code_sizes": [11]}
    assert about["spaces"] == [{**stored["subject"]["spaces"][0], "reference_sha256": None}]
    nested = next(arm for arm in about["arms"] if arm["name"] == "radial+nested")
    assert (nested["decoder"], nested["model"], nested["traits"]) == ("nested", "toy-model", ["rewrites"])
    assert not {"correction", "subject", "setting", "baseline"} & {*about, *nested}


def test_what_earlier_records_lack_becomes_explicit(folder: Path) -> None:
    file = folder / "run.json"
    stored = json.loads(file.read_text())
    stored["subject"]["model"]["name"] = "fashion-model"
    stored["arms"][0] |= {"name": "confidence@cosine:4", "order": "confidence", "plan": None, "n_steps": 4,
                           "sizes": [4, 4, 4, 4]}  # fmt: skip
    stored["arms"][1]["predicted_tax_bits"] = 0
    for arm in stored["arms"]:
        del arm["training_share_at_pace"]
    del stored["environments"][0]["clock"]
    file.write_text(json.dumps(stored))
    about = load_run(folder, lambda _: None).about
    assert list(about["models"]) == ["shared"]
    assert about["arms"][0]["traits"] == ["chooses"]
    assert [arm["training_share_at_pace"] for arm in about["arms"]] == [None] * 6
    assert about["arms"][1]["predicted_tax_bits"] is None  # several cells a step always pay on the field
    assert about["environments"][0]["clock"] == {"load_average": [1.75, 1.88, 2.02], "gpu": None}


def test_trials_of_schema_1(folder: Path) -> None:
    stored = json.loads((folder / "run.json").read_text())
    trials = {t["kind"]: t for t in (json.loads(f.read_text()) for f in (folder / "trials").iterdir())}
    for lacking in ("sampling", "flops_per_image"):
        del trials["quality"][lacking]
    quality: dict[str, Any] = trial_from_1(trials["quality"], stored)
    assert (quality["sampling"], quality["flops_per_image"]) == (stored["setting"], None)
    assert quality["counters_exact"] is True
    assert [result["kd"]["n_reference"] for result in quality["quality"]] == [48]
    assert "n" not in quality["quality"][0]["kd"]
    latency = trial_from_1(trials["latency"], stored)
    assert latency["counters_exact"] == dict.fromkeys(latency["counters"], True)
    cut_off = {"status": "partial", "kind": "latency", "rounds": []}
    assert trial_from_1(cut_off, stored) == cut_off


def test_a_baseline_file_of_schema_2_is_read(record: Run) -> None:
    stored = read_snapshot(Path(__file__).parent / "baseline.json")
    assert (stored["schema"], list(stored["models"])) == (3, ["shared"])
    assert all(arm["counters_exact"] for arm in stored["arms"].values())
    radial = conditions_in(stored, "radial")
    assert (radial.model.name, radial.baseline) == ("fashion-model", "raster")
    assert radial.lattice is radial.decoder is None
    here = snapshot(results_of(record))
    assert unlike(radial, conditions_in(here, "radial"), "counters", "model").startswith("the plans differ")
    here["arms"]["radial"]["plan_digest"] = radial.plan
    assert unlike(radial, conditions_in(here, "radial"), "counters", "model") == ""  # what is unsaid is unjudged


# The page that says what fields mean


TABLES = {
    "run.json": schema.RunAbout,
    "models.NAME": schema.ModelAbout,
    "A sampling setting": schema.Setting,
    "A tokenizer": schema.TokenizerAbout,
    "Held-out images": schema.HeldOutAbout,
    "spaces[]": schema.SpaceAbout,
    "arms[]": schema.ArmAbout,
    "environments[]": schema.EnvironmentAbout,
    "trials/ID.json, all kinds": schema.TrialHead,
    "kind quality and tuning: samples of an arm": schema.QualityTrial,
    "quality[]": schema.QualityResult,
    "A metric": schema.Resampled,
    "kind floor: images that no arm made": schema.FloorTrial,
    "kind likelihood": schema.LikelihoodTrial,
    "kind repair": schema.RepairTrial,
    "rates[]": schema.RepairRates,
    "kind latency: all arms in turns": schema.LatencyTrial,
    "rounds[][]": schema.TimedSample,
}


@pytest.mark.parametrize("heading", TABLES)
def test_every_field_is_documented_and_every_documented_field_is_one(heading: str) -> None:
    page = (Path(__file__).parent.parent / "docs" / "record-format.md").read_text()
    sections = {re.sub("[`#]", "", part.partition("\n")[0]).strip(): part for part in re.split(r"(?m)^(?=##)", page)}
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", sections[heading])
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    fields = set(get_type_hints(TABLES[heading]))
    if heading.startswith("kind"):
        fields -= set(get_type_hints(schema.TrialHead))
    assert sorted(named) == sorted(fields)


def test_a_run_of_the_current_schema_is_read_as_it_is(record: Run, folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps(record.about))
    for name, trial in record.trials.items():
        (folder / "trials" / f"{name}.json").write_text(json.dumps(trial))
    again = load_run(folder)
    assert again.about == record.about
    assert again.trials == record.trials
    assert own(again.about)["lattice"] == "4x4"


def test_the_kept_record_of_schema_2_is_read() -> None:
    """Two models, one of which refuses an arm: the numbers are those of the files, and every table can be made."""
    kept = load_run(Path(__file__).parent / "records" / "schema-2")
    assert kept.about["schema"] == 2
    assert list(kept.about["refused"]) == ["radial~one"]
    results = results_of(kept)
    rows = {row.arm: row for row in results.arms}
    assert {arm: (row.model, row.baseline, row.ratio) for arm, row in rows.items()} == {
        "raster": ("toy-model", "raster", True),
        "radial+nested": ("toy-model", "raster", True),
        "regions~one": ("one", "regions~one", False),
    }
    bits_N = kept.arrays("likelihood-regions_one-s0-b192d477", "bits")["bits_N"]
    assert rows["regions~one"].figures["bits"].value == pytest.approx(bits_N.mean())
    assert rows["radial+nested"].speedup
    assert not rows["regions~one"].speedup


def test_a_record_of_the_current_schema_without_a_field_is_refused(record: Run, folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps(record.about))
    for name, trial in record.trials.items():
        (folder / "trials" / f"{name}.json").write_text(json.dumps(trial))
    name = "latency-b1-cc55acbe"
    lacking = {key: value for key, value in record.trials[name].items() if key not in ("counters", "memory")}
    (folder / "trials" / f"{name}.json").write_text(json.dumps(lacking))
    with pytest.raises(RecordProblem, match="lacks counters, memory; remove it, and --resume measures anew"):
        load_run(folder)
    (folder / "trials" / f"{name}.json").write_text(json.dumps({**lacking, "status": "partial"}))
    load_run(folder)  # what is not finished lacks some of it
    arm = {key: value for key, value in record.about["arms"][0].items() if key != "traits"}
    (folder / "run.json").write_text(json.dumps({**record.about, "arms": [arm]}))
    with pytest.raises(
        RecordProblem,
        match=r"lacks traits in arms\[0\]; it is no whole record of a run, so bring the file back or measure anew",
    ):
        load_run(folder)
