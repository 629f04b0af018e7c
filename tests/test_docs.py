"""The examples of the pages run as they stand, and do what the page says."""

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import toy_model

from orderbench.models import load_checkpoint, load_codec, plan_bits
from orderbench.models.adapter import MEMBERS
from orderbench.models.contract import check_decoder, check_model
from orderbench.models.decode import parse_decoder
from orderbench.models.objective import TERMS, Lesson, term_loss
from orderbench.orders import Grid, include_file, make_plan
from orderbench.orders.contract import check_order
from orderbench.runs.factory import call_factory
from orderbench.runs.spaces import open_space
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import make_agenda

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The first Python block of a page, as a file."""
    code = re.search(r"```python\n(.*?)```", (DOCS / f"{request.param}.md").read_text(), re.S)
    assert code is not None
    file = tmp_path / "example.py"
    file.write_text(code[1])
    return file


@pytest.mark.parametrize("example", ["adding-an-order"], indirect=True)
def test_an_order(example: Path) -> None:
    assert include_file(example) == ("rim-first",)
    assert check_order("rim-first", [str(example)]).findings == ()


@pytest.mark.parametrize("example", ["adding-a-decoder"], indirect=True)
def test_a_decoder(example: Path) -> None:
    assert include_file(example) == ("best-of-two",)
    model = toy_model(4, 4)
    check_decoder(parse_decoder("best-of-two:bonus=0.5"), model, make_plan("radial", model.lattice))


@pytest.mark.parametrize("example", ["adding-a-model-family"], indirect=True)
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


@pytest.mark.parametrize("example", ["adding-a-tokenizer"], indirect=True)
def test_a_tokenizer(example: Path, tmp_path: Path) -> None:
    assert include_file(example) == ("levels",)
    save_file({"levels": torch.linspace(-1, 1, 5)}, tmp_path / "levels.safetensors")
    codec = load_codec(tmp_path / "levels.safetensors")
    assert (codec.code_sizes, codec.side(Grid(4, 4)), codec.lattice(8)) == ((5,), 8, Grid(4, 4))
    codes = torch.randint(0, 5, (3, 16, 1), generator=torch.Generator().manual_seed(0))
    assert torch.equal(codec.encode(codec.decode(codes, Grid(4, 4))), codes)


@pytest.mark.parametrize("example", ["adding-an-objective-term"], indirect=True)
def test_an_objective_term(example: Path) -> None:
    assert include_file(example) == ("entropy",)
    model = toy_model(4, 4)
    cells = torch.arange(16)[None]
    answer = model.answer(model.start(torch.tensor([1]), 1), cells)
    lesson = Lesson(cells, torch.zeros(1, 16, 1, dtype=torch.int64), answer, torch.zeros(1, 0, 1), 0.0)
    law = answer.law()
    expected = 0.05 * (law.exp() * law).sum(-1).mean().float()
    torch.testing.assert_close(term_loss(TERMS.parse("entropy:weight=0.05"), lesson), expected)


@pytest.mark.parametrize("example", ["adding-a-feature-space"], indirect=True)
def test_a_feature_space(example: Path) -> None:
    assert include_file(example) == ("thumbnails",)
    space = open_space("thumbnails", "cpu")
    images = torch.arange(256).repeat(8).view(2, 1, 32, 32).to(torch.uint8)
    features, logits = space.extract(images)
    assert logits is None
    assert features.shape == (2, space.dimensions)
    assert features[0, 0] == images[0, 0, :8, :8].float().mean()


@pytest.mark.parametrize("example", ["your-network"], indirect=True)
def test_a_strangers_network(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(example.parent)
    monkeypatch.delitem(sys.modules, "example", raising=False)
    network = call_factory("example:build")
    assert {v.verdict for v in check_model(network, "cpu")} == {"pass"}
    page = (DOCS / "your-network.md").read_text()
    assert all(f"| `{member}" in page for member in MEMBERS)
    subject = load_subjects(RunSpec(model=("example:build",), device="cpu")).own
    assert subject.held_out is not None
    codes, labels = (part[:4] for part in subject.held_out)
    bits = plan_bits(subject.model, codes, labels, make_plan("halton@cosine:8", subject.model.lattice))
    assert bits.mean() == pytest.approx(4, abs=0.2)  # the page says so


def test_the_page_of_strangers_networks_says_what_the_run_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "from toys import EightMembers, toy_model\ndef build(): return EightMembers(toy_model(8, 8, codes=1024))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_net", raising=False)
    spec = RunSpec(model=("my_net:build",), device="cpu")
    (note,) = make_agenda(spec, load_subjects(spec)).notes
    assert note in " ".join((DOCS / "your-network.md").read_text().split())


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", (DOCS / "index.md").read_text()))
    assert named == {page.name for page in DOCS.glob("*.md")} - {"index.md"}


def test_a_word_of_the_glossary_is_explained_once_and_shortly() -> None:
    entries = re.findall(r"^\*\*(.+?)\.\*\* (.+?)(?=\n\n|\Z)", (DOCS / "glossary.md").read_text(), re.S | re.M)
    words = [word.lower() for entry, _ in entries for word in entry.split(", ")]
    assert len(words) == len(set(words)) >= 40
    for entry, text in entries:
        assert len(text) < 330, entry
