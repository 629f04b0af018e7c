"""Systems: the list, what a run makes of their names, and what is said where one cannot be had."""

import csv
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kept import changed, printed
from safetensors.torch import save_file
from toy_runs import run as run_toy
from toy_runs import spec_of
from typer.testing import CliRunner

from orderbench.models.config import TokenizerConfig, to_plain
from orderbench.models.families import about_network, build_network
from orderbench.models.shipped import load_shipped, load_weights, shipped_names
from orderbench.models.systems import SYSTEMS, Task, register_system
from orderbench.models.tokenizer import Tokenizer
from orderbench.orders import BenchError, Grid
from orderbench.orders.files import sha256_of
from orderbench.reports.compare import baseline_arm, compare_arms
from orderbench.reports.results import Results, results_of
from orderbench.reports.summary import summary
from orderbench.reports.table import to_csv
from orderbench.reports.tables import tables_of
from orderbench.runs.cli import app
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects, named_sources
from orderbench.runs.training import TrainSpec, train
from orderbench.runs.trials import make_agenda


def bench(*words: str) -> str:
    done = CliRunner().invoke(app, words, prog_name="bench", env={"COLUMNS": "100"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_every_example_in_the_help_of_systems_works() -> None:
    for example in re.findall(r"^  +bench (.*)$", bench("systems", "--help"), re.M):
        assert bench(*example.split())


def test_systems_lists_every_system_with_its_arm_and_what_it_is_to_its_paper() -> None:
    listed = bench("systems")
    document = json.loads(bench("systems", "--json"))
    names = [one["name"] for one in document]
    assert all(re.search(rf"^{name} ", listed, re.M) for name in names)
    by_name = dict(zip(names, document, strict=True))
    assert (by_name["par"]["arm"], by_name["radar"]["relation"]) == ("regions~par", "reconstruction")
    assert abs(by_name["par"]["parameters"] / 800_000 - 1) < 0.05
    assert all(one["arm"] and one["train"] for one in document if one["built"])
    absent = {one["name"]: one for one in document if not one["built"]}
    assert {"iar", "iar2", "rear", "laplacian", "tokenbridge", "coral", "narvl"} <= set(absent)
    assert all(one["relation"] == "not built yet" and one["arm"] is None for one in absent.values())
    assert listed.index("\narpg") < listed.index("\niar")


def test_a_system_by_name_has_its_size_and_the_commands_that_train_and_run_it() -> None:
    text = bench("systems", "par", "iar2")
    assert "  arm        regions~par\n" in text
    assert "bench train model --system par --out par\n" in text
    assert "809,856 parameters" in text
    assert "needs a tokenizer of two codebooks" in text
    with pytest.raises(BenchError, match="did you mean 'par'"):
        bench("systems", "parr")


@pytest.mark.parametrize(
    ("what", "name", "sentence"),
    [
        ("model", "iar2", "the system 'iar2' is not built yet; shared-small, llamagen, "),
        ("model", "pra", "no system named 'pra'; did you mean 'par'? (`bench systems` lists them)"),
        ("tokenizer", "par", "--system par is a model, and tokenizer was to be trained; as in bench train model"),
    ],
)
def test_a_system_that_cannot_be_trained_is_one_sentence(what: str, name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError) as refused:
        train(TrainSpec(what=what, system=name, out=tmp_path / "out"), print, print)
    assert sentence in str(refused.value)


# Runs of systems


def write_system(folder: Path, name: str, data: str = "toy") -> str:
    """`--model` of a system with random weights, on 4x4, in a file as `bench train model --system` writes it."""
    torch.manual_seed(0)
    config = SYSTEMS.get(name).function(Task(11, 3, Grid(4, 4))).network
    state = {key: tensor.contiguous() for key, tensor in build_network(config).state_dict().items()}
    file = folder / f"{name}.safetensors"
    save_file(state, file, metadata={"about": json.dumps({**about_network(config), "data": data})})
    return f"{name}={file}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("systems")
    return {name: write_system(folder, name) for name in ("llamagen", "shared-small", "radar")}


def spec(files: dict[str, str], *models: str, **settings: Any) -> RunSpec:
    """A run as the command line asks for it: what nobody gave has its default."""
    plain = spec_of(files).to_json()
    given = {name: plain[name] for name in ("samples", "held_out", "rounds", "batch", "threads", "device", "space")}
    asked = {**given, "samples": 12, "model": list(models), "tokenizer": files["tokenizer"], "data": files["data"]}
    return RunSpec.from_json({**asked, **settings}, "the settings")


@pytest.fixture(scope="module")
def measured(files: dict[str, str], weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Results:
    asked = spec(files, *weights.values(), systems=["radar", "shared-small"])
    return results_of(run_toy(asked, tmp_path_factory.mktemp("runs") / "systems")[1])


def test_systems_take_the_place_of_the_default_orders_and_have_no_model_beside_them(measured: Results) -> None:
    about = measured.run.about
    assert [arm["name"] for arm in about["arms"]] == ["raster~llamagen", "radial+nested~radar", "raster~shared-small"]
    assert list(about["models"]) == ["radar", "shared-small", "llamagen"]
    assert about["config"]["systems"] == ["radar", "shared-small"]
    assert about["config"]["orders"] == []
    assert not any(row.own for row in measured.arms)
    assert {row.line for row in measured.arms} >= {"raster~llamagen", "radial+nested~radar"}
    assert {floor.name for floor in measured.floors} == {"real", "reconstructed~llamagen", "noise~llamagen"}


def test_systems_are_measured_against_one_plain_arm(measured: Results) -> None:
    assert measured.baselines == ("raster~llamagen",) == (baseline_arm(measured.run),)
    assert all(row.ratio for row in measured.arms)
    radar = measured.row("radial+nested~radar")
    assert set(radar.speedup) == {1, 2}
    assert "kd" in radar.against
    verdicts = {(line.arm, line.metric): line.verdict for line in compare_arms(measured)}
    assert verdicts["radial+nested~radar", "kd"] in ("better", "worse", "no difference shown")


def test_the_table_of_systems_says_what_each_costs_beside_the_floor_of_its_tokens(measured: Results) -> None:
    table = {one.name: one for one in tables_of(measured)}["systems"]
    rows = {row["arm"]: row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    plain, radar = rows["raster~llamagen"], rows["radial+nested~radar"]
    assert int(plain["parameters"]) == measured.run.about["models"]["llamagen"]["parameters"]
    assert float(plain["gflop_per_image"]) > 0
    assert float(plain["fd_floor"]) == float(radar["fd_floor"]) > 0
    assert {f"{name}_low" for name in ("fd", "kd", "agreement", "bits_per_token", "latency_ms", "kd_floor")} <= set(
        plain
    )
    assert radar["bits_per_token"] == ""  # it rewrites codes
    assert "bits_of_other_tokens" not in plain

    def other(about: dict[str, Any]) -> None:
        about["models"]["shared-small"]["tokenizer"] = {"name": "other", "code_sizes": [11], "sha256": "2" * 64}

    apart = results_of(changed(measured.run, "other", other))
    table = {one.name: one for one in tables_of(apart)}["systems"]
    row = next(row for row in table.rows if row.cells["model"] == "shared-small")
    assert row.cells.get("bits_per_token") is None is row.cells["fd_floor"]
    assert row.cells["bits_of_other_tokens"] == measured.row("raster~shared-small").figures["bits"]
    assert "Bits of shared-small are of other tokens, and not comparable with the others." in table.caption
    assert "other tokens" in " ".join(printed(summary(apart, 80)).split())
    assert apart.row("raster~shared-small").against == {} != measured.row("raster~shared-small").against


def names(asked: RunSpec) -> list[str]:
    return [arm.name for arm in make_agenda(asked, load_subjects(asked)).lineup.arms]


def test_orders_and_systems_are_compared_together_if_both_are_named(
    files: dict[str, str], weights: dict[str, str]
) -> None:
    both = {"systems": ["radar"], "only": ["quality"]}
    own = spec(files, files["model"], weights["radar"], weights["llamagen"], orders=["radial"], pace=["one"], **both)
    lineup = make_agenda(own, load_subjects(own)).lineup
    assert [arm.name for arm in lineup.arms] == ["raster~llamagen", "raster", "radial@one", "radial+nested~radar"]
    assert {name: str(one.arm) for name, one in lineup.baselines.items()} == {
        "llamagen": "raster~llamagen", "": "raster", "radar": "raster~llamagen",
    }  # fmt: skip
    more = spec(files, weights["radar"], orders=["radial@one~radar"], **both)
    assert names(more) == ["radial@one~radar", "radial+nested~radar"]  # nobody gave llamagen: no ratios
    assert names(spec(files, weights["radar"], no_baseline=True, **both)) == ["radial+nested~radar"]


def test_a_run_says_why_systems_are_measured_against_no_arm(files: dict[str, str], weights: dict[str, str]) -> None:
    def said(*models: str, **settings: Any) -> str:
        asked = spec(files, *models, systems=["radar"], only=["quality"], **settings)
        return " ".join(make_agenda(asked, load_subjects(asked)).notes)

    assert "raster~llamagen is not added" in said(weights["radar"])
    assert "--model llamagen=FILE adds it" in said(weights["radar"])
    assert "not added" not in said(weights["radar"], no_baseline=True)
    assert "not added" not in said(weights["radar"], weights["llamagen"])


def test_latency_records_hold_the_weights_and_sampling_of_the_arm_that_is_timed_again(
    files: dict[str, str], weights: dict[str, str], measured: Results
) -> None:
    subjects = load_subjects(spec(files, *weights.values(), systems=["radar", "shared-small"]))
    sizes = [sum(p.numel() * p.element_size() for p in cast(Any, subjects.of(name).model).parameters())
             for name in ("radar", "llamagen")]  # fmt: skip
    assert sizes[0] != sizes[1]
    assert {trial["weights_bytes"] for trial in measured.run.done("latency")} == {sizes[1]}


def test_what_a_system_may_say_of_its_codes_is_named() -> None:
    about: dict[str, Any] = {"paper": "", "idea": "", "relation": "own", "native": "raster"}
    with pytest.raises(TypeError, match="tokeniser"):
        register_system("misspelt", **about, tokeniser="var-tokenizer")


def test_models_whose_cards_name_one_tokenizer_share_it_whoever_comes_first(
    files: dict[str, str], tmp_path: Path
) -> None:
    other = TokenizerConfig(codes=11, width=8)
    torch.manual_seed(1)
    state = {key: tensor.contiguous() for key, tensor in Tokenizer(other).state_dict().items()}
    file = tmp_path / "other.safetensors"
    save_file(state, file, metadata={"about": json.dumps({"tokenizer": to_plain(other)})})
    own, theirs = (f"toy, tokenizer {sha256_of(Path(one))[:16]}" for one in (files["tokenizer"], str(file)))
    models = [
        write_system(tmp_path, "llamagen", own), write_system(tmp_path, "par", theirs),
        write_system(tmp_path, "radar", theirs),
    ]  # fmt: skip
    tokenizers = [files["tokenizer"], f"par={file}"]
    asked = spec(files, *models, systems=["llamagen", "par", "radar"], tokenizer=tokenizers, only=["quality"])
    subjects = load_subjects(asked)
    llamagen, par, radar = subjects.by_name.values()
    assert par.codec is radar.codec is not llamagen.codec
    floors = [trial.arm for trial in make_agenda(asked, subjects).trials if trial.kind == "floor"]
    assert [name for name in floors if name.startswith("recons")] == ["reconstructed~llamagen", "reconstructed~par"]


def test_a_tokenizer_of_other_codes_is_named_with_its_model(files: dict[str, str], weights: dict[str, str]) -> None:
    asked = spec(files, weights["llamagen"], weights["radar"], systems=["llamagen", "radar"],
                 tokenizer=[files["tokenizer"], "radar=fashion-tokenizer"])  # fmt: skip
    with pytest.raises(BenchError) as refused:
        load_subjects(asked)
    assert str(refused.value) == (
        "the tokenizer fashion-tokenizer has 16 codes and the model radar 11; name the tokenizer that the model was "
        "trained on, as in --tokenizer radar=FILE"
    )


def test_all_are_those_that_have_weights(files: dict[str, str], weights: dict[str, str]) -> None:
    there = {"llamagen", "radar"} | {name for name in SYSTEMS.names() if SYSTEMS.get(name).shipped}
    asked = spec(files, weights["llamagen"], weights["radar"], systems=["all"])
    assert set(named_sources(asked)) == there
    assert named_sources(asked)["radar"] == weights["radar"].partition("=")[2]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"systems": ["iar2"]}, "the system 'iar2' is not built yet; shared-small, llamagen, "),
        ({"systems": ["eer"]}, "no system named 'eer'; did you mean 'ear'?"),
        ({"systems": []}, "no order was asked for; name some"),
        ({"systems": ["radar"], "pace": ["one"]}, "--pace says how orders are decoded, and --systems compares native"),
        ({"systems": ["radar"], "steps": [4]}, "--steps says how orders are decoded"),
        ({"systems": ["radar"], "correction": ["off"]}, "--correction says how orders are decoded"),
        ({"systems": ["radar"], "models": ["mine=it.safetensors"]},
         "the model 'mine' decodes nothing beside --systems radar; name its arms too, as in --orders raster~mine"),
    ],
)  # fmt: skip
def test_what_systems_cannot_be_asked_for_is_one_sentence(
    files: dict[str, str], weights: dict[str, str], settings: dict[str, Any], sentence: str
) -> None:
    models = [weights["radar"], *settings.pop("models", [])]
    with pytest.raises(BenchError) as refused:
        named_sources(spec(files, *models, **({"orders": []} if settings == {"systems": []} else {}), **settings))
    assert sentence in str(refused.value)


def test_a_system_states_the_codes_of_its_tokenizer_in_the_package() -> None:
    for one in map(SYSTEMS.get, SYSTEMS.names()):
        if one.built and one.tokenizer in shipped_names("tokenizer"):
            codec: Any = load_shipped(one.tokenizer).network
            assert (codec.code_sizes, codec.lattice(32)) == ((one.codes,), one.lattice), one.name


def test_a_system_without_weights_says_how_to_train_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbench.models.systems.shipped_names", lambda kind: ())
    with pytest.raises(BenchError) as refused:
        named_sources(RunSpec.from_json({"systems": ["par"]}, "it"))
    assert str(refused.value) == (
        "no weights of the system 'par' travel in this package; train them by `bench train model --system par "
        "--out par`, and then give --model par=par/model.safetensors"
    )
    with pytest.raises(BenchError, match="--systems all finds no weights of any system in this package"):
        named_sources(RunSpec.from_json({"systems": ["all"]}, "it"))


# The script that trains and ships them


@pytest.fixture(scope="module")
def script() -> Any:
    folder = Path(__file__).parents[1] / "scripts"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("train_systems", folder / "train_systems.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["train_systems"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def finished(out: Path, name: str, steps: int) -> None:
    """A training as `bench train` leaves it."""
    (out / name).mkdir()
    written = write_system(out / name, name).partition("=")[2]
    Path(written).rename(out / name / "model.safetensors")
    script_card = {"kind": "model", "steps_done": steps, "command": f"bench train model --out {out}/{name}"}
    sha = load_weights(out / name / "model.safetensors").sha256
    (out / name / "model.card.json").write_text(json.dumps({**script_card, "sha256": sha}))


def test_trainings_go_on_where_they_were_cut(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "shipped_names", lambda kind: ("fashion-tokenizer",))
    wanted = script.trainings(tmp_path, ["par", "var", "halton-only"], 2)
    assert [one.name for one in wanted] == ["par", "var-tokenizer", "var", "halton-only"]
    assert wanted[1].words(tmp_path, [])[:5] == ["tokenizer", "--scales", "1,2,4,8,16", "--codes", "64"]
    assert wanted[2].flags[-1] == str(tmp_path / "var-tokenizer" / "tokenizer.safetensors")
    assert wanted[3].flags[:4] == ("--system", "shared-small", "--mixture", "halton-only")
    finished(tmp_path, "par", 2)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "checkpoint.pt").touch()
    ran: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(script.subprocess, "run", lambda words, check: ran.append(words) or Done)
    script.train_all(tmp_path, wanted, ["--device", "cpu"])
    assert [("--resume" in words, words[-2:]) for words in ran] == [
        (False, ["--device", "cpu"]), (True, ["--device", "cpu"]), (False, ["--device", "cpu"]),
    ]  # fmt: skip
    assert capsys.readouterr().out.startswith("1 of 4: par is done\n2 of 4: var-tokenizer begins\n")


def test_finished_systems_are_shipped_in_bf16_with_their_card(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, "par", 2)
    finished(tmp_path, "nar", 1)
    into = tmp_path / "package"
    into.mkdir()
    script.ship(tmp_path, script.trainings(tmp_path, ["par", "nar", "halton-only"], 2), into)
    assert "nar: not done, so not shipped" in capsys.readouterr().out
    assert sorted(file.name for file in into.iterdir()) == ["par.card.json", "par.safetensors"]
    small, whole = load_weights(into / "par.safetensors"), load_weights(tmp_path / "par" / "model.safetensors")
    assert small.card["command"] == "bench train model --out par"
    assert (into / "par.safetensors").stat().st_size < 0.6 * (tmp_path / "par" / "model.safetensors").stat().st_size
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(small.network.state_dict()[name], tensor.bfloat16().float())
