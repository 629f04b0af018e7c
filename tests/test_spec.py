"""Settings of a run: strict files, flags that win, and one option of `bench run` for every field."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from test_cli import bench, good
from toy_runs import spec_of
from typer.main import get_command

from orderbench.models.guidance import parse_guidance
from orderbench.orders import BenchError
from orderbench.runs.cli import app
from orderbench.runs.flags import given_settings
from orderbench.runs.record import Run
from orderbench.runs.spec import QUICK, RunSpec, effective, merged, read_config, read_tune, setting_flags, setting_kinds


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('orders = ["raster"]\nsampels = 3\n', "no key in .*named 'sampels'; did you mean 'samples'"),
        ('samples = "many"\n', "gives samples as 'many', and it takes a whole number"),
        ("samples = true\n", "gives samples as True"),
        ("samples = 0\n", "samples is 0; give a whole number of 1 or more, as in --samples 8"),
        ("batch = []\n", "no batch was asked for; give one or more, as in --batch 16 or --batch 1,16,64"),
        ("batch = [4, 0]\n", "batch is 0; give a whole number of 1 or more"),
        ("batch = 100000000000\n", "batch is 100000000000, more than any run can hold; give 65536 or less"),
        ("samples = 1000000000000\n", "samples is 1000000000000, more than any run can hold"),
        ("rounds = 0\n", "--rounds '0' is not served; a number would do, or auto, auto:3% and auto:3%:60s"),
        ("rounds = 'auto:3'\n", "--rounds 'auto:3' is not served"),
        ("rounds = 'auto:0%'\n", "--rounds 'auto:0%' cannot be kept; a share from 0.1% to 100%"),
        ("rounds = true\n", "gives rounds as True, and it takes a number, or a text such as 'auto:3%'"),
        ("cfg-scale = 2\nguidance = 3\n", "--cfg-scale and --guidance both set the guidance; give one of them"),
        ("cfg-scale = -1\n", "--cfg-scale -1 is not served; 0 or more would do, as in 1.5"),
        ("steps = [8]\npace = [\"even:8\"]\n", "--steps and --pace both cut orders into steps"),
        ("only = [\"speed\"]\n", "no measurement named 'speed'"),
        ('dtype = "fp8"\n', "a dtype of 'fp8' is not served; fp32 or bf16"),
        ("orders = []\n", "no order was asked for"),
        ("only = []\n", "no measurement was asked for; name some, as in --only quality,likelihood"),
        ("tune = {top-k = [4.5]}\n", "top_k=4.5 is not a whole number"),
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


@pytest.mark.parametrize("axes", [{"top_k": [float("inf")]}, {"temperature": [float("nan")]}])
def test_what_is_tuned_is_a_number_whoever_gives_it(axes: dict[str, list[float]]) -> None:
    with pytest.raises(BenchError, match=r"(top_k=inf is not a whole|temperature=nan is not a) number"):
        RunSpec.from_json({"tune": axes}, "it")


@pytest.mark.parametrize(("name", "text"), [("a.toml", "samples = 3\n"), ("a.json", '{"samples": 3}')])
def test_a_byte_order_mark_is_no_statement(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_config(str(tmp_path / name)) == {"samples": 3}


def test_quick_beats_a_file_and_numbers_beside_it_beat_quick() -> None:
    assert effective({"samples": 5000}, {"quick": True})["samples"] == QUICK["samples"]
    assert effective({"samples": 5000}, {"quick": True, "samples": 9})["samples"] == 9
    assert effective({"samples": 5000, "quick": True}, {})["samples"] == 5000
    assert effective({"quick": True}, {"batch": [2]}) == {**QUICK, "quick": True, "batch": [2]}
    assert effective({"samples": 5000}, {"samples": 9}) == {"samples": 9}


def test_guidance_has_two_spellings_of_which_the_later_source_wins() -> None:
    def guidance(*sources: dict[str, Any]) -> str | None:
        return RunSpec.from_json(merged(*sources), "it").guidance

    assert guidance({"cfg-scale": 1.5}) == "constant:scale=1.5"
    assert guidance({"cfg_scale": 1}) == "none"
    assert str(parse_guidance(guidance({"cfg-scale": 2}) or "")) == "constant:scale=2"
    assert guidance({"guidance": "3"}, {"cfg_scale": 2.5}) == "constant:scale=2.5"
    assert guidance({"cfg-scale": 2.5}, {"guidance": "3"}) == "3"
    assert guidance({"cfg-scale": 2.5}, {"seeds": 2}) == "constant:scale=2.5"
    spec = RunSpec(cfg_scale=1.5)
    assert spec == RunSpec.from_json(spec.to_json(), "itself") == RunSpec(guidance="constant:scale=1.5")
    assert effective({"cfg-scale": 2.0}, {"guidance": "3"}) == {"guidance": "3"}


def test_one_batch_is_measured_beside_batch_1_and_several_as_they_stand() -> None:
    batches = {given: RunSpec.from_json({"batch": list(given)}, "it").batches for given in ((16,), (1,), (64, 16, 16))}
    assert batches == {(16,): (1, 16), (1,): (1,), (64, 16, 16): (16, 64)}
    assert RunSpec.from_json({"batch": 16, "rounds": 9}, "a file of an older run").batches == (1, 16)


def test_tuned_values_are_read(tmp_path: Path) -> None:
    assert read_tune(["guidance=1,1.5,constant:scale=2", "top-k=0,4"]) == {
        "guidance": [1.0, 1.5, "constant:scale=2"],
        "top_k": [0.0, 4.0],
    }
    assert read_tune(["guidance=1", "guidance=1,2"]) == {"guidance": [1.0, 2.0]}
    with pytest.raises(BenchError, match="names no values; write NAME=V,V"):
        read_tune(["guidance"])


def test_the_effective_configuration_can_be_fed_back(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    read = read_config(str(whole.folder / "run.json"))
    assert RunSpec.from_json(read, "it") == spec_of(files)
    spec = spec_of(files, tune={"guidance": (1.0, "constant:scale=2")}, steps=(8, 13))
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json())), "it") == spec


def test_one_model_may_be_given_as_it_is() -> None:
    """A file of settings that was written when a run had one model says the same as before."""
    for model, held in (("m.safetensors", ("m.safetensors",)), (None, ()), (["a", "b=c"], ("a", "b=c"))):
        spec = RunSpec.from_json({"model": model, "tokenizer": model}, "it")
        assert (spec.model, spec.tokenizer) == (held, held)
    with pytest.raises(BenchError, match=r"it gives model as 3\.5, and it takes a list of names"):
        RunSpec.from_json({"model": 3.5}, "it")


# The command line

OWN = {"config", "out", "resume", "fail_fast", "dry_run", "no_report", "as_json", "debug"}  # flags that are no setting


def test_every_field_is_one_flag_of_its_name() -> None:
    options = get_command(app).commands["run"].params  # type: ignore[attr-defined]
    flags = {option.name: option.opts for option in options if option.name not in OWN}
    assert flags == {field.name: [f"--{field.name.replace('_', '-')}"] for field in fields(RunSpec)}
    assert {option.name for option in options} > OWN


def test_the_help_of_a_flag_holds_its_default() -> None:
    shown = " ".join(good("run", "--help").split())
    for field in fields(RunSpec):
        flag = setting_flags()[field.name]
        assert f"--{field.name.replace('_', '-')} {flag.metavar or ''}".strip() in shown
        assert "{" not in flag.says
    assert f"Measure the likelihood of so many held-out images. Default {RunSpec().held_out}." in shown
    assert "Default raster,radial." in shown


TYPED: dict[str, tuple[Any, Any]] = {  # what typer hands over, and what the spec holds
    "orders": ("hilbert, spiral,", ("hilbert", "spiral")),
    "steps": ("8,13", (8, 13)),
    "samples": (5, 5),
    "guidance": ("2", "2"),
    "batch": ("1,16, 64", (1, 16, 64)),
    "rounds": ("auto:5%:60s", "auto:5%:60s"),
    "temperature": (0.5, 0.5),
    "top_k": (3, 3),
    "tune": (["guidance=1,none", "top-k=0"], {"guidance": (1.0, "none"), "top_k": (0.0,)}),
    "model": (["m.safetensors", "par=pkg.module:build"], ("m.safetensors", "par=pkg.module:build")),
    "device": ("cuda", "cuda"),
    "include": (["a,b.py", "c.py"], ("a,b.py", "c.py")),
    "quick": (True, True),
}


@pytest.mark.parametrize("name", TYPED)
def test_what_is_typed_reaches_the_spec(name: str) -> None:
    typed, held = TYPED[name]
    nothing = dict.fromkeys(setting_kinds()) | {"quick": False}
    assert given_settings(nothing) == {}
    assert getattr(RunSpec.from_json(given_settings({**nothing, name: typed}), "the settings"), name) == held


def test_every_type_of_a_field_is_typed_above_and_filed() -> None:
    kinds = setting_kinds()
    assert {kinds[name] for name in TYPED} == set(kinds.values())
    assert RunSpec.from_json(RunSpec().to_json(), "itself") == RunSpec()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--top-k", "4.5"], "Invalid value for '--top-k': '4.5' is not a whole number"),
        (["--temperature", "warm"], "'warm' is not a number"),
        (["--steps", "8,x"], "'x' is not a whole number; `bench run --help` shows what would do"),
        (["--orders", ","], "no order was asked for"),
        (["--first-sed", "1"], "No such option: --first-sed"),
        (["--config", ""], "--config is empty; give --config FILE, or leave it out"),
        (["--guidance", " "], "--guidance is empty; give --guidance S|KIND:scale=S, or leave it out"),
        (["--cfg-scale", "2", "--guidance", "3"], "--cfg-scale and --guidance both set the guidance"),
        (["--rounds", "auto:5"], "--rounds 'auto:5' is not served; a number would do, or auto"),
        (["--batch", "1,100000000000"], "batch is 100000000000, more than any run can hold"),
    ],
)
def test_flags_are_strict(arguments: list[str], sentence: str) -> None:
    done = bench("run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
