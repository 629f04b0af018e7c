"""Files of arrays that strangers wrote: what is damaged, enormous or code is named, and nothing else happens."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orderbench.orders.arrays import BrokenArrays, read_heads, read_npz
from orderbench.runs.record import RecordProblem, read_arrays

ARRAYS = {
    "images": np.arange(600, dtype=np.uint8).reshape(10, 3, 20),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "one": np.array(7),
    "none": np.empty((0, 4), np.float32),
    "words": np.array(["a", "bcd"]),
}


def npz(file: Path, compressed: bool = True) -> bytes:
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)  # type: ignore[arg-type]
    return file.read_bytes()


def with_head(head: str, content: bytes = b"") -> bytes:
    """An archive of one array with a head of our own making."""
    body = io.BytesIO()
    text = head.ljust(117) + "\n"
    body.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("images.npy", body.getvalue())
    return packed.getvalue()


def objects() -> bytes:
    packed = io.BytesIO()
    np.savez(packed, images=np.array([print], dtype=object))
    return packed.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_come_back_as_numpy_reads_them(compressed: bool, tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", compressed)
    found = read_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as theirs:
        assert list(found) == theirs.files
        for name, array in found.items():
            np.testing.assert_array_equal(array, theirs[name])
            assert (array.dtype, array.shape, array.flags.writeable) == (theirs[name].dtype, theirs[name].shape, True)
    assert list(read_npz(tmp_path / "a.npz", ("one", "other"))) == ["one"]
    heads = read_heads(tmp_path / "a.npz")
    assert {name: head.shape for name, head in heads.items()} == {name: array.shape for name, array in ARRAYS.items()}
    assert heads["images"].n_bytes == 600


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_bytes(b"words"), "is no .npz file, or not a whole one"),
        (lambda file: file.write_bytes(npz(file)[:300]), "is no .npz file, or not a whole one"),
        (lambda file: file.write_bytes(objects()), "holds Python objects under 'images' and is not opened: they could"),
        (lambda file: file.write_bytes(with_head("{'descr': '<f8', 'fortran_order': False, 'shape': (10**18,)}")),
         "holds 'images', which is no array"),
        (lambda file: file.write_bytes(with_head(
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000)}")),
         r"promises an array 'images' of shape \(1000000, 1000000, 1000000\) and float64, and holds 0 bytes of it"),
        (lambda file: file.write_bytes(with_head("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -1)}", b"x")),
         r"promises an array 'images' of shape \(-1, -1\)"),
        (lambda file: file.write_bytes(with_head("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", b"x")),
         "and holds 1 bytes of it"),
        (lambda file: file.write_bytes(with_head("(((((((((")), "which is no array"),
        (lambda file: file.mkdir(), "cannot be read: it is a folder"),
        (lambda file: os.mkfifo(file), "cannot be read: it is no plain file"),
    ],
)  # fmt: skip
def test_what_is_no_plain_archive_is_said(write: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write(file)
    with pytest.raises(BrokenArrays, match=reason) as told:
        read_npz(file)
    assert not {"allow_pickle", "max_header_size", "trust"} & set(str(told.value).split())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_flipped_bytes_are_a_sentence(method: int, tmp_path: Path) -> None:
    """Whichever error the unpacker has for them; a byte that no reader looks at changes nothing."""
    with zipfile.ZipFile(tmp_path / "whole.npz", "w", method) as archive:
        body = io.BytesIO()
        np.save(body, np.random.default_rng(0).integers(0, 9, 2000))
        archive.writestr("tokens_NL.npy", body.getvalue())
    whole = (tmp_path / "whole.npz").read_bytes()
    right, refused = read_npz(tmp_path / "whole.npz")["tokens_NL"], []
    for place in np.random.default_rng(1).integers(0, len(whole), 60).tolist():
        content = bytearray(whole)
        content[place] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(bytes(content))
        try:
            found = read_arrays(tmp_path / "a.npz")
            assert not found or (found["tokens_NL"] == right).all()
        except RecordProblem as told:
            refused.append(str(told))
    assert len(refused) >= 40
    assert all("a.npz' " in one and "remove it, and measure its trial anew" in one for one in refused)
