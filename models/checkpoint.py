"""Files of weights: written whole or not at all, read as untrusted input.

Knows safetensors, tensors-only pickles and what fits a network. Refuses to run code from a file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from orderbench.orders import BenchError
from orderbench.orders.files import write_whole

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
    """The dictionary in a torch file, tensors and plain values only; BenchError if it is anything else."""
    if not file.is_file():
        raise BenchError(f"there is no file '{file}'; name a file of weights")
    try:
        value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # a foreign file may break the reader in any way
        if isinstance(problem, pickle.UnpicklingError) and "global" in str(problem).lower():
            raise BenchError(
                f"'{file}' holds more than tensors and plain values, and is not opened: it could run code"
            ) from problem
        raise BenchError(
            f"'{file}' is not a whole torch file: {(str(problem) or 'it is empty').splitlines()[0]}"
        ) from problem
    if not isinstance(value, dict):
        raise BenchError(f"'{file}' holds a {type(value).__name__}, not a dictionary of tensors")
    return value


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a torch file, where they may lie under 'model', 'module' or
    'state_dict'.

    Raises BenchError for anything else; nothing in the file is ever run.
    """
    if file.suffix == ".safetensors":
        if not file.is_file():
            raise BenchError(f"there is no file '{file}'; name a file of weights")
        try:
            return load_file(file)
        except (SafetensorError, OSError) as problem:
            raise BenchError(f"'{file}' is not a whole safetensors file: {problem}") from problem
    state = read_pickle(file)
    for wrapper in ("model", "module", "state_dict"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    others = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others or not state:
        raise BenchError(
            f"'{file}' does not hold weights alone: {', '.join(map(str, others[:4])) or 'nothing'} is no named tensor"
        )
    return state


def load_network(kind: Callable[[Any], Network], config: Any, state: Mapping[str, Tensor], where: str) -> Network:
    """The network of a configuration and its weights, in eval mode; BenchError if they do not fit.

    The configuration comes from a file too. Sizes that the file cannot fill are refused before anything of that size is
    built.
    """
    blocks = max((size for name, size in vars(config).items() if name.endswith("_blocks")), default=0)
    if blocks > len(state):
        raise BenchError(f"'{where}' holds {len(state)} tensors, too few for {blocks} blocks; name another file")
    try:
        with torch.device("meta"):
            network = kind(config)
    except (RuntimeError, TypeError, OverflowError) as problem:  # numbers that torch cannot count to
        raise BenchError(f"'{where}' describes a network that cannot be: {str(problem).splitlines()[0]}") from problem
    load_strictly(network, state, where)
    return network.eval()


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a module made on the meta device; BenchError names what is missing, unexpected or misshapen."""
    own = dict(module.state_dict())
    check_fits(own, state, where, type(module).__name__)
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
