"""One tidy table of a run, a row a number, for whoever wants to draw or test something of their own.

Knows records and pandas, which it imports late. Refuses to summarise: samples of a clock are rows of their own, and
what has an interval carries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderbench.reports.results import METRICS, interval_of, model_of, share_of
from orderbench.reports.statistics import Interval, mean_interval, paired_mean
from orderbench.runs.record import Run, load_run
from orderbench.runs.schema import Setting
from orderbench.runs.spec import SAMPLING

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

COLUMNS = ("run", "trial", "kind", "arm", "model", "order", "pace", "decoder", "n_steps", "seed", "setting", *SAMPLING,
           "batch", "metric", "at", "space", "value", "low", "high", "unit", "n")  # fmt: skip
UNITS = {"fd": "squared feature distance", "kd": "squared kernel distance", "precision": "share", "recall": "share",
         "inception_score": "classes", "agreement": "share", "fd_extrapolated": "squared feature distance",
         "cache_bytes": "bytes"}  # fmt: skip


def frame_of(run: Run | str | Path) -> DataFrame:
    """The records of a run as one tidy DataFrame; a folder is read first.

    run, trial, kind, arm, model, order, pace, decoder, n_steps, seed, batch: what was measured. setting: 'fixed',
    'tuned', or the values that tuning tried; guidance, temperature, top_k (0: all), top_p, noise: which that was, where
    codes were drawn. metric, value, low, high, unit: the number, with its interval of level 0.95 where there is one.
    at: which round, step, cell or error rate it belongs to, where there are several. space: the feature space of a
    quality figure. n: samples, images, rounds or cells behind it. What a column does not apply to is missing.
    Trials that are not done are left out.
    """
    import pandas

    one = run if isinstance(run, Run) else load_run(run)
    table = pandas.DataFrame(list(_rows(one)), columns=list(COLUMNS))
    for name in ("seed", "top_k", "batch", "n"):
        table[name] = table[name].astype("Int64")
    for name in ("n_steps", "temperature", "top_p", "at", "value", "low", "high"):
        table[name] = table[name].astype("float64")
    return table


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    kinds = {"quality": _quality, "tuning": _quality, "floor": _quality, "likelihood": _likelihood, "repair": _repair,
             "latency": _latency}  # fmt: skip
    for trial in run.done():
        head = {
            "run": run.folder.name,
            "trial": trial["trial"],
            "kind": trial["kind"],
            "setting": trial["setting"],
            **_arm(run, trial["arm"]),
        }
        if trial["kind"] in ("quality", "tuning", "repair", "likelihood"):
            head["seed"] = trial["seed"]
        if trial["kind"] in ("quality", "tuning"):
            head |= _setting(trial["sampling"])
        if trial["kind"] in ("quality", "tuning", "likelihood"):
            head["n_steps"] = trial["n_steps"]  # a mean, where the work depends on what is drawn
        for row in kinds[trial["kind"]](run, trial):
            yield head | row


def _arm(run: Run, name: str) -> dict[str, Any]:
    about = next((arm for arm in run.about["arms"] if arm["name"] == name), None)
    if about is None:
        return {"arm": name} if name else {}
    return {"arm": name, "model": about["model"], "order": about["order"], "pace": about["pace"],
            "decoder": about["decoder"], "n_steps": about["n_steps"]}  # fmt: skip


def _row(metric: str, value: Interval | float, unit: str, n: int | None, **more: Any) -> dict[str, Any]:
    interval = value if isinstance(value, Interval) else Interval(float(value))
    return {"metric": metric, **interval.plain(), "unit": unit, "n": n, **more}


def _quality(run: Run, trial: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for result in trial["quality"]:
        for metric in METRICS:
            one = interval_of(metric, [result])
            if one is not None:
                yield _row(metric, one, UNITS[metric], result["n"], space=result["space"])
        if result.get("fd_extrapolated") is not None:
            yield _row("fd_extrapolated", result["fd_extrapolated"], UNITS["fd"], result["n"], space=result["space"])
    if trial["kind"] == "floor":
        return
    for name, count in trial["counters"].items():
        yield _row(name, count, UNITS.get(name, "a sample"), trial["n"])
    if trial["flops_per_image"] is not None:
        yield _row("flops_per_image", trial["flops_per_image"], "operations", trial["n"])
    yield _row("changed_per_image", trial["changed_per_image"], "codes", trial["n"])


def _likelihood(run: Run, trial: dict[str, Any]) -> Iterator[dict[str, Any]]:
    bits = run.arrays(trial["trial"], "bits")
    unit, n = "bits per token", trial["n"]
    yield _row("bits", mean_interval(bits["bits_N"]), unit, n)
    if "singly_N" in bits:
        yield _row("singly_bits", mean_interval(bits["singly_N"]), unit, n)
        yield _row("tax", paired_mean(bits["singly_N"], bits["bits_N"]), unit, n)
    if trial["predicted_tax_bits"] is not None:
        yield _row("predicted_tax", trial["predicted_tax_bits"], unit, None)
    for name in ("bits_by_step", "singly_bits_by_step", "bits_by_cell", "singly_bits_by_cell"):
        for place, value in enumerate(trial[name] or ()):
            yield _row(name, value, unit, n, at=place)


def _repair(run: Run, trial: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for rates in trial["rates"]:
        for metric, cells in (("repair_rate", "corrupted"), ("damage_rate", "clean")):
            share = share_of(rates[metric], rates[cells])
            if share is not None:
                yield _row(metric, share, "share", rates[cells], at=rates["error_rate"])


def _contender(run: Run, name: str) -> dict[str, Any]:
    """An arm, timed under the setting of its model; what is none, under the trial's."""
    about = next((arm for arm in run.about["arms"] if arm["name"] == name), None)
    return _arm(run, name) | ({} if about is None else _setting(model_of(run.about, about)["setting"]))


def _setting(sampling: Setting) -> dict[str, Any]:
    said: dict[str, Any] = {"noise": "uniform", **sampling}
    return {name: said[name] for name in SAMPLING}


def _latency(run: Run, trial: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = {"batch": trial["batch"], **_setting(trial["sampling"])}
    for number, samples in enumerate(trial["rounds"]):
        for sample in samples:
            contender = where | _contender(run, sample["name"]) | {"at": number}
            for metric in ("tokens_s", "pixels_s"):
                if sample[metric] is not None:
                    yield _row(metric, sample[metric], "s", sample["repeats"], **contender)
    for name, memory in trial["memory"].items():
        if memory.get("added_bytes") is not None:
            yield _row("added_bytes", memory["added_bytes"], "bytes", 1, **where | _contender(run, name))
    for name, passes in trial.get("step_s", {}).items():
        for steps in passes:
            for step, seconds in enumerate(steps):
                yield _row("step_s", seconds, "s", 1, **where | _contender(run, name), at=step)
