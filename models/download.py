"""Download: Fashion-MNIST's four original files, only when a user asks for them.

Knows where Zalando publishes them, what they must contain and where they are kept. Refuses to know pixels, and to open
a connection unless a user wrote `download`. Files that exist are used as they are and never overwritten.

The second address does not offer https. That does no harm, since only content with the right SHA-256 is kept.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from pathlib import Path

from orderbench.orders import BenchError
from orderbench.orders.files import write_whole

ADDRESSES = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
SHA256 = {  # of the content, unpacked: how a file was compressed does not matter
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
WORD = "download"
TIMEOUT_S = 30.0  # for a connection, and for every wait on it
LIMIT_BYTES = 1 << 26  # packed or unpacked; the largest file unpacks to 47 MB


def download_folder(source: str | None) -> Path | None:
    """The folder that `download` or `download:FOLDER` names; None for any other source.

    `download` alone is a cache: orderbench/fashion-mnist under XDG_CACHE_HOME or ~/.cache. A folder that is itself
    called download is spelled ./download. Raises BenchError if nothing follows the colon.
    """
    word, colon, folder = (source or "").partition(":")
    if word != WORD:
        return None
    if colon and not folder:
        raise BenchError(f"'{source}' names no folder; --data {WORD}:FOLDER would do, or --data {WORD} for the cache")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = cache if os.path.isabs(cache) else "~/.cache"  # its standard says to ignore a relative one
    chosen = folder or os.path.join(home, "orderbench", "fashion-mnist")
    return Path(os.path.expanduser(chosen))  # no shell expands the ~ of download:~/data


def fetch(
    folder: Path,
    names: Sequence[str] = tuple(SHA256),
    each: Callable[[Sequence[str]], Iterable[str]] = lambda names: names,
) -> None:
    """Fetch those of the files that the folder does not hold yet.

    names: keys of `SHA256`. each: walks the names that are fetched, for whoever shows progress. Every file is written
    whole or not at all.

    Raises BenchError if no address gives a file of the right content, and if the folder cannot be written.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    for name in each(missing) if missing else ():
        _put(folder / name, _fetch(name))


def _fetch(name: str) -> bytes:
    """The packed file from the first address whose content is right."""
    problem = ""
    for address in ADDRESSES:
        try:
            with urllib.request.urlopen(address + name, timeout=TIMEOUT_S) as answer:  # noqa: S310 (our own addresses)
                packed: bytes = answer.read(LIMIT_BYTES)
            with gzip.GzipFile(fileobj=io.BytesIO(packed)) as opened:
                content = opened.read(LIMIT_BYTES)
        except (OSError, HTTPException, EOFError, zlib.error, ValueError) as failure:
            problem = (
                problem or str(failure).removeprefix("<urlopen error ").removesuffix(">") or type(failure).__name__
            )
            continue
        if hashlib.sha256(content).hexdigest() == SHA256[name]:
            return packed
        problem = "what came is not the original file (its checksum differs)"
    raise BenchError(
        f"{name} of Fashion-MNIST could not be fetched: {problem}; `apt-get install dataset-fashion-mnist` brings it "
        f"too, or copy its four original files into a folder and name that, as in --data FOLDER"
    )


def _put(file: Path, packed: bytes) -> None:
    write_whole(
        file,
        lambda temporary: temporary.write_bytes(packed),
        error=lambda reason: BenchError(
            f"'{file}' could not be written: {reason}; name another folder, as in --data {WORD}:FOLDER"
        ),
    )
