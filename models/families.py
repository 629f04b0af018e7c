"""Families: layouts of published networks, and how a file of one is recognised.

Knows names of tensors and who loads them. Refuses to know where files come from: they are read from local paths only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orderbench.models.checkpoint import Which
from orderbench.models.codec import Weights
from orderbench.models.model import Model
from orderbench.orders import BenchError
from orderbench.orders.registry import Entry, Registry
from orderbench.orders.spelling import read_options


@dataclass(frozen=True, kw_only=True)
class Family(Entry):
    """A registered layout of networks. recognises: whether names of tensors are of this layout."""

    recognises: Callable[[Collection[str]], bool]


FAMILIES: Registry[Family] = Registry("a family of published weights", "as in family='arpg'")
LoadModel = TypeVar("LoadModel", bound=Callable[..., Model])


def register_family(
    name: str, *, paper: str, idea: str, recognises: Callable[[Collection[str]], bool]
) -> Callable[[LoadModel], LoadModel]:
    """Decorator: put `load(weights, *, <typed options>) -> Model` under the name of a layout.

    The options say what a file does not hold, such as the number of heads. A file is opened by the first layout that
    recognises the names of its tensors.
    """

    def decorate(function: LoadModel) -> LoadModel:
        options = read_options(function, reserved=(), first="weights")
        FAMILIES.add(Family(name=name, paper=paper, idea=idea, function=function, options=options,
                            origin=function.__module__, recognises=recognises))  # fmt: skip
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
