"""Folders of pictures, one folder a class: which splits and classes they hold, and which picture is of which.

Knows how people lay out such folders. Refuses to open a picture, and to guess: what would give classes other numbers
than somebody else's reader gives them is an error.

Understood, with `train/` beside `test/`, `val/`, `validation/` or `valid/`, or without a split:

    CLASS/picture.png               as torchvision's ImageFolder
    CLASS/images/picture.JPEG       pictures may lie deeper, as in tiny-imagenet
    val/images/ and val_annotations.txt    tiny-imagenet's second split: one line a picture, its name and its class
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orderbench.models.pixels import PICTURES, UNREAD
from orderbench.orders import BenchError
from orderbench.orders.files import reason_of

TEST_SPLITS = ("test", "val", "validation", "valid")  # whichever comes first and holds classes
_ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class Split:
    """The pictures of one split, class by class. labels_N: int64, places in the names of the classes."""

    folder: Path
    files: tuple[Path, ...]
    labels_N: np.ndarray


@dataclass(frozen=True)
class Folders:
    """What a folder holds. names: of the classes, in the order of their numbers. test: None where it holds one split.
    digest: SHA-256 of the names and sizes of the pictures of `train`."""

    names: tuple[str, ...]
    train: Split
    test: Split | None
    digest: str


def read_folders(folder: Path) -> Folders:
    """The classes and pictures of a folder.

    Classes are the folders of the training split: in the order of their numbers if all names are whole numbers (1, 2,
    10), else in the order of the alphabet. Hidden files and folders are skipped.

    Raises BenchError for a folder without classes, a class without pictures, a test split with classes that the
    training split lacks, pictures of kinds that are not read, and what cannot be read.
    """
    below = {entry.name.lower(): entry for entry in _entries(folder) if entry.is_dir()}
    if "train" in below and _has_classes(below["train"]):
        root = below["train"]
        test = next((below[name] for name in TEST_SPLITS if name in below and _has_classes(below[name])), None)
        flat = next((below[name] for name in TEST_SPLITS if name in below), None)
        if test is None and flat is not None:
            raise BenchError(
                f"'{flat}' holds no folder for each class, so the classes of its pictures are not known; make such "
                f"folders, or leave it out"
            )
    else:
        root, test = folder, None
        alone = [name for name in TEST_SPLITS if name in below and _has_classes(below[name])]
        if alone and set(below) <= {*TEST_SPLITS, "train"}:
            raise BenchError(
                f"'{folder}' holds {alone[0]}/ and no train/ with a folder for each class; name '{below[alone[0]]}' to "
                f"take it whole"
            )
    classes = _classes(root)
    names = tuple(sorted(classes, key=int if all(map(_is_number, classes)) else None))
    train = _split(root, classes, names)
    held = None
    if test is not None:
        theirs = _annotated(test) or _classes(test)
        foreign = [name for name in theirs if name not in classes]
        if foreign:
            raise BenchError(
                f"'{test}' holds the classes {', '.join(sorted(foreign)[:4])}, which '{root}' does not; leave out "
                f"those that no model can have learnt"
            )
        held = _split(test, theirs, names)
    return Folders(names, train, held, _digest(train))


def flat_pictures(folder: Path) -> tuple[Path, ...]:
    """All pictures below a folder, whatever folders they lie in, by name; BenchError as `read_folders`."""
    return tuple(_pictures(folder, set()))


def _split(root: Path, classes: Mapping[str, tuple[Path, ...]], names: tuple[str, ...]) -> Split:
    numbered = [(file, number) for number, name in enumerate(names) for file in classes.get(name, ())]
    return Split(root, tuple(file for file, _ in numbered), np.array([number for _, number in numbered], np.int64))


def _classes(root: Path) -> dict[str, tuple[Path, ...]]:
    folders = [entry for entry in _entries(root) if entry.is_dir()]
    if not folders:
        loose = sum(entry.suffix.lower() in PICTURES for entry in _entries(root))
        why = f": {loose} pictures lie in it, and their classes are not known" if loose else ""
        raise BenchError(
            f"'{root}' holds no images for train; a folder of .png or .jpg files per class would do, or "
            f"Fashion-MNIST's files{why}"
        )
    classes = {entry.name: tuple(_pictures(entry, set())) for entry in folders}
    for name, files in classes.items():
        if not files:
            raise BenchError(
                f"'{root / name}' holds no pictures ({', '.join(PICTURES)}), and a class without any would be missing "
                f"from the numbers of the classes; fill the folder, or remove it"
            )
    return classes


def _annotated(test: Path) -> dict[str, tuple[Path, ...]]:
    """Tiny-imagenet's second split; empty for any other."""
    listed = test / _ANNOTATIONS
    if not listed.is_file():
        return {}
    found: dict[str, list[Path]] = {}
    try:
        lines = listed.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise BenchError(f"'{listed}' cannot be read: {reason_of(problem)}; fetch it again") from problem
    files = {file.name: file for file in flat_pictures(test)}
    for line in lines:
        name, _, rest = line.partition("\t")
        if name not in files:
            raise BenchError(f"'{listed}' names '{name[:80]}', which is not there; unpack the archive again")
        found.setdefault(rest.partition("\t")[0], []).append(files[name])
    return {name: tuple(sorted(own)) for name, own in found.items()}


def _has_classes(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _entries(folder))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _pictures(folder: Path, seen: set[str]) -> Iterable[Path]:
    """All pictures below a folder, sorted by name; a link back to a folder above is not followed."""
    place = os.path.realpath(folder)
    if place in seen:
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _pictures(entry, {*seen, place})
        elif entry.suffix.lower() in PICTURES:
            yield entry
        elif entry.suffix.lower() in UNREAD:
            raise BenchError(
                f"'{entry}' is a {entry.suffix.lower()} file, which is not read; {', '.join(PICTURES)} would do, or "
                f"leave it out"
            )


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, but what is hidden, by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as problem:
        raise BenchError(f"'{folder}' cannot be read: {reason_of(problem)}; name another folder") from problem


def _digest(split: Split) -> str:
    said = hashlib.sha256()
    for file in split.files:
        try:
            size = file.stat().st_size
        except OSError as problem:
            raise BenchError(f"'{file}' cannot be read: {reason_of(problem)}; remove it from the folder") from problem
        said.update(f"{file.relative_to(split.folder).as_posix()}\0{size}\n".encode("utf-8", "surrogateescape"))
    return said.hexdigest()
