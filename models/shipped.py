"""The weights that travel in the package, and any others that `bench train` wrote.

Knows files of weights, their metadata and their cards. Refuses to know how they were trained and what they are used
for.

A file NAME.safetensors holds tensors and, as metadata, what network they are for; NAME.card.json beside it holds data,
recipe, seed, command, figures and the SHA-256 of the file, which is checked whenever it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from orderbench.models.checkpoint import load_strictly, read_tensors
from orderbench.models.config import FeatureConfig, ModelConfig, TokenizerConfig, from_plain
from orderbench.models.features import FeatureNet
from orderbench.models.tokenizer import Tokenizer
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError
from orderbench.orders.errors import unknown

_NETWORKS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "tokenizer": (TokenizerConfig, Tokenizer),
    "features": (FeatureConfig, FeatureNet),
    "model": (ModelConfig, Transformer),
}


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode, what its file says about it, its card (empty if there is none), the file's SHA-256."""

    kind: str
    network: nn.Module
    about: dict[str, Any]
    card: dict[str, Any]
    sha256: str


def load_weights(path: str | Path, kind: str | None = None) -> Loaded:
    """A file that `bench train` wrote.

    kind: 'tokenizer', 'features' or 'model', if it must be one of them. Raises BenchError for a file of another form or
    kind, and for one whose content is not what its card names.
    """
    file = Path(path)
    tensors = read_tensors(file)
    about = _metadata(file)
    found = next((name for name in _NETWORKS if name in about), None)
    if found is None or (kind is not None and found != kind):
        raise BenchError(
            f"'{path}' holds {found or 'no network of this suite'}, not {kind or 'one'}; name another file"
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    card_file = file.with_suffix(".card.json")
    card = json.loads(card_file.read_text()) if card_file.is_file() else {}
    if card and card.get("sha256") != digest:
        raise BenchError(f"'{path}' is not the file that its card describes (the checksum differs); fetch it again")
    config, network = _NETWORKS[found]
    with torch.device("meta"):
        empty = network(from_plain(config, about[found], f"'{path}'"))
    load_strictly(empty, tensors, str(path))
    return Loaded(found, empty.eval(), about, card, digest)


def _metadata(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {}).get("about", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def shipped_names() -> tuple[str, ...]:
    """The weights in the package."""
    folder = resources.files("orderbench.models")
    return tuple(
        sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))
    )


def load_shipped(name: str) -> Loaded:
    """Weights from the package; BenchError with the nearest name if there are none of that name."""
    if name not in shipped_names():
        raise unknown("shipped weights", name, shipped_names(), "these travel in the package")
    with resources.as_file(resources.files("orderbench.models") / f"{name}.safetensors") as file:
        return load_weights(file)
