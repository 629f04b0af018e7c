"""Scores: samples that were made elsewhere, in rows and columns, with the sentences that a run's quality has.

Knows what `runs/score.py` returns, as plain values. Refuses to compute a metric: an interval is made of the values with
groups of samples left out, as for a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orderbench.reports.results import METRICS, SMALL_N, figures_of, is_inception
from orderbench.reports.statistics import Interval
from orderbench.reports.words import ARROWS, distance_words, plus_minus, share_words

_LOW, _HIGH = ARROWS["low"], ARROWS["high"]
_HEADS = {"fd": f"FD {_LOW}", "kd": f"KD {_LOW}", "precision": f"precision {_HIGH}", "recall": f"recall {_HIGH}",
          "inception_score": f"score {_HIGH}", "agreement": f"agreement {_HIGH}"}  # fmt: skip


def scores_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """The table and its notes as plain values: intervals as value, low, high (null where there is none)."""
    return {
        "spaces": found["spaces"],
        "samples": [
            {
                **{key: value for key, value in one.items() if key != "quality"},
                "quality": [{"space": result["space"], "figures": _plain(result)} for result in one["quality"]],
            }
            for one in found["samples"]
        ],
        "real": [{"space": one["space"], "n": one["n"], "figures": _plain(one)} for one in found["real"]],
        "notes": list(score_notes(found)),
    }


def scores(found: Mapping[str, Any], width: int) -> RenderableType:
    """A table for every space, and what the figures rest on, for so many columns; where they are few, precision, recall
    and inception score are left out."""
    heads = _HEADS if width >= 110 else {metric: _HEADS[metric] for metric in ("fd", "kd", "agreement")}
    parts: list[RenderableType] = []
    for number, about in enumerate(found["spaces"]):
        title = f"Quality in the space {about['space']}"
        table = Table(
            box=None, pad_edge=False, header_style="bold", title=Text(title, style="bold"), title_justify="left"
        )
        table.add_column(Text("samples"), overflow="fold", min_width=16, style="cyan")
        for head in ("n", *heads.values()):
            table.add_column(Text(head), justify="right", no_wrap=True)
        rows = [(one["name"], one["quality"][number]) for one in found["samples"]]
        rows += [("(real)", one) for one in found["real"] if one["space"] == about["space"]]
        for name, result in rows:
            figures = figures_of(result)
            cells = [name, str(result["n"]), *(_cell(metric, figures) for metric in heads)]
            table.add_row(*map(Text, cells))
        parts += [table, Text()]
    return Group(*parts, *(Text(note, style="dim") for note in score_notes(found)))


def score_notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What the figures rest on, a sentence each."""
    sizes = sorted({one["n"] for one in found["samples"]})
    for number, about in enumerate(found["spaces"]):
        fid = distance_words(is_inception(about["space"], about["dimensions"]))
        yield (
            f"FD and KD: in the space {about['space']} against {about['reference']}; n = "
            f"{', '.join(map(str, sizes))}. {fid[0].upper()}{fid[1:]}."
        )
        if sizes[0] < SMALL_N * about["dimensions"]:
            yield (
                f"n = {sizes[0]} is small for {about['dimensions']} dimensions: FD is biased upwards, equally small n "
                f"are comparable only as a first look; read KD."
            )
        unread = [
            one["name"] for one in found["samples"] if one["labelled"] and not one["quality"][number]["agreement"]
        ]
        if unread:
            whose = ", ".join(unread)
            yield f"No agreement: the labels of {whose} are not of the classes that {about['space']} knows."
    if len(sizes) > 1:
        yield "The sets are of different sizes, and FD falls with n: compare sets of equal n."
    unlabelled = [one["name"] for one in found["samples"] if not one["labelled"]]
    if unlabelled:
        yield (
            f"No agreement: nothing says for which classes {', '.join(unlabelled)} were made; arr_1 in an .npz would, "
            f"or a folder for each class."
        )
    for one in found["samples"]:
        if one["rule"]:
            yield f"{one['name']}: {one['rule']}."
    for one in found["real"]:
        if one["n"] not in sizes:
            yield f"(real): n = {one['n']}."


def _cell(metric: str, figures: Mapping[str, Interval]) -> str:
    words = share_words if metric == "agreement" else plus_minus
    return words(figures.get(metric))


def _plain(result: Any) -> dict[str, Any]:
    figures = figures_of(result)
    return {name: figures[name].plain() for name in (*METRICS, "fd_extrapolated") if name in figures}
