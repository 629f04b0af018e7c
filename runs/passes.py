"""How the passes of an exact decoder went: what was accepted, where, and what was wasted.

Knows after which pass every code was final. Refuses to know a decoder and a clock.
"""

from __future__ import annotations

import numpy as np

from orderbench.models.decode import Counters
from orderbench.runs.schema import Differing, PassesAbout


def passes_of(settled_NL: np.ndarray, counters: Counters) -> PassesAbout:
    """Of some images. settled_NL: the pass after which each code was final, counted from 1. counters: of one image."""
    passes_N = settled_NL.max(1)
    accepted_NT = (settled_NL[:, :, None] == np.arange(1, passes_N.max() + 1)).sum(1)
    together_NL = np.take_along_axis(accepted_NT, settled_NL - 1, axis=1)
    at_work_T = (passes_N[:, None] > np.arange(accepted_NT.shape[1])).sum(0)
    n_cells = settled_NL.shape[1]
    return {
        "p50": float(np.percentile(passes_N, 50)),
        "p90": float(np.percentile(passes_N, 90)),
        "wasted_asked": float(1 - n_cells / counters.query_tokens),
        "wasted_fed": float(1 - min(n_cells, counters.content_tokens) / counters.content_tokens),
        "accepted_by_pass": (accepted_NT.sum(0) / at_work_T).tolist(),
        "accepted_by_cell": together_NL.mean(0).tolist(),
    }


def differing(codes_NLK: np.ndarray, others_NLK: np.ndarray) -> Differing:
    """How many images of two decodings of the same samples are not the same, code for code."""
    return {"images": int((codes_NLK != others_NLK).any((1, 2)).sum()), "of": len(codes_NLK)}
