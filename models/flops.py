"""Floating-point operations of a decoding, from its counters.

Knows the network's layers. Refuses to know clocks, and how a machine computes: the number is the same everywhere.
"""

from __future__ import annotations

from orderbench.models.config import ModelConfig
from orderbench.models.decode import Counters


def flops(config: ModelConfig, counters: Counters) -> float:
    """Operations, two a multiply-add, of decoding one sample in one branch of guidance; with guidance on, twice that.

    Counted: every linear layer and both products of attention, as they are computed, what a mask hides included. Left
    out: norms, softmax, activations, rotations, embeddings and sampling. Equal to what torch's FlopCounterMode counts.
    """
    D, F, V = config.width, config.ffn_width, config.codes
    content = config.self_blocks * (4 * D * D + 3 * D * F) + 2 * D * D  # q, k, v, out; the shared keys and values
    query = config.cross_blocks * (2 * D * D + 3 * D * F) + D * V
    pair = 2 * D  # query times key, weight times value
    multiply_adds = (
        content * counters.content_tokens
        + query * counters.query_tokens
        + pair * (config.self_blocks * counters.content_pairs + config.cross_blocks * counters.query_pairs)
    )
    return 2 * multiply_adds
