"""Files of weights: written whole or not at all, read as untrusted input.

Knows safetensors and torch files by their content, how trainers wrap weights, and what fits a network. Refuses to run
code from a file, and to advise anybody to.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from orderbench.orders import BenchError
from orderbench.orders.documents import misfit, parse_document
from orderbench.orders.files import open_plain, reason_of, write_whole

Network = TypeVar("Network", bound=nn.Module)


def write_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """`write_whole`, for weights: BenchError where it fails, whichever of Python, torch and safetensors reports it."""
    write_whole(
        file,
        write,
        error=lambda reason: BenchError(f"'{file}' could not be written: {reason}; name another place"),
        also=(RuntimeError, SafetensorError),
    )


def read_pickle(file: Path) -> dict[str, Any]:
    """The dictionary in a torch file; BenchError if it is anything else.

    Tensors and plain values are read, and beside them what trainers leave there: an argparse.Namespace, numpy's numbers
    and arrays. Whatever else a file names is neither imported nor called.
    """
    _check_kind(file)
    try:
        with open_plain(file) as opened, _harmless():
            value = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as problem:  # a foreign file may break the reader in any way
        named = re.search(r"GLOBAL ([\w.]+)", str(problem)) or re.search(r"global ([\w.]+)", str(problem))
        if isinstance(problem, pickle.UnpicklingError) and named is not None:
            raise BenchError(
                f"'{file}' holds a {named[1]}, which is no tensor and no plain value, and is not opened: it could run "
                f"code; save its weights alone, as in torch.save(network.state_dict(), FILE)"
            ) from problem
        raise BenchError(
            f"'{file}' is not a whole torch file ({type(problem).__name__} while it was read); fetch it again"
        ) from problem
    if not isinstance(value, dict):
        raise BenchError(f"'{file}' holds a {type(value).__name__}, not a dictionary of tensors")
    return value


Which = Literal["ema", "model"]
_SETS = {  # under which keys files keep their weights: those that were trained, and their average
    "model": ("model", "module", "state_dict", "params"),
    "ema": ("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema"),
}


@dataclass(frozen=True)
class Tensors:
    """What a file of weights holds. by_name: without the prefixes of DDP and of torch.compile. taken: 'ema' or 'model'
    where the file holds both, and '' where it holds one set. key: where in the file they lie, '' for the top."""

    by_name: dict[str, Tensor]
    taken: str = ""
    key: str = ""


def read_weights(file: Path, which: Which | None = None) -> Tensors:
    """The weights in a file: safetensors, or a torch file, where they may lie under keys such as 'model', 'state_dict'
    or 'ema'. The content decides which of the two it is, not the name.

    which: the weights as trained ('model') or their average ('ema'), where a file holds both; without it, the average,
    which is what papers report. Raises BenchError for anything else; nothing in the file is ever run.
    """
    if _check_kind(file) == "safetensors":
        try:
            tensors = load_file(file)
        except (SafetensorError, OSError) as problem:
            raise BenchError(f"'{file}' is not a whole safetensors file: {problem}; fetch it again") from problem
        return _one_set(file, tensors, which)
    state = read_pickle(file)
    if {"identity", "network", "averaged"} <= set(state):
        raise BenchError(
            f"'{file}' is a checkpoint, from which bench train goes on; name the weights beside it, as in "
            f"{file.parent / 'model.safetensors'}"
        )
    held = {kind: next((key for key in keys if isinstance(state.get(key), dict)), "") for kind, keys in _SETS.items()}
    if not held["model"] and not held["ema"]:
        return _one_set(file, state, which)
    other = "model" if which == "ema" else "ema"
    if which is not None and not held[which]:
        raise BenchError(
            f"'{file}' holds its {_WORDS[other]} alone, and --weights {which} asks for its {_WORDS[which]}; leave "
            f"--weights out"
        )
    taken = which or ("ema" if held["ema"] else "model")
    tensors = _named_tensors(file, _unwrapped(state[held[taken]]))
    return Tensors(tensors, taken if held["ema"] else "", held[taken])


_WORDS = {"ema": "average of weights", "model": "weights as trained"}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The weights in a file by name, as `read_weights` finds them."""
    return read_weights(file).by_name


def read_about(file: Path) -> dict[str, Any]:
    """What a safetensors file of this suite says of itself; empty for any other file.

    BenchError as `read_weights` for what is no file of weights.
    """
    if _check_kind(file) != "safetensors":
        return {}
    try:
        with safe_open(file, "pt") as opened:
            said = (opened.metadata() or {}).get("about", "{}")
    except (SafetensorError, OSError):
        return {}
    if not said.startswith("{"):  # another's word under the same name
        return {}
    try:
        about = parse_document(said)
    except ValueError as problem:
        raise BenchError(f"'{file}' says of itself what cannot be: {problem}; fetch it again") from problem
    unlike = misfit(about, About)
    if unlike:
        raise BenchError(f"'{file}' says of itself what cannot be: it {unlike}; fetch it again")
    return cast(dict[str, Any], about)


class About(TypedDict, total=False):
    """What a file of weights says of itself, as far as anything reads it; `shipped` and `mixtures` read its parts."""

    tokenizer: str | dict[str, Any]
    features: dict[str, Any]
    model: dict[str, Any]
    family: str
    objective: dict[str, Any] | None
    arrays: str
    data: str
    space: str
    reference: str


def _one_set(file: Path, state: Mapping[str, Any], which: Which | None) -> Tensors:
    if which == "ema":
        raise BenchError(f"'{file}' holds one set of weights, and no average beside it; leave --weights out")
    return Tensors(_named_tensors(file, state))


def _unwrapped(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A set of weights that lies under one more key, as an average in a checkpoint of its own."""
    for keys in _SETS.values():
        for key in keys:
            if isinstance(state.get(key), dict):
                return cast(Mapping[str, Any], state[key])
    return state


def _named_tensors(file: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    others = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others or not state:
        raise BenchError(
            f"'{file}' does not hold weights alone: {', '.join(map(str, others[:4])) or 'nothing'} is no named tensor"
        )
    plain = without_prefixes(state)
    if not plain:
        raise BenchError(f"'{file}' holds tensors under one name with and without a prefix; save its weights anew")
    return plain


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have in the network itself.

    DDP and torch's AveragedModel put `module.` before every name. torch.compile puts `_orig_mod.` wherever a module was
    compiled. Both are taken off, in any order, and with the first the counter `n_averaged`. Empty where two tensors
    would have one name.

    >>> sorted(without_prefixes({"module._orig_mod.head.weight": 1, "module.blocks.0._orig_mod.w": 2, "n_averaged": 3}))
    ['blocks.0.w', 'head.weight']
    """
    named = {re.sub(r"(^|\.)(_orig_mod\.)+", r"\1", name): value for name, value in state.items()}
    if len(named) < len(state):
        return {}
    rest = [name for name in named if name != "n_averaged"]
    if rest and all(name.startswith("module.") for name in rest):
        return without_prefixes({name.removeprefix("module."): named[name] for name in rest})
    return named


# What a file is


_KINDS = {  # by how files begin; none of these is a file of weights that is read
    b"version https://git-lfs": "is a pointer of Git LFS and not weights; `git lfs pull` in its folder fetches them",
    b"<": "is a web page or XML and not weights: what was fetched was an answer in words; fetch the file itself",
    b"{": "is JSON and not weights; name the file that holds the tensors",
    b"\x1f\x8b": "is still packed (gzip); unpack it, and name what comes out",
    b"BZh": "is still packed (bzip2); unpack it, and name what comes out",
    b"\xfd7zXZ": "is still packed (xz); unpack it, and name what comes out",
    b"\x28\xb5\x2f\xfd": "is still packed (zstd); unpack it, and name what comes out",
    b"GGUF": "is a GGUF file, which is not read; a torch file or safetensors would do",
    b"\x89HDF": "is an HDF5 file, which is not read; a torch file or safetensors would do",
    b"\x93NUMPY": "is a NumPy array, which is not read as weights; a torch file or safetensors would do",
}


def _check_kind(file: Path) -> Literal["safetensors", "torch"]:
    """Which of the two a file is, by its first bytes. BenchError for a file that is not there, cannot be read, or is
    something else."""
    try:
        with open_plain(file) as opened:
            head = opened.read(512)
    except FileNotFoundError as problem:
        raise BenchError(f"there is no file '{file}'; name a file of weights") from problem
    except (OSError, ValueError) as problem:
        raise BenchError(f"'{file}' cannot be read: {reason_of(problem)}; name a file of weights") from problem
    ask = "safetensors" if file.suffix == ".safetensors" else "torch"
    if not head:
        raise BenchError(f"'{file}' is not a whole {ask} file: it is empty; fetch it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    for begins, says in _KINDS.items():
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(begins):
            raise BenchError(f"'{file}' {says}")
    if head[:2] == b"PK" and not zipfile.is_zipfile(file):
        raise BenchError(f"'{file}' is not a whole torch file: it is cut off; fetch it again")
    if head[:2] == b"PK" or head[:1] == b"\x80":
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if not any(name.endswith("data.pkl") for name in names):
                shown = ", ".join(names[:3]) or "nothing"
                raise BenchError(f"'{file}' is not a whole torch file but an archive of {shown}; unpack it")
        return "torch"
    raise BenchError(
        f"'{file}' is not a whole {ask} file, by its first bytes; name a file of weights, or fetch it again"
    )


def _harmless() -> AbstractContextManager[None]:
    """While it is open, torch also reads what trainers leave beside weights: settings, and numpy's numbers and arrays.

    Each is a value made of plain parts. torch refuses every other name, and calls none.
    """
    from numpy._core import multiarray

    kinds = [kind for name, kind in vars(np.dtypes).items() if name.endswith("DType") and isinstance(kind, type)]
    plain_kinds = [kind for kind in kinds if kind is not np.dtypes.ObjectDType]
    named: list[Any] = [argparse.Namespace, np.dtype, np.ndarray, *plain_kinds]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):  # of numpy 2, and of numpy 1
        for function in (multiarray.scalar, multiarray._reconstruct):
            named.append(_called(function, module))
    return torch.serialization.safe_globals(named)


def _called(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """A function under the name that a pickle has for it."""

    def call(*given: Any) -> Any:
        return function(*given)

    call.__module__, call.__name__, call.__qualname__ = module, function.__name__, function.__name__
    return call


def load_network(kind: Callable[[Any], Network], config: Any, state: Mapping[str, Tensor], where: str) -> Network:
    """The network of a configuration and its weights, in eval mode; BenchError if they do not fit.

    The configuration comes from a file too. Sizes that the file cannot fill are refused before anything of that size is
    built.
    """
    blocks = max((size for name, size in vars(config).items() if name.endswith("blocks")), default=0)
    if blocks > len(state):
        raise BenchError(f"'{where}' holds {len(state)} tensors, too few for {blocks} blocks; name another file")
    try:
        with unfilled():
            network = kind(config)
    except (RuntimeError, TypeError, OverflowError) as problem:  # numbers that torch cannot count to
        raise BenchError(f"'{where}' describes a network that cannot be: {str(problem).splitlines()[0]}") from problem
    load_strictly(network, state, where)
    return network.eval()


@contextmanager
def unfilled() -> Iterator[None]:
    """While it is open, networks are built without memory (on the meta device) and without numbers, for weights to be
    put in.

    To fill embeddings there, torch would first load its compiler: a second of processor time, and 800 modules that
    every collection of garbage looks through.
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out what changes numbers alone, and no shape."""

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "normalize"):
            return [*args, *kwargs.values()][0]
        return function(*args, **kwargs)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a module made on the meta device; BenchError names what is missing, unexpected, misshapen or not
    finite."""
    own = dict(module.state_dict())
    check_fits(own, state, where, type(module).__name__)
    broken = [name for name in own if state[name].is_floating_point() and not state[name].isfinite().all()]
    if broken:
        raise BenchError(
            f"'{where}' holds numbers that are not finite in {_some(broken)}: training broke off there, or the file is "
            f"damaged; name another file"
        )
    module.load_state_dict({name: state[name].to(tensor.dtype) for name, tensor in own.items()}, assign=True)


def check_fits(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str, kind: str) -> None:
    """BenchError names what tensors lack to take the places of a network's own, or have too much."""
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unexpected:
        raise BenchError(f"'{where}' does not fit {kind}: missing {_some(missing)}; unexpected {_some(unexpected)}")
    for name, tensor in own.items():
        given = state[name]
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            raise BenchError(
                f"'{where}' holds {name} as {given.dtype} of shape {tuple(given.shape)}; {tensor.dtype} of shape "
                f"{tuple(tensor.shape)} would do"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"
