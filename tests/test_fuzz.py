"""Whatever a file holds, reading it works or is one sentence: records, baselines, cards, mixtures, rules, arguments.

The seeds are fixed. What is drawn is one change, or two, to a document that is whole.
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept import RECORD, printed
from typer.testing import CliRunner

from orderbench.models.mixtures import objective_named
from orderbench.models.objective import SHIPPED, objective_to_plain
from orderbench.models.shipped import load_shipped, load_weights
from orderbench.orders import BenchError
from orderbench.reports.check import Rules, check, read_rules, to_junit, to_markdown
from orderbench.reports.compare import compare_arms, compare_runs
from orderbench.reports.page import tables_json
from orderbench.reports.results import results_of, to_json
from orderbench.reports.snapshot import read_snapshot, snapshot
from orderbench.reports.summary import findings_table, summary
from orderbench.runs.cli import UsageMistake, app
from orderbench.runs.record import load_run
from orderbench.runs.spec import RunSpec, read_config

MANY = settings(max_examples=100, derandomize=True, database=None, deadline=None)
ODD: list[Any] = [None, True, False, 0, -1, 1, 3, 1.5, 1e308, -1e-300, 10**17, 10**30, float("inf"), float("nan"), "",
                  "x", "\x1b[31m", "\u202e$\\frac|<b>`", "..", "/etc/passwd", "a" * 2000, [], {}, [None], [[]],
                  {"a": 1}, [1, 2], {"value": None}, "0", "radial", ["radial"], -(10**17), 1e-320]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document, the document itself aside; of long lists the first ones."""
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:3]
        if isinstance(value, list)
        else []
    )
    return [found for key, entry in inner for found in ((*path, key), *places(entry, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def spoiled(draw: st.DrawFn, whole: Any) -> Any:
    """A document after one change or two."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        known = places(value)
        if not known:
            break
        path = draw(st.sampled_from(known))
        inside, key = at(value, path[:-1]), path[-1]
        how = draw(st.sampled_from(["set", "set", "set", "drop", "wrap", "move", "double", "rename"]))
        if how == "set":
            inside[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif how == "drop":
            del inside[key]
        elif how == "wrap":
            inside[key] = [inside[key]]
        elif how == "move":
            inside[key] = copy.deepcopy(at(value, draw(st.sampled_from(known))))
        elif how == "double" and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        elif how == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["", "x", "0", "-1", "1", "A/A", "\x1b", "../x"]))] = inside.pop(key)
    return value


def or_one_sentence(read: Callable[[], object]) -> bool:
    """Whether it works; if not, it must be a BenchError in one line."""
    try:
        read()
    except BenchError as error:
        sentence = str(error)
        assert len(sentence) > 15
        assert sentence.isprintable(), sentence
        return False
    return True


def everything(folder: Path, baseline: Any) -> None:
    """What the commands make of a run, figures aside."""
    run = load_run(folder)
    results = results_of(run)
    shown = printed(summary(results, 100), 100)
    assert "\x1b" not in shown
    json.dumps([to_json(results), snapshot(results)], allow_nan=False)
    or_one_sentence(lambda: json.dumps(tables_json([run])))
    or_one_sentence(lambda: compare_arms(results))
    for rules, before in ((Rules(min_speedup={"radial+nested/raster": 1}), None), (Rules(max_fd_increase=5), baseline)):

        def judged(rules: Rules = rules, before: Any = before) -> None:
            findings = check(results, before, rules)
            to_markdown(findings), to_junit(findings), printed(findings_table(findings), 100)

        or_one_sentence(judged)


@pytest.fixture(scope="module")
def record_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(RECORD.parent / "schema-2", tmp_path_factory.mktemp("fuzz") / "run"))


WHOLE = {file.name: json.loads(file.read_text()) for file in sorted((RECORD.parent / "schema-2").glob("**/*.json"))}
RESULTS = results_of(load_run(RECORD.parent / "schema-2"))
BASELINE = json.loads(json.dumps(snapshot(RESULTS)))


@MANY
@given(data=st.data(), name=st.sampled_from(["run.json", *sorted(WHOLE)]))
def test_records(record_folder: Path, data: st.DataObject, name: str) -> None:
    file = next(record_folder.glob(f"**/{name}"))
    try:
        file.write_text(json.dumps(data.draw(spoiled(WHOLE[name]))))
        or_one_sentence(lambda: everything(record_folder, BASELINE))
    finally:
        file.write_text(json.dumps(WHOLE[name]))


@MANY
@given(value=spoiled(BASELINE))
def test_baselines(record_folder: Path, value: Any) -> None:
    file = record_folder / "baseline.json"
    file.write_text(json.dumps(value))

    def judged() -> None:
        rules = Rules(max_fd_increase=5, max_bits_increase=5, max_slowdown=5, any_model=True)
        to_markdown(check(RESULTS, read_snapshot(file), rules))

    or_one_sentence(judged)


MIXTURE = objective_to_plain(SHIPPED)
CONFIG = RunSpec().to_json()
BYTES = [b"[" * 5000, b"a = " + b"{a = " * 3000, b"\xef\xbb\xbf", b"a = inf", b"null", b"[]", b"3"]
RULES = {"max-fd-increase": 5, "min-speedup": {"radial/raster": 3}, "batch": 4, "counters": True, "only": ["counters"]}


@MANY
@given(value=spoiled(MIXTURE))
def test_mixtures(record_folder: Path, value: Any) -> None:
    file = record_folder / "mixture.json"
    file.write_text(json.dumps(value))
    or_one_sentence(lambda: objective_named(str(file)))


@MANY
@given(value=spoiled(CONFIG))
def test_configurations(record_folder: Path, value: Any) -> None:
    file = record_folder / "config.json"
    file.write_text(json.dumps(value))
    or_one_sentence(lambda: RunSpec.from_json(read_config(str(file)), "'config.json'"))


@MANY
@given(value=spoiled(RULES))
def test_rules(value: Any) -> None:
    or_one_sentence(lambda: Rules(**{name.replace("-", "_"): entry for name, entry in value.items() if name in RULES}))


@MANY
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), st.sampled_from(BYTES)))
def test_bytes(record_folder: Path, content: bytes) -> None:
    for name in ("x.json", "x.toml"):
        file = record_folder / name
        file.write_bytes(content)
        or_one_sentence(lambda file=file: read_config(str(file)))  # type: ignore[misc]
        or_one_sentence(lambda file=file: read_rules(str(file), {}))  # type: ignore[misc]
        or_one_sentence(lambda file=file: read_snapshot(file))  # type: ignore[misc]
        or_one_sentence(lambda file=file: objective_named(str(file)))  # type: ignore[misc]


WORDS = ["", "-", "--", "0", "-1", "1e999", "nan", "9" * 400, "\uff13", "radial", "radial/raster=3", "A/A", "a=b",
         "..", "/", "\x1b[2J", "x" * 5000, "counters", "~", "+", "@", "radial@", "radial:width=", "[]"]  # fmt: skip
FLAGS = ["--baseline", "--min-speedup", "--batch", "--max-fd-increase", "--max-bits-increase", "--max-speedup-loss",
         "--max-slowdown", "--any-model", "--rules", "--space", "--only", "--json", "--markdown"]  # fmt: skip


@settings(MANY, max_examples=50)
@given(words=st.lists(st.one_of(st.sampled_from(FLAGS), st.sampled_from(WORDS)), max_size=4))
def test_arguments(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        result = CliRunner().invoke(app, ["check", str(RECORD.parent / "schema-2"), *words], standalone_mode=False)
    if result.exception is not None:
        assert isinstance(result.exception, BenchError | UsageMistake | SystemExit), result.exception
        assert "\x1b" not in str(result.exception) or isinstance(result.exception, UsageMistake)
    else:
        assert result.return_value in (0, 3, 4)


CARD = load_shipped("fashion-tokenizer").card


@settings(MANY, max_examples=60)
@given(value=spoiled({name: CARD[name] for name in CARD if name not in ("learning_curve", "figures")}))
def test_cards(record_folder: Path, value: Any) -> None:
    shipped = Path(__file__).parent.parent / "models" / "fashion-tokenizer.safetensors"
    file = record_folder / shipped.name
    if not file.exists():
        shutil.copy(shipped, file)
    file.with_suffix(".card.json").write_text(json.dumps(value))
    or_one_sentence(lambda: load_weights(file))


def test_what_is_whole_works(record_folder: Path) -> None:
    assert or_one_sentence(lambda: everything(record_folder, BASELINE))
    assert compare_runs(RESULTS, RESULTS)
