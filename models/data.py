"""Data: images and labels, from files that are already there.

Knows Fashion-MNIST, folders of images by class and .npz files; `cifar.py` reads CIFAR-10's batches. Refuses to know the
network: `download.py` fetches files, and only for a user who wrote `download`.

Fashion-MNIST (Zalando, MIT licence) is 28x28 grey. The suite uses it at 32x32, bilinear with antialiasing, so that a
tokenizer of stride 2 gives a 16x16 lattice. It is not padded: a constant border would make the outer rings trivial.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.cifar import CLASSES, find_batches, read_batches, refuse_packed
from orderbench.models.download import SHA256, download_folder, fetch
from orderbench.orders import BenchError
from orderbench.orders.streams import generator

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
SIDE = 32
_FASHION = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_SHUFFLE = 1 << 48  # an address of noise that no step and no epoch of training uses


@dataclass(frozen=True, eq=False)
class Images:
    """images_Nchw: uint8, 32x32 unless said; labels_N: int64 in [0, C); name: what and which split; classes: C."""

    images_Nchw: Tensor
    labels_N: Tensor
    name: str
    classes: int

    def __len__(self) -> int:
        return len(self.labels_N)

    def floats(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """Chosen images as float32 in [-1, 1]."""
        return self.images_Nchw[indices].float() / 127.5 - 1


def to_uint8(images_Bchw: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, rounded to the nearest."""
    return ((images_Bchw + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load_images(source: str | None, split: str, side: int = SIDE, limit: int | None = None) -> Images:
    """Images of one split, 'train' or 'test', resized to side x side; the first `limit` of them.

    source: None (Fashion-MNIST from Debian's package), 'download' or 'download:FOLDER' (its original files, fetched
    where they are not there yet), a folder with these files, a folder with CIFAR-10's batches (for Python or binary), a
    folder with one folder of images per class (below train/ and test/ if these exist; hidden ones are skipped), or an
    .npz file with `images` (uint8, N x h x w [x c]) and `labels` (whole numbers), or with `train_images`, `test_images`
    and their labels.

    Fashion-MNIST and CIFAR-10's batches keep their own order. Everything else is shuffled, always alike, so that every
    beginning is a fair sample; where it holds one split only, a tenth of it, of every class alike, is 'test' and the
    rest 'train'. Classes are those of the training split.

    Raises BenchError for files that are missing, changed, of another form, or cannot be fetched.
    """
    if split not in ("train", "test"):
        raise BenchError(f"no split named '{split}'; train or test would do")
    fetched = download_folder(source)
    if fetched is not None:
        fetch(fetched, _FASHION[split])
    where = fetched or (Path(source) if source else DEBIAN)
    if source is None and not where.is_dir():
        raise BenchError(
            "Fashion-MNIST is not on this machine; --data download fetches it (31 MB), `apt-get install "
            "dataset-fashion-mnist` puts it there, or name a folder with its original files, as in --data FOLDER"
        )
    if not where.exists():
        raise BenchError(
            f"there are no images at '{source}'; name a folder or an .npz file, as in --data FOLDER, or fetch "
            f"Fashion-MNIST with --data download"
        )
    batches = None
    if where.is_file():
        refuse_packed(where)
        images, labels, classes = _read_npz(where, split, limit)
    elif (where / _FASHION[split][0]).is_file():
        images, labels, classes = _read_fashion(where, split, limit)
    elif (batches := find_batches(where)) is not None:
        all_images, all_labels = read_batches(batches, split)
        images, labels, classes = all_images[:limit], all_labels[:limit], CLASSES
    else:
        images, labels, classes = _read_folder(where, split, limit, side)
    name = "fashion-mnist" if source is None or fetched else "cifar10" if batches else where.name
    return Images(resize(torch.from_numpy(images), side), torch.from_numpy(labels), f"{name}/{split}", classes)


def resize(images_Nchw: Tensor, side: int) -> Tensor:
    """uint8 images at side x side: bilinear, antialiased; the one resize of the suite."""
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


def _read_fashion(folder: Path, split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    images, labels = (_read_idx(folder / name) for name in _FASHION[split])
    return images[:limit, None], labels[:limit].astype(np.int64), int(labels.max()) + 1


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


def _read_npz(file: Path, split: str, limit: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            apart = {"train_images", "test_images"} <= set(arrays)
            own, train = (f"{split}_", "train_") if apart else ("", "")
            images, labels, known = arrays[f"{own}images"], arrays[f"{own}labels"], arrays[f"{train}labels"]
    except Exception as problem:  # a foreign file may break the reader in any way
        raise BenchError(f"'{file}' does not hold images and labels as plain arrays: {problem}") from problem
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or labels.shape != images.shape[:1] or not images.size:
        raise BenchError(
            f"'{file}' holds images of {images.dtype} and shape {images.shape} and labels of shape {labels.shape}; "
            f"uint8 of shape (N, h, w) or (N, h, w, c) and one label each would do"
        )
    if any(part.dtype.kind not in "iu" or not part.size or part.min() < 0 for part in (labels, known)):
        raise BenchError(f"'{file}' holds labels of {labels.dtype}; whole numbers of 0 or more would do")
    classes = int(known.max()) + 1
    if labels.max() >= classes:
        raise BenchError(
            f"'{file}' holds test images of class {labels.max()}, and training images of 0 to {classes - 1} alone; "
            f"leave out those that no model can have learnt"
        )
    picks = _picks(labels, split, apart)[:limit]
    if not len(picks):
        raise BenchError(f"'{file}' holds {len(labels)} images, too few for two splits; 10 or more would do")
    images = images[picks, None] if images.ndim == 3 else images[picks].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), labels[picks].astype(np.int64), classes


def _read_folder(folder: Path, split: str, limit: int | None, side: int) -> tuple[np.ndarray, np.ndarray, int]:
    train = folder / "train" if (folder / "train").is_dir() else folder
    apart = train != folder and (folder / "test").is_dir()
    known = {name: number for number, name in enumerate(sorted({file.parent.name for file in _pictures(train)}))}
    files = _pictures(folder / split if apart else train)
    foreign = sorted({file.parent.name for file in files} - set(known))
    if foreign:
        raise BenchError(
            f"'{folder / split}' holds the classes {', '.join(foreign[:4])}, which '{train}' does not; "
            f"leave out those that no model can have learnt"
        )
    labels = np.array([known[file.parent.name] for file in files], np.int64)
    picks = _picks(labels, split, apart)[:limit]
    if not len(picks):
        raise BenchError(
            f"'{folder}' holds no images for {split}; a folder of .png or .jpg files per class would do, or "
            f"Fashion-MNIST's files"
        )
    return np.stack([_read_picture(files[pick], side) for pick in picks]), labels[picks], len(known)


def _pictures(root: Path) -> list[Path]:
    """Class by class, but what is hidden."""
    return sorted(
        file
        for file in root.glob("*/*")
        if file.suffix.lower() in _PICTURES and not file.name.startswith(".") and not file.parent.name.startswith(".")
    )


def _read_picture(file: Path, side: int) -> np.ndarray:
    """(3, side, side) uint8."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            pixels_hwc = np.array(picture.convert("RGB"))
    except Exception as problem:  # a foreign file may break the reader in any way
        raise BenchError(f"'{file}' could not be read as an image: {problem}") from problem
    return resize(torch.from_numpy(pixels_hwc).permute(2, 0, 1)[None], side)[0].numpy()
