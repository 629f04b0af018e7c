"""Tables: what a run says in rows and columns.

Knows results and what readers look for. Refuses to compute a figure, and to show one without what it rests on: captions
name n, the feature space and the level of the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from orderbench.orders import Grid, parse_lattice
from orderbench.reports.compare import judged_arm, judged_speed
from orderbench.reports.results import (
    SHARES,
    Results,
    Row,
    extrapolates_from,
    floor_of,
    held_out_words,
    other_tokens,
    round_times,
    row_against,
    share_of,
    step_ratio,
    times_seeds,
)
from orderbench.reports.statistics import Interval, disjoint, paired_ratio
from orderbench.reports.table import TIMES, Cell, Column, Shown, Table, TableRow, number_of
from orderbench.reports.words import (
    baseline_words,
    bounds,
    busy_words,
    fid_words,
    floor_cell,
    one_at_a_time,
    other_tokens_words,
    plus_minus_tiny,
    settings_words,
    share_words,
    training,
)
from orderbench.runs.schema import QualityTrial


def tables_of(results: Results) -> tuple[Table, ...]:
    """The tables that the results have something for: main results, systems, quality (twice where settings were tuned),
    speed, exact decoding, correction."""
    made = (main_table(results), systems_table(results), *quality_tables(results), speed_table(results),
            exact_table(results), correction_table(results))  # fmt: skip
    return tuple(table for table in made if table is not None)


def _kept(columns: Sequence[Column], lines: Sequence[TableRow]) -> tuple[Column, ...]:
    """Columns that hold something."""
    return tuple(column for column in columns if any(line.cells.get(column.key) is not None for line in lines))


def _table(
    results: Results, name: str, title: str, caption: str, columns: Sequence[Column], lines: Sequence[TableRow],
    setting: str = "fixed",
) -> Table:  # fmt: skip
    """A table of what its columns hold, which awards no place that is not shown."""
    kept = _kept(columns, lines)
    awards = " Arrows: the better end. Bold: the best, underlined: the second, where the paired interval of its " \
             "difference from the next one holds no 0."  # fmt: skip
    caption += awards if any(column.better for column in kept) else ""
    return Table(name, title, caption, kept, tuple(lines), _shown_by(results, lines, setting))


_METRICS = {"fd": "fd", "kd": "kd", "agreement": "agreement", "bits_per_token": "bits"}


def _shown_by(results: Results, lines: Sequence[TableRow], setting: str) -> Shown:
    """Whether one arm is shown to be better than another, as `compare` judges it."""
    known: dict[tuple[str, str], Row] = {}

    def shown(key: str, one: int, two: int) -> bool:
        arm, other = lines[one].arm, lines[two].arm
        if (arm, other) not in known:
            known[arm, other] = row_against(results, results.row(arm, setting), other)
        row, batches = known[arm, other], _batches(results)
        if key in _METRICS:
            metric = _METRICS[key]
            return metric in row.against and judged_arm(results, row, metric)[0] == "better"
        ratio: Interval | None = None
        if key in ("latency_ms", "uncached_speedup"):
            ratio = row.speedup.get(1)
        elif key.startswith("speedup_batch_"):
            ratio = row.speedup.get(int(key.removeprefix("speedup_batch_")))
        elif key == "images_per_s":
            ratio = row.speedup.get(max((batch for batch in batches if batch != 1), default=1))
        elif key in ("network_latency_ms", "network_speedup"):
            batch = 1 if key == "network_latency_ms" else batches[0]
            ratio = _ratio(results, batch, other, arm, pixels=False)
        elif key in ("repaired", "damaged"):  # of the same codes, but not kept code by code
            a, b = (lines[number].cells[key] for number in (one, two))
            return isinstance(a, Interval) and isinstance(b, Interval) and disjoint(a, b)
        return ratio is not None and judged_speed(results, ratio)[0] == "better"

    return shown


def rests_on(results: Results, quality: bool = True, speed: bool = True, setting: str = "fixed") -> str:
    """What figures rest on, for a caption."""
    words = []
    rows = [row for row in results.arms if row.setting == setting]
    n = sorted({row.n for row in rows if row.n is not None})
    if quality and n:
        words.append(
            f"FD and KD in the space {results.space} against {results.reference} ({fid_words(results)}), "
            f"n = {', '.join(map(str, n))}{times_seeds(rows)} an arm"
        )
    held_out = sorted({trial["n"] for trial in results.run.done("likelihood")})
    if quality and held_out and setting == "fixed":
        words.append(f"bits per token on {', '.join(map(str, held_out))} {held_out_words(results)}")
    trials = results.run.done("latency")
    if speed and trials:
        rounds = sorted({len(trial["rounds"]) for trial in trials})
        words.append(f"times are medians of {', '.join(map(str, rounds))} rounds, pixel decoder included")
    words.append(settings_words(results) if setting == "fixed" else "every row names its setting")
    text = "; ".join(words)
    star = " * in training, but never in these steps." if any("*" in training(row) for row in rows) else ""
    busy = f" {busy_words(results)}." if speed and busy_words(results) else ""
    other = f" {other_tokens_words(results)}" if quality and setting == "fixed" and other_tokens_words(results) else ""
    return f"{text[0].upper()}{text[1:]}. Intervals have the level 0.95.{star}{other}{busy}"


def _fixed(results: Results) -> list[Row]:
    return [row for row in results.arms if row.setting == "fixed"]


def _head(row: Row) -> dict[str, Cell]:
    return {"arm": row.arm, "model": row.model, "n_steps": row.n_steps, "trained": training(row) or None}


def _arm_columns(results: Results) -> list[Column]:
    """The arm, and its model where there are several."""
    return [Column("arm", "arm"), *([Column("model", "model")] if len(results.models) > 1 else [])]


def _table_row(row: Row, cells: dict[str, Cell]) -> TableRow:
    return TableRow(row.arm, row.about["order"], cells)


def _ratios(results: Results, row: Row) -> dict[str, Cell]:
    one = Interval(1.0)
    return {
        f"speedup_batch_{batch}": one if row.arm == row.baseline and row.ratio else row.speedup.get(batch)
        for batch in _batches(results)
    }


def _batches(results: Results) -> list[int]:
    return sorted({trial["batch"] for trial in results.run.done("latency")})


def _throughput(results: Results, row: Row) -> dict[str, Cell]:
    """Images a second by column: `images_per_s` is at the largest batch."""
    *others, big = _large_batches(results)
    named = {big: "images_per_s", **{batch: f"images_per_s_batch_{batch}" for batch in others}}
    return {name: row.throughput.get(batch) for batch, name in named.items()}


def _large_batches(results: Results) -> list[int]:
    return [batch for batch in _batches(results) if batch != 1] or [1]


def _throughput_columns(results: Results) -> list[Column]:
    *others, big = _large_batches(results)
    return [
        *(Column(f"images_per_s_batch_{batch}", f"images/s, batch {batch}", "high") for batch in others),
        Column("images_per_s", f"images/s, batch {big}", "high"),
    ]


def _speed_columns(results: Results) -> list[Column]:
    if not _has_ratios(results):
        return []
    return [
        Column(f"speedup_batch_{batch}", f"{TIMES} {baseline_words(results)}, batch {batch}", "high", _times)
        for batch in _batches(results)
    ]


def _has_ratios(results: Results) -> bool:
    return any(row.ratio for row in results.arms)


def _times(interval: Interval | None) -> str:
    return "1" if interval is not None and (interval.value, interval.low) == (1.0, None) else bounds(interval)


def main_table(results: Results) -> Table | None:
    """What one looks for first: steps, quality, likelihood and speed of every arm."""
    lines = []
    for row in _fixed(results):
        latency = row.figures.get("latency_s")
        lines.append(
            _table_row(row, {
                **_head(row),
                "fd": row.figures.get("fd"), "kd": row.figures.get("kd"), "bits_per_token": row.figures.get("bits"),
                "latency_ms": None if latency is None else latency.scaled(1000),
                **_ratios(results, row),
                **_throughput(results, row),
            })
        )  # fmt: skip
    lines += _floors(results, "fd", "kd")
    columns = [
        *_arm_columns(results), Column("n_steps", "steps"), Column("trained", "trained"), Column("fd", "FD", "low"),
        Column("kd", "KD", "low"), Column("bits_per_token", "bits/token", "low"),
        Column("latency_ms", "latency (ms/image)", "low"), *_speed_columns(results), *_throughput_columns(results),
    ]  # fmt: skip
    caption = rests_on(results)
    if _has_ratios(results):
        one = " one cell at a time" if one_at_a_time(results) else ""
        caption += f" Speed-ups are over {baseline_words(results)}{one} with a cache."
    return _table(results, "main", "Main results", caption, columns, lines)


def systems_table(results: Results) -> Table | None:
    """Networks beside each other, each with what it costs and with the floor of its tokenizer; None for one network."""
    if len(results.models) < 2:
        return None
    models, others = results.run.about["models"], other_tokens(results)
    lines = []
    for row in _fixed(results):
        latency, floor, flops = (
            row.figures.get("latency_s"),
            floor_of(results, row),
            row.counters.get("flops_per_image"),
        )
        theirs = {} if floor is None else floor.figures
        bits = "bits_of_other_tokens" if row.model in others else "bits_per_token"
        lines.append(
            _table_row(row, {
                "arm": row.arm, "model": row.model, "n_steps": row.n_steps, "n": row.n,
                "fd": row.figures.get("fd"), "kd": row.figures.get("kd"), "agreement": row.figures.get("agreement"),
                bits: row.figures.get("bits"), "latency_ms": None if latency is None else latency.scaled(1000),
                **_ratios(results, row), **_throughput(results, row),
                "parameters": models[row.model].get("parameters"),
                "gflop_per_image": None if flops is None else flops / 1e9,
                "fd_floor": theirs.get("fd"), "kd_floor": theirs.get("kd"), "agreement_floor": theirs.get("agreement"),
            })
        )  # fmt: skip
    columns = [
        *_arm_columns(results), Column("n_steps", "steps"), Column("n", "n"), Column("fd", "FD", "low"),
        Column("kd", "KD", "low"), Column("agreement", "agreement", "high", share_words),
        Column("bits_per_token", "bits/token", "low"), Column("bits_of_other_tokens", "bits/token of other tokens"),
        Column("latency_ms", "latency (ms/image)", "low"), *_speed_columns(results), *_throughput_columns(results),
        Column("parameters", "parameters"), Column("gflop_per_image", "GFLOP/image", "low"),
        Column("fd_floor", "FD floor"), Column("kd_floor", "KD floor"),
        Column("agreement_floor", "agreement floor", "", share_words),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results)} Floors are of real images through the tokenizer of a row's network: no sample of it can "
        f"be expected to come closer."
    )
    return _table(results, "systems", "Systems", caption, columns, lines)


_RANKED: dict[str, Literal["low", "high"]] = {  # precision and the like crown noise where n is small
    "fd": "low", "fd_extrapolated": "low", "kd": "low", "agreement": "high",
}  # fmt: skip
_QUALITY = {"fd": "FD", "fd_extrapolated": "FD, n to infinity", "kd": "KD", "precision": "precision",
            "recall": "recall", "inception_score": "inception score", "agreement": "agreement"}  # fmt: skip


def quality_tables(results: Results) -> tuple[Table, ...]:
    """Every quality figure of every arm, and the paired difference from the baseline: under one setting for all, and
    where settings were tuned also at the best one of each arm."""
    return tuple(table for setting in ("fixed", "tuned") if (table := _quality_table(results, setting)) is not None)


def _quality_table(results: Results, setting: str) -> Table | None:
    metrics, tuned = list(_QUALITY), setting == "tuned"
    lines = []
    for row in results.arms:
        if row.setting != setting or not row.figures.keys() & {*metrics, *(() if tuned else ("bits",))}:
            continue
        cells: dict[str, Cell] = {**_head(row), **_sampling(row), "n": row.n, "seeds": row.seeds or None}
        cells |= {metric: row.figures.get(metric) for metric in metrics}
        cells |= {"fd_difference": row.against.get("fd"), "kd_difference": row.against.get("kd")}
        if not tuned:  # likelihood has no setting
            cells |= {"bits_per_token": row.figures.get("bits"), "tax_bits": row.figures.get("tax"),
                      "predicted_tax_bits": row.predicted_tax,
                      "bits_difference": row.against.get("bits")}  # fmt: skip
        lines.append(_table_row(row, cells))
    lines += _floors(results, *metrics)
    if not any(line.competes for line in lines):
        return None
    against = f"- {baseline_words(results)}" if results.baselines else ""
    columns = [
        *_arm_columns(results), Column("n_steps", "steps"), Column("trained", "trained"),
        Column("guidance", "guidance"),
        *([Column("temperature", "temperature"), Column("top_k", "top-k"), Column("top_p", "top-p")] if tuned else []),
        Column("n", "n"), Column("seeds", "seeds"),
        *(
            Column(metric, head, _RANKED.get(metric, ""), share_words if metric in SHARES else plus_minus_tiny)
            for metric, head in _QUALITY.items()
        ),
        Column("fd_difference", f"FD {against}", "", bounds), Column("kd_difference", f"KD {against}", "", bounds),
        Column("bits_per_token", "bits/token", "low"), Column("tax_bits", "tax, bits"),
        Column("predicted_tax_bits", "predicted tax", ""), Column("bits_difference", f"bits {against}", "", bounds),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results, speed=False, setting=setting)} Differences are paired, since arms share noise, labels and "
        f"images.{_extrapolation(results, lines)}"
    )
    if not tuned:
        title = (
            "Quality, the same setting for all" if any(row.setting == "tuned" for row in results.arms) else "Quality"
        )
        return _table(results, "quality", title, caption, columns, lines)
    too = f", {baseline_words(results)} too," if len(results.baselines) == 1 else ""
    caption += f" Every arm{too} has the setting with which it had the least FD on other seeds{_tried(results)}."
    title = "Quality, the best setting of each arm"
    return _table(results, "quality-tuned", title, caption, columns, lines, "tuned")


def _sampling(row: Row) -> dict[str, Cell]:
    """The setting of a row, as cells."""
    own = row.sampling
    return {"guidance": str(own["guidance"]), "temperature": f"{own['temperature']:g}",
            "top_k": str(own["top_k"] or "all"), "top_p": f"{own['top_p']:g}"}  # fmt: skip


def _tried(results: Results) -> str:
    """The settings that an arm's best one was chosen from, and where."""
    space = results.run.about["spaces"][0]["space"]
    axes = results.run.about["config"].get("tune") or {}

    def spelled(name: str, value: Any) -> str:
        return "all" if name == "top_k" and not value else f"{value:g}" if isinstance(value, float) else str(value)

    words = [f"{n.replace('_', '-')} {', '.join(spelled(n, value) for value in axes[n])}" for n in axes]
    return f" in the space {space}" + (f", of {'; '.join(words)}" if words else "")


def _extrapolation(results: Results, lines: Sequence[TableRow]) -> str:
    """Why some rows have no extrapolated distance."""
    needed = extrapolates_from(results)
    small = any(line.cells.get("fd") is not None and line.cells.get("fd_extrapolated") is None and
                (number_of(line.cells.get("n")) or 0) < needed for line in lines)  # fmt: skip
    return f" FD extrapolated to infinite n needs n of at least {needed} here." if small else ""


def _floors(results: Results, *metrics: str) -> list[TableRow]:
    """What no arm made: real and reconstructed images, uniform codes."""
    rows = []
    for floor in results.floors:
        cells = {"arm": floor_cell(results, floor), "model": floor.model or None, "n": floor.n}
        rows.append(TableRow(floor.name, "", {**cells, **{m: floor.figures.get(m) for m in metrics}}, competes=False))
    return rows


def _ratio(results: Results, batch: int, slow: str, fast: str, pixels: bool = True) -> Interval | None:
    """How many times faster one contender was than another in the same rounds; None where they never met."""
    for trial in reversed(results.run.done("latency")):  # of two, the later is the one that all figures keep
        sides = [round_times(trial, name, pixels) for name in (slow, fast)]
        if trial["batch"] == batch and all(sides):
            return paired_ratio(*sides)
    return None


def speed_table(results: Results) -> Table | None:
    """One decode, all its speed-ups: at batch 1 and more, with and without pixels, with and without a cache."""
    batches, ratios = _batches(results), _has_ratios(results)
    if not batches:
        return None
    rows = _fixed(results)
    lines = []
    for row in rows:
        if not row.figures.keys() & {"latency_s", "images_per_s"}:
            continue
        cells: dict[str, Cell] = {**_head(row), "passes": row.counters.get("passes"),
                                  "step_ratio": step_ratio(results, row)}  # fmt: skip
        query, content = row.counters.get("query_tokens"), row.counters.get("content_tokens")
        cells |= {"tokens": None if query is None or content is None else query + content}
        for name in ("latency_s", "network_latency_s"):
            one = row.figures.get(name)
            cells[name.replace("_s", "_ms")] = None if one is None else one.scaled(1000)
        cells |= _throughput(results, row)
        for name in ("p90", "iqr", "min"):
            cells[f"{name}_ms"] = 1000 * row.spread[name] if row.spread else None
        cells["rounds"] = row.spread.get("n")
        cells |= _ratios(results, row)
        if row.baseline is not None and row.ratio:
            alone = _ratio(results, batches[0], row.baseline, row.arm, pixels=False)
            cells["network_speedup"] = Interval(1.0) if row.arm == row.baseline else alone
        if row.baseline == results.repeated:
            cells["uncached_speedup"] = _ratio(results, 1, "uncached", row.arm)
        lines.append(_table_row(row, cells))
    noise: dict[str, Cell] = {
        "arm": "(A/A)",
        **{f"speedup_batch_{batch}": results.noise.get(batch) for batch in batches},
    }
    if ratios:
        lines.append(TableRow("A/A", "", noise, competes=False))
    columns = [
        *_arm_columns(results), Column("n_steps", "steps"), Column("passes", "passes"),
        Column("tokens", "tokens through"), Column("latency_ms", "latency (ms/image)", "low"),
        Column("p90_ms", "p90 (ms/image)"), Column("iqr_ms", "IQR (ms/image)"), Column("min_ms", "min (ms/image)"),
        Column("rounds", "rounds"), Column("network_latency_ms", "network alone (ms/image)", "low"),
        *_speed_columns(results),
        *([Column("network_speedup", f"{TIMES} {baseline_words(results)}, network alone", "high", _times),
           Column("uncached_speedup", f"{TIMES} {results.repeated} without cache", "high", _times)] if ratios else []),
        Column("step_ratio", f"{TIMES} fewer steps"), *_throughput_columns(results),
    ]  # fmt: skip
    caption = rests_on(results, quality=False)
    if ratios and len(results.baselines) == 1:
        network = "the same network" if len(results.models) == 1 else "one network for all"
        caption += (
            f" Each column names its baseline: {results.baselines[0]} is {network}, one cell at a time with a "
            f"cache, in the same rounds. A/A is that baseline against itself, the noise floor."
        )
    elif ratios:
        caption += (
            f" Each arm is held against the baseline of its own model, in the same rounds: "
            f"{', '.join(results.baselines)}. A/A is {results.repeated} against itself, the noise floor."
        )
    caption += " p90, IQR and min are of the rounds of latency, one image at a time."
    return _table(results, "speed", "Speed", caption, columns, lines)


def exact_table(results: Results) -> Table | None:
    """Every arm that says how its passes went: how many it took, what a pass accepted and wasted, and whether its codes
    are those of one cell at a time."""
    lines = []
    trials = [trial for trial in results.run.done("quality") if trial["setting"] == "fixed"]
    for row in _fixed(results):
        own = [trial for trial in trials if trial["arm"] == row.arm and "passes" in trial]
        if not own:
            continue
        asked, fed, passes = (float(np.mean([trial["counters"][name] for trial in own]))
                              for name in ("query_tokens", "content_tokens", "passes"))  # fmt: skip
        lattice = parse_lattice(results.run.about["models"][row.model]["lattice"])
        together_L = np.mean([trial["passes"]["accepted_by_cell"] for trial in own], axis=0)
        cells: dict[str, Cell] = {
            **_head(row), "passes": passes,
            "p50": float(np.mean([trial["passes"]["p50"] for trial in own])),
            "p90": float(np.mean([trial["passes"]["p90"] for trial in own])),
            "window": asked / passes if passes else None,
            "accepted": lattice.n_cells / passes if passes else None,
            "asked": asked, "fed": fed,
            "wasted_asked": 100 * float(np.mean([trial["passes"]["wasted_asked"] for trial in own])),
            "wasted_fed": 100 * float(np.mean([trial["passes"]["wasted_fed"] for trial in own])),
            "differing": _differing(own), "same_codes": ", ".join(_same_codes(trials, own)) or None,
        }  # fmt: skip
        if isinstance(lattice, Grid):
            row_L, col_L = lattice.row_L, lattice.col_L
            ring_L = np.minimum.reduce([row_L, col_L, lattice.rows - 1 - row_L, lattice.cols - 1 - col_L])
            cells |= {"middle": float(together_L[ring_L == ring_L.max()].mean()),
                      "border": float(together_L[ring_L == 0].mean())}  # fmt: skip
        lines.append(_table_row(row, cells))
    if not lines:
        return None
    columns = [
        *_arm_columns(results), Column("passes", "passes"), Column("p50", "p50"), Column("p90", "p90"),
        Column("accepted", "accepted a pass"), Column("middle", "in the middle"), Column("border", "at the border"),
        Column("window", "asked a pass"), Column("asked", "cells asked"), Column("fed", "codes fed"),
        Column("wasted_asked", "asked in vain, %"), Column("wasted_fed", "fed in vain, %"),
        Column("differing", "images that differ"), Column("same_codes", "same codes as"),
    ]  # fmt: skip
    caption = (
        "Passes, and cells asked and codes fed, of an image. p50 and p90 are over images. Accepted in the middle and "
        "at the border: codes that became final in the same pass, of the cells there. Images that differ do so by "
        "rounding, from one cell at a time under the same noise; where none does, the arm's quality is that of one "
        "cell at a time."
    )
    return _table(results, "exact", "Exact decoding", caption, columns, lines)


def _differing(trials: Sequence[QualityTrial]) -> str | None:
    counted = [trial["differing"] for trial in trials if "differing" in trial]
    return f"{sum(one['images'] for one in counted)} of {sum(one['of'] for one in counted)}" if counted else None


def _same_codes(trials: Sequence[QualityTrial], own: Sequence[QualityTrial]) -> list[str]:
    """Other arms with these very codes, under every seed."""
    digests = {trial["seed"]: trial["tokens_digest"] for trial in own}
    by_arm: dict[str, dict[int, str]] = {}
    for trial in trials:
        by_arm.setdefault(trial["arm"], {})[trial["seed"]] = trial["tokens_digest"]
    return [arm for arm, theirs in by_arm.items() if arm != own[0]["arm"] and theirs == digests]


def correction_table(results: Results) -> Table | None:
    """Every arm whose decoder rewrites against the same arm decoded plainly."""
    rates = {
        trial["arm"]: {rate["error_rate"]: rate for rate in trial["rates"]} for trial in results.run.done("repair")
    }
    changed = {
        (trial["arm"], trial["setting"]): trial["changed_per_image"] for trial in reversed(results.run.done("quality"))
    }
    lines = []
    for row, plain in _pairs(results):
        against = row_against(results, row, plain.arm)
        slower = against.speedup.get(1)
        query = {name: one.counters.get("query_tokens") for name, one in (("with", row), ("without", plain))}
        cells: dict[str, Cell] = {
            "arm": row.arm, "model": row.model, "plain": plain.arm,
            "fd": row.figures.get("fd"), "plain_fd": plain.figures.get("fd"),
            "fd_difference": against.against.get("fd"), "kd_difference": against.against.get("kd"),
            "agreement_difference": against.against.get("agreement"),
            "slower": None if slower is None else slower.inverse(),
            "query_ratio": None if not query["with"] or not query["without"] else query["with"] / query["without"],
            "changed": changed.get((row.arm, "fixed")),
        }  # fmt: skip
        rate = rates.get(row.arm, {}).get(0.1)
        if rate is not None:
            cells |= {"repaired": _percent(share_of(rate["repair_rate"], rate["corrupted"])),
                      "damaged": _percent(share_of(rate["damage_rate"], rate["clean"]))}  # fmt: skip
        lines.append(_table_row(row, cells))
    if not lines:
        return None
    columns = [
        *_arm_columns(results), Column("plain", "against"), Column("fd", "FD", "low"), Column("plain_fd", "FD without"),
        Column("fd_difference", "FD difference", "", bounds), Column("kd_difference", "KD difference", "", bounds),
        Column("agreement_difference", "agreement difference", "", bounds),
        Column("slower", f"{TIMES} slower, batch 1", "low", bounds), Column("query_ratio", f"{TIMES} tokens asked"),
        Column("changed", "codes changed an image"), Column("repaired", "repaired, %", "high", bounds),
        Column("damaged", "damaged, %", "low", bounds),
    ]  # fmt: skip
    caption = (
        f"{rests_on(results)} Differences are paired: with correction minus without, under the same plan and noise. "
        f"Repaired and damaged: of codes of {held_out_words(results)}, 10 % of which were made wrong; their intervals "
        f"take codes for independent."
    )
    return _table(results, "correction", "Ablation of correction", caption, columns, lines)


def _pairs(results: Results) -> Iterator[tuple[Row, Row]]:
    """Arms whose decoder rewrites, each with the same order and pace of the same model, decoded plainly."""
    rows = _fixed(results)
    for row in filter(lambda row: row.rewrites, rows):
        for other in rows:
            same = all(row.about[key] == other.about[key] for key in _SAME)
            if same and not other.about["traits"]:
                yield row, other


_SAME: tuple[Literal["order", "pace", "model"], ...] = ("order", "pace", "model")


def _percent(share: Interval | None) -> Interval | None:
    return None if share is None else share.scaled(100)
