"""Dark paper: what becomes of a figure's colours where the page is dark.

Knows one rule, in Oklab (bottosson.github.io/posts/oklab, 2020), where equal lightness looks equally light. White
becomes the dark paper, and greys change ends with it, so that ink becomes light and a faint grid stays faint. A colour
keeps its hue, and is made as light as it must be to be seen. Refuses to know whose colour it is: a plugin's order is
treated like ours.
"""

from __future__ import annotations

import numpy as np

PAPER = "#1b1f24"  # what white becomes: the ground of cards, tables and figures on the dark page
INK, LIGHT_INK = 0.27, 0.93  # the lightness of text on white, and what it becomes on dark paper
GREY = 0.035  # chroma below which a colour is a grey
SEEN = 0.72  # the least lightness of a colour on dark paper: a contrast of at least 4.5

_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def linear(color: str) -> np.ndarray:
    """(3,) float: the light of '#rrggbb', each in [0, 1].

    >>> linear("#ff0000").tolist()
    [1.0, 0.0, 0.0]
    """
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    light: np.ndarray = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light


def on_dark(color: str) -> str:
    """The colour '#rrggbb' that takes another's place on dark paper.

    >>> on_dark("#ffffff") == PAPER
    True
    """
    lightness, a, b = _oklab(color)
    if np.hypot(a, b) < GREY:
        paper, *tint = _oklab(PAPER)
        share = min((1 - lightness) / (1 - INK), 1.0)  # of the way from paper to ink
        return _hex(paper + share * (LIGHT_INK - paper), *((1 - share) * np.array(tint)))
    return _hex(max(lightness, SEEN), a, b)


def contrast(one: str, two: str) -> float:
    """How well one colour is seen on another, from 1 to 21, as WCAG 2 has it."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, two))
    return (high + 0.05) / (low + 0.05)


def _oklab(color: str) -> np.ndarray:
    lab: np.ndarray = _TO_LAB @ np.cbrt(_TO_LMS @ linear(color))
    return lab


def _hex(lightness: float, a: float, b: float) -> str:
    light = np.clip(np.linalg.inv(_TO_LMS) @ (np.linalg.inv(_TO_LAB) @ [lightness, a, b]) ** 3, 0, 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in value)
