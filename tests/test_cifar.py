"""CIFAR-10's published forms: all read alike, nothing in them run, and whatever is amiss said in one sentence."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orderbench.models.data import load_images
from orderbench.orders import BenchError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
IMAGES_BNx = np.random.default_rng(0).integers(0, 256, (6, 10, 3072), dtype=np.uint8)
LABELS_BN = np.stack([np.random.default_rng(number).permutation(10) for number in range(6)])


class Python2Pickler(pickle._Pickler):  # the one in Python, whose table can be changed
    """Writes bytes as Python 2 wrote its strings, as the published batches hold them."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, value: bytes) -> None:
        self.write(b"T" + len(value).to_bytes(4, "little") + value)

    dispatch[bytes] = save_string


def batch(number: int, **changes: object) -> dict[bytes, object]:
    held = {"batch_label": b"a batch", "labels": LABELS_BN[number].tolist(), "data": IMAGES_BNx[number]}
    return {name.encode(): value for name, value in {**held, **changes}.items()}


def write_python(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(BATCHES):
        with (folder / name).open("wb") as opened:
            Python2Pickler(opened, protocol=2).dump(batch(number))
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_python_3(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(BATCHES):
        (folder / name).write_bytes(pickle.dumps(batch(number), protocol=2))


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, images_Nx, labels_N in zip(BATCHES, IMAGES_BNx, LABELS_BN, strict=True):
        rows_Nx = np.concatenate([labels_N[:, None].astype(np.uint8), images_Nx], axis=1)
        (folder / f"{name}.bin").write_bytes(rows_Nx.tobytes())


def write_folders(folder: Path) -> None:
    for name, images_Nx, labels_N in zip(BATCHES, IMAGES_BNx, LABELS_BN, strict=True):
        for number, (image_x, label) in enumerate(zip(images_Nx, labels_N, strict=True)):
            place = folder / ("test" if name == "test_batch" else "train") / NAMES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_x.reshape(3, 32, 32).transpose(1, 2, 0)).save(place / f"{name}-{number}.png")


FORMS = {
    "python": (write_python, ""),
    "python, in the archive's own folder": (write_python, "cifar-10-batches-py"),
    "python, written anew by Python 3": (write_python_3, ""),
    "binary": (write_binary, ""),
    "binary, in the archive's own folder": (write_binary, "cifar-10-batches-bin"),
    "folders": (write_folders, ""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_published_form_gives_the_same_images(form: str, split: str, tmp_path: Path) -> None:
    write, inner = FORMS[form]
    write(tmp_path / "cifar10" / inner)
    images = load_images(str(tmp_path / "cifar10"), split)
    chosen = slice(5, 6) if split == "test" else slice(0, 5)
    wanted_Nx, labels_N = IMAGES_BNx[chosen].reshape(-1, 3072), LABELS_BN[chosen].reshape(-1)
    assert (images.name, images.classes) == (f"cifar10/{split}", 10)
    assert images.images_Nchw.shape == (len(labels_N), 3, 32, 32)
    got_Nx = images.images_Nchw.flatten(1).numpy()
    if form == "folders":  # shuffled
        place_of = {image_x.tobytes(): place for place, image_x in enumerate(wanted_Nx)}
        places = [place_of[image_x.tobytes()] for image_x in got_Nx]
        assert sorted(places) == list(range(len(labels_N)))
        wanted_Nx, labels_N = wanted_Nx[places], labels_N[places]
    np.testing.assert_array_equal(got_Nx, wanted_Nx)
    np.testing.assert_array_equal(images.labels_N.numpy(), labels_N)
    assert len(load_images(str(tmp_path / "cifar10"), split, limit=7)) == 7


def test_the_python_2_batches_of_these_tests_name_what_the_published_ones_name(tmp_path: Path) -> None:
    write_python(tmp_path)
    content = (tmp_path / "data_batch_1").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content


class Evil:
    """What a pickle may ask for: any call at all."""

    def __init__(self, call: Any, *given: object) -> None:
        self.asked = (call, given)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.asked


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", ["mkdir", "eval", "numpy"])
def test_a_pickle_runs_nothing(call: str, protocol: int, tmp_path: Path) -> None:
    source, trace = tmp_path / "cifar10", tmp_path / "trace"
    evil, named = {
        "mkdir": (Evil(os.mkdir, str(trace)), r"posix\.mkdir"),
        "eval": (Evil(eval, f"__import__('os').mkdir({str(trace)!r})"), r"(__builtin__|builtins)\.eval"),
        "numpy": (Evil(np.savetxt, str(trace), [1.0]), r"numpy[\w.]*\.savetxt"),
    }[call]
    write_python(source)
    content = pickle.dumps({"more": evil, **batch(1)}, protocol=protocol)
    (source / "data_batch_2").write_bytes(content)
    with pytest.raises(BenchError, match=rf"data_batch_2' names {named}, which images do not need, and is not opened"):
        load_images(str(source), "train")
    assert not trace.exists()
    pickle.loads(content)  # noqa: S301 (written above: where nothing is refused, it does run)
    assert trace.exists()


def test_a_pickle_may_not_build_what_it_likes(tmp_path: Path) -> None:
    """A permitted name with arguments of its own: refused in a sentence, whatever they are."""
    contents = {
        "objects": pickle.dumps(batch(1, data=np.full((10, 3072), "x", dtype=object)), protocol=2),
        "words": pickle.dumps(batch(1, data=np.full((10, 3072), 7)), protocol=2),
        "no state": b"\x80\x02}X\x04\0\0\0datacnumpy\nndarray\n)\x81s.",
        "a class with state": b"\x80\x02cnumpy\nndarray\n}X\x01\0\0\0aK\x01sb.",
        "a function as value": b"\x80\x02c_codecs\nencode\n.",
        "a stranger's number": b"\x80\x02Pabc\n.",
        "nothing": b"",
    }
    for what, content in contents.items():
        source = tmp_path / what
        write_python(source)
        (source / "data_batch_2").write_bytes(content)
        with pytest.raises(BenchError, match=r"data_batch_2' (is not a whole batch|holds numbers that are no bytes)"):
            load_images(str(source), "train")


def first(folder: Path, content: bytes, name: str = "data_batch_1") -> None:
    (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    first(folder, (folder / "data_batch_1").read_bytes()[:20_000])


def of(**changes: object) -> Callable[[Path], None]:
    """The first batch with something else in it."""
    return lambda folder: first(folder, pickle.dumps(batch(0, **changes), protocol=2))


@pytest.mark.parametrize(("write", "spoil", "sentence"), [
    (write_python, lambda f: (f / "data_batch_3").unlink(), "holds 5 of CIFAR-10's 6 batches and lacks data_batch_3; "),
    (write_binary, lambda f: [(f / f"{name}.bin").unlink() for name in BATCHES[3:]],
     "holds 3 of CIFAR-10's 6 batches and lacks data_batch_4.bin, data_batch_5.bin, test_batch.bin; unpack"),
    (write_python, cut, "data_batch_1' is not a whole batch"),
    (write_python, lambda f: os.truncate(f / "data_batch_1", 80 << 20), "has 83,886,080 bytes, and a batch"),
    (write_python, lambda f: first(f, pickle.dumps([], 2)), "data_batch_1' is not a whole batch"),
    (write_python, of(data=IMAGES_BNx[0, :, :3000]), "of shape .10, 3000.; 3,072 bytes"),
    (write_python, of(data=IMAGES_BNx[0, :5]), "of shape .5, 3072.; 3,072 bytes"),
    (write_python, of(data=IMAGES_BNx[0, :5], labels=[0] * 5), "as many as in 'data_batch_1', 5"),
    (write_python, of(labels=["a"] * 10), "one whole number as label an image"),
    (write_python, of(labels=[-1] * 10), "of classes -1 to -1; .* 0 to 9 would do"),
    (write_binary, lambda f: first(f, b"\x0a" * 30_730, "data_batch_1.bin"), "of classes 10 to 10; .* 0 to 9 would do"),
    (write_binary, lambda f: first(f, bytes(27_657), "data_batch_1.bin"), "has 27,657 bytes, the largest .* 30,730; "),
    (write_binary, lambda f: [first(f, bytes(3074), f"{name}.bin") for name in BATCHES], "multiple of 3,073 would do"),
])  # fmt: skip
def test_what_is_amiss_is_said_in_one_sentence(write: Any, spoil: Any, sentence: str, tmp_path: Path) -> None:
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BenchError, match=sentence) as told:
        load_images(str(tmp_path), "train")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["data_batch_1.mat", "cifar-10-python.tar.gz", "images.zip"])
def test_matlab_and_packed_archives_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    sentence = (
        "MATLAB, which is not read; .* would do" if name.endswith("mat") else f"{name}' is still packed; unpack it"
    )
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(BenchError, match=sentence):
            load_images(str(source), "train")


def test_an_archive_beside_what_came_out_of_it_does_no_harm(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "cifar10-jpeg.tar.gz").write_bytes(b"whatever")
    assert len(load_images(str(tmp_path), "test")) == 10
