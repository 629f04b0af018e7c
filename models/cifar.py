"""CIFAR-10 as it is published: batches for Python, and batches of plain bytes.

Knows their names, their layout and what a half-extracted archive looks like. Refuses to run anything: of a pickled
batch it takes plain values and arrays of bytes, which it builds itself; and refuses to know splits of other data.

Six files hold the 60,000 images (Krizhevsky 2009), 32x32, red, green and blue one after the other, in ten classes. The
batches were shuffled when they were made, so they keep their order.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.files import open_plain, reason_of

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # as published
CLASSES = len(CLASS_NAMES)
_PIXELS = 3 * 32 * 32
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_FOLDERS = {"": "cifar-10-batches-py", ".bin": "cifar-10-batches-bin", ".mat": "cifar-10-batches-mat"}
_PACKED = (".tar.gz", ".tgz", ".tar", ".zip")
_LIMIT_BYTES = 1 << 26  # of one pickled batch; the published ones have 31 MB


def find_batches(where: Path) -> tuple[Path, ...] | None:
    """The six batches in a folder, or in the archive's own folder within it; None where it holds none.

    Raises BenchError if some are missing, if all there is are MATLAB files, or an archive that is still packed.
    """
    for suffix, name in _FOLDERS.items():
        for folder in (where, where / name):
            files = tuple(folder / f"{batch}{suffix}" for batch in _BATCHES)
            missing = [file.name for file in files if not file.is_file()]
            if len(missing) == len(files):
                continue
            if suffix == ".mat":
                raise BenchError(
                    f"'{folder}' holds CIFAR-10 for MATLAB, which is not read; its version for Python, its binary "
                    f"version or a folder of images per class would do, as in --data {_FOLDERS['']}"
                )
            if missing:
                raise BenchError(
                    f"'{folder}' holds {len(files) - len(missing)} of CIFAR-10's {len(files)} batches and lacks "
                    f"{', '.join(missing)}; unpack the whole archive again"
                )
            return files
    held = list(where.glob("*"))
    packed = [entry for entry in held if entry.name.endswith(_PACKED)]
    if packed and not any(entry.is_dir() for entry in held):
        refuse_packed(packed[0])
    return None


def refuse_packed(file: Path) -> None:
    """BenchError if a file is an archive or for MATLAB, neither of which is read."""
    if file.name.endswith(_PACKED):
        raise BenchError(f"'{file}' is still packed; unpack it, and name the folder that comes out of it")
    if file.suffix == ".mat":
        raise BenchError(
            f"'{file}' is for MATLAB, which is not read; a folder with CIFAR-10's version for Python would do"
        )


def read_batches(files: Sequence[Path], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 in [0, 10) of one split, from what `find_batches` found.

    Raises BenchError for a file that is cut off, changed, or holds more than images and labels.
    """
    wanted = files[-1:] if split == "test" else files[:-1]
    parts = [_read_binary(file, files) if file.suffix == ".bin" else _read_python(file) for file in wanted]
    for file, (images_Nx, labels_N) in zip(wanted, parts, strict=True):
        if len(images_Nx) != len(parts[0][0]) or labels_N.max() >= CLASSES or labels_N.min() < 0:
            raise BenchError(
                f"'{file}' holds {len(images_Nx)} images of classes {labels_N.min()} to {labels_N.max()}; as many as "
                f"in '{wanted[0].name}', {len(parts[0][0])}, of classes 0 to 9 would do: unpack the archive again"
            )
    images_Nx, labels_N = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images_Nx.reshape(-1, 3, 32, 32), labels_N


def _read_binary(file: Path, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """One byte of class and 3,072 of pixels, an image; every batch holds equally many."""
    size, wanted = file.stat().st_size, max(other.stat().st_size for other in files)
    if size != wanted or not size or size % (1 + _PIXELS):
        raise BenchError(
            f"'{file}' has {size:,} bytes, the largest batch beside it {wanted:,}; all alike and a multiple of "
            f"{1 + _PIXELS:,} would do: unpack the archive again"
        )
    try:
        with open_plain(file) as opened:
            rows_Nx = np.frombuffer(opened.read(), np.uint8).reshape(-1, 1 + _PIXELS)
    except OSError as problem:
        raise BenchError(f"'{file}' cannot be read: {reason_of(problem)}; unpack the archive again") from problem
    return rows_Nx[:, 1:], rows_Nx[:, 0].astype(np.int64)


def _read_python(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with `data` and `labels`, whose names Python 2 wrote as bytes."""
    if file.stat().st_size > _LIMIT_BYTES:
        raise BenchError(
            f"'{file}' has {file.stat().st_size:,} bytes, and a batch of CIFAR-10 31 million; unpack it again"
        )
    try:
        with file.open("rb") as opened:
            held = _PlainUnpickler(opened, encoding="bytes").load()
        named = {name.decode() if isinstance(name, bytes) else name: value for name, value in held.items()}
        images_Nx, labels = named["data"].bytes_, named["labels"]
    except BenchError as problem:
        raise BenchError(f"'{file}' {problem}") from problem
    except Exception as problem:  # a foreign file may break the reader in any way
        raise BenchError(
            f"'{file}' is not a whole batch of CIFAR-10 for Python ({type(problem).__name__}: {problem}); "
            f"unpack the archive again"
        ) from problem
    whole = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not whole or not labels or images_Nx.shape != (len(labels), _PIXELS):
        raise BenchError(
            f"'{file}' holds pixels of shape {images_Nx.shape}; {_PIXELS:,} bytes and one whole number as label "
            f"an image would do: unpack the archive again"
        )
    return images_Nx, np.array(labels, np.int64)


class _PlainArray:
    """Stands in for a numpy array while a pickle is read: bytes of some shape, and nothing else."""

    bytes_: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, is_fortran, content = state
        if not isinstance(kind, _PlainKind) or kind.code not in ("u1", b"u1"):
            raise BenchError("holds numbers that are no bytes; uint8, as published, would do")
        self.bytes_ = np.frombuffer(content, np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _PlainKind:
    """Stands in for a numpy dtype: its code, such as 'u1'."""

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and fields: bytes have neither."""


def _fresh_array(_kind: object, _shape: object, _code: object) -> _PlainArray:
    return _PlainArray()


def _latin1(text: str, _encoding: str) -> bytes:
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _fresh_array,  # numpy 1 and Python 2
    ("numpy._core.multiarray", "_reconstruct"): _fresh_array,  # numpy 2
    ("numpy", "ndarray"): _PlainArray,
    ("numpy", "dtype"): _PlainKind,
    ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes where Python 2 is to read them
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickle without importing or calling anything that it names: what arrays need has a stand-in here."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise BenchError(
                f"names {module}.{name}, which images do not need, and is not opened: it could run code; "
                f"unpack the original archive again"
            )
        return _STAND_INS[module, name]
