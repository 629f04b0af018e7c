"""ARPG's released weights (arXiv 2503.10568) in the shared transformer, strictly.

Knows the names and shapes of the released files. Refuses to know where they come from: they are read from local paths
only. Written from a description of the layout; no published file was read by this project.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from torch import Tensor

from orderbench.models.checkpoint import load_network
from orderbench.models.codec import Weights
from orderbench.models.config import ModelConfig
from orderbench.models.families import register_family
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError

_NAMES = [
    (r"embeddings\.weight", "embeddings.weight"),
    (r"layers\.self_dec\.(\d{1,9})\.attn\.(to_q|to_k|to_v|proj)\.weight", r"self_blocks.\1.\2.weight"),
    (r"layers\.self_dec\.(\d{1,9})\.(ffn\.w[123]|attn_norm|ffn_norm)\.weight", r"self_blocks.\1.\2.weight"),
    (r"layers\.cross_dec\.(\d{1,9})\.attn\.(to_q|proj)\.weight", r"cross_blocks.\1.\2.weight"),
    (r"layers\.cross_dec\.(\d{1,9})\.(ffn\.w[123]|attn_norm|ffn_norm)\.weight", r"cross_blocks.\1.\2.weight"),
    (r"layers\.norm\.weight", "shared_norm.weight"),
    (r"layers\.(to_k|to_v)\.weight", r"\1.weight"),
    (r"norm\.weight", "norm.weight"),
    (r"head\.weight", "head.weight"),
]


def our_name(theirs: str) -> str | None:
    """The name of a released tensor in our network; None if it is none of ARPG's."""
    for pattern, ours in _NAMES:
        if match := re.fullmatch(pattern, theirs):
            return match.expand(ours)
    return None


def _recognises(names: Collection[str]) -> bool:
    """Its two stacks are found under these names in no other release."""
    return any(name.startswith(("layers.self_dec.", "layers.cross_dec.")) for name in names)


@register_family(
    "arpg", paper="ARPG, arXiv 2503.10568", idea="two passes, any order; the layout of its release",
    recognises=_recognises, sampling={"guidance": "linear:scale=5", "top_k": 0, "top_p": 1.0},
)  # fmt: skip
def load_arpg(
    weights: Weights,
    *,
    heads: Annotated[int | None, "attention heads; default width / 64"] = None,
    side: Annotated[int | None, "cells a side of the grid; default 16, a 512 px model has 32"] = None,
) -> Transformer:
    """A released file as a Transformer with 'rope' positions, in eval mode.

    All sizes follow from the tensors, except heads and side, which the file does not say.

    Raises BenchError for a file that is not whole, could run code, or holds other names or shapes.
    """
    path = weights.where
    renamed: dict[str, Tensor] = {}
    foreign = []
    for name, tensor in weights.tensors.items():
        ours = our_name(name)
        if name.endswith("freqs_cis"):  # a table of rotary positions, which follows from the sizes
            continue
        if ours is None:
            foreign.append(name)
        else:
            renamed[ours] = tensor
    if foreign or "embeddings.weight" not in renamed or "head.weight" not in renamed:
        named = f"unexpected {', '.join(sorted(foreign)[:4])}" if foreign else "no token table and head"
        raise BenchError(f"'{path}' is not in ARPG's layout: {named}; name an ARPG file, as in arpg_300m.pt")
    return load_network(Transformer, _config(renamed, heads, 16 if side is None else side, path), renamed, path)


def _config(state: Mapping[str, Tensor], heads: int | None, side: int, where: str) -> ModelConfig:
    if state["head.weight"].ndim != 2 or state["embeddings.weight"].ndim != 2:
        raise BenchError(f"'{where}' holds a token table or head that is no matrix; it is not in ARPG's layout")
    codes, width = state["head.weight"].shape
    blocks = {kind: 1 + max(_layers(state, kind), default=-1) for kind in ("self_blocks", "cross_blocks")}
    return ModelConfig(
        codes=codes,
        classes=len(state["embeddings.weight"]) - codes - 3,
        rows=side,
        cols=side,
        width=width,
        heads=max(1, width // 64) if heads is None else heads,
        ffn=_hidden(state),
        position="rope",
        label="slot",
        self_blocks=blocks["self_blocks"],
        cross_blocks=blocks["cross_blocks"],
    )


def _layers(state: Mapping[str, Any], kind: str) -> list[int]:
    return [int(name.split(".")[1]) for name in state if name.startswith(kind)]


def _hidden(state: Mapping[str, Tensor]) -> int | None:
    first = state.get("self_blocks.0.ffn.w1.weight")
    return None if first is None or not first.ndim else len(first)
