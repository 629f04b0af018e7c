"""Maps of plans: which step decodes each cell, as a picture or, step by step, as an animation.

Knows matplotlib and plans. Refuses to know models and records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orderbench.orders import BenchError, Lattice, Plan, files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "gif")
MOST_FRAMES = 64  # of an animation: beyond, several steps share a frame
FRAME_S = 0.2
HOLD_S = 1.6  # the finished map, before the animation starts over


def check_target(path: Path) -> str:
    """The kind of picture that a path names; BenchError for another ending, no such folder, or no plain file there."""
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise BenchError(f"'{path}' does not end in .png, .svg or .gif; name a file such as map.png")
    if not path.parent.is_dir():
        raise BenchError(f"there is no folder '{path.parent}' to write '{path.name}' in; make it, or name another")
    try:
        files.check_target(path)
    except OSError as problem:
        raise BenchError(f"'{path}' could not be written: {problem.strerror}; name another place") from problem
    return kind


def levels_beside(lattice: Lattice, values_L: npt.NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
    """Values by cell index as one rectangle to draw: the levels from left to right, a masked column between two.

    >>> from orderbench.orders import parse_lattice
    >>> levels_beside(parse_lattice("1/2"), np.arange(5)).filled(-1).tolist()
    [[0, -1, 1, 2], [-1, -1, 3, 4]]
    """
    parts = lattice.split(values_L)
    cols = sum(part.shape[1] for part in parts) + len(parts) - 1
    shape = max(len(part) for part in parts), cols
    drawn: np.ma.MaskedArray[Any, Any] = np.ma.MaskedArray(np.zeros(shape, values_L.dtype), np.ones(shape, bool))
    first = 0
    for part in parts:
        rows, cols = part.shape
        drawn[:rows, first : first + cols] = part
        first += cols + 1
    return drawn


def save_map(path: Path, plans: Sequence[tuple[str, Plan]]) -> Path:
    """Write the maps of named plans, side by side, to a .png, .svg or .gif (animated) file.

    Raises BenchError for another ending and where the file cannot be written.
    """
    kind = check_target(path)
    import matplotlib as mpl

    style = resources.files("orderbench.reports") / "house.mplstyle"
    with resources.as_file(style) as file, mpl.rc_context(fname=file):
        figure, images = _figure(plans)

        def write(temporary: Path) -> None:
            if kind == "gif":
                _animate(temporary, figure, images, [plan for _, plan in plans])
            else:
                metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}  # the same plan, the same bytes
                figure.savefig(temporary, format=kind, metadata=metadata)

        files.write_whole(
            path,
            write,
            error=lambda reason: BenchError(f"'{path}' could not be written: {reason}; name another place"),
        )
    return path


def _figure(plans: Sequence[tuple[str, Plan]]) -> tuple[Figure, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(len(plans), 4)
    down = math.ceil(len(plans) / across)
    shapes = [levels_beside(plan.lattice, plan.step_of_cell()).shape for _, plan in plans]
    height = max(2.3 * min(1.0, rows / max(rows, cols)) for rows, cols in shapes)
    figure = Figure(figsize=(2.5 * across, (height + 0.6) * down), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot: whatever backend the caller uses stays theirs
    axes_grid = figure.subplots(down, across, squeeze=False)
    images = []
    for axes, (name, plan) in zip(axes_grid.flat, plans, strict=False):
        images.append(_draw(axes, name, plan))
    for axes in axes_grid.flat[len(plans) :]:
        axes.set_axis_off()
    return figure, images


def _draw(axes: Axes, name: str, plan: Plan) -> Any:
    step_RC = levels_beside(plan.lattice, plan.step_of_cell())
    image = axes.imshow(step_RC, cmap="viridis", vmin=0, vmax=max(1, plan.n_steps - 1), interpolation="nearest")
    note = ", sample 0" if plan.per_sample else ""
    axes.set_title(
        f"{name}\n{plan.n_steps} step{'s' * (plan.n_steps != 1)} on {plan.lattice}{note}", fontweight="normal"
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=len(plan.lattice.levels) == 1, linewidth=0.5, color="0.6")
    points = 2.3 * 72 / max(step_RC.shape)  # of one cell
    digits = len(str(plan.n_steps - 1))
    if points >= 6 and points / digits >= 3.6:
        for row, col in np.argwhere(~np.ma.getmaskarray(step_RC)).tolist():
            step = int(step_RC[row, col])
            dark = step < 0.6 * (plan.n_steps - 1)
            axes.text(
                col, row, str(step), ha="center", va="center", color="white" if dark else "black",
                fontsize=min(9.0, points / digits * 1.1, points * 0.62),
            )  # fmt: skip
    return image


def _animate(path: Path, figure: Figure, images: list[Any], plans: list[Plan]) -> None:
    from matplotlib.animation import FuncAnimation, PillowWriter

    longest = max(plan.n_steps for plan in plans)
    shown = sorted({round(step) for step in np.linspace(0, longest, min(longest, MOST_FRAMES) + 1)})
    frames = shown + [longest] * round(HOLD_S / FRAME_S)
    steps = [levels_beside(plan.lattice, plan.step_of_cell()) for plan in plans]
    for axes in figure.axes:
        for label in list(axes.texts):
            label.remove()

    def reveal(decoded: int) -> list[Any]:
        for image, step_RC in zip(images, steps, strict=True):
            image.set_data(np.ma.masked_where(step_RC >= decoded, step_RC))
        return images

    FuncAnimation(figure, reveal, frames=frames, blit=False).save(
        path, writer=PillowWriter(fps=round(1 / FRAME_S)), dpi=90
    )
