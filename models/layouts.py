"""Layouts of LlamaGen's kind: which family a file is of, what sizes it has, and how it fills a network, strictly.

Knows names and shapes of tensors that LlamaGen's followers share. Refuses to know what a family computes.

The released files of LlamaGen, PAR, EAR, RandAR and NAR use one set of names; each follower adds its own few tensors.
A file does not say its grid, nor its number of heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from orderbench.models.checkpoint import load_network
from orderbench.models.codec import Weights
from orderbench.orders import BenchError

Network = TypeVar("Network", bound=nn.Module)

CLASSES, CODES, HEAD = "cls_embedding.embedding_table.weight", "tok_embeddings.weight", "output.weight"
PAR, EAR, RANDAR, NAR = (
    "spe_tok_embeddings.special_embeddings.weight",
    "mask_token.weight",
    "pos_instruct_embeddings",
    "medusa_output.weight",
)  # a tensor of each follower that no other has
_CAPTIONS = "cls_embedding.cap_proj."  # of the siblings that draw from captions
_TABLES = re.compile(r"(.*\.)?(freqs_cis|causal_mask|kv_cache\.[kv]_cache)")  # follow from the sizes


def is_llama(names: Collection[str], own: str | None = None) -> bool:
    """Whether names are of LlamaGen's layout, with the tensor of one follower, or of none."""
    found = [name for name in (PAR, EAR, RANDAR, NAR) if name in names]
    return CODES in names and "layers.0.attention.wqkv.weight" in names and found == ([] if own is None else [own])


_OWN = {"LlamaGen": None, "PAR": PAR, "EAR": EAR, "RandAR": RANDAR, "NAR": NAR}


def llama_sizes(weights: Weights, family: str, *, heads: int | None, classes: int | None, side: int) -> dict[str, Any]:
    """codes, classes, rows, cols, width, heads, blocks and ffn of a file of LlamaGen's kind.

    heads: default width / 64, or 32 at a width of 3200, as published. classes: default as many as the file's table has
    rows but one. BenchError for the text-conditional sibling, and for tables that are no matrices.
    """
    state, where = weights.tensors, weights.where
    if any(name.startswith(_CAPTIONS) for name in state):
        raise BenchError(
            f"'{where}' is a text-conditional network of {family}'s layout, which draws from captions; a "
            f"class-conditional file would do, as in c2i_B_256.pt"
        )
    it_is = next((other for other, own in _OWN.items() if is_llama(state, own)), None)
    if it_is not in (family, None):
        raise BenchError(f"'{where}' is in {it_is}'s layout, not in {family}'s; family='{str(it_is).lower()}' would do")
    if _OWN[family] is not None and _OWN[family] not in state:
        raise BenchError(f"'{where}' is not in {family}'s layout: it has no {_OWN[family]}; name another file")
    for name in (CLASSES, CODES, HEAD):
        if name not in state or state[name].ndim != 2:
            raise BenchError(f"'{where}' is not in {family}'s layout: it has no matrix {name}; name another file")
    codes, width = state[CODES].shape
    held = len(state[CLASSES]) - 1
    if classes is not None and classes != held:
        raise BenchError(f"'{where}' holds {held} classes, and {classes} were asked; leave classes out")
    first = state.get("layers.0.feed_forward.w1.weight")
    return {
        "codes": codes,
        "classes": held,
        "rows": side,
        "cols": side,
        "width": width,
        "heads": (32 if width == 3200 else max(1, width // 64)) if heads is None else heads,
        "blocks": n_layers(state, "layers"),
        "ffn": None if first is None or first.ndim != 2 else len(first),
    }


def n_layers(state: Mapping[str, Any], stack: str) -> int:
    """How many blocks a stack has: one more than the highest number behind its name."""
    numbers = (re.match(rf"{stack}\.(\d{{1,9}})\.", name) for name in state)
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def fill(kind: Callable[[Any], Network], config: Any, weights: Weights) -> Network:
    """The network of a configuration, filled strictly and in eval mode; tables that follow from the sizes are left
    out."""
    state: dict[str, Tensor] = {name: t for name, t in weights.tensors.items() if not _TABLES.fullmatch(name)}
    return load_network(kind, config, state, weights.where)
