"""Data: images and labels, from files that are already there.

Knows Fashion-MNIST, folders of pictures by class and .npz files, and what is a split of them; `cifar.py` reads
CIFAR-10's batches. Refuses to know the network: `download.py` fetches files, and only for a user who wrote `download`.

`pixels.py` has the rule by which pictures become squares. Fashion-MNIST alone has one of its own: it is 28x28 grey, and
the suite's weights were trained on it at 32x32, bilinear with antialiasing, so that a tokenizer of stride 2 gives a
16x16 lattice. It is not padded: a constant border would make the outer rings trivial.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.cifar import CLASS_NAMES, find_batches, read_batches, refuse_packed
from orderbench.models.download import SHA256, download_folder, fetch
from orderbench.models.folders import Folders, flat_pictures, read_folders
from orderbench.models.pixels import in_channels, is_grey, pixel_rule, read_picture, square
from orderbench.orders import BenchError
from orderbench.orders.arrays import BrokenArrays, Head, memory_bytes, read_heads, read_npz
from orderbench.orders.files import reason_of, sha256_of
from orderbench.orders.streams import generator

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
SIDE = 32
_FASHION = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_SHUFFLE = 1 << 48  # an address of noise that no step and no epoch of training uses
_MOST_CLASSES = 100_000  # a label beyond is a mistake, and not a class that anybody has pictures of
_TENTH = "a tenth of the images"


@dataclass(frozen=True, eq=False)
class Images:
    """images_Nchw: uint8, 32x32 unless said; labels_N: int64 in [0, C); name: what and which split; classes: C;
    class_names: C words, or none where classes are numbers alone."""

    images_Nchw: Tensor
    labels_N: Tensor
    name: str
    classes: int
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def floats(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Chosen images as float32 in [-1, 1]."""
        return self.images_Nchw[indices].float() / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Source:
    """Images that were looked at and not read yet.

    name: as reports call them. where: as sentences do. sizes: how many each split has. classes, class_names: of the
    training split. test_split: what the test split is called where it lies; '' where a tenth is held out of the one
    that there is. digest: SHA-256 of what is there, by names and sizes or by content. rule: what becomes of pixels, at
    a side. read: (split, limit, side, channels) to images (N, c, side, side) uint8 and labels (N,). count_channels: 1
    or 3.
    """

    name: str
    where: str
    sizes: Mapping[str, int]
    classes: int
    class_names: tuple[str, ...]
    test_split: str
    digest: str
    rule: Callable[[int], str]
    read: Callable[[str, int | None, int, int], tuple[np.ndarray, np.ndarray]]
    count_channels: Callable[[], int]

    @cached_property
    def channels(self) -> int:
        """1 if all pictures of the training split are grey, else 3."""
        return self.count_channels()

    @property
    def held_out_as(self) -> str:
        """What the test split is, in words."""
        return f"{self.name}/{self.test_split}" if self.test_split else f"{_TENTH} of {self.name}"

    def load(self, split: str, side: int, limit: int | None = None, channels: int | None = None) -> Images:
        """Images of one split, 'train' or 'test', the first `limit` of them, as squares of that side. channels: 1 or 3;
        None takes as many as the pictures have.

        BenchError for pictures that cannot be read, more than fits into memory, and colours where one channel is
        wanted.
        """
        if split not in ("train", "test"):
            raise BenchError(f"no split named '{split}'; train or test would do")
        wanted = self.channels if channels is None else channels
        n = min(self.sizes[split], self.sizes[split] if limit is None else limit)
        n_bytes = n * wanted * side * side
        if n_bytes > memory_bytes():
            raise BenchError(
                f"{n:,} images of {side}x{side} take {n_bytes / 1e9:,.0f} GB, more than this machine's memory; a "
                f"smaller side would do"
            )
        images, labels_N = self.read(split, limit, side, wanted)
        name = f"{self.name}/{split}"
        return Images(torch.from_numpy(images), torch.from_numpy(labels_N), name, self.classes, self.class_names)

    def check_channels(self, channels: int, whose: str) -> None:
        """BenchError, with both counts, where pictures have colours and a network takes one channel; it looks at a few,
        and `load` at all."""
        if channels == self.channels or channels == 3:
            return
        try:
            self.read("train", 16, SIDE, channels)
        except BenchError as problem:
            raise BenchError(
                f"{self.where} has pictures of {self.channels} channels and {whose} takes {channels} ({problem})"
            ) from problem


def to_uint8(images_Bchw: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, rounded to the nearest."""
    return ((images_Bchw + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def open_images(source: str | None) -> Source:
    """Look at images: which classes and splits they have, without reading their pixels.

    source: None (Fashion-MNIST from Debian's package), 'download' or 'download:FOLDER' (its original files, fetched
    where they are not there yet), a folder with these files, a folder with CIFAR-10's batches (for Python or binary), a
    folder with one folder of pictures per class (`folders.py` says which layouts), or an .npz file with `images`
    (uint8, N x h x w [x c]) and `labels` (whole numbers), or with `train_images`, `test_images` (or `val_images`) and
    their labels.

    Fashion-MNIST and CIFAR-10's batches keep their own order. Everything else is shuffled, always alike, so that every
    beginning is a fair sample; where it holds one split only, a tenth of it, of every class alike, is 'test' and the
    rest 'train'. Classes are those of the training split.

    Raises BenchError for files that are missing, changed, of another form, or cannot be fetched.
    """
    fetched = download_folder(source)
    if fetched is not None:
        return _fashion(fetched, "fashion-mnist", fetches=True)
    where = Path(source) if source else DEBIAN
    if source is None and not where.is_dir():
        raise BenchError(
            "Fashion-MNIST is not on this machine; --data download fetches it (31 MB), `apt-get install "
            "dataset-fashion-mnist` puts it there, or name a folder with its original files, as in --data FOLDER"
        )
    try:
        is_there = where.exists()
    except OSError as problem:  # a folder above it is closed, or its name is longer than any
        raise BenchError(f"'{where}' cannot be read: {reason_of(problem)}; name another folder") from problem
    if not is_there:
        raise BenchError(
            f"there are no images at '{source}'; name a folder or an .npz file, as in --data FOLDER, or fetch "
            f"Fashion-MNIST with --data download"
        )
    if where.is_file():
        refuse_packed(where)
        return _npz(where)
    if not where.is_dir():
        raise BenchError(f"'{where}' is neither a folder nor a plain file; name a folder or an .npz file")
    if (where / _FASHION["train"][0]).is_file() or (where / _FASHION["test"][0]).is_file():
        return _fashion(where, "fashion-mnist" if source is None else where.name)
    batches = find_batches(where)
    return _pictures(where, read_folders(where)) if batches is None else _cifar(where, batches)


def load_images(
    source: str | None, split: str, side: int = SIDE, limit: int | None = None, channels: int | None = None
) -> Images:
    """Images of one split, 'train' or 'test': `open_images`, and `Source.load` in one call."""
    if split not in ("train", "test"):
        raise BenchError(f"no split named '{split}'; train or test would do")
    return open_images(source).load(split, side, limit, channels)


def load_pictures(folder: Path, side: int, limit: int, channels: int) -> tuple[Tensor, int]:
    """(N, c, side, side) uint8 pictures of a folder, whatever their classes, and how many it holds: those of its
    train/ if it has one, else all below it; shuffled, always alike, and the first `limit` of them.

    BenchError for a folder without pictures, and for pictures that cannot be read or have other channels.
    """
    files = flat_pictures(folder / "train" if (folder / "train").is_dir() else folder)
    if not files:
        source = open_images(str(folder))
        return source.load("train", side, limit, channels).images_Nchw, source.sizes["train"]
    picks = _picks(np.zeros(len(files), np.int64), "train", apart=True)[:limit]
    return torch.from_numpy(np.stack([read_picture(files[pick], side, channels) for pick in picks])), len(files)


def resize(images_Nchw: Tensor, side: int) -> Tensor:
    """uint8 images at side x side: bilinear, antialiased; what Fashion-MNIST's 28 pixels become."""
    if images_Nchw.shape[-2:] == (side, side):
        return images_Nchw
    parts = [
        F.interpolate(part.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        for part in images_Nchw.split(4096)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def _picks(labels_N: np.ndarray, split: str, apart: bool) -> np.ndarray:
    """Which images a split has, shuffled: all, if the source holds the splits apart, or its part."""
    shuffled_N = generator(0, "train", _SHUFFLE).permutation(len(labels_N))
    if apart:
        return shuffled_N
    by_class_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    is_test_N = np.zeros(len(labels_N), bool)
    is_test_N[by_class_N[::10]] = True
    return shuffled_N[is_test_N[shuffled_N] == (split == "test")]


def _fashion(folder: Path, name: str, fetches: bool = False) -> Source:
    def read(split: str, limit: int | None, side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        if fetches:
            fetch(folder, _FASHION[split])
        images, labels = (_read_idx(folder / name) for name in _FASHION[split])
        images_Nchw = resize(torch.from_numpy(images[:limit, None]), side).numpy()
        return images_Nchw.repeat(channels, 1), labels[:limit].astype(np.int64)

    sizes = {"train": 60_000, "test": 10_000}
    return Source(name, "Fashion-MNIST", sizes, len(FASHION_NAMES), (), "test", "", _drawn_up, read, lambda: 1)


def _drawn_up(side: int) -> str:
    return f"28 to {side} pixels, bilinear"


def _cifar(folder: Path, batches: tuple[Path, ...]) -> Source:
    def read(split: str, limit: int | None, side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        images_Nchw, labels_N = read_batches(batches, split)
        return _formed(images_Nchw[:limit], side, channels, str(folder)), labels_N[:limit]

    sizes = {"train": 50_000, "test": 10_000}
    return Source(
        "cifar10", f"'{folder}'", sizes, len(CLASS_NAMES), CLASS_NAMES, "test", "", pixel_rule, read, lambda: 3
    )


def _formed(images_Nchw: np.ndarray, side: int, channels: int, where: str) -> np.ndarray:
    folded = in_channels(images_Nchw, channels)
    if folded is None:
        raise BenchError(
            f"'{where}' holds images in colour, of {images_Nchw.shape[1]} channels, and {channels} is wanted; name a "
            f"tokenizer and features of colour images, or make the images grey"
        )
    return square(folded, side, where)


def _read_idx(file: Path) -> np.ndarray:
    """An idx file: two zero bytes, type 8 (uint8), the number of axes, the sides in 32 bits, the content."""
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as problem:
        raise BenchError(f"'{file}' could not be read: {problem}; remove it and fetch the original again") from problem
    wanted = SHA256[file.name]
    if hashlib.sha256(content).hexdigest() != wanted:
        raise BenchError(
            f"'{file}' is not the original file of Fashion-MNIST (its checksum differs); remove it, "
            f"and --data download:FOLDER fetches it again"
        )
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


# .npz files


def _npz(file: Path) -> Source:
    try:
        heads = read_heads(file)
        tests = [name for name in ("test", "val", "validation") if f"{name}_images" in heads]
        apart = "train_images" in heads and bool(tests)
        prefix = {"train": "train_", "test": f"{tests[0]}_"} if apart else {"train": "", "test": ""}
        wanted = {f"{one}labels" for one in prefix.values()}
        labels_by_name = read_npz(file, wanted)
        lacking = [name for one in prefix.values() for name in (f"{one}images", f"{one}labels") if name not in heads]
    except BrokenArrays as problem:
        raise BenchError(
            f"'{file}' does not hold images and labels as plain arrays: it {problem}; np.savez(FILE, images=..., "
            f"labels=...) writes such a file"
        ) from problem
    if lacking:
        raise BenchError(
            f"'{file}' does not hold images and labels as plain arrays: {lacking[0]} is not there, and it holds "
            f"{', '.join(list(heads)[:4]) or 'nothing'}; np.savez(FILE, images=..., labels=...) writes such a file"
        )
    labels = {split: labels_by_name[f"{one}labels"] for split, one in prefix.items()}
    for split, one in prefix.items():
        _check_arrays(file, heads[f"{one}images"], labels[split])
    classes = int(labels["train"].max()) + 1
    if labels["test"].max() >= classes:
        raise BenchError(
            f"'{file}' holds test images of class {labels['test'].max()}, and training images of 0 to {classes - 1} "
            f"alone; leave out those that no model can have learnt"
        )
    picks = {split: _picks(labels[split], split, apart) for split in prefix}
    if not all(map(len, picks.values())):
        raise BenchError(f"'{file}' holds {len(labels['train'])} images, too few for two splits; 10 or more would do")

    def read(split: str, limit: int | None, side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        name = f"{prefix[split]}images"
        try:
            images = read_npz(file, (name,))[name]
        except (BrokenArrays, KeyError) as problem:
            raise BenchError(f"'{file}' {problem}; write it again") from problem
        chosen = picks[split][:limit]
        images_Nchw = images[chosen, None] if images.ndim == 3 else images[chosen].transpose(0, 3, 1, 2)
        return _formed(images_Nchw, side, channels, str(file)), labels[split][chosen].astype(np.int64)

    shape = heads[f"{prefix['train']}images"].shape
    return Source(
        file.name, f"'{file}'", {split: len(chosen) for split, chosen in picks.items()}, classes, (),
        tests[0] if apart else "", sha256_of(file), pixel_rule, read, lambda: 1 if len(shape) == 3 else shape[3],
    )  # fmt: skip


def _check_arrays(file: Path, images: Head, labels_N: np.ndarray) -> None:
    """BenchError for images and labels of other types and shapes than are served."""
    shape = images.shape
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        raise BenchError(
            f"'{file}' holds images of shape {shape}, which is (N, c, h, w); (N, h, w, c) would do, as "
            f"images.transpose(0, 2, 3, 1) makes it"
        )
    fits = images.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    if not fits or labels_N.shape != shape[:1] or not math.prod(shape):
        raise BenchError(
            f"'{file}' holds images of {images.dtype} and shape {shape} and labels of shape {labels_N.shape}; "
            f"uint8 of shape (N, h, w) or (N, h, w, c) with 1 or 3 channels and one label each would do"
        )
    if labels_N.dtype.kind not in "iu" or int(labels_N.min()) < 0:
        raise BenchError(f"'{file}' holds labels of {labels_N.dtype}; whole numbers of 0 or more would do")
    if int(labels_N.max()) >= _MOST_CLASSES:
        raise BenchError(
            f"'{file}' holds the label {int(labels_N.max())}, and with it as many classes; number them from 0, up to "
            f"{_MOST_CLASSES - 1} at most"
        )


# Folders of pictures


def _pictures(folder: Path, found: Folders) -> Source:
    apart = found.test is not None
    splits = {"train": found.train, "test": found.test or found.train}
    picks = {split: _picks(part.labels_N, split, apart) for split, part in splits.items()}
    for split, chosen in picks.items():
        if not len(chosen):
            raise BenchError(
                f"'{folder}' holds {len(found.train.files)} images, too few to hold a tenth out for {split}; 10 or "
                f"more would do, or a folder of test images beside train/"
            )

    def read(split: str, limit: int | None, side: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        part, chosen = splits[split], picks[split][:limit]
        images = [read_picture(part.files[pick], side, channels) for pick in chosen]
        return np.stack(images), part.labels_N[chosen]

    return Source(
        folder.name or folder.resolve().name, f"'{folder}'", {split: len(chosen) for split, chosen in picks.items()},
        len(found.names), found.names, found.test.folder.name if found.test else "", found.digest, pixel_rule, read,
        lambda: 1 if all(map(is_grey, found.train.files)) else 3,
    )  # fmt: skip
