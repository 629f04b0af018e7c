"""Randomness by address: (seed, stream, sample index) names a generator, whatever was drawn before it.

Knows counters and keys. Refuses to know global state: no draw here depends on another, so samples may be made in
any order, on any machine, in any number of processes, and stay the same.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from orderbench.orders.errors import BenchError

Stream = Literal["order", "noise", "train", "gumbel", "visit"]  # visit: whether drafts are kept, pass after pass
_KEY = {name: number for number, name in enumerate(get_args(Stream), start=1)}


def check_seed(seed: int) -> int:
    """`seed` itself, if it is a whole number in [0, 2**63)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise BenchError(f"the seed {seed!r} is not served; give a whole number of 0 or more, as in --seed 0")
    return int(seed)


def generator(seed: int, stream: Stream, sample: int = 0) -> np.random.Generator:
    """The generator of one sample in one stream: Philox (Salmon et al., 2011), keyed by seed and stream.

    The sample index is the third word of the counter, which leaves every sample 2**128 draws of its own.
    """
    return np.random.Generator(np.random.Philox(key=[check_seed(seed), _KEY[stream]], counter=[0, 0, int(sample), 0]))
