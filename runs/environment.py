"""Environment: on what a run ran.

Knows the machine, the versions and the source's commit. Refuses to know names of people, hosts and folders, since
records are published, and never fails: what cannot be read is null.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from orderbench.runs.cores import cpu_quota
from orderbench.runs.device import nvidia_smi

PACKAGES = (
    "orderbench", "torch", "numpy", "pandas", "matplotlib", "seaborn", "torch-fidelity", "torchvision", "safetensors",
    "typer",
)  # fmt: skip
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)  # fmt: skip
BUILD = ("BLAS_INFO", "BUILD_TYPE", "USE_CUDA", "USE_MKL", "USE_MKLDNN", "USE_OPENMP")  # of torch, as it was compiled
GIT_TIMEOUT_S = 5.0


def capture(device: str) -> dict[str, Any]:
    """The environment now, ready for JSON. device: where the run computes, as torch spells it ('cpu', 'cuda:0').

    Bytes, GiB and MHz are in the names; `load_average` is over 1, 5 and 15 minutes. What this machine does not tell is
    None; `gpu` is None unless `device` is one. Holds no host, user or folder name.
    """
    return {
        "device": device,
        "argv": [_without_folder(word) for word in sys.argv],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "torch": _torch(),
        "cpu": _cpu(),
        "memory_bytes": _memory_bytes(),
        "threads": {
            "torch": torch.get_num_threads(),
            "torch_interop": torch.get_num_interop_threads(),
            "variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        },
        "load_average": load_average(),
        "gpu": _gpu(device),
        "git": git_state(Path(__file__).resolve()),
    }


def load_average() -> list[float] | None:
    """How many processes wanted a core, over 1, 5 and 15 minutes; None where the system does not say."""
    with contextlib.suppress(OSError, AttributeError):
        return [round(x, 2) for x in os.getloadavg()]
    return None


def git_state(file: Path) -> dict[str, Any] | None:
    """{'commit': 40 hex digits, 'dirty': whether tracked files differ} of the checkout that holds this file.

    None if the file is not tracked: a package installed into a folder inside somebody's checkout says nothing about it.
    """
    tracked = _git(file.parent, "ls-files", "--", file.name)
    commit = _git(file.parent, "rev-parse", "--verify", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    if not tracked or not commit or changed is None:
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *words: str) -> str | None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # a hook sets them
    try:
        done = subprocess.run(  # noqa: S603 (fixed words)
            ["git", "--no-optional-locks", "-C", str(folder), *words],  # noqa: S607 (whichever git the user has)
            capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
            env=plain,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _without_folder(word: str) -> str:
    """An absolute path, alone or behind `--out=`, `download:` and the like, shortened to the name of its file."""

    def shortened(found: re.Match[str]) -> str:
        before, path = found.groups()
        at_home = os.path.expanduser(path).rstrip("/") == os.path.expanduser("~").rstrip("/")
        return before + ("~" if at_home else re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "/")

    return re.sub(r"(^|[=:,])((?:~[^/\\]*|[A-Za-z]:)?[/\\].*|~)$", shortened, word, count=1, flags=re.S)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    built = dict(re.findall(r"\b([A-Z_]+)=([^,\s]*)", torch.__config__.show()))
    return {
        "version": torch.__version__,
        "commit": torch.version.git_version,
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(),
        "build": {name: built[name] for name in BUILD if name in built},
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": {"matmul": _tf32(torch.backends.cuda.matmul), "cudnn": _tf32(torch.backends.cudnn)},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _cudnn() -> int | None:
    with contextlib.suppress(RuntimeError):  # of another version than torch was built for
        version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return version
    return None


def _tf32(backend: Any) -> bool | None:
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:  # torch refuses to tell once its newer switch has been used; the precision above says it then
        return None


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "model": _cpu_model(),
        "cores_logical": os.cpu_count(),
        "cores_usable": usable,
        "quota_cores": cpu_quota(),
        "governor": _line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "max_mhz": _mhz(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")),
    }


def _cpu_model() -> str | None:
    with contextlib.suppress(OSError):
        found = re.search(r"^(?:model name|Hardware)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1].strip()
    return platform.processor() or None


def _mhz(file: Path) -> float | None:
    khz = _line(file)
    return int(khz) / 1000 if khz is not None and khz.isdigit() else None


def _line(file: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return None


def _memory_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _gpu(device: str) -> dict[str, Any] | None:
    if torch.device(device).type != "cuda":
        return None
    place = torch.device(device)
    seen = torch.cuda.get_device_properties(place)
    index = torch.cuda.current_device() if place.index is None else place.index
    return {
        "name": seen.name,
        "capability": f"{seen.major}.{seen.minor}",
        "memory_bytes": seen.total_memory,
        "multiprocessors": seen.multi_processor_count,
        "count": torch.cuda.device_count(),
        **_limits(getattr(seen, "uuid", None), index),
    }


def _limits(uuid: object, index: int) -> dict[str, str | None]:
    """Driver and limits of a card; nothing of the moment, since machines are compared by this: `timing.clock_state` has
    the clock."""
    said = nvidia_smi(("driver_version", "clocks.max.sm", "power.limit"), uuid, index)
    return dict(zip(("driver", "clock_sm_max", "power_limit"), said.values(), strict=True))
