"""scripts/validate.py: small editions of the experiments end with the answers that are known beforehand."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "validate.py"
GIVEN = argparse.Namespace(samples=60, trials=2, device="cpu", control=None)


@pytest.fixture(scope="module")
def validate() -> Any:
    spec = importlib.util.spec_from_file_location("validate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(text: str) -> dict[str, list[float]]:
    """The numbers of a Markdown table by the first cell of their row."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    return {first: [float(cell) for cell in rest] for first, *rest in cells}


def test_sets_that_must_rank_last_do(validate: Any, capsys: pytest.CaptureFixture[str]) -> None:
    validate.sanity(GIVEN)
    found = rows(capsys.readouterr().out)
    fd = {name: numbers[0] for name, numbers in found.items()}
    agreement = {name: numbers[-1] for name, numbers in found.items()}
    assert min(fd, key=fd.__getitem__) == max(agreement, key=agreement.__getitem__) == "reconstructed images"
    assert len(fd) == 4


def test_wrong_codes_worsen_the_distance(validate: Any, capsys: pytest.CaptureFixture[str]) -> None:
    validate.errors(GIVEN)
    fd = [numbers[0] for numbers in rows(capsys.readouterr().out).values()]
    assert len(fd) == 6
    assert fd[1:] == sorted(fd[1:])  # 2 % of the codes of 60 images are within their noise
    assert fd[-1] > 3 * fd[0]
