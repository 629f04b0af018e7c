"""Files of weights: written whole or not at all, read as untrusted input.

Knows safetensors, tensors-only pickles and cards. Refuses to run code from a file.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from orderbench.orders import BenchError


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary name beside `file`, then put it in place; nothing half-written stays behind."""
    temporary = file.with_name(f".part-{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    except OSError as problem:
        raise BenchError(
            f"'{file}' could not be written: {problem.strerror or problem}; name another place"
        ) from problem
    finally:
        temporary.unlink(missing_ok=True)


def read_pickle(file: Path) -> dict[str, Any]:
    """The dictionary in a torch file, tensors and plain values only; BenchError if it is anything else."""
    if not file.is_file():
        raise BenchError(f"there is no file '{file}'; name one, or leave --resume away to start anew")
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise BenchError(
            f"'{file}' holds more than tensors and plain values, and is not opened: it could run code"
        ) from problem
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as problem:
        raise BenchError(f"'{file}' is not a whole torch file: {str(problem).splitlines()[0]}") from problem
    if not isinstance(value, dict):
        raise BenchError(f"'{file}' holds a {type(value).__name__}, not a dictionary of tensors")
    return value
