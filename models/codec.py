"""Codecs: tokenizers, between pixels and codes, and how a file of one is recognised.

Knows the calls of a tokenizer. Refuses to know the order in which codes are predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from orderbench.models.checkpoint import Which, read_weights
from orderbench.models.data import Images
from orderbench.orders import BenchError, Grid, Lattice
from orderbench.orders.registry import Entry, Registry

_PIXELS = 500 * 32 * 32  # encoded at once: VQ-16 makes 128 channels of each


class Codec(Protocol):
    """What turns images into codes and back."""

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V_1, ..., V_K): how many values each of the K codes of a cell takes."""

    @property
    def channels(self) -> int:
        """Of its images: 1, grey, or 3."""

    def lattice(self, side: int) -> Lattice:
        """Where the cells of side x side images are. BenchError for a side that it does not serve."""

    def side(self, lattice: Lattice) -> int:
        """The side of the square images whose codes fill a lattice. BenchError for one that it does not serve."""

    def encode(self, images_Bchw: Tensor) -> Tensor:
        """Images, float in [-1, 1], to (B, L, K) int64 codes."""

    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        """Codes to images_Bchw in [-1, 1]."""


@torch.no_grad()
def encode_images(codec: Codec, images: Images, device: str) -> Tensor:
    """(N, L, K) the codes of all images, on the CPU, in the smallest type that holds them."""
    pixels = images.images_Nchw[0, 0].numel()
    batch = max(1, min(500, _PIXELS // pixels))
    parts = [
        codec.encode(images.floats(slice(start, start + batch)).to(device)).cpu()
        for start in range(0, len(images), batch)
    ]
    return torch.cat(parts).to(torch.uint8 if max(codec.code_sizes) <= 256 else torch.int32)


def patch_lattice(side: int, stride: int) -> Grid:
    """The grid of square images, with one cell for every stride x stride pixels."""
    if side < stride or side % stride:
        raise BenchError(
            f"images of {side} pixels a side do not divide into cells of {stride}; a multiple of {stride} would do"
        )
    return Grid(side // stride, side // stride)


def patch_side(lattice: Lattice, stride: int) -> int:
    """The side of the images of a square grid, in pixels; BenchError for any other lattice."""
    if not isinstance(lattice, Grid) or lattice.rows != lattice.cols:
        raise BenchError(f"images are read as squares and the model's grid is {lattice}; only a square one is served")
    return lattice.rows * stride


@dataclass(frozen=True)
class Weights:
    """The tensors of a file by name, and what the file is called, for error sentences. taken: 'ema' or 'model' where
    the file holds both."""

    tensors: Mapping[str, Tensor]
    where: str
    taken: str = ""

    @classmethod
    def read(cls, path: str | Path, which: Which | None = None) -> Weights:
        """Read as untrusted input; see `checkpoint.read_weights`."""
        found = read_weights(Path(path), which)
        return cls(found.by_name, str(path), found.taken)


@dataclass(frozen=True, kw_only=True)
class TokenizerEntry(Entry):
    """A registered layout of tokenizer files. recognises: whether names of tensors are of this layout."""

    recognises: Callable[[Collection[str]], bool]


TOKENIZERS: Registry[TokenizerEntry] = Registry("a tokenizer layout", "docs/adding-a-tokenizer.md says how to add one")
LoadCodec = TypeVar("LoadCodec", bound=Callable[..., Codec])


def register_tokenizer(
    name: str, *, paper: str, idea: str, recognises: Callable[[Collection[str]], bool]
) -> Callable[[LoadCodec], LoadCodec]:
    """Decorator: put `load(weights) -> Codec` under the name of a layout. A file is opened by the first layout that
    recognises the names of its tensors."""

    def decorate(function: LoadCodec) -> LoadCodec:
        TOKENIZERS.add(TokenizerEntry(name=name, paper=paper, idea=idea, function=function, recognises=recognises,
                                      origin=function.__module__))  # fmt: skip
        return function

    return decorate


def load_codec(path: str | Path) -> Codec:
    """A file of a published tokenizer, opened by the first layout that recognises it; BenchError if none does."""
    weights = Weights.read(path)
    for name in TOKENIZERS.names():
        entry = TOKENIZERS.get(name)
        if entry.recognises(weights.tensors.keys()):
            codec: Codec = entry.function(weights)
            return codec
    raise BenchError(
        f"'{path}' is no tokenizer of a known layout ({', '.join(TOKENIZERS.names())}); its first tensors are "
        f"{', '.join(sorted(weights.tensors)[:3])}; --include FILE.py registers another layout"
    )
