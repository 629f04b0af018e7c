"""Files of weights as people have them: by content and not by suffix, named where they are none, and never run."""

import argparse
import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_arpg import random_state
from safetensors.torch import save_file

from orderbench.models import load_checkpoint
from orderbench.models.checkpoint import Which, read_weights, without_prefixes
from orderbench.orders import BenchError
from orderbench.orders.files import sha256_of
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects, load_tokenizer
from orderbench.runs.trials import make_agenda

STATE = random_state(V=11, C=3, d=64, f=16, half=1, seed=0)
EMA = random_state(V=11, C=3, d=64, f=16, half=1, seed=1)


def prefixed(prefix: str, state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPED: dict[str, object] = {
    "bare": STATE,
    "ddp": {"model": prefixed("module.")},
    "compiled": {"model": prefixed("_orig_mod.")},
    "compiled, then ddp": {"state_dict": prefixed("module._orig_mod.")},
    "ddp, then compiled": {"state_dict": prefixed("_orig_mod.module.")},
    "ddp twice": {"module": prefixed("module.module.")},
    "layers compiled": {"model": {name.replace("layers.", "layers._orig_mod."): t for name, t in STATE.items()}},
    "averaged model of torch": {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "ema alone": {"ema": prefixed("module."), "steps": 5},
    "a trainer's": {
        "model": STATE, "optimizer": {"state": {}, "param_groups": []}, "args": argparse.Namespace(lr=1e-4, name="x"),
        "loss": np.float64(0.5), "steps": np.int64(7), "history": np.arange(3), "flag": np.bool_(True), "epoch": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors", ""])
def test_every_wrapping_loads_whatever_the_suffix(wrapping: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    torch.save(WRAPPED[wrapping], file)
    assert torch.equal(load_checkpoint(file, side=4).head.weight, STATE["head.weight"])


def test_other_forms_of_the_same_weights(tmp_path: Path) -> None:
    """Safetensors under another name, torch's form before archives, half precision, and a rotary table beside them."""
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "weights.pt")
    torch.save({"model": {**STATE, "freqs_cis": torch.zeros(17, 16, 2)}}, tmp_path / "table.pt")
    for dtype in (torch.bfloat16, torch.float16):
        torch.save({name: tensor.to(dtype) for name, tensor in STATE.items()}, tmp_path / f"{dtype}.pt")
    for file in tmp_path.iterdir():
        weight = load_checkpoint(file, side=4).head.weight
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight.detach(), STATE["head.weight"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("key", ["ema", "model_ema", "state_dict_ema"])
@pytest.mark.parametrize(("which", "taken"), [(None, "ema"), ("ema", "ema"), ("model", "model")])
def test_of_two_sets_of_weights_one_is_taken_and_named(
    key: str, which: Which | None, taken: str, tmp_path: Path
) -> None:
    file = tmp_path / "both.pt"
    torch.save({"model": STATE, key: {"state_dict": prefixed("module.", EMA)}}, file)
    found = read_weights(file, which)
    assert found.taken == taken
    wanted = EMA if taken == "ema" else STATE
    assert torch.equal(found.by_name["head.weight"], wanted["head.weight"])
    spec = RunSpec(orders=("raster@even:4",), only=("latency",), model=(str(file),), weights=which, device="cpu")
    agenda = make_agenda(spec, load_subjects(spec))
    assert agenda.subjects.own.about["weights"] == taken
    whole = sha256_of(file)
    assert agenda.subjects.own.about["sha256"] == hashlib.sha256(f"{whole} {taken}".encode()).hexdigest()
    assert any(f"({taken}) is taken; --weights" in note for note in agenda.notes)


def test_a_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save({"model": STATE}, tmp_path / "one.pt")
    with pytest.raises(BenchError, match="holds its weights as trained alone, and --weights ema asks for its average"):
        read_weights(tmp_path / "one.pt", "ema")
    torch.save({"ema": STATE}, tmp_path / "average.pt")
    with pytest.raises(BenchError, match="holds its average of weights alone, and --weights model asks"):
        read_weights(tmp_path / "average.pt", "model")
    with pytest.raises(BenchError, match="'shared' holds one set of weights; leave --weights out"):
        load_subjects(RunSpec(weights="ema", only=("latency",), device="cpu"))
    with pytest.raises(BenchError, match="--weights best names no set of weights; ema or model would do"):
        RunSpec(weights="best")


def test_a_prefix_that_only_some_names_have_is_part_of_the_name() -> None:
    some = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert without_prefixes(some) == some


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch ran",))


def zipped(*names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return packed.getvalue()


def torch_file(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a pointer of Git LFS and not weights",
        ),
        (b"\n <!DOCTYPE html><html>404</html>", "is a web page or XML and not weights"),
        (b"<html>", "is a web page or XML"),
        (b'{"error": "gone"}', "is JSON and not weights"),
        (b"", "it is empty; fetch it again"),
        (b"hello", "by its first bytes"),
        (b"\x1f\x8b\x08", "is still packed .gzip.; unpack it"),
        (zipped("model.pt", "readme.txt"), "but an archive of model.pt, readme.txt; unpack it"),
        (torch_file(STATE)[:3000], "is not a whole torch file: it is cut off"),
        (torch_file({"model": STATE, "args": Bomb()}), "holds a posix.system, which is no tensor and no plain value"),
        (torch_file({"model": STATE, "out": pathlib.PurePosixPath("x")}), "holds a pathlib.* it could run code"),
        (torch_file(Bomb()), "it could run code"),
        (pickle.dumps({"model": 3}), "is not a whole torch file"),
        (torch_file({"identity": 1, "network": {}, "averaged": {}}), "is a checkpoint, from which bench train goes on"),
        (torch_file({"module.a": torch.zeros(1), "_orig_mod.module.a": torch.ones(1)}), "with and without a prefix"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_holds_no_weights_is_named(
    content: bytes, sentence: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    for open_it in (load_checkpoint, lambda path: load_tokenizer(str(path), "cpu")):
        with pytest.raises(BenchError, match=sentence) as told:
            open_it(file)
        assert "weights_only" not in str(told.value)
        assert "trust" not in str(told.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda file: file.mkdir(), "cannot be read: it is a folder"),
        (lambda file: os.mkfifo(file), "cannot be read: it is no plain file"),
        (lambda file: file.symlink_to(file), "cannot be read: Too many levels of symbolic links"),
        (lambda file: None, "there is no file"),
    ],
)
def test_a_place_that_is_no_file_is_named(make: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    make(tmp_path / "weights.safetensors")
    with pytest.raises(BenchError, match=sentence):
        load_checkpoint(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(number: float, tmp_path: Path) -> None:
    broken = {name: tensor.clone() for name, tensor in STATE.items()}
    broken["head.weight"][2] = number
    torch.save(broken, tmp_path / "broken.pt")
    with pytest.raises(BenchError, match=r"broken\.pt' holds numbers that are not finite in head\.weight"):
        load_checkpoint(tmp_path / "broken.pt", side=4)


def test_networks_are_built_without_the_compiler_of_torch() -> None:
    """It takes a second to load, and as long again in collections of garbage; a fresh process tells."""
    code = (
        "import sys; from orderbench.runs.spec import RunSpec; from orderbench.runs.subject import load_subjects; "
        "load_subjects(RunSpec()); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
