"""The weights that travel in the package, and any others that `bench train` wrote.

Knows files of weights, their metadata and their cards. Refuses to know how they were trained and what they are used
for.

A file NAME.safetensors holds tensors and, as metadata, which network they are for. NAME.card.json in the same folder
holds data, recipe, seed, command, figures and the SHA-256 of the file, which is checked whenever the file is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Required, TypedDict, cast

from torch import Tensor, nn

from orderbench.models.checkpoint import load_network, read_about, read_tensors
from orderbench.models.config import FeatureConfig, ModelConfig, TokenizerConfig, from_plain
from orderbench.models.families import network_about
from orderbench.models.features import FeatureNet
from orderbench.models.tokenizer import tokenizer_of
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError
from orderbench.orders.documents import Count, Least1, Line, Positive, Share, misfit, parse_document, read_document
from orderbench.orders.errors import unknown
from orderbench.orders.files import sha256_of
from orderbench.orders.profile import Profile, profile_in

_NETWORKS: dict[str, tuple[type[Any], Callable[[Any], nn.Module]]] = {
    "tokenizer": (TokenizerConfig, tokenizer_of),
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
    tensors, about, card, digest = _read(file)
    found = next((name for name in _NETWORKS if name in about), None)
    if found is None or (kind is not None and found != kind):
        raise BenchError(
            f"'{path}' holds {found or 'no network of this suite'}, not {kind or 'one'}; name another file"
        )
    if found == "model":
        network, config = network_about(about, f"'{path}'")
    else:
        kind_of_config, network = _NETWORKS[found]
        config = from_plain(kind_of_config, about[found], f"'{path}'")
    filled = load_network(network, config, tensors, str(path))
    return Loaded(found, filled, about, card, digest)


def kind_of(path: str | Path) -> str | None:
    """'tokenizer', 'features' or 'model' for a file that `bench train` wrote, by what it says of itself; None for any
    other file of weights. BenchError for what is none."""
    about = read_about(Path(path))
    return next((name for name in _NETWORKS if name in about), None)


@dataclass(frozen=True)
class Arrays:
    """Data that is shipped with weights: tensors by name, what the file says about them, its card, its SHA-256."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    card: dict[str, Any]
    sha256: str


def load_arrays(path: str | Path, kind: str) -> Arrays:
    """'held-out' (tokens_NL, labels_N) or 'reference' (features of training images and of test images).

    Raises BenchError for a file of another form or kind, and for one whose content is not what its card names.
    """
    tensors, about, card, digest = _read(Path(path))
    if about.get("arrays") != kind:
        raise BenchError(f"'{path}' holds no {kind} arrays of this suite; name another file")
    return Arrays(tensors, about, card, digest)


class Recommended(TypedDict, total=False):
    """The sampling setting that suits some weights."""

    guidance: Line
    temperature: Positive
    top_k: Count
    top_p: Share


class Split(TypedDict, total=False):
    """The images that some weights were trained on."""

    digest: str | None
    test: Line | None


class Card(TypedDict, total=False):
    """What `bench train` writes beside weights, as far as anything reads it."""

    kind: Line
    sha256: Required[Line]
    setting: Recommended
    steps_done: Count
    side: Least1
    class_names: list[Line]
    split: Split | None


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], str]:
    tensors = read_tensors(file)
    digest = sha256_of(file)
    card = _card(file.with_suffix(".card.json"))
    if card and card.get("sha256") != digest:
        raise BenchError(f"'{file}' is not the file that its card describes (the checksum differs); fetch it again")
    return tensors, read_about(file), card, digest


def _card(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        card = read_document(file)
    except (OSError, ValueError) as problem:
        raise BenchError(f"'{file}' is not a whole card: {problem}; fetch it again, or remove it") from problem
    unlike = misfit(card, Card)
    if unlike:
        raise BenchError(f"'{file}' is not a whole card: it {unlike}; fetch it again, or remove it")
    return cast(dict[str, Any], card)


def shipped_names(kind: str | None = None) -> tuple[str, ...]:
    """The networks in the package, or those of one kind."""
    folder = resources.files("orderbench.models")
    cards = (f for f in folder.iterdir() if f.name.endswith(".card.json"))
    kinds = _NETWORKS if kind is None else (kind,)
    return tuple(sorted(f.name.removesuffix(".card.json") for f in cards if json.loads(f.read_text())["kind"] in kinds))


def load_shipped(name: str, kind: str | None = None) -> Loaded:
    """A network from the package; BenchError with the nearest name if there is none of that name and kind."""
    if name not in (known := shipped_names(kind)):
        raise unknown(f"shipped {kind or 'weights'}", name, known, "or name a file, as in my.safetensors")
    with _shipped_file(name) as file:
        return load_weights(file, kind)


def load_shipped_arrays(name: str, kind: str) -> Arrays:
    """Measured data from the package."""
    with _shipped_file(name) as file:
        return load_arrays(file, kind)


def shipped_tokenizer(sha256: str) -> str:
    """The tokenizer in the package whose checksum begins so; '' if there is none, or for ''."""
    names = shipped_names("tokenizer") if sha256 else ()
    return next((name for name in names if _shipped_card(name)["sha256"].startswith(sha256)), "")


def shipped_held_out(sha256: str) -> str:
    """The codes of held-out images in the package that a tokenizer of this checksum made; '' if there are none."""
    folder = resources.files("orderbench.models")
    cards = {f.name.removesuffix(".card.json"): f for f in folder.iterdir() if f.name.endswith("-held-out.card.json")}
    made = {name: json.loads(card.read_text())["about"]["tokenizer"] for name, card in sorted(cards.items())}
    return next((name for name, tokenizer in made.items() if sha256.startswith(tokenizer)), "")


def shipped_profile(sha256: str | None) -> Profile | None:
    """The profile in the package that was fitted to the weights of this checksum; None if there is none."""
    for file in resources.files("orderbench.models").iterdir():
        if file.name.endswith(".profile.json"):
            document = parse_document(file.read_text())
            if sha256 is not None and document["model"].get("sha256") == sha256:
                return profile_in(document, f"the package's {file.name}")
    return None


def _shipped_card(name: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((resources.files("orderbench.models") / f"{name}.card.json").read_text())
    return card


def _shipped_file(name: str) -> AbstractContextManager[Path]:
    return resources.as_file(resources.files("orderbench.models") / f"{name}.safetensors")
