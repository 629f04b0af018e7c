"""Classifier-free guidance: how strongly the class counts, along the walk of a plan.

Knows how the scale rises as decoding goes on, by the laws of papers. Refuses to know what is scaled: an answer applies
the scale itself (`orderbench.models.answer`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import torch
from torch import Tensor

from orderbench.orders import BenchError
from orderbench.orders.errors import unknown
from orderbench.orders.registry import Entry, Registry
from orderbench.orders.spelling import Option, bind_options, read_options, spell_call, split_call

Count = Literal["after", "before", "token", "step"]
_ASK = "guidance is written as a number, or as in linear:scale=2 or constant:scale=1.5"
LAWS: Registry[Entry] = Registry("a guidance", _ASK)
LawFunction = TypeVar("LawFunction", bound=Callable[..., Tensor])


_SCALE, _COUNT = (
    Option("scale", float, False, 1.0, "0 or more, 1 for none"),
    Option("count", Count, False, "after", "after, before, token, step"),
)


def register_guidance(name: str, *, paper: str, idea: str) -> Callable[[LawFunction], LawFunction]:
    """Decorator: put `law(share_Q, *, <typed options>) -> rise_Q` under a name.

    share_Q: float32 in [0, 1], how far decoding has come, counted as the option `count` says. rise_Q: which part of the
    scale applies there: the scale of a cell is 1 + (scale - 1) * rise. Every law has the options `scale` and `count`.
    """

    def decorate(function: LawFunction) -> LawFunction:
        options = (_SCALE, _COUNT, *read_options(function, reserved=("scale", "count"), first="share_Q"))
        LAWS.add(Entry(name=name, paper=paper, idea=idea, function=function, options=options,
                       origin=function.__module__))  # fmt: skip
        return function

    return decorate


@register_guidance("none", paper="a control", idea="the conditional alone")
def _none(share_Q: Tensor) -> Tensor:
    return torch.zeros_like(share_Q)


@register_guidance("constant", paper="Ho & Salimans, arXiv 2207.12598", idea="the same scale everywhere")
def _constant(share_Q: Tensor) -> Tensor:
    return torch.ones_like(share_Q)


@register_guidance("linear", paper="ARPG, arXiv 2503.10568; RandAR; LPD", idea="rises with the share of decoded cells")
def _linear(share_Q: Tensor) -> Tensor:
    return share_Q


@register_guidance(
    "power-cosine", paper="RAR, arXiv 2411.00776; reAR", idea="rises as a cosine of a power of the share"
)
def _power_cosine(share_Q: Tensor, *, power: Annotated[float, "above 0"] = 1.0) -> Tensor:
    """(1 - cos(pi share ** power)) / 2; RAR counts the cells before the step, so that its first step is unguided."""
    if not 0 < power < math.inf:
        raise BenchError(
            f"a guidance power of {power:g} is not served; it is above 0, as in --guidance power-cosine:scale=3:power=2"
        )
    return (1 - torch.cos(math.pi * share_Q**power)) / 2


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance: u + s (c - u), c conditional, u unconditional; s = 1 is the conditional alone.

    law: a registered law; s = 1 + (scale - 1) * law(share). options: of the law itself. count: what the share counts.
    'after': the cells that are decoded after the step (ARPG). 'before': those decoded before it (RandAR). 'token': the
    place of each cell in the walk (LPD). 'step': steps, k / (T - 1) at step k = 0, 1, ... (VAR); 0 if T is 1.
    """

    law: str = "none"
    scale: float = 1.0
    count: Count = "after"
    options: tuple[tuple[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        LAWS.get(self.law)
        if self.count not in ("after", "before", "token", "step"):
            raise BenchError(f"guidance counts cells 'after', 'before', by 'token' or by 'step', not '{self.count}'")
        if not 0 <= self.scale < math.inf:
            raise BenchError(
                f"a guidance scale of {self.scale:g} is not served; 0 or more would do, as in --guidance linear:scale=3"
            )
        self.rise(torch.zeros(1))  # so that an option out of range is refused now

    def __str__(self) -> str:
        """The canonical spelling, which `parse_guidance` reads."""
        entry = LAWS.get(self.law)
        values = {"scale": self.scale, "count": self.count, **dict(self.options)}
        return self.law if self.law == "none" else spell_call(self.law, entry.options, values)

    @property
    def on(self) -> bool:
        """Whether the unconditional half is needed."""
        return self.law != "none" and self.scale != 1

    def rise(self, share_Q: Tensor) -> Tensor:
        """(Q,) which part of the scale applies at these shares."""
        rise_Q: Tensor = LAWS.get(self.law).function(share_Q, **dict(self.options))
        return rise_Q

    def along(self, sizes: Sequence[int]) -> Tensor:
        """(L,) float32: s at every place of a walk that has steps of these sizes."""
        n_cells, n_steps = sum(sizes), len(sizes)
        if not self.on:
            return torch.ones(n_cells)
        before_T = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        size_L = torch.tensor(sizes)
        done_L = {
            "after": lambda: (before_T + size_L).repeat_interleave(size_L),
            "before": lambda: before_T.repeat_interleave(size_L),
            "token": lambda: torch.arange(n_cells),
            "step": lambda: torch.arange(n_steps).repeat_interleave(size_L),
        }[self.count]()
        whole = max(1, n_steps - 1) if self.count == "step" else n_cells
        return 1 + (self.scale - 1) * self.rise(done_L.float() / whole)


NO_GUIDANCE = Guidance()


def parse_guidance(text: str) -> Guidance:
    """A number S, which is linear guidance up to S; 'none'; or LAW:scale=S:count=..., with the law's own options.

    >>> str(parse_guidance("2.5")), str(parse_guidance("constant:scale=3.0"))
    ('linear:scale=2.5', 'constant:scale=3')
    """
    try:
        if not text.isascii() or "_" in text:  # digits of other scripts, which float would take
            raise ValueError
        scale = float(text)
    except ValueError:
        if not re.match(r"[a-z]", text):
            raise BenchError(f"the guidance '{text}' is not served; {_ASK}, behind --guidance") from None
        name, given = split_call(text)
        if name not in LAWS.names():
            raise unknown("guidance", name, LAWS.entries, _ASK) from None
        if name == "none" and given:
            raise BenchError(f"'{text}' scales what is switched off; {_ASK}") from None
        values = bind_options(name, LAWS.get(name).options, given, _ASK)
        scale, count = values.pop("scale"), values.pop("count")
        return Guidance(law=name, scale=scale, count=count, options=tuple(values.items()))
    return NO_GUIDANCE if scale == 1 else Guidance(law="linear", scale=scale)
