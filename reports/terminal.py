"""Plans in a terminal: the step of every cell, in colour.

Knows rich and plans. Refuses to know where the text goes: it returns renderables, plain where there is no colour.
"""

from __future__ import annotations

import numpy as np
from rich.style import Style
from rich.text import Text

from orderbench.orders import Plan

# Anchors of matplotlib's viridis, which reads the same to all eyes; the module itself takes too long to import here.
_VIRIDIS = np.array(
    [
        [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
        [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
    ]
)  # fmt: skip


_DARKNESS = "@%#*+=-:."  # first to last step


def step_color(step: int, n_steps: int) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a step: dark first, bright last."""
    place = step / max(1, n_steps - 1) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    mixed = _VIRIDIS[low] + (place - low) * (_VIRIDIS[low + 1] - _VIRIDIS[low])
    red, green, blue = mixed.round().astype(int).tolist()
    return red, green, blue


def step_map(plan: Plan, *, width: int, plain: bool = False, sample: int = 0) -> Text:
    """The lattice, a line a row; each cell its step, counted from 0, on the step's colour. Levels of a pyramid follow
    each other, an empty line between two.

    Where a row of numbers is wider than `width` characters, cells are blocks of colour, two wide or one; without
    colour (`plain`), of darkness.
    """
    levels = plan.lattice.split(plan.step_of_cell(sample))
    digits, cols = len(str(plan.n_steps - 1)), max(step_RC.shape[1] for step_RC in levels)
    cell_width = next((w for w in (digits + 1, 2) if w * cols <= width), 1)
    numbered = cell_width > digits
    text = Text()
    rows: list[list[int]] = []
    for step_RC in levels:
        rows += [*([[]] if rows else []), *step_RC.tolist()]
    for row in rows:
        for step in row:
            red, green, blue = step_color(step, plan.n_steps)
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"
            darkness = _DARKNESS[step * len(_DARKNESS) // plan.n_steps] if plain else " "
            label = f"{step:>{digits}d} " if numbered else darkness * cell_width
            text.append(label, Style(color=ink, bgcolor=f"#{red:02x}{green:02x}{blue:02x}"))
        text.append("\n")
    return text


def sizes_line(sizes: tuple[int, ...], most: int = 40) -> str:
    """The step sizes, runs folded, long lists cut in the middle.

    >>> sizes_line((1, 1, 1, 4, 8, 8))
    '1 x3, 4, 8 x2'
    """
    runs: list[list[int]] = []
    for size in sizes:
        if runs and runs[-1][0] == size:
            runs[-1][1] += 1
        else:
            runs.append([size, 1])
    words = [f"{size} x{count}" if count > 1 else str(size) for size, count in runs]
    if len(words) > most:
        words = [*words[: most // 2], f"... ({len(words) - most} more) ...", *words[-most // 2 :]]
    return ", ".join(words)
