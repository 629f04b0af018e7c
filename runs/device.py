"""The device: which one computes, with how many threads, and what its driver says of it.

Knows torch's names of devices, its threads and nvidia-smi. Refuses to know what is computed, and to change a setting of
a card.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import torch

from orderbench.orders import BenchError
from orderbench.runs.cores import CHOSEN_BY, choose_threads, count_cores, doubt

DEVICES = ("cpu", "cuda", "mps", "xpu")  # what computes; torch knows more names


def choose_device(name: str) -> str:
    """'auto' is a GPU if there is one, and 'cuda' under `torchrun` this process's own; BenchError for a device that is
    not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if name.partition(":")[0] not in DEVICES:
        raise BenchError(f"no device named '{name}'; auto, {', '.join(DEVICES)} would do, as in --device cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:  # torch's two ways to say: not here
        raise BenchError(
            f"the device '{name}' is not there, as torch {torch.__version__} sees this machine; cpu would do, as in "
            f"--device cpu"
        ) from problem
    return name


def settle_threads(asked: int | None, device: str, *, by_load: bool = True) -> str:
    """Set the number of processor threads: as many as were asked for, or as do not wait for each other.

    Says what was chosen and why, in one sentence; empty where nothing was chosen. by_load: as of `choose_threads`. A
    number in the environment counts as asked for; a GPU computes with what torch takes.
    """
    if asked is not None:
        torch.set_num_threads(asked)
    if asked is not None or any(name in os.environ for name in CHOSEN_BY) or not _alone(device):
        return ""
    n, why = choose_threads(torch.get_num_threads(), count_cores(), by_load=by_load)
    torch.set_num_threads(n)
    return f"{why}; --threads N asks for another number"


def doubt_threads(device: str) -> str:
    """Why the threads that were asked for will wait for each other, now that something is timed; empty if they will
    not."""
    return doubt(torch.get_num_threads(), count_cores()) if _alone(device) else ""


def _alone(device: str) -> bool:
    """Whether the processor computes, and no other process of `torchrun` keeps it busy."""
    return device == "cpu" and os.environ.get("WORLD_SIZE", "1") == "1"


def nvidia_smi(
    fields: Sequence[str], uuid: object, index: int | None = None, *, units: bool = True
) -> dict[str, str | None]:
    """What the driver's own tool says of one card, by the names of its fields; None for what it does not say.

    uuid: the card's own address, since nvidia-smi counts cards that CUDA_VISIBLE_DEVICES hides. index: asked instead
    where torch knows no address; without either, nothing is asked. units: 'MHz' and the like behind the numbers.
    """
    nothing: dict[str, str | None] = dict.fromkeys(fields)
    chosen = f"GPU-{uuid}" if uuid is not None else index
    program = shutil.which("nvidia-smi")
    if program is None or chosen is None:
        return nothing
    style = "csv,noheader" if units else "csv,noheader,nounits"
    try:
        done = subprocess.run(  # noqa: S603 (fixed words)
            [program, f"--query-gpu={','.join(fields)}", f"--format={style}", f"--id={chosen}"],
            capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return nothing
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else nothing
