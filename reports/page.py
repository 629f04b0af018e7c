"""The report: figures, tables and one self-contained page, a pure function of the records of one run or several.

Knows where figures and tables go and how the page is put together. Refuses to measure, to reach for a network, and to
trust what records hold: all of it is escaped, and the page forbids itself to load anything.

    OUT/report.html          the page: figures, tables, samples and animations inside
    OUT/figures/NAME.png     and .svg
    OUT/paper/               with paper: clean figures and their captions, as `paper` describes them
    OUT/tables/NAME.csv      and .md, .tex
    OUT/tables.json          all tables as one document
"""

from __future__ import annotations

import base64
import functools
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from orderbench.orders import BenchError, Lattice
from orderbench.orders.errors import printable
from orderbench.orders.files import check_folder, write_whole
from orderbench.reports.again import commands, typed
from orderbench.reports.canvas import ONE_COLUMN, Sheet, families, save_figure
from orderbench.reports.compare import judged_arm
from orderbench.reports.conditions import describe_device
from orderbench.reports.dark import PAPER, on_dark
from orderbench.reports.figures import PLOTS, Plot, mosaic
from orderbench.reports.headline import headline
from orderbench.reports.join import Part, join, run_names
from orderbench.reports.looks import Look, looks_of
from orderbench.reports.maps import levels_beside
from orderbench.reports.paper import COLUMNS as WIDTHS
from orderbench.reports.paper import write_paper
from orderbench.reports.queries import (
    class_words,
    latency_trials,
    lattice,
    pictures_of,
    plan_of,
    shown_seed,
    step_seconds,
    timed_apart,
)
from orderbench.reports.results import Results, Row, failures, n_seeds, results_of, too_small
from orderbench.reports.statistics import Interval
from orderbench.reports.table import WRITERS, Column, Table, to_json
from orderbench.reports.tables import quality_tables, tables_of
from orderbench.reports.terminal import sizes_line
from orderbench.reports.words import (
    APART,
    baseline_words,
    bounds,
    busy_words,
    count_words,
    floor_name,
    one_at_a_time,
    plus_minus_tiny,
    sampling_words,
    training_words,
)
from orderbench.runs.record import Run

SCHEMA = 1
SECTIONS = (  # of the page: its name, its title, its tables
    ("quality", "Quality", ("quality", "quality-tuned")),
    ("tradeoff", "Quality against speed", ()),
    ("speed", "Speed", ("speed",)),
    ("likelihood", "Likelihood and the parallel tax", ()),
    ("exact", "One cell at a time in fewer passes", ("exact",)),
    ("correction", "Correction", ("correction",)),
    ("memory", "Memory", ()),
)
MARKER_PATHS = {
    "o": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "s": "M2 2h8v8H2z",
    "^": "M6 1.2 11 10.5H1z",
    "D": "M6 .6 11.4 6 6 11.4.6 6z",
    "v": "M6 10.8 1 1.5h10z",
    "P": "M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z",
    "X": "M1 3.5 3.5 1 6 3.5 8.5 1 11 3.5 8.5 6 11 8.5 8.5 11 6 8.5 3.5 11 1 8.5 3.5 6z",
    "p": "M6 .8 11.2 4.6 9.2 10.8H2.8L.8 4.6z",
}
MOST_ANSWERS, MOST_CARDS = 8, 9  # of arms; more are folded
STRIP = 8  # samples under an order's map
SAMPLES, COLUMNS = 40, 10  # of an arm's sheet, and in one of its rows
LARGEST = 64  # pixels of a sample's side on the page

_DETAIL = {  # columns that a page shows when its reader asks, so that the others fit 1280 pixels; files have all
    "main": {"model"},
    "systems": {"model", "n", "kd_floor", "agreement_floor"},
    "quality": {"model", "trained", "guidance", "n", "seeds", "fd_extrapolated", "precision", "recall",
                "inception_score", "tax_bits", "predicted_tax_bits"},
    "quality-tuned": {"model", "trained", "n", "seeds", "fd_extrapolated", "precision", "recall", "inception_score"},
    "speed": {"model", "passes", "tokens", "iqr_ms", "min_ms", "rounds", "network_latency_ms"},
    "exact": {"model", "p50", "asked", "fed", "wasted_fed"},
    "correction": {"model", "query_ratio", "plain_fd"},
}  # fmt: skip
_ON_PHONES = {  # what a phone shows first beside the arm, the most important first: as many as 390 pixels hold
    "main": ("n_steps", "fd", "speedup_batch", "latency_ms", "bits_per_token", "kd", "images_per_s"),
    "systems": ("n_steps", "fd", "latency_ms", "fd_floor"),
    "quality": ("n_steps", "fd", "kd_difference", "bits_per_token", "kd", "agreement"),
    "quality-tuned": ("guidance", "fd", "kd_difference", "kd"),
    "speed": ("n_steps", "latency_ms", "speedup_batch", "images_per_s"),
    "exact": ("passes", "accepted", "differing"),
    "correction": ("fd", "fd_difference", "slower", "repaired"),
}
MOST_ON_PHONES = 4

Each = Callable[[Sequence[Any]], Iterable[Any]]


def write_report(runs: Sequence[Run], out: Path, *, paper: bool = False, font: str = "sans", each: Each = iter) -> Path:
    """Write the report of one run or several into a folder; the page.

    paper: also clean figures for a paper, with captions beside them, in a font: 'serif', 'sans' or an installed family.
    each: walks the pieces of work, for those who show progress. What may not be joined gets a part of its own, with the
    reason. Raises BenchError where nothing was measured, where arrays of a run are missing, for a font that is not
    installed, and where the folder cannot be written.
    """
    if paper:
        families(font)
    return _Report(runs, out, font if paper else None).write(each)


def tables_json(runs: Sequence[Run]) -> dict[str, Any]:
    """All tables of one run or several as one plain value; nothing is written."""
    return _document([(part, results_of(part.run)) for part in join(runs)])


@dataclass
class _Piece:
    """One figure of one part, in one feature space."""

    plot: Plot
    results: Results
    name: str
    number: int


class _Report:
    """A report while it is made: its parts, the looks of their orders, and the figures drawn so far."""

    def __init__(self, runs: Sequence[Run], out: Path, font: str | None) -> None:
        self.runs, self.out, self.font = runs, out, font
        self.parts = [(part, results_of(part.run)) for part in join(runs)]
        self.looks = looks_of([results for _, results in self.parts])
        self.svgs: dict[str, str] = {}
        self.tables = [list(self._tables(number)) for number in range(len(self.parts))]

    def write(self, each: Each) -> Path:
        pieces = [
            _Piece(plot, results, self._name(number, plot.name, results, part), number)
            for number, (part, _) in enumerate(self.parts)
            for results in self._spaces(number)
            for plot in PLOTS
            if results is self.parts[number][1] or plot.section == "quality"
        ]
        try:
            inner = ("figures", "tables", *([] if self.font is None else ["paper"]))
            check_folder(self.out, *inner)
            for folder in inner:
                (self.out / folder).mkdir(parents=True, exist_ok=True)
            for piece in each(pieces):
                self._draw(piece)
            for number, (part, _) in enumerate(self.parts):
                for table, results in self.tables[number]:
                    for kind, writer in WRITERS.items():
                        name = self._name(number, table.name, results, part)
                        _text(self.out / "tables" / f"{name}.{kind}", writer(table))
            document = json.dumps(_document(self.parts), indent=1, allow_nan=False) + "\n"
            _text(self.out / "tables.json", document)
            _text(self.out / "report.html", self._page(pieces))
        except OSError as problem:
            raise BenchError(
                f"the report could not be written to '{self.out}': {problem.strerror or problem}; name another place, "
                f"as in --out my-report"
            ) from problem
        return self.out / "report.html"

    def _spaces(self, number: int) -> Iterator[Results]:
        part, results = self.parts[number]
        yield results
        for entry in part.run.about["spaces"][1:]:
            yield results_of(part.run, entry["space"])

    def _tables(self, number: int) -> Iterator[tuple[Table, Results]]:
        for results in self._spaces(number):
            first = results is self.parts[number][1]
            for table in tables_of(results) if first else quality_tables(results):
                yield table, results

    def _name(self, number: int, name: str, results: Results, part: Part) -> str:
        """A file's name: with its part, if there are several, and its space, if it is not the first."""
        spaces = [entry["space"] for entry in part.run.about["spaces"]]
        space = f"-{results.space}" if results.space in spaces[1:] else ""
        before = f"part{number + 1}-" if len(self.parts) > 1 else ""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{before}{name}{space}")

    def _draw(self, piece: _Piece) -> None:
        folder = self.out / "figures"
        drawn = piece.plot.draw(piece.results, Sheet(ONE_COLUMN, self.looks))
        if drawn is None:
            return
        for kind in ("png", "svg"):
            write_whole(folder / f"{piece.name}.{kind}", functools.partial(save_figure, drawn))
        self.svgs[piece.name] = (folder / f"{piece.name}.svg").read_text(encoding="utf-8")
        if self.font is not None:
            sheets = {name: Sheet(wide, self.looks, self.font, clean=True) for name, wide in WIDTHS.items()}
            clean = {name: piece.plot.draw(piece.results, sheet) for name, sheet in sheets.items()}
            figures = {name: figure for name, figure in clean.items() if figure is not None}
            write_paper(self.out / "paper", piece.name, figures, piece.plot.caption)

    # The page

    def _page(self, pieces: Sequence[_Piece]) -> str:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            loader=PackageLoader("orderbench.reports", "."), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        looks = [{"number": look.number, "name": order, "look": look} for order, look in self.looks.items()]
        parts = [self._part(number, pieces) for number in range(len(self.parts))]
        used = {look.color for look in self.looks.values()} | {
            color for svg in self.svgs.values() for color in _PAINT.findall(svg)
        }
        arms = [card["motion"] for part in parts for card in part["cards"] if card["motion"] is not None]
        page = environment.get_template("page.html").render(
            orders=_orders(self.parts),
            models=list(dict.fromkeys(model for part, _ in self.parts for model in _models(part))),
            several=any(len(results.models) > 1 for _, results in self.parts),
            version=metadata.version("orderbench"),
            looks=looks,
            colors=[(color_name(color), color, on_dark(color)) for color in sorted(used)],
            paper=PAPER,
            breakable=_breakable,
            most_answers=MOST_ANSWERS,
            most_cards=MOST_CARDS,
            marker=lambda look, hollow=False: Markup(_marker(look, hollow)),  # noqa: S704 (our own paths and colours)
            parts=parts,
            arms=arms,
            timed=any(arm["ms"] for arm in arms),
            command=typed(["bench", "report", *run_names(self.runs)]),
        )
        return printable(page)  # whatever records hold, a page has no control characters

    def _part(self, number: int, pieces: Sequence[_Piece]) -> dict[str, Any]:
        from markupsafe import Markup

        part, results = self.parts[number]
        answered = [row for row in results.arms if row.arm != row.baseline and row.setting == "fixed"]
        answered = [row for row in answered if row.speedup or "fd" in row.against] or [r for r in answered if r.against]
        own = [piece for piece in pieces if piece.number == number and piece.name in self.svgs]
        tables: dict[str, list[dict[str, Any]]] = {}
        for table, of in self.tables[number]:
            tables.setdefault(table.name, []).append(self._table(table, self._name(number, table.name, of, part)))
        sections: list[dict[str, Any]] = []
        for name, title, tabled in SECTIONS:
            figures = [
                {
                    "name": piece.name,
                    "caption": " ".join([*_axes_of(part, name), piece.plot.caption, *_doubts(results, name)]),
                    "space": piece.results.space if piece.results is not results else None,
                    # matplotlib escapes its texts; inline_svg takes all but drawing away
                    "svg": Markup(inline_svg(self.svgs[piece.name], f"{piece.name}-", self.looks)),  # noqa: S704
                }
                for piece in own
                if piece.plot.section == name
            ]
            shown = [table for key in tabled for table in tables.get(key, [])]
            if figures or shown:
                columns, alone = _arranged(figures)
                sections.append({"id": name, "title": title, "columns": columns, "alone": alone, "tables": shown})
        answers = [answer_of(results, row, self.looks) for row in answered]
        main, systems = (tables.get(name, [None])[0] for name in ("main", "systems"))
        cards = [
            self._card(f"p{number}a{place}", f"p{number}s{results.arms.index(row)}", results, row)
            for place, row in enumerate(row for row in results.arms if row.setting == "fixed")
        ]
        sheets = list(_sheets(f"p{number}s", results, self.looks))
        menu: list[tuple[str, str]] = [("main", "Main results")] if main else []
        menu += [("systems", "Systems")] if systems else []
        menu += [("against", "Arm by arm")] if answers else []
        menu += [("orders", "Orders")] if cards else []
        menu += [(section["id"], section["title"].partition(" and ")[0]) for section in sections]
        menu += [("samples", "Samples")] if sheets else []
        menu += [("where", "What and where")]
        return {
            "id": f"p{number}",
            "place": number + 1,
            "menu": [(f"p{number}-{name}", title) for name, title in menu],
            "headline": headline(results),
            "runs": part.runs,
            "notes": [*part.notes, *filter(None, [busy_words(results)])],
            "answers": answers,
            "against": baseline_words(results) + (", one cell at a time" if one_at_a_time(results) else ""),
            "repeated": results.repeated,
            "refused": [(arm, printable(sentence)) for arm, sentence in part.run.about["refused"].items()],
            "noise": [(batch, bounds(one)) for batch, one in sorted(results.noise.items())],
            "first_look": next((row.n for row in results.arms if too_small(results, row)), None),
            "main": main,
            "systems": systems,
            "sections": sections,
            "cards": cards,
            "sheets": sheets,
            "failed": failures(part.run),
            "unfinished": [
                name
                for name in part.run.about["trials"]
                if part.run.trials.get(name, {}).get("status") not in ("done", "failed")
            ],
            "facts": list(facts_of(results)),
            "mixtures": [
                {"model": name if len(part.run.about["models"]) > 1 else "", "rows": rows}
                for name, model in part.run.about["models"].items()
                if (rows := _mixture(model.get("objective")))
            ],
            "machines": [_machine(one) for one in part.run.about["environments"]],
            "again": _again(part, self.runs),
        }

    def _table(self, table: Table, name: str) -> dict[str, Any]:
        best = {column.key: table.places(column) for column in table.columns}
        kinds = _kinds(table)
        numbers = {look.number: order for order, look in self.looks.items()}
        order_number = {order: number for number, order in numbers.items()}
        rows = [
            {
                "order": order_number.get(row.order),
                "competes": row.competes,
                "cells": [
                    {
                        "text": _breakable(column.text(row.cells.get(column.key))),
                        "sort": sort_key(row.cells.get(column.key), column.key),
                        "kind": " ".join(
                            filter(
                                None, [kinds[column.key], {1: "p1", 2: "p2"}.get(best[column.key].get(place, 0), "")]
                            )
                        ),
                    }
                    for column in table.columns
                ],
            }
            for place, row in enumerate(table.rows)
        ]
        files = [(kind.upper(), f"{name}.{kind}", _data_uri("text/plain;charset=utf-8", writer(table).encode()))
                 for kind, writer in WRITERS.items()]  # fmt: skip
        return {"name": name, "title": table.title, "caption": table.caption, "rows": rows, "files": files,
                "heads": [{**_head(column), "kind": kinds[column.key]} for column in table.columns]}  # fmt: skip

    def _card(self, name: str, sheet: str, results: Results, row: Row) -> dict[str, Any]:
        """sheet: the id of all its samples further down."""
        plan = plan_of(row)
        look = self.looks[row.about["order"]]
        motion, still = None, None
        if plan is not None:
            steps_L = plan.step_of_cell()
            step_RC = levels_beside(plan.lattice, steps_L)
            seconds = step_seconds(results).get(row.arm)
            ms = [] if seconds is None or len(seconds) != plan.n_steps else (1000 * seconds).round(3).tolist()
            motion = {"id": name, "rows": len(step_RC), "cols": step_RC.shape[1], "n": plan.n_steps,
                      "steps": steps_L.tolist(), "ms": ms}  # fmt: skip
            if len(plan.lattice.levels) > 1:
                motion["places"] = place_of_cell(plan.lattice).tolist()
            still = _data_uri("image/png", _map_png(step_RC, plan.n_steps))
        predicted = row.predicted_tax
        return {
            "id": name,
            "look": look,
            "hollow": row.rewrites,
            "arm": row.arm,
            "n_steps": count_words(row.n_steps),
            "sizes": sizes_line(tuple(row.about["sizes"]), most=14),
            "training": training_words(row).replace(" of training", " of batches"),
            "never": row.trained == 0,
            "tax": _tax_words(row),
            "predicted": "none predicted" if predicted is None else f"{predicted:.3f} predicted" if predicted else None,
            "digest": (row.about["plan_digest"] or "")[:8],
            "per_sample": row.about["per_sample"],
            "grid": str(lattice(results, row) or ""),
            "motion": motion,
            "still": still,
            "adaptive": "chooses" in row.about["traits"],
            "strip": _picture(results, "quality", row.arm, "fixed", STRIP, STRIP, sheet),
        }


def _document(parts: Sequence[tuple[Part, Results]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "orderbench tables",
        "parts": [
            {
                "runs": list(part.runs),
                "notes": list(part.notes),
                "space": results.space,
                "baseline": results.baseline,
                "tables": [to_json(table) for table in tables_of(results)],
            }
            for part, results in parts
        ],
    }


def _arranged(figures: Sequence[dict[str, Any]]) -> tuple[list[list[dict[str, Any]]], dict[str, Any] | None]:
    """Figures in two columns, each where there is more room; and the last one, if it would leave half a row empty: it
    gets a row of its own, its caption beside it."""

    def tall(figure: dict[str, Any]) -> float:
        """The height of a figure with its caption, in widths."""
        found = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', figure["svg"])
        width, height = (float(found[1]), float(found[2])) if found else (1.0, 1.0)
        return height / width + 0.15 + 0.05 * len(figure["caption"]) / 60

    def height(column: Sequence[dict[str, Any]]) -> float:
        return sum(map(tall, column))

    columns: list[list[dict[str, Any]]] = [[], []]
    for figure in figures:
        min(columns, key=height).append(figure)
    shorter, longer = sorted(columns, key=height)
    alone = None
    if longer and longer[-1] is figures[-1] and height(longer) - height(shorter) > 0.75 * tall(longer[-1]):
        alone = longer.pop()
    return [column for column in columns if column], alone


_PAINT = re.compile(r"(?<=(?:fill|roke): )#[0-9a-f]{6}\b")  # of fill and stroke, in the styles that matplotlib writes


def color_name(color: str) -> str:
    """What the page calls a colour, as in 'c-0072b2' for '#0072b2'."""
    return f"c-{color.lstrip('#').lower()}"


def inline_svg(svg: str, prefix: str, looks: Mapping[str, Look]) -> str:
    """A matplotlib SVG file as part of a page: no prolog, metadata or styles, ids of its own, as wide as its place.

    What belongs to an order, which figures mark with the id `order:SPELLING`, gets the class oN of its place on the
    page instead; the Pareto front and its name get the classes `front` and `front-label`.
    """

    def of_order(found: re.Match[str]) -> str:
        look = looks.get(html.unescape(found[1]))
        return "" if look is None else f'class="o{look.number}"'

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.S)
    body = re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', body, count=1)

    def without_names(found: re.Match[str]) -> str:
        front = json.loads(html.unescape(found[1]))
        points = [{"order": looks[point["order"]].number, "x": point["x"], "y": point["y"]}
                  for point in front["points"] if point["order"] in looks]  # fmt: skip
        return f'data-front="{html.escape(json.dumps({**front, "points": points}))}"'

    body = re.sub(r'\bid="order:([^"]*)"', of_order, body)
    body = re.sub(r'\bdata-front="([^"]*)"', without_names, body)
    body = _PAINT.sub(lambda found: f"var(--{color_name(found[0])})", body)
    body = re.sub(r'\bid="(front|front-label)"', r'class="\1"', body)
    prefix = re.sub(r"[^A-Za-z0-9-]", "-", prefix)
    body = re.sub(r'\bid="', f'id="{prefix}', body)
    body = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\1{prefix}", body)
    return body.replace("xlink:href=", "href=")


def _marker(look: Look, hollow: bool) -> str:
    """An order's mark, as on the figures."""
    color = f"var(--{color_name(look.color)})"
    paint = f"fill: var(--paper); stroke: {color}; stroke-width: 1.6" if hollow else f"fill: {color}"
    path = f'<path d="{MARKER_PATHS[look.marker]}" style="{paint}"/>'
    return f'<svg class="mark" viewBox="0 0 12 12" aria-hidden="true">{path}</svg>'


def _orders(parts: Sequence[tuple[Part, Results]]) -> str:
    """The orders that a page compares."""
    orders = list(dict.fromkeys(row.about["order"] for _, results in parts for row in results.arms))
    return ", ".join(orders[:6]) + (f" and {len(orders) - 6} more" if len(orders) > 6 else "")


def answer_of(results: Results, row: Row, looks: Mapping[str, Look]) -> dict[str, Any]:
    """What an arm buys, against the baseline, in a few lines."""
    lines = []
    small = too_small(results, row)
    for metric, name in (("fd", "FD"), *([("kd", "KD")] if small else []), ("bits", "bits/token")):
        one = row.against.get(metric)
        if one is not None:
            verdict, why = judged_arm(results, row, metric)
            lines.append({"name": name, "text": _signed(one), "verdict": f"{verdict}: {why}" if why else verdict})
    speeds = []
    for batch, ratio in sorted(row.speedup.items()):
        noise = results.noise.get(batch)
        lost = noise is not None and None not in (noise.low, noise.high, ratio.low, ratio.high) and (
            ratio.low <= noise.high and ratio.high >= noise.low  # type: ignore[operator] # no None in there
        )  # fmt: skip
        speeds.append({
            "value": f"{ratio.value:.{1 if ratio.value < 100 else 0}f}",
            "bounds": "" if ratio.low is None else f"{ratio.low:.1f} to {ratio.high:.1f}",
            "where": "one image" if batch == 1 else f"batch {batch}",
            "noise": lost,
        })  # fmt: skip
    return {
        "look": looks[row.about["order"]],
        "hollow": row.rewrites,
        "arm": row.arm,
        "n_steps": count_words(row.n_steps),
        "training": training_words(row),
        "never": row.trained == 0,
        "speeds": speeds,
        "lines": lines,
    }


def _signed(one: Interval) -> str:
    text = bounds(one)
    return text if one.value < 0 else f"+{text}"


def _tax_words(row: Row) -> str | None:
    """The measured parallel tax of an arm; None where it was not measured."""
    measured = row.figures.get("tax")
    if measured is None:
        return None
    one_by_one = row.about["n_steps"] == sum(row.about["sizes"])
    return "none: one cell a step" if one_by_one else f"{plus_minus_tiny(measured)} bits"


def _breakable(text: str) -> Any:
    """A cell that a narrow column breaks before the pace, the decoder or the model of an arm, and never within an
    interval."""
    from markupsafe import Markup, escape

    whole = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=.)(?=[@+~])", whole))


def _head(column: Column) -> dict[str, Any]:
    """A column's head, which a narrow column breaks behind a stroke, and its better end."""
    from markupsafe import Markup, escape

    words = {"low": ("lower is better", "\N{DOWNWARDS ARROW}"), "high": ("higher is better", "\N{UPWARDS ARROW}")}
    better, way = words.get(column.better, ("", ""))
    text = Markup("/<wbr>").join(escape(part) for part in column.head.split("/"))
    return {"text": text, "better": better, "way": way}


def _kinds(table: Table) -> dict[str, str]:
    """By column, when it is shown: always, not on phones (`late`), or only to those who ask (`extra`)."""
    keys = [column.key for column in table.columns]
    wanted = _ON_PHONES.get(table.name, tuple(keys[1:]))
    found = [next((key for key in keys if key.startswith(want)), None) if want == "speedup_batch" else want
             for want in wanted]  # fmt: skip
    first = {keys[0], *[key for key in found if key in keys][:MOST_ON_PHONES]}
    extra = _DETAIL.get(table.name, set())
    return {key: "" if key in first else "extra" if key in extra else "late" for key in keys}


def sort_key(cell: Any, column: str = "") -> str:
    if cell is None:
        return ""
    if column == "trained":
        return "0" if cell == "never" else cell.split()[0]
    value = cell.value if isinstance(cell, Interval) else cell
    return f"{value:.9g}" if isinstance(value, int | float) else str(value)


def _sheets(name: str, results: Results, looks: Mapping[str, Look]) -> Iterator[dict[str, Any]]:
    """All samples of a part; name: how their ids begin."""
    for place, row in enumerate(results.arms):
        sheet = f"{name}{place}"
        picture = _picture(results, "quality", row.arm, row.setting, SAMPLES, COLUMNS, sheet, sheet)
        if picture is not None:
            tuned = "" if row.setting == "fixed" else f", at its best: {sampling_words(row.sampling, whole=True)}"
            yield {"name": row.arm + tuned, "order": looks[row.about["order"]].number, "picture": picture}
    for place, floor in enumerate(results.floors):
        sheet = f"{name}f{place}"
        picture = _picture(results, "floor", floor.name, "fixed", SAMPLES, COLUMNS, sheet, sheet)
        if picture is not None:
            yield {"name": floor_name(floor), "order": None, "picture": picture}


def _picture(results: Results, kind: str, arm: str, setting: str, most: int, columns: int, sheet: str,
             own: str = "") -> dict[str, Any] | None:  # fmt: skip
    """The first samples of an arm as one picture inside the page, and what they are; None if there are none.

    Large ones are made smaller, small ones are shown pixel by pixel. sheet: the id of the picture that has all of them;
    own: the id of this one.
    """
    from PIL import Image

    images_Nhwc = pictures_of(results, kind, arm, setting)
    if images_Nhwc is None:
        return None
    images_Nhwc = images_Nhwc[:most]
    picture = Image.fromarray(mosaic(images_Nhwc, columns))
    n, h, w, channels = images_Nhwc.shape
    if max(h, w) > LARGEST:
        size = (round(picture.width * LARGEST / max(h, w)), round(picture.height * LARGEST / max(h, w)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    (picture.convert("L") if channels == 1 else picture).save(content, format="PNG", optimize=True)
    seed = shown_seed(results, kind) if kind == "quality" else None
    return {"src": _data_uri("image/png", content.getvalue()), "width": picture.width, "height": picture.height,
            "pixels": max(h, w) < LARGEST, "id": own, "sheet": sheet, "columns": columns, "n": n, "w": w, "h": h,
            "seed": "" if seed is None else seed, "labels": class_words(results, kind, arm, setting)[:n]}  # fmt: skip


def place_of_cell(lattice: Lattice) -> np.ndarray:
    """(L,) int64: where every cell is in the picture of its lattice, as row * columns + column.

    >>> from orderbench.orders import parse_lattice
    >>> place_of_cell(parse_lattice("1/2")).tolist()
    [0, 2, 3, 6, 7]
    """
    cell_RC = levels_beside(lattice, np.arange(lattice.n_cells))
    place_L = np.empty(lattice.n_cells, np.int64)
    place_L[cell_RC.compressed()] = np.flatnonzero(~np.ma.getmaskarray(cell_RC))
    return place_L


def _map_png(step_RC: np.ma.MaskedArray[Any, Any], n_steps: int) -> bytes:
    """A plan, a pixel a cell, in the colours of the animation."""
    from PIL import Image

    from orderbench.reports.terminal import step_color

    colors = np.array([step_color(step, n_steps) for step in range(n_steps)], np.uint8)
    picture = Image.fromarray(colors[np.ma.filled(step_RC, 0)])
    if np.ma.is_masked(step_RC):
        picture.putalpha(Image.fromarray(np.where(np.ma.getmaskarray(step_RC), 0, 255).astype(np.uint8)))
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _axes_of(part: Part, section: str) -> Iterator[str]:
    """Of figures that hold quality against speed, which runs each comes from."""
    if section == "tradeoff" and len(part.runs) == 1:
        yield "Both axes come from one run."
    elif section == "tradeoff":
        samples, timings = (" and ".join(name for one, name in part.has if one == kind)
                            for kind in ("samples", "timings"))  # fmt: skip
        yield f"Samples come from {samples}, times from {timings}."


def _doubts(results: Results, section: str) -> Iterator[str]:
    """What makes the times of a figure doubtful."""
    if section in ("speed", "tradeoff") and busy_words(results):
        yield f"{busy_words(results)}."
    if section == "tradeoff" and any(timed_apart(results, batch) for batch in latency_trials(results)):
        yield f"{APART[0].upper()}{APART[1:]}."


def _models(part: Part) -> Iterator[str]:
    for model in part.run.about["models"].values():
        yield f"{model['name']}, {model['lattice']} cells"


def facts_of(results: Results) -> Iterator[tuple[str, str]]:
    """What was measured on what, a line each; of several models, each by its name in the run."""
    about = results.run.about
    several = len(about["models"]) > 1
    for name, model in about["models"].items():
        of = f" {name}" if several else ""
        size = f", {model['parameters']:,} parameters" if model.get("parameters") else ""
        codes = " x ".join(map(str, model["code_sizes"]))
        yield f"model{of}", f"{model['name']}{size}, {model['lattice']} cells, {codes} codes"
        if model.get("sha256"):
            yield f"weights{of}", f"SHA-256 {model['sha256']}"
        if model.get("steps_done"):
            yield f"training{of}", f"{model['steps_done']:,} steps on {model.get('data')}"
        tokenizer = model.get("tokenizer")
        if tokenizer is not None:
            yield f"tokenizer{of}", f"{tokenizer['name']}, SHA-256 {tokenizer.get('sha256')}"
    for entry in about["spaces"]:
        yield "feature space", f"{entry['space']}, {entry['dimensions']} dimensions, against {entry['reference']}"
    settings = {name: sampling_words(model["setting"], whole=True) for name, model in about["models"].items()}
    for name, words in settings.items() if len(set(settings.values())) > 1 else [("", next(iter(settings.values())))]:
        yield f"sampling {name}".strip(), f"{words}, weights {about['config'].get('dtype', '')}"
    counts = sorted({row.n for row in results.arms if row.n is not None})
    if counts:
        seeds = n_seeds(results.arms)
        yield "samples", f"n = {', '.join(map(str, counts))} an arm and seed, {seeds} seed{'s' * (seeds != '1')}"
    for trial in results.run.done("latency"):
        yield f"timing, batch {trial['batch']}", f"{len(trial['rounds'])} rounds on {describe_device(trial['device'])}"


def _mixture(objective: Any) -> list[dict[str, str]]:
    if not isinstance(objective, Mapping):
        return []
    return [
        {"order": str(part["order"]), "share": f"{100 * part['share']:.0f} %", "paces": _folded(part["paces"])}
        for part in objective.get("mixture", [])
    ]


def _folded(paces: Sequence[str]) -> str:
    unique = list(dict.fromkeys(paces))
    return ", ".join(f"{pace} (x{paces.count(pace)})" if paces.count(pace) > 1 else pace for pace in unique)


def _machine(environment: Mapping[str, Any]) -> dict[str, str]:
    versions, git = environment.get("versions") or {}, environment.get("git") or {}
    load = environment.get("load_average")
    commit = f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else "not known"
    return {
        "at": str(environment.get("at", "")),
        "machine": describe_device(environment),
        "platform": str(environment.get("platform", "")),
        "load": "" if not load else f"load {load[0]:.1f}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "python": str(environment.get("python", "")),
        "commit": commit,
    }


def _again(part: Part, runs: Sequence[Run]) -> dict[str, list[str]]:
    """The commands that make the records of this part again, and what is withheld."""
    named = dict(zip(run_names(runs), runs, strict=True))
    found = [commands(name, named[name].about) for name in part.runs]
    return {"commands": [line for lines, _ in found for line in lines], "withheld": [why for _, why in found if why]}


def _text(file: Path, text: str) -> None:
    write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
