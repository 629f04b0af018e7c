"""Arrays: files of named arrays (.npz) that strangers wrote, read without running anything or trusting their sizes.

Knows the layout of NumPy's archives. Refuses to know what arrays mean, and to unpickle: an array of objects is named
and left closed. What an array's head promises is compared with what the archive holds before any memory is taken.

NumPy's own reader would do, but its errors advise to switch its safety off, and its heads are believed.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from orderbench.orders.files import open_plain, reason_of

_HEAD = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_CHUNK = 1 << 24  # bytes read at once


class BrokenArrays(Exception):
    """A file is not what it should be; the reason in words, to stand behind the file's name, as in 'is cut off'."""


class UnreadArrays(BrokenArrays):
    """A file that was not let read, so nothing is known of what it holds."""


@dataclass(frozen=True)
class Head:
    """What an array is before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    @property
    def n_bytes(self) -> int:
        """Of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_heads(file: Path) -> dict[str, Head]:
    """The heads of all arrays of an .npz file by name, in its order; nothing else is read.

    Raises BrokenArrays for a file of another form, FileNotFoundError where there is none.
    """
    return {name: head for name, (head, _) in _read(file, (), whole=False).items()}


def read_npz(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, or those of them that are named, as far as they are there.

    Raises BrokenArrays for a file of another form, arrays of objects, content that is damaged, and heads that promise
    more or less than there is or than this machine's memory holds; FileNotFoundError where there is no file.
    """
    found = _read(file, names, whole=True)
    return {name: array for name, (_, array) in found.items() if array is not None}


def memory_bytes() -> int:
    """Of this machine; where it does not tell, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return 1 << 62


def _read(file: Path, names: Collection[str] | None, whole: bool) -> Mapping[str, tuple[Head, np.ndarray | None]]:
    found: dict[str, tuple[Head, np.ndarray | None]] = {}
    try:
        with open_plain(file) as opened, zipfile.ZipFile(opened) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                if name != entry.filename and (not whole or names is None or name in names):
                    with archive.open(entry) as content:
                        head = _head(content, name, entry.file_size)
                        found[name] = head, (_content(content, name, head) if whole else None)
    except (FileNotFoundError, BrokenArrays):
        raise
    except MemoryError as problem:
        raise BrokenArrays("holds more than fits into memory") from problem
    except zipfile.BadZipFile as problem:
        cut = "is no .npz file, or not a whole one"
        raise BrokenArrays("is empty" if not file.stat().st_size else cut) from problem
    except OSError as problem:
        raise UnreadArrays(f"cannot be read: {reason_of(problem)}") from problem
    except Exception as problem:  # a foreign file may break zip and zlib in any way
        raise BrokenArrays(f"is damaged ({type(problem).__name__} while it was unpacked)") from problem
    return found


def _head(content: IO[bytes], name: str, size: int) -> Head:
    try:
        shape, is_fortran, dtype = _HEAD[np.lib.format.read_magic(content)](content)
    except Exception as problem:  # whatever numpy makes of it; its words advise to trust the file
        raise BrokenArrays(f"holds '{name[:80]}', which is no array") from problem
    head = Head(shape, dtype, is_fortran)
    if dtype.hasobject:
        raise BrokenArrays(f"holds Python objects under '{name[:80]}' and is not opened: they could run code")
    held = size - content.tell()
    if head.n_bytes != held or any(side < 0 for side in shape):
        raise BrokenArrays(
            f"promises an array '{name[:80]}' of shape {shape} and {dtype}, and holds {held:,} bytes of it"
        )
    if head.n_bytes > memory_bytes():
        raise BrokenArrays(
            f"holds an array '{name[:80]}' of {head.n_bytes / 1e9:,.0f} GB, more than this machine's memory"
        )
    return head


def _content(content: IO[bytes], name: str, head: Head) -> np.ndarray:
    raw = np.empty(head.n_bytes, np.uint8)
    filled = 0
    while filled < len(raw):
        part = content.read(min(_CHUNK, len(raw) - filled))
        if not part:
            raise BrokenArrays(f"is cut off within '{name[:80]}'")
        raw[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    content.read(1)  # at the end the checksum is compared
    flat = raw.view(head.dtype) if len(raw) else np.empty(0, head.dtype)
    return flat.reshape(head.shape[::-1]).T if head.is_fortran else flat.reshape(head.shape)
