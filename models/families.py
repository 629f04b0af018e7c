"""Families: layouts of published networks, and how a file of one is recognised.

Knows names of tensors and who loads them, and which network a configuration is of. Refuses to know where files come
from: they are read from local paths only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from orderbench.models.checkpoint import Which
from orderbench.models.codec import Weights
from orderbench.models.config import ModelConfig, from_plain, to_plain
from orderbench.models.model import Model
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError
from orderbench.orders.registry import Entry, Registry
from orderbench.orders.spelling import read_options


@dataclass(frozen=True, kw_only=True)
class Family(Entry):
    """A registered layout of networks.

    recognises: whether names of tensors are of this layout. config, network: what `bench train` builds and saves of it;
    None where it is only read. sampling: the settings of its release, which its files are sampled with unless a run
    says otherwise. unserved: which tokenizer its release is of, where that one is not served, as a part of a sentence.
    """

    recognises: Callable[[Collection[str]], bool]
    config: type[Any] | None = None
    network: Callable[[Any], nn.Module] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    unserved: str = ""


FAMILIES: Registry[Family] = Registry("a family of published weights", "as in family='arpg'")
LoadModel = TypeVar("LoadModel", bound=Callable[..., Model])


def register_family(
    name: str,
    *,
    paper: str,
    idea: str,
    recognises: Callable[[Collection[str]], bool],
    config: type[Any] | None = None,
    network: Callable[[Any], nn.Module] | None = None,
    sampling: Mapping[str, Any] | None = None,
    unserved: str = "",
) -> Callable[[LoadModel], LoadModel]:
    """Decorator: put `load(weights, *, <typed options>) -> Model` under the name of a layout.

    The options say what a file does not hold, such as the number of heads. A file is opened by the first layout that
    recognises the names of its tensors.
    """

    def decorate(function: LoadModel) -> LoadModel:
        options = read_options(function, reserved=(), first="weights")
        FAMILIES.add(Family(name=name, paper=paper, idea=idea, function=function, options=options,
                            origin=function.__module__, recognises=recognises, config=config, network=network,
                            sampling=dict(sampling or {}), unserved=unserved))  # fmt: skip
        return function

    return decorate


def load_checkpoint(
    path: str | Path, family: str | None = None, *, which: Which | None = None, **options: Any
) -> Model:
    """Published weights as a model, of the named family or of the first one that recognises the file.

    which: 'ema' or 'model', where a file holds both; without it, the average. options: those of the family's loader,
    by name. BenchError for a file that is not whole, could run code, or holds other names or shapes.
    """
    if family is not None:
        FAMILIES.get(family)
    return load_family(Weights.read(path, which), family, **options)


def load_family(weights: Weights, family: str | None = None, **options: Any) -> Model:
    """The model of weights that were read; BenchError as `load_checkpoint`."""
    model: Model = FAMILIES.get(family or family_of(weights)).function(weights, **options)
    return model


def family_of(weights: Weights) -> str:
    """The first family that recognises the names of the tensors; BenchError if none does."""
    for name in FAMILIES.names():
        if FAMILIES.get(name).recognises(weights.tensors.keys()):
            return name
    raise BenchError(
        f"'{weights.where}' is of no known family ({', '.join(FAMILIES.names())}); its first tensors are "
        f"{', '.join(sorted(weights.tensors)[:3])}; --include FILE.py registers another family"
    )


# Networks by their configurations, as `bench train` builds, saves and reads them


def build_network(config: Any) -> nn.Module:
    """The network of a configuration, with fresh weights: the shared transformer, or a family's."""
    if isinstance(config, ModelConfig):
        network: nn.Module = Transformer(config)
    else:
        build = _family_of_config(config).network
        assert build is not None  # noqa: S101 (a family that has a configuration has a network)
        network = build(config)
    network.initialize()  # type: ignore[operator]
    return network


def about_network(config: Any) -> dict[str, Any]:
    """What a file of weights says of its network: 'model', its sizes, and 'family', unless it is the shared one."""
    family = {} if isinstance(config, ModelConfig) else {"family": _family_of_config(config).name}
    return {**family, "model": to_plain(config)}


def network_about(about: Mapping[str, Any], where: str) -> tuple[Callable[[Any], nn.Module], Any]:
    """The kind of network that a file of weights is of, and its configuration, from what `about_network` gave.

    BenchError for a family that is not registered or is only read, and for sizes that are none.
    """
    if "family" not in about:
        return Transformer, from_plain(ModelConfig, about["model"], where)
    family = FAMILIES.get(about["family"])
    if family.config is None or family.network is None:
        raise BenchError(f"{where} names the family '{family.name}', whose networks are not trained here; name another")
    return family.network, from_plain(family.config, about["model"], where)


def _family_of_config(config: Any) -> Family:
    for name in FAMILIES.names():
        if FAMILIES.get(name).config is type(config):
            return FAMILIES.get(name)
    raise BenchError(f"no family has a {type(config).__name__}; docs/adding-a-model-family.md says how to register one")
