"""Decoders with their options read from text: `nested:margin=1`, `confidence:noise=3`.

Knows a decoder's signature. Refuses to know what it decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from orderbench.models.decode import Decoder, Step
from orderbench.orders.spelling import Option, bind_options, read_options, spell_call


@dataclass(frozen=True)
class SpelledDecoder:
    """A decoder with its options set; its `str` is canonical."""

    name: str
    options: tuple[Option, ...]
    values: dict[str, Any]
    decoder: Decoder

    def __str__(self) -> str:
        return spell_call(self.name, self.options, self.values)


def spelled_decoder(
    name: str, function: Callable[..., Iterator[Step]], given: dict[str, str], ask: str
) -> SpelledDecoder:
    """`function` with the options that were `given` as text; BenchError, ending in `ask`, for others than it has."""
    options = read_options(function, reserved=())
    values = bind_options(name, options, given, ask)
    return SpelledDecoder(name, options, values, partial(function, **values) if values else function)
