"""The subject of a run: what fits together, and what is said where something does not."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import spec_of

from orderbench.orders import BenchError
from orderbench.runs.device import choose_device
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import Agenda, make_agenda


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
    with pytest.raises(
        BenchError, match=r"--data and --space need a tokenizer: the shipped .* and model 11 on 4x4; name"
    ):
        load_subjects(spec_of(files, tokenizer=None))


# A stranger's own network, without any images


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of networks that nobody trained, on the lattice of the package and beside it."""
    (tmp_path / "my_nets.py").write_text(
        "from toys import EightMembers, toy_model\n"
        "def of(rows=16, codes=16, classes=10):\n"
        "    return EightMembers(toy_model(rows, rows, codes=codes, classes=classes))\n"
        "def fits(): return of()\n"
        "def other(): return of(8, 1024)\n"
        "def five(): return of(classes=5)\n"
        "def one(): return of(classes=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    return "my_nets"


def agenda_of(files: dict[str, str], model: str | tuple[str, ...], **changes: Any) -> Agenda:
    bare = {"tokenizer": (), "data": None, "space": (), "only": ("quality", "likelihood", "latency")}
    spec = spec_of(files, model=model, **{**bare, **changes})
    return make_agenda(spec, load_subjects(spec))


def kinds(agenda: Agenda) -> set[str]:
    return {trial.kind for trial in agenda.trials}


def no_images(*asked: Any, **more: Any) -> None:
    raise AssertionError("images were asked for")


def test_a_network_whose_codes_fit_is_judged_by_what_travels_along(
    files: dict[str, str], own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orderbench.runs.held_out.open_images", no_images)
    monkeypatch.setattr("orderbench.runs.spaces.open_images", no_images)
    agenda = agenda_of(files, f"{own}:fits")
    assert kinds(agenda) == {"likelihood", "floor", "quality", "repair", "latency"}
    (note,) = agenda.notes
    assert note.startswith("my_nets: no tokenizer was named, and the shipped one fits (16 codes on 16x16), so it is ")
    subject, (judge,) = agenda.subjects.own, agenda.subjects.judges
    assert subject.held_out is not None
    assert subject.held_out[0].shape == (10_000, 256, 1)
    assert subject.about["class_names"][3] == "Dress"
    assert (judge.reference_name, judge.real is None) == ("fashion-mnist/train, 10000 images", False)
    named = agenda_of(files, f"{own}:fits", tokenizer=("fashion-tokenizer",))
    assert (kinds(named), named.notes) == (kinds(agenda), ())


def test_what_is_skipped_is_said_with_its_reason_and_the_command(files: dict[str, str], own: str) -> None:
    agenda = agenda_of(files, f"{own}:other")
    assert kinds(agenda) == {"latency"}
    assert agenda.notes == (
        "my_nets: quality, likelihood and repair are skipped, since the shipped tokenizer has 16 codes on 16x16 and "
        "my_nets 1024 on 8x8; name the model's own, as in --tokenizer FILE --data FOLDER",
    )
    assert agenda_of(files, f"{own}:other", only=("latency",)).notes == ()
    agenda = agenda_of(files, f"{own}:five")
    assert kinds(agenda) == {"floor", "quality", "latency"}
    assert "class_names" not in agenda.subjects.own.about
    assert agenda.notes[1] == (
        "my_nets: likelihood and repair are skipped, since the shipped held-out images are of 10 classes and my_nets "
        "knows 5; name images of its own classes, as in --data FOLDER"
    )
    agenda = agenda_of(files, ("shared", f"{own}:five"), orders=("raster", "raster~my_nets"), correction=("off",))
    assert {trial.arm for trial in agenda.trials if trial.kind == "likelihood"} == {"raster"}
    skipped, unasked = agenda.notes
    assert skipped.startswith("my_nets: likelihood is skipped, since")
    assert unasked == "my_nets: agreement is skipped, since the space fashion-features knows 10 classes and the model 5"


def test_a_network_without_classes_takes_every_held_out_image(files: dict[str, str], own: str) -> None:
    agenda = agenda_of(files, f"{own}:one")
    assert kinds(agenda) == {"likelihood", "floor", "quality", "repair", "latency"}
    assert agenda.subjects.own.held_out is not None
    assert agenda.subjects.own.held_out[1].unique().tolist() == [0]
