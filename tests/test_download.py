"""Download: only when spelled, checked before it is kept, never over a file that is there. No test leaves this
machine."""

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orderbench.models import download
from orderbench.models.data import load_images
from orderbench.models.download import SHA256, download_folder, fetch
from orderbench.orders import BenchError
from orderbench.runs.cli_run import fetch_data


def idx(array: np.ndarray) -> bytes:
    """An idx file, unpacked."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


IMAGES, LABELS = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251, np.arange(5) % 3
CONTENT = {name: idx(IMAGES if "images" in name else LABELS) for name in SHA256}


class Shop:
    """A server on this machine: what it gives, and what was asked of it."""

    def __init__(self) -> None:
        self.files = {name: gzip.compress(content) for name, content in CONTENT.items()}
        self.asked: list[str] = []
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked.append(self.path)
                body = shop.files.get(self.path.rpartition("/")[2]) if self.path.startswith("/good/") else None
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    shop = Shop()
    thread = threading.Thread(target=shop.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ADDRESSES", (shop.address + "good/",))
    for name, content in CONTENT.items():
        monkeypatch.setitem(SHA256, name, hashlib.sha256(content).hexdigest())
    yield shop
    shop.server.shutdown()
    shop.server.server_close()
    thread.join()


def test_what_is_fetched_is_data_like_any_other_and_is_fetched_once(shop: Shop, tmp_path: Path) -> None:
    source = f"download:{tmp_path / 'new' / 'folder'}"
    images = load_images(source, "train", side=28)
    assert np.array_equal(images.images_Nchw[:, 0].numpy(), IMAGES)
    assert (images.name, images.labels_N.tolist()) == ("fashion-mnist/train", LABELS.tolist())
    assert shop.asked == ["/good/train-images-idx3-ubyte.gz", "/good/train-labels-idx1-ubyte.gz"]
    fetch_data(source)
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(SHA256)
    assert len(shop.asked) == 4
    shop.files.clear()
    fetch_data(source)
    load_images(source, "test")
    load_images(str(tmp_path / "new" / "folder"), "train")
    assert len(shop.asked) == 4


def test_the_second_address_serves_where_the_first_does_not(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "ADDRESSES", (shop.address + "gone/", shop.address + "good/"))
    fetch(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(SHA256)
    assert len(shop.asked) == 8


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (gzip.compress(b"something else", mtime=0), r"not the original file \(its checksum differs\)"),
        (b"no gzip at all", "Not a gzipped file"),
        (gzip.compress(CONTENT["t10k-labels-idx1-ubyte.gz"], mtime=0)[:-5], "ended before the end-of-stream"),
        (None, "HTTP Error 404: Not Found"),
    ],
    ids=["another", "no gzip", "cut off", "none"],
)
def test_what_is_wrong_leaves_nothing_behind(shop: Shop, tmp_path: Path, given: bytes | None, problem: str) -> None:
    if given is None:
        shop.files.clear()
    else:
        shop.files = dict.fromkeys(SHA256, given)
    with pytest.raises(
        BenchError, match=f"could not be fetched: .*{problem}.*; `apt-get install dataset-fashion-mnist"
    ):
        load_images(f"download:{tmp_path / 'data'}", "test")
    assert not list(tmp_path.iterdir())


def test_nobody_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "ADDRESSES", ("http://127.0.0.1:9/",))
    with pytest.raises(BenchError, match=r"could not be fetched: .*refused.*as in --data FOLDER") as refusal:
        fetch(tmp_path)
    assert "urlopen" not in str(refusal.value)


def test_a_file_that_is_there_is_never_overwritten(shop: Shop, tmp_path: Path) -> None:
    mine = tmp_path / "t10k-labels-idx1-ubyte.gz"  # MNIST's files have the same names
    mine.write_bytes(gzip.compress(b"digits"))
    with pytest.raises(BenchError, match=r"is not the original file of Fashion-MNIST .* remove it"):
        load_images(f"download:{tmp_path}", "test")
    assert gzip.decompress(mine.read_bytes()) == b"digits"


def test_a_folder_that_cannot_be_written_is_one_sentence(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"could not be written: .*as in --data download:FOLDER"):
        fetch(tmp_path / "file")


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert download_folder("download") == tmp_path / ".cache" / "orderbench" / "fashion-mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/and/so/ignored")
    assert download_folder("download") == tmp_path / ".cache" / "orderbench" / "fashion-mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download_folder("download") == tmp_path / "xdg" / "orderbench" / "fashion-mnist"
    assert download_folder("download:~/my:data") == tmp_path / "my:data"
    for other in (None, "", "./download", "downloads", "images.npz"):
        assert download_folder(other) is None
    with pytest.raises(BenchError, match="'download:' names no folder; --data download:FOLDER would do"):
        download_folder("download:")


def test_nothing_is_fetched_that_nobody_asked_for(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orderbench.models.data.DEBIAN", tmp_path / "none")
    with pytest.raises(BenchError, match="--data download fetches it"):
        load_images(None, "train")
    with pytest.raises(BenchError, match="or fetch Fashion-MNIST with --data download"):
        load_images(str(tmp_path / "none"), "train")
    assert shop.asked == []
