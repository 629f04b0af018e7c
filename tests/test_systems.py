"""Systems: the list, what a run makes of their names, and what is said where one cannot be had."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orderbench.orders import BenchError
from orderbench.runs.cli import app
from orderbench.runs.training import TrainSpec, train


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
    assert "bench train model --system par --tokenizer fashion-tokenizer --out par\n" in text
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
