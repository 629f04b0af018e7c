"""Folders of pictures as people lay them out: splits, classes and their numbers; else a sentence."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from orderbench.models.data import load_pictures, open_images
from orderbench.models.folders import read_folders
from orderbench.orders import BenchError


def put(*places: str, under: Path) -> None:
    for place in places:
        (under / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), len(place)).save(under / place)


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    put(*(f"{number}/a.png" for number in (10, 2, 1, 0, 9)), under=tmp_path)
    assert read_folders(tmp_path).names == ("0", "1", "2", "9", "10")
    put("x/a.png", under=tmp_path)  # one that is no number, and they are words
    assert read_folders(tmp_path).names == ("0", "1", "10", "2", "9", "x")


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid", "Val"])
def test_the_second_split_has_many_names(name: str, tmp_path: Path) -> None:
    put("train/a/1.png", "train/b/2.JPEG", "train/b/3.TIF", f"{name}/b/4.webp", under=tmp_path)
    found = read_folders(tmp_path)
    assert (found.names, found.train.labels_N.tolist()) == (("a", "b"), [0, 1, 1])
    assert found.test is not None
    assert (found.test.folder.name, found.test.labels_N.tolist()) == (name, [1])
    source = open_images(str(tmp_path))
    assert (source.test_split, source.sizes) == (name, {"train": 3, "test": 1})


def test_a_test_split_without_labels_leaves_the_other(tmp_path: Path) -> None:
    put("train/a/1.png", "val/a/2.png", "test/3.png", under=tmp_path)
    found = read_folders(tmp_path)
    assert found.test is not None
    assert found.test.folder.name == "val"


def test_pictures_may_lie_deeper(tmp_path: Path) -> None:
    """As in tiny-imagenet, whose second split has its classes in a file."""
    put("train/n1/images/1.JPEG", "train/n2/images/2.JPEG", "val/images/v0.JPEG", "val/images/v1.JPEG", under=tmp_path)
    (tmp_path / "train" / "n1" / "n1_boxes.txt").write_text("1.JPEG 0 0 8 8\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("v0.JPEG\tn2\t0\t0\nv1.JPEG\tn1\t0\t0\n")
    found = read_folders(tmp_path)
    assert found.test is not None
    assert [file.name for file in found.test.files] == ["v1.JPEG", "v0.JPEG"]
    assert found.test.labels_N.tolist() == [0, 1]
    (tmp_path / "val" / "val_annotations.txt").write_text("v7.JPEG\tn2\n")
    with pytest.raises(BenchError, match=r"val_annotations\.txt' names 'v7\.JPEG', which is not there"):
        read_folders(tmp_path)


def empty(folder: Path) -> None:
    put("a/1.png", "b/2.png", under=folder)
    (folder / "c").mkdir()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (empty, r"c' holds no pictures \(.png, .*\), and a class without any would be missing from the numbers"),
        (lambda f: put("1.png", "2.png", under=f), "2 pictures lie in it, and their classes are not known"),
        (lambda f: put("val/a/1.png", under=f), "holds val/ and no train/ with a folder for each class; name"),
        (
            lambda f: put("train/a/1.png", "val/2.png", under=f),
            "val' holds no folder for each class, so the classes of",
        ),
        (lambda f: put("train/a/1.png", "val/b/2.png", under=f), "val' holds the classes b, which '.*train' does not"),
        (lambda f: put("a/1.png", "a/2.gif", under=f), r"2\.gif' is a \.gif file, which is not read; \.png"),
        (lambda f: os.symlink("nowhere", f / "a"), "holds no images for train"),
        (lambda f: put("a/1.png", under=f), "holds 1 images, too few to hold a tenth out for train"),
    ],
)
def test_what_gives_classes_other_numbers_is_refused(
    make: Callable[[Path], object], sentence: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(BenchError, match=sentence):
        open_images(str(tmp_path))


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path: Path) -> None:
    put("a/1.png", "b/2.png", under=tmp_path)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(read_folders(tmp_path).train.files) <= 4


def test_what_is_there_has_a_digest(tmp_path: Path) -> None:
    put("train/a/1.png", "train/b/2.png", under=tmp_path)
    before = read_folders(tmp_path).digest
    assert read_folders(tmp_path / "train").digest == before
    put("train/b/3.png", under=tmp_path)
    assert read_folders(tmp_path).digest != before


def test_a_reference_may_be_any_folder_of_pictures(tmp_path: Path) -> None:
    put("1.png", "2.png", "deep/er/3.png", under=tmp_path / "flat")
    images, held = load_pictures(tmp_path / "flat", 4, 2, 3)
    assert (images.shape, held) == ((2, 3, 4, 4), 3)
    put("train/a/1.png", "val/a/2.png", "val/a/3.png", under=tmp_path / "split")
    assert load_pictures(tmp_path / "split", 4, 9, 1)[1] == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(BenchError, match="holds no images for train"):
        load_pictures(tmp_path / "none", 4, 9, 1)
