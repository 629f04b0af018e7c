"""The examples of docs/adding-*.md run as they stand, and do what the page says."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import toy_model

from orderbench.models import load_checkpoint, load_codec, plan_bits
from orderbench.models.contract import check_decoder, check_model
from orderbench.models.decode import parse_decoder
from orderbench.models.objective import TERMS, Lesson, term_loss
from orderbench.orders import Grid, include_file, make_plan
from orderbench.orders.contract import check_order

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The first Python block of a page, as a file."""
    code = re.search(r"```python\n(.*?)```", (DOCS / f"adding-{request.param}.md").read_text(), re.S)
    assert code is not None
    file = tmp_path / "example.py"
    file.write_text(code[1])
    return file


@pytest.mark.parametrize("example", ["an-order"], indirect=True)
def test_an_order(example: Path) -> None:
    assert include_file(example) == ("rim-first",)
    assert check_order("rim-first", [str(example)]).findings == ()


@pytest.mark.parametrize("example", ["a-decoder"], indirect=True)
def test_a_decoder(example: Path) -> None:
    assert include_file(example) == ("best-of-two",)
    model = toy_model(4, 4)
    check_decoder(parse_decoder("best-of-two:bonus=0.5"), model, make_plan("radial", model.lattice))


@pytest.mark.parametrize("example", ["a-model-family"], indirect=True)
def test_a_model_family(example: Path, tmp_path: Path) -> None:
    assert include_file(example) == ("counts",)
    log_counts = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    save_file({"log_counts": log_counts}, tmp_path / "counts.safetensors")
    model = load_checkpoint(tmp_path / "counts.safetensors")
    codes = torch.arange(16).remainder(7)[None, :, None]
    bits = plan_bits(model, codes, torch.tensor([2]), make_plan("radial", model.lattice))
    expected = -log_counts[2].log_softmax(0)[codes[0, :, 0]] / torch.tensor(2.0).log()
    torch.testing.assert_close(bits[0], expected)
    failed = {v.check for v in check_model(model, "cpu") if v.verdict == "fail"}
    assert failed == {"codes", "cells"}  # it knows neither codes nor cells, and the contract says so


@pytest.mark.parametrize("example", ["a-tokenizer"], indirect=True)
def test_a_tokenizer(example: Path, tmp_path: Path) -> None:
    assert include_file(example) == ("levels",)
    save_file({"levels": torch.linspace(-1, 1, 5)}, tmp_path / "levels.safetensors")
    codec = load_codec(tmp_path / "levels.safetensors")
    assert (codec.code_sizes, codec.side(Grid(4, 4)), codec.lattice(8)) == ((5,), 8, Grid(4, 4))
    codes = torch.randint(0, 5, (3, 16, 1), generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.encode(codec.decode(codes, Grid(4, 4))), codes)


@pytest.mark.parametrize("example", ["an-objective-term"], indirect=True)
def test_an_objective_term(example: Path) -> None:
    assert include_file(example) == ("entropy",)
    model = toy_model(4, 4)
    cells = torch.arange(16)[None]
    answer = model.answer(model.start(torch.tensor([1]), 1), cells)
    lesson = Lesson(cells, torch.zeros(1, 16, 1, dtype=torch.int64), answer, torch.zeros(1, 0, 1), 0.0)
    law = answer.law()
    expected = 0.05 * (law.exp() * law).sum(-1).mean().float()
    torch.testing.assert_close(term_loss(TERMS.parse("entropy:weight=0.05"), lesson), expected)
