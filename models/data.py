"""Data: images and labels, from files that are already there.

Knows Fashion-MNIST, folders of images by class and .npz files. Refuses to know the network: who spells `download` is
handed to `download.py`, and nothing is fetched that nobody asked for.

Fashion-MNIST (Zalando, MIT licence) is 28x28 grey; the suite uses it at 32x32, bilinear with antialiasing, so that a
tokenizer of stride 2 gives a 16x16 lattice. It is not padded: a constant border would make the outer rings free.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.download import SHA256, download_folder, fetch
from orderbench.orders import BenchError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
SIDE = 32
_FASHION = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


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


def load_images(source: str | None, split: str, side: int = SIDE) -> Images:
    """Images of one split, 'train' or 'test', resized to side x side.

    source: None (Fashion-MNIST from Debian's package), 'download' or 'download:FOLDER' (its original files, fetched
    where they are not there yet), a folder with these files, a folder with one folder of images per class (below train/
    and test/ if these exist), or an .npz file with `images` (uint8, N x h x w [x c]) and `labels` (whole numbers), for
    train and test alike unless it holds `train_images`, `test_images` and their labels.

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
    if where.is_file():
        images, labels = _read_npz(where, split)
    elif (where / _FASHION[split][0]).is_file():
        images, labels = _read_fashion(where, split)
    else:
        images, labels = _read_folder(where, split, side)
    resized = resize(torch.from_numpy(images), side)
    name = f"{'fashion-mnist' if source is None or fetched else where.name}/{split}"
    return Images(resized, torch.from_numpy(labels), name, int(labels.max()) + 1)


def resize(images_Nchw: Tensor, side: int) -> Tensor:
    """uint8 images at side x side: bilinear, antialiased; the one resize of the suite."""
    if images_Nchw.shape[-2:] == (side, side):
        return images_Nchw
    parts = [
        F.interpolate(part.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        for part in images_Nchw.split(4096)
    ]
    return torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])


def _read_fashion(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (_read_idx(folder / name) for name in _FASHION[split])
    return images[:, None], labels.astype(np.int64)


def _read_idx(file: Path) -> np.ndarray:
    """An idx file: two zero bytes, type 8 (uint8), the number of axes, the sides in 32 bits, the content."""
    try:
        content = gzip.decompress(file.read_bytes())
    except (OSError, EOFError) as problem:
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


def _read_npz(file: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            prefix = f"{split}_" if f"{split}_images" in arrays else ""
            images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as problem:
        raise BenchError(f"'{file}' does not hold images and labels as plain arrays: {problem}") from problem
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels) or not len(labels):
        raise BenchError(
            f"'{file}' holds images of {images.dtype} and shape {images.shape} and {len(labels)} labels; uint8 of "
            f"shape (N, h, w) or (N, h, w, c) and one label each would do"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise BenchError(f"'{file}' holds labels of {labels.dtype}; whole numbers of 0 or more would do")
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), labels.astype(np.int64)


def _read_folder(folder: Path, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    root = folder / split if (folder / split).is_dir() else folder
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir())
    images, labels = [], []
    for label, entry in enumerate(classes):
        for file in sorted(entry.iterdir()):
            if file.suffix.lower() in _PICTURES:
                try:
                    with Image.open(file) as picture:
                        pixels = np.asarray(picture.convert("RGB"))
                except OSError as problem:
                    raise BenchError(f"'{file}' could not be read as an image: {problem}") from problem
                images.append(resize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], side)[0].numpy())
                labels.append(label)
    if not images:
        raise BenchError(
            f"'{folder}' holds no images; a folder of .png or .jpg files per class would do, or Fashion-MNIST's files"
        )
    return np.stack(images), np.array(labels, np.int64)
