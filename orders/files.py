"""Files: written whole or not at all, by every room.

Knows temporary names, locks, what a killed process leaves behind and what is no plain file. Refuses to know what is in
a file.

A file is written under a temporary name in the folder of its target, flushed to the disk, and then renamed. The
temporary name begins with `.part-`, cannot be guessed and is new, so no link that was put there is followed. The file
is locked while it is written. One that nobody holds was left by a killed process, and the next process that writes to
the folder removes it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

_OURS = re.compile(r"\.part-[0-9a-f]{16}-.+", re.S)
_SWEPT: set[Path] = set()  # folders that this process has cleaned


def write_whole(
    file: Path,
    write: Callable[[Path], object],
    *,
    error: Callable[[str], Exception] | None = None,
    also: tuple[type[Exception], ...] = (),
    durable: bool = True,
) -> None:
    """Call `write` with a temporary path in the folder of `file`, then rename it to `file`; the folder is made.

    The path ends as `file` does, for writers that take a format from it. Permissions are those of any new file: 0666
    less the umask. `file` must pass `check_target`.

    error: makes the exception from a reason in words; without it, OSError is let through. also: other exceptions by
    which `write` may fail. durable: whether to wait for the disk; False for many files that can be made again.
    """
    failures: tuple[type[Exception], ...] = (OSError, *also)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        check_target(file)
        _sweep(file.parent)
        with _reserved(file) as temporary:
            mode = stat.S_IMODE(temporary.stat().st_mode)
            write(temporary)
            with temporary.open("rb") as written:
                if sys.platform != "win32":
                    os.fchmod(written.fileno(), mode)  # safetensors puts a file of its own here, closed to others
                if durable:
                    os.fsync(written.fileno())
            temporary.replace(file)
    except failures as problem:
        if error is None:
            raise
        raise error(reason_of(problem)) from problem


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal; OSError is let through."""
    with open_plain(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def open_plain(file: Path) -> BufferedReader:
    """A plain file, opened for reading; OSError, which says why, for a folder, a pipe or a device, none of which is
    waited for."""
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is no plain file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def reason_of(problem: Exception) -> str:
    """Why a file could not be read or written, as a part of a sentence."""
    if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
        return "the disk is full"
    words = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return str(words).splitlines()[0]


def check_target(file: Path) -> None:
    """OSError where something may not be written: at a link, a device, a pipe or a folder, which would not be replaced
    by a file of the same kind. A plain file and nothing at all will do.

    Whoever computes before writing asks this first.
    """
    if not file.name:
        raise OSError(errno.EINVAL, "it is no name of a file")
    with suppress(FileNotFoundError):
        kind = file.lstat().st_mode
        if stat.S_ISLNK(kind):
            raise OSError(errno.ELOOP, "it is a link, and writing follows none")
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is no plain file")


def check_folder(folder: Path, *inner: str) -> None:
    """OSError where one of some folders in a folder is a link or a file: what is written there would land elsewhere.
    The folder itself was named by whoever runs the program, and may be a link."""
    for name in inner:
        with suppress(FileNotFoundError):
            kind = (folder / name).lstat().st_mode
            if not stat.S_ISDIR(kind):
                what = "a link, and writing follows none" if stat.S_ISLNK(kind) else "no folder"
                raise OSError(errno.ENOTDIR, f"'{name}' in it is {what}")


@contextmanager
def _reserved(file: Path) -> Iterator[Path]:
    """A new, empty, locked file in the folder of `file`; removed in the end unless it was renamed."""
    temporary, handle = _create(file)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _create(file: Path) -> tuple[Path, int | None]:
    """The new file and the handle that holds its lock; no handle where files cannot be locked."""
    while True:
        temporary = file.with_name(f".part-{secrets.token_hex(8)}-{file.name}")
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(handle)
        except BlockingIOError:  # another process took it for a leftover, between the two lines above
            os.close(handle)
            continue
        except OSError:
            os.close(handle)
            return temporary, None
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)  # the same, and it is removed already


def _lock(handle: int) -> None:
    """Hold an open file. BlockingIOError if another process holds it; another OSError where files have no locks."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no locks")
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder; once a process, since each cleans up after itself."""
    place = folder.resolve()
    if place in _SWEPT:
        return
    _SWEPT.add(place)
    left: list[str] = []
    with suppress(OSError), os.scandir(place) as entries:  # a folder may be closed to readers
        left = [entry.path for entry in entries if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]
    for path in left:
        with suppress(OSError):  # it is being written, or belongs to somebody else
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                _lock(handle)
                os.unlink(path)
            finally:
                os.close(handle)
