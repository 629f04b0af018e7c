"""The subject of a run: what fits together, and what is said where something does not."""

from pathlib import Path

import pytest
import torch
from toy_runs import spec_of

from orderbench.orders import BenchError
from orderbench.runs.device import choose_device
from orderbench.runs.subject import load_subjects


def test_a_device_that_is_not_there_is_one_short_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own words are a page of what it can do elsewhere."""

    def refuse(*sizes: int, device: str) -> None:
        raise RuntimeError("Could not run 'aten::empty.memory_format'. " * 100)

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(BenchError) as refused:
        choose_device("mps")
    sentence = str(refused.value)
    assert sentence.startswith("the device 'mps' is not there, as torch ")
    assert sentence.endswith("sees this machine; cpu would do, as in --device cpu")
    assert len(sentence) < 140


def test_what_is_no_module_keeps_its_own_precision(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_bare.py").write_text(
        "class Own:\n"
        "    lattice, n_codes, n_classes = None, 2, 1\n"
        "    start = step = logits = refill = rewind = None\n"
        "def build(): return Own()\n"
        "def built():\n"
        "    from orderbench.models.shipped import load_weights\n"
        f"    return load_weights({files['model']!r}).network\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match="no torch module, so its weights cannot be cast to bf16"):
        load_subjects(spec_of(files, model="my_bare:build", dtype="bf16"))
    subject = load_subjects(spec_of(files, model="my_bare:built", dtype="bf16")).own
    assert {p.dtype for p in subject.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    assert len(subject.about["sha256"]) == 64


def test_nothing_that_was_asked_is_dropped_for_want_of_a_tokenizer(files: dict[str, str]) -> None:
    with pytest.raises(BenchError, match="--data and --space need a tokenizer"):
        load_subjects(spec_of(files, tokenizer=None))
