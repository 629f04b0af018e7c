"""Files are written whole or not at all, through no link, and what a kill leaves is cleaned up."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from orderbench.orders import BenchError, files
from orderbench.orders.files import sha256_of, write_whole


def text(words: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(words)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "file.txt"
    write_whole(file, text("one"))
    write_whole(file, text("two"), durable=False)
    assert (file.read_text(), names(file.parent)) == ("two", ["file.txt"])
    assert sha256_of(file) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("before")

    def half(path: Path) -> None:
        path.write_text("ha")
        raise ValueError("the other half")

    with pytest.raises(ValueError, match="the other half"):
        write_whole(file, half)
    assert (file.read_text(), names(tmp_path)) == ("before", ["file.txt"])
    with pytest.raises(BenchError, match="not written: the other half"):
        write_whole(file, half, error=lambda reason: BenchError(f"not written: {reason}"), also=(ValueError,))
    assert (file.read_text(), names(tmp_path)) == ("before", ["file.txt"])


def test_a_disk_that_cannot_keep_it_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.txt"
    file.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match=r"^the disk is full$"):
        write_whole(file, text("after"), error=BenchError)
    assert (file.read_text(), names(tmp_path)) == ("before", ["file.txt"])


def test_the_path_to_write_to_ends_as_the_file_does(tmp_path: Path) -> None:
    write_whole(tmp_path / "picture.png", Image.new("L", (2, 2)).save)
    with Image.open(tmp_path / "picture.png") as opened:
        assert opened.format == "PNG"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "text", text("x"))
        write_whole(tmp_path / "weights", lambda path: save_file({"x": torch.ones(2)}, path))
        write_whole(tmp_path / "state.pt", lambda path: torch.save({"x": torch.ones(2)}, path))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o666 & ~umask}


def test_only_a_plain_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="it is no plain file"):
            write_whole(tmp_path / name, text("x"))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_link_is_refused_and_never_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "file").symlink_to(victim)
    with pytest.raises(OSError, match="it is a link, and writing follows none"):
        write_whole(tmp_path / "file", text("yours"))
    assert (victim.read_text(), (tmp_path / "file").is_symlink()) == ("mine", True)
    (tmp_path / "file").unlink()
    write_whole(tmp_path / "file", text("yours"))
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)  # a name that was guessed
    (tmp_path / f".part-{'0' * 16}-file").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", text("theirs"))
    assert (victim.read_text(), (tmp_path / "file").read_text()) == ("mine", "yours")


WRITER = """
import sys, time
from pathlib import Path
from orderbench.orders.files import write_whole

def slowly(path):
    path.write_text("half")
    print(path.name, flush=True)
    time.sleep(60)

write_whole(Path(sys.argv[1]), slowly)
"""
AFTER = "import sys; from pathlib import Path; from orderbench.orders.files import write_whole\n" \
        "write_whole(Path(sys.argv[1]), lambda path: path.write_text('whole'))"  # fmt: skip


def test_what_a_kill_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    (tmp_path / ".part-of-somebody-else").write_text("x")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "file")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        half = process.stdout.readline().strip()
        try:
            subprocess.run([sys.executable, "-c", AFTER, str(tmp_path / "other")], check=True)
            assert names(tmp_path) == sorted([".part-of-somebody-else", half, "other"])
        finally:
            process.send_signal(signal.SIGKILL)
    subprocess.run([sys.executable, "-c", AFTER, str(tmp_path / "file")], check=True)
    assert names(tmp_path) == [".part-of-somebody-else", "file", "other"]
    assert (tmp_path / "file").read_text() == "whole"
