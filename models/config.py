"""Configurations: what a network is, as frozen values that travel with its weights.

Knows sizes and names. Refuses to know tensors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeVar

from orderbench.orders import BenchError, Grid, Lattice

Config = TypeVar("Config")


class NetworkConfig(Protocol):
    """What the configuration of any network that decodes says."""

    @property
    def classes(self) -> int:
        """C; the label C is none of them."""

    @property
    def lattice(self) -> Lattice:
        """Where its cells are."""


_CHOICES = {
    "position": ("rope", "rope+table"),
    "label": ("slot", "slot+query"),
    "network": ("plain", "residual"),
    "schedule": ("sides", "shells"),
    "modulation": ("none", "class"),
}
_LATER = {"later": True}  # a field that is newer than shipped weights; it is written only if it is not at its default


def _check(config: Any, what: str) -> None:
    """BenchError for a field that is none of its choices. A field without choices is a whole number of 1 or more."""
    for known in fields(config):
        name, value = known.name, getattr(config, known.name)
        if value is None and known.default is None:
            continue
        if name == "scales":
            _check_scales(value, what)
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                raise BenchError(f"the {what}'s {name} is {value!r}; {' or '.join(_CHOICES[name])} would do")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BenchError(f"the {what}'s {name} is {value!r}; give a whole number of 1 or more")


def _check_scales(value: Any, what: str) -> None:
    """BenchError for scales that are not whole numbers that grow."""
    sides = value if isinstance(value, tuple) else (None,)
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides) or any(
        finer <= coarser for coarser, finer in pairwise(sides)
    ):
        raise BenchError(f"the {what}'s scales are {value!r}; whole numbers that grow would do, as in 1,2,4,8,16")


def _check_heads(width: int, heads: int) -> None:
    if width % (4 * heads):
        raise BenchError(
            f"a width of {width} does not give {heads} heads a multiple of 4 channels, as two axes of rotary positions "
            f"need; {4 * heads * max(1, width // (4 * heads))} would do"
        )


def _ffn_width(width: int) -> int:
    """LlamaGen's: int(8 D / 3), rounded up to a multiple of 256 (of 32 below a width of 256)."""
    step = 256 if width >= 256 else 32
    return -(-int(8 * width / 3) // step) * step


class _OnGrid:
    """What follows from the sizes of every network on a grid with rotary positions."""

    rows: int
    cols: int
    width: int
    heads: int
    ffn: int | None

    @property
    def grid(self) -> Grid:
        """The lattice of the tokens."""
        return Grid(self.rows, self.cols)

    @property
    def lattice(self) -> Grid:
        """The same, as every network's configuration says it."""
        return self.grid

    @property
    def head_size(self) -> int:
        """K, channels of one head."""
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        """F: as given, or as LlamaGen counts it."""
        return _ffn_width(self.width) if self.ffn is None else self.ffn


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_OnGrid):
    """The shared transformer: a two-pass decoder of the ARPG family (arXiv 2503.10568, section 3).

    position: 'rope' (ARPG exactly: the network is translation-invariant) or 'rope+table' (also a learned vector per
    cell, added to content and query, so that the network can tell where a cell lies).
    label: 'slot' (ARPG exactly: the class is a slot that everything sees) or 'slot+query' (also a learned vector per
    class, added to every query, so that queries receive the class directly, not only through attention to its slot).
    """

    codes: int
    classes: int
    rows: int
    cols: int
    width: int
    heads: int
    self_blocks: int
    cross_blocks: int
    position: Literal["rope", "rope+table"] = "rope+table"
    label: Literal["slot", "slot+query"] = "slot"
    ffn: int | None = None  # hidden width of the feed-forward; default int(8 width / 3), rounded up

    def __post_init__(self) -> None:
        _check(self, "model")
        _check_heads(self.width, self.heads)


@dataclass(frozen=True, kw_only=True)
class StackConfig(_OnGrid):
    """A network of one stack on a grid; every family of them has its own kind, by which a configuration names it.

    blocks: of the backbone, as the paper counts them. ffn: hidden width of the feed-forward; default int(8 width / 3),
    rounded up as in `ModelConfig`.
    """

    codes: int
    classes: int
    rows: int
    cols: int
    width: int
    heads: int
    blocks: int
    ffn: int | None = None

    def __post_init__(self) -> None:
        _check(self, "model")
        _check_heads(self.width, self.heads)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The small VQ tokenizer: images of `channels` x 2 rows x 2 cols pixels to rows x cols codes.

    scales: the sides of the levels of a pyramid, coarse to fine; the last is rows = cols. Empty for one grid.
    """

    codes: int = 16
    code_size: int = 8
    channels: int = 1
    width: int = 48
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    scales: tuple[int, ...] = field(default=(), metadata=_LATER)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales) if isinstance(self.scales, list) else self.scales)
        _check(self, "tokenizer")
        if self.codes < 2 or self.width % 8:
            raise BenchError(
                f"a tokenizer of {self.codes} codes and width {self.width} is not served; 2 codes or more and a width "
                f"that is a multiple of 8 would do"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """The feature network: a classifier whose 64 features define the default Frechet distance.

    network: 'plain' (five convolutions; enough for grey images) or 'residual' (thirteen, in six residual blocks; what
    natural colour images need).
    """

    channels: int = 1
    classes: int = 10
    width: int = 32
    features: int = 64
    network: Literal["plain", "residual"] = field(default="plain", metadata=_LATER)

    def __post_init__(self) -> None:
        _check(self, "feature network")


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as a plain value. A newer field at its default is left out, so that older weights read alike."""
    unsaid = {f.name for f in fields(config) if f.metadata.get("later") and getattr(config, f.name) == f.default}
    return {name: value for name, value in asdict(config).items() if name not in unsaid}


def from_plain(kind: type[Config], value: Any, where: str) -> Config:
    """A configuration read back; BenchError if keys are missing or unknown."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict):
        raise BenchError(f"{where} does not hold a {kind.__name__}: {value!r} is no dictionary")
    if set(value) - known:
        raise BenchError(f"{where} does not hold a {kind.__name__}: unknown {sorted(set(value) - known)}")
    try:
        return kind(**value)
    except TypeError as problem:
        raise BenchError(f"{where} does not hold a {kind.__name__}: {problem}") from problem
