"""The environment of a run: complete, ready for JSON, and without names of people, hosts and folders."""

import getpass
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from orderbench.runs import environment
from orderbench.runs.environment import capture, git_state, load_average


def test_what_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = capture("cpu")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["device"], found["gpu"]) == ("cpu", None)
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch-fidelity"]
    assert found["versions"]["orderbench"]
    assert found["versions"]["torch"] == found["torch"]["version"] == torch.__version__
    assert found["torch"]["build"]["BLAS_INFO"]
    assert found["torch"]["float32_matmul_precision"] in ("highest", "high", "medium")
    assert found["torch"]["tf32"] == {
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "cudnn": torch.backends.cudnn.allow_tf32,
    }
    assert 1 <= (found["cpu"]["cores_usable"] or 1) <= found["cpu"]["cores_logical"]
    assert found["memory_bytes"] is None or found["memory_bytes"] > 1 << 28
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["threads"]["variables"]["OMP_NUM_THREADS"] == "2"
    assert found["load_average"] is None or len(found["load_average"]) == 3


def test_it_names_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "bench"), "run", "--out", str(tmp_path / "out")])
    found = capture("cpu")
    assert found["argv"] == ["bench", "run", "--out", "out"]
    text = json.dumps(found)
    for name in (platform.node(), str(tmp_path), str(Path.home()), sys.prefix, getpass.getuser()):
        assert not re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z])", text), name


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("/any/where/run", "run"),
        ("/any/where/run/", "run"),
        ("--out=/any/where/run", "--out=run"),
        ("download:/any/where/my data", "download:my data"),
        ("download:~alice/data", "download:data"),
        ("~/data", "data"),
        ("~", "~"),
        ("--data=HOME", "--data=~"),
        ("/", "/"),
        (r"C:\Users\alice\run", "run"),
        ("a,/any/where,bob/b", "a,b"),
        ("run/model", "run/model"),
        ("radial:center=3x4:width=2@native+nested:margin=1", "radial:center=3x4:width=2@native+nested:margin=1"),
        ("radial/raster=3", "radial/raster=3"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_paths_are_shortened(word: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/carol")
    monkeypatch.setattr(sys, "argv", [word.replace("HOME", "/home/carol")])
    assert capture("cpu")["argv"] == [kept]


def git(folder: Path, *words: str) -> str:
    settings = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=e",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    ]
    command = ["git", "-C", str(folder), *settings, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("1")
    assert git_state(file) is None
    git(tmp_path, "init")
    git(tmp_path, "add", "code.py")
    assert git_state(file) is None  # no commit yet
    git(tmp_path, "commit", "-m", "one")
    assert git_state(file) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "notes.txt").write_text("untracked files are no change of the source")
    assert git_state(file) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path / "notes.txt") is None
    file.write_text("2")
    assert git_state(file) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": True}


def test_what_is_not_there_is_null(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no git, no nvidia-smi
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))
    monkeypatch.delattr("os.getloadavg", raising=False)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("os.sysconf", raising=False)
    found = capture("cpu")
    assert found["git"] is None
    assert found["versions"] == {"no-such-package": None}
    assert found["memory_bytes"] is None
    assert found["cpu"]["cores_usable"] is None
    assert load_average() is None


@pytest.mark.parametrize("answers", [True, False])
def test_a_gpu(answers: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shape of the record; what a driver really says is not tested here."""
    card = SimpleNamespace(name="Card", major=9, minor=0, total_memory=1 << 36, multi_processor_count=132, uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    tool = tmp_path / "nvidia-smi"
    said = "580.1, 1980 MHz, 700.00 W" if answers else "No devices were found"
    tool.write_text(f'#!/bin/sh\ncase "$*" in *--id=GPU-abc*) echo "{said}";; *) exit 6;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    gpu = capture("cuda")["gpu"]
    assert (gpu["name"], gpu["capability"], gpu["memory_bytes"]) == ("Card", "9.0", 1 << 36)
    assert gpu["driver"] == ("580.1" if answers else None)
    assert gpu["clock_sm_max"] == ("1980 MHz" if answers else None)
    json.dumps(gpu, allow_nan=False)
