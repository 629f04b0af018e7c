"""Images, tokenizer, model, space and reference: what does not fit is one sentence before anything runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_spaces import pictures, toy_space
from toy_runs import run, spec_of
from toys import EightMembers, toy_model

from orderbench.models.config import TokenizerConfig
from orderbench.models.data import open_images
from orderbench.models.probe import fingerprint
from orderbench.models.tokenizer import Tokenizer
from orderbench.orders import BenchError
from orderbench.runs.held_out import look_at
from orderbench.runs.record import RecordProblem
from orderbench.runs.spaces import Form, judge_of
from orderbench.runs.subject import load_subjects


def save(file: Path, images: np.ndarray, labels: Any = None, **more: Any) -> str:
    given = np.arange(len(images)) % 3 if labels is None else labels
    np.savez(file, images=images, labels=given, **more)
    return str(file)


GREY = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)


def folders(root: Path, *names: str, n: int = 10) -> str:
    from PIL import Image

    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(n):
            Image.fromarray(GREY[number]).save(root / name / f"{number}.png")
    return str(root)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f: save(f / "a.npz", COLOUR), "a.npz' has pictures of 3 channels and the tokenizer takes 1"),
        (
            lambda f: save(f / "a.npz", COLOUR.transpose(0, 3, 1, 2)),
            r"which is \(N, c, h, w\); \(N, h, w, c\) would do",
        ),
        (lambda f: save(f / "a.npz", GREY, np.arange(60) % 4), "a.npz' has 4 classes and the model 3; name the data"),
        (lambda f: save(f / "a.npz", GREY, np.full(60, 10**9)), "holds the label 1000000000, and with it as many"),
        (lambda f: save(f / "a.npz", GREY, np.full(60, 2**64 - 1, np.uint64)), "holds the label 18446744073709551615"),
        (lambda f: save(f / "a.npz", GREY, np.arange(60) - 1), "holds labels of int64; whole numbers of 0 or more"),
        (lambda f: save(f / "a.npz", GREY, np.arange(60.0)), "holds labels of float64; whole numbers of 0 or more"),
        (lambda f: save(f / "a.npz", GREY.astype(float)), "holds images of float64"),
        (lambda f: save(f / "a.npz", GREY, np.array([None] * 60)), "holds Python objects under 'labels' and is not"),
        (lambda f: folders(f / "d", "0", "1"), "d' has 2 classes and the model 3: a folder's place among the others"),
        (lambda f: str(f / "nofile"), "there are no images at"),
        (lambda f: os.mkfifo(f / "pipe.npz") or str(f / "pipe.npz"), "is neither a folder nor a plain file"),  # type: ignore[func-returns-value]
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_runs(
    make: Callable[[Path], str], sentence: str, files: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=sentence) as told:
        load_subjects(spec_of(files, only=("likelihood",), data=make(tmp_path)))
    assert "allow_pickle" not in str(told.value)


@pytest.fixture(scope="module")
def toys() -> tuple[Any, Tokenizer]:
    torch.manual_seed(0)
    return toy_model(4, 4), Tokenizer(TokenizerConfig(codes=11, width=8))


def test_colours_that_are_grey_fold_and_grey_is_one_channel(toys: tuple[Any, Tokenizer], tmp_path: Path) -> None:
    grey = look_at(save(tmp_path / "grey.npz", GREY), *toys, {}, "toy")
    same = look_at(save(tmp_path / "same.npz", np.stack([GREY] * 3, -1)), *toys, {}, "toy")
    files = look_at(folders(tmp_path / "d", "a", "b", "c"), *toys, {}, "toy")
    codes = [one.encode(*toys, 6, "cpu")[0] for one in (grey, same, files)]
    assert torch.equal(codes[0], codes[1])
    assert codes[2].shape == (3, 16, 1)


def test_names_of_classes_are_compared_with_those_of_the_weights(toys: tuple[Any, Tokenizer], tmp_path: Path) -> None:
    data = folders(tmp_path / "d", "ant", "bee", "cat")
    look_at(data, *toys, {"class_names": ["ant", "bee", "cat"]}, "toy")
    with pytest.raises(BenchError, match="has a class 'bee' where toy was trained on 'bug'; name images of its own"):
        look_at(data, *toys, {"class_names": ["ant", "bug", "cat"]}, "toy")
    two = folders(tmp_path / "two", "ant", "cat")
    with pytest.raises(BenchError, match="has 2 classes and the model 3; bee are missing: a folder's place"):
        look_at(two, *toys, {"class_names": ["ant", "bee", "cat"]}, "toy")


def test_images_that_weights_saw_are_never_called_held_out(toys: tuple[Any, Tokenizer], tmp_path: Path) -> None:
    data = folders(tmp_path / "d" / "train", "a", "b", "c")
    alone = look_at(data, *toys, {}, "toy")
    assert (alone.unseen, alone.about()["source"]) == (False, "a tenth of the images of train")
    assert "whether toy saw them in training is not known" in alone.note
    digest = open_images(data).digest
    recorded = look_at(data, *toys, {"split": {"digest": digest, "test": ""}}, "toy")
    assert (recorded.unseen, recorded.note) == (True, "")
    with pytest.raises(BenchError, match="holds the very images that toy was trained on, and no others; name the fold"):
        look_at(data, *toys, {"split": {"digest": digest, "test": "val"}}, "toy")
    folders(tmp_path / "d" / "val", "a", "b")
    both = look_at(str(tmp_path / "d"), *toys, {"split": {"digest": digest, "test": "val"}}, "toy")
    assert (both.unseen, both.about()) == (
        True, {"source": "d/val", "unseen": True, "pixels": "shorter side to 8, centre crop"},
    )  # fmt: skip
    assert len(both.encode(*toys, 99, "cpu")[1]) == 20


def test_references_of_other_sizes_and_channels(tmp_path: Path) -> None:
    space, samples = toy_space(), Form(1, lambda: 8)
    np.savez(tmp_path / "large.npz", np.zeros((9, 16, 16, 1), np.uint8))
    with pytest.raises(BenchError, match=r"holds images of 16x16 pixels and the samples have 8x8, so their distance"):
        judge_of(space, str(tmp_path / "large.npz"), None, samples)
    grey = pictures(9).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "grey.npz", grey)
    np.savez(tmp_path / "same.npz", grey.repeat(3, 3))
    one, three = (judge_of(space, str(tmp_path / f"{name}.npz"), None, samples) for name in ("grey", "same"))
    np.testing.assert_array_equal(one.reference_MD, three.reference_MD)
    with pytest.raises(BenchError, match="is of images with 1 channel and the tokenizer makes 3; name features of"):
        judge_of(space, str(tmp_path / "grey.npz"), None, Form(3, lambda: 8))
    folder = judge_of(space, folders(tmp_path / "d", "a", "b", n=5), None, samples)
    assert folder.reference_name == "d, 10 images, shorter side to 8, centre crop"
    assert (len(folder.reference_sha256), folder.real) == (64, None)


def test_a_reference_whose_features_are_not_finite_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", pictures(9).permute(0, 2, 3, 1).numpy())
    broken = toy_space()
    object.__setattr__(broken, "extract", lambda images: (np.full((9, 6), np.nan), None))
    with pytest.raises(
        BenchError, match=r"features of 9 of 9 images of the reference 'mine.npz' in the space toy-feat"
    ):
        judge_of(broken, str(tmp_path / "mine.npz"), None, None)


# Models whose weights cannot be read


def test_a_fingerprint_tells_weights_apart_and_not_how_they_are_wrapped() -> None:
    one, other = toy_model(4, 4), toy_model(4, 4, seed=1)
    assert fingerprint(one, "cpu") == fingerprint(toy_model(4, 4), "cpu") != fingerprint(other, "cpu")
    assert len(fingerprint(one, "cpu")) == 64


def test_a_model_without_readable_weights_is_known_by_its_answers(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrapped = [EightMembers(toy_model(4, 4, seed=seed)) for seed in (0, 1)]
    monkeypatch.setattr("toys.eight_members", lambda: wrapped[0])
    spec = spec_of(files, model=("toys:eight_members",), orders=("raster@even:4",), only=("likelihood",), held_out=6)
    _, first = run(spec, tmp_path / "run")
    about = first.about["models"]["toys"]
    assert about["identified_by"] == "probe"
    run(spec, tmp_path / "run", resume=True)
    monkeypatch.setattr("toys.eight_members", lambda: wrapped[1])
    with pytest.raises(RecordProblem, match="was measured with other weights of the model 'toys' than it has now; go"):
        run(spec, tmp_path / "run", resume=True)
    assert load_subjects(spec).own.about["sha256"] != about["sha256"]
    assert json.dumps(first.about["models"]["toys"])
