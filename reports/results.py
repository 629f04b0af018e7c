"""Results: what a run's records say of every arm, with intervals, and what two arms or two runs say of each other.

Knows records and statistics. Refuses to know how anything is shown, and torch. The summary of `bench run`,
`bench compare`, `bench check` and the report all read this one table.

Quality intervals come from delete-a-group jackknives over samples (the reference is held fixed); differences between
arms pair the groups, since arms that share a seed share their noise. Speed-ups are medians of ratios paired within
rounds. Likelihood is paired over images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.reports.statistics import (
    Interval,
    Replicates,
    correspond,
    jackknife,
    jackknife_difference,
    mean_interval,
    median_interval,
    paired_mean,
    paired_ratio,
    spread,
)
from orderbench.runs.record import Run

METRICS = ("fd", "kd", "precision", "recall", "inception_score", "agreement")
BETTER = {"fd": "low", "kd": "low", "precision": "high", "recall": "high", "inception_score": "high",
          "agreement": "high", "bits": "low", "tax": "low", "latency_s": "low", "images_per_s": "high"}  # fmt: skip
SMALL_N = 10  # a Frechet distance wants about ten samples a dimension before its value means much (measurement notes)


@dataclass(frozen=True)
class Row:
    """One arm, or one floor, under one setting. What was not measured is None or empty.

    figures: by metric, with intervals; `bits` and `tax` in bits per token, `latency_s` at batch 1, `images_per_s` at
    the batch of the run. against: by metric, the paired difference from the baseline arm. speedup: how many times
    faster than the baseline, by batch. spread: median, p90, iqr and min, in seconds, and n of the rounds behind
    `latency_s`. counters: of one sample, one branch of guidance.
    """

    arm: str
    setting: str = "fixed"
    about: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Interval] = field(default_factory=dict)
    against: dict[str, Interval] = field(default_factory=dict)
    speedup: dict[int, Interval] = field(default_factory=dict)
    spread: dict[str, float | int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    n: int | None = None
    seeds: int = 0
    failed: str | None = None

    @property
    def corrected(self) -> bool:
        """Whether the arm has a correction; of arms, not of floors."""
        return str(self.about["correction"]) != "off"

    @property
    def line(self) -> str:
        """The order and its correction: what a line on a figure stands for."""
        return f"{self.about['order']}+{self.about['correction']}" if self.corrected else str(self.about["order"])


@dataclass(frozen=True)
class Results:
    """The table of one run: arms in the order asked, then floors, and the noise floor of its timing.

    space: the feature space of the quality figures, None if there are none. baseline: the arm that differences and
    speed-ups are measured against. noise: the A/A ratio by batch. uncached: how many times slower raster is without a
    cache, at batch 1.
    """

    run: Run
    space: str | None
    reference: str
    baseline: str
    arms: tuple[Row, ...]
    floors: tuple[Row, ...]
    noise: dict[int, Interval]
    uncached: Interval | None

    def row(self, arm: str, setting: str = "fixed") -> Row:
        """One arm's row; BenchError if the run has none."""
        for row in self.arms:
            if row.arm == arm and row.setting == setting:
                return row
        raise BenchError(f"the run has no arm '{arm}'; it has {', '.join(dict.fromkeys(r.arm for r in self.arms))}")


def identity(name: Any, sha256: str | None) -> dict[str, Any]:
    """What tells models, references and images apart, by `differ`."""
    return {"name": name, "sha256": sha256}


def differ(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """True if they differ. SHA-256 is compared if both have one over equally many images, otherwise names."""
    by = "sha256" if one["sha256"] and two["sha256"] and one.get("images") == two.get("images") else "name"
    return bool(one[by] != two[by])


def model_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run's model."""
    model = about["subject"]["model"]
    return identity(model["name"], model.get("sha256"))


def tokenizer_of(about: Mapping[str, Any]) -> str:
    """What tells the tokenizer of a run; empty where it has none, and decodes no pixels."""
    said = about["subject"].get("tokenizer") or {}
    return str(said.get("sha256") or said.get("name") or "")


def kernel_sizes(trials: Iterable[Mapping[str, Any]]) -> set[int]:
    """To how many reference images kernel distances are; an earlier orderbench took as many as there were samples."""
    found = (result.get("kd") for trial in trials for result in trial.get("quality", ()))
    return {kd.get("n_reference", kd.get("n")) for kd in found if kd}


def images_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run's held-out images; without their digest, the data that was asked for."""
    held_out = about["subject"].get("held_out") or {}  # a run encodes as many as it needs
    return {**identity(about["config"].get("data"), held_out.get("sha256")), "images": held_out.get("images")}


def reference_of(about: Mapping[str, Any], space: str | None) -> dict[str, Any]:
    """The identity of what a space's distances are measured against."""
    entries = [entry for entry in about["subject"].get("spaces", []) if entry["space"] == space]
    entry = entries[0] if entries else {}
    return identity(entry.get("reference", ""), entry.get("reference_sha256"))


def n_seeds(rows: Sequence[Row]) -> str:
    """How many seeds stand behind some rows: '2', or '1 to 2' where a trial failed."""
    counts = sorted({row.seeds for row in rows if row.seeds}) or [1]
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def times_seeds(rows: Sequence[Row]) -> str:
    """The same, to stand behind an n: ' x 2 seeds'; empty for one."""
    n = n_seeds(rows)
    return "" if n == "1" else f" x {n} seeds"


def results_of(run: Run, space: str | None = None, baseline: str | None = None) -> Results:
    """The table of a run in one feature space, the first by default, against one arm, the run's own by default.

    Raises BenchError for a space or a baseline that the run has not.
    """
    names = [arm["name"] for arm in run.about["arms"]]
    against = run.about["baseline"] if baseline is None else baseline
    if baseline is not None and baseline not in names:
        raise BenchError(f"the run has no arm '{baseline}' to compare with; it has {', '.join(names)}")
    spaces = [entry["space"] for entry in run.about["subject"].get("spaces", [])]
    if space is not None and space not in spaces:
        raise BenchError(f"the run has no quality in the space '{space}'; it has {', '.join(spaces) or 'none'}")
    chosen = space or (spaces[0] if spaces else None)
    settings = ["fixed"] + (["tuned"] if any(t["setting"] == "tuned" for t in run.trials.values()) else [])
    arms = tuple(_arm_row(run, arm, against, setting, chosen) for setting in settings for arm in run.about["arms"])
    floors = []
    for trial in run.done("floor"):
        result = _in_space(trial, chosen)
        if result is not None:
            own = {name: _replicates([result], name) for name in METRICS}
            figures = {name: jackknife(replicates) for name, replicates in own.items() if replicates}
            figures |= _extrapolated([result])
            floors.append(Row(trial["arm"], figures=figures, n=result["n"]))
    speeds = {trial["batch"]: trial for trial in run.done("latency")}
    timed = run.about["baseline"]  # what A/A and uncached repeat
    noise = {
        batch: paired_ratio(*sides)
        for batch, trial in speeds.items()
        if all(sides := [round_times(trial, name) for name in (timed, "A/A")])
    }
    uncached = None
    if 1 in speeds and all(sides := [round_times(speeds[1], name) for name in ("uncached", timed)]):
        uncached = paired_ratio(*sides)
    reference = reference_of(run.about, chosen)["name"]
    return Results(run, chosen, reference, against, arms, tuple(floors), noise, uncached)


def _in_space(trial: dict[str, Any], space: str | None) -> dict[str, Any] | None:
    return next((result for result in trial.get("quality", []) if result["space"] == space), None)


def _replicates(results: Sequence[dict[str, Any]], metric: str) -> list[Replicates]:
    """A metric's value and its left-out values in each of some trials."""
    found = [result[metric] for result in results if result.get(metric) and result[metric]["value"] is not None]
    return [replicate(one) for one in found]


def replicate(stored: Mapping[str, Any]) -> Replicates:
    """A metric's value and its left-out values, as records hold them; none where one of them is null."""
    left_out = stored.get("left_out")
    return stored["value"], None if not left_out or None in left_out else left_out


def _extrapolated(results: Sequence[dict[str, Any]]) -> dict[str, Interval]:
    """The Frechet distance extrapolated in 1/n, a mean over trials; empty where their n was too small for it."""
    found = [result["fd_extrapolated"] for result in results if result.get("fd_extrapolated") is not None]
    return {"fd_extrapolated": Interval(float(np.mean(found)))} if found else {}


def _quality(run: Run, arm: str, setting: str, space: str | None) -> dict[int, dict[str, Any]]:
    """The results of an arm by seed."""
    found = {}
    for trial in run.done("quality"):
        result = _in_space(trial, space)
        if trial["arm"] == arm and trial["setting"] == setting and result is not None:
            found[trial["seed"]] = result
    return found


def quality_replicates(run: Run, arm: str, setting: str, space: str | None, metric: str) -> dict[int, Replicates]:
    """A metric of one arm by seed: its value, and its values without each group of samples."""
    found = {}
    for seed, result in _quality(run, arm, setting, space).items():
        replicates = _replicates([result], metric)
        if replicates:
            found[seed] = replicates[0]
    return found


def failures(run: Run) -> list[tuple[str, str]]:
    """What failed, in the order planned: the arm, or the trial where it is of no one arm, and the reason."""
    found = []
    for trial in run.trials.values():
        if trial["status"] == "failed":
            found.append((trial["arm"] or trial["trial"], printable(trial.get("reason", ""))))
        found += [(arm, printable(reason)) for arm, reason in (trial.get("failed_arms") or {}).items()]
    return found


def printable(text: Any) -> str:
    """A text without colours and control characters, which terminals obey and XML forbids."""
    plain = re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", str(text))
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "", plain)


def round_times(trial: dict[str, Any], name: str, pixels: bool = True) -> list[float]:
    """Seconds of whole generations of one contender, a round each; with the pixel decoder where there is one."""
    samples = [sample for one in trial["rounds"] for sample in one if sample["name"] == name]
    return [s["tokens_s"] + ((s["pixels_s"] or 0.0) if pixels else 0.0) for s in samples]


def _arm_row(run: Run, about: dict[str, Any], baseline: str, setting: str, space: str | None) -> Row:
    arm = about["name"]
    trials = [t for t in run.trials.values() if t["arm"] == arm and t["setting"] in (setting, "fixed")]
    figures: dict[str, Interval] = {}
    against: dict[str, Interval] = {}
    quality = _quality(run, arm, setting, space)
    theirs = _quality(run, baseline, setting, space)
    for metric in METRICS:
        own = _replicates(list(quality.values()), metric)
        if own:
            figures[metric] = jackknife(own)
        shared = [seed for seed in quality if seed in theirs]
        pairs = [_replicates([side[seed] for seed in shared], metric) for side in (theirs, quality)]
        if arm != baseline and pairs[0] and len(pairs[0]) == len(shared) and correspond(*pairs):
            against[metric] = jackknife_difference(*pairs)
    figures |= _extrapolated(list(quality.values()))
    _add_likelihood(run, arm, baseline, figures, against)
    speedup: dict[int, Interval] = {}
    latency: dict[str, float | int] = {}
    counters: dict[str, int] = {}
    for trial in run.done("latency"):
        times = round_times(trial, arm)
        if times and setting == "fixed":
            name = "latency_s" if trial["batch"] == 1 else "images_per_s"
            figures[name] = median_interval([t if trial["batch"] == 1 else trial["batch"] / t for t in times])
            figures[f"network_{name}"] = median_interval(
                [t if trial["batch"] == 1 else trial["batch"] / t for t in round_times(trial, arm, pixels=False)]
            )
            if trial["batch"] == 1:
                latency = spread(times)
            theirs_s = round_times(trial, baseline)
            if arm != baseline and theirs_s:  # joined runs may have timed an arm and a baseline in different rounds
                speedup[trial["batch"]] = paired_ratio(theirs_s, times)
            counters = _counters(trial["counters"][arm], (trial.get("flops_per_image") or {}).get(arm))
    measured = (t for t in trials if t["kind"] == "quality" and t["setting"] == setting)
    sampled = max(measured, key=lambda t: bool(t["status"] == "done"), default={})  # a failed seed knows no n
    failed = next((reason for one, reason in failures(run) if one == arm), None)
    return Row(
        arm=arm,
        setting=setting,
        about=about,
        figures=figures,
        against=against,
        speedup=speedup,
        spread=latency,
        counters=counters or _counters(sampled.get("counters", {}), sampled.get("flops_per_image")),
        sampling=sampled.get("sampling", run.about["setting"]),
        n=sampled.get("n"),
        seeds=len(quality),
        failed=failed,
    )


def _counters(counted: dict[str, int], flops_per_image: int | None) -> dict[str, int]:
    """Exact counts of one branch of guidance, and the operations of both, where the network's are known."""
    return counted | ({"flops_per_image": flops_per_image} if counted and flops_per_image else {})


def _add_likelihood(
    run: Run, arm: str, baseline: str, figures: dict[str, Interval], against: dict[str, Interval]
) -> None:
    trials = {trial["arm"]: trial for trial in run.done("likelihood")}
    if arm not in trials:
        return
    bits_N, singly_N = (run.arrays(trials[arm]["trial"], "bits")[name] for name in ("bits_N", "singly_N"))
    figures["bits"] = mean_interval(bits_N)
    figures["singly_bits"] = mean_interval(singly_N)
    figures["tax"] = paired_mean(singly_N, bits_N)
    if arm != baseline and baseline in trials:
        theirs_N = run.arrays(trials[baseline]["trial"], "bits")["bits_N"]
        if len(theirs_N) == len(bits_N):
            against["bits"] = paired_mean(theirs_N, bits_N)


def to_json(results: Results) -> dict[str, Any]:
    """The whole table as plain values: intervals as value, low, high (null where there is none)."""

    def row(one: Row) -> dict[str, Any]:
        return {
            "arm": one.arm,
            "setting": one.setting,
            "n_steps": one.about.get("n_steps"),
            "plan_digest": one.about.get("plan_digest"),
            "training_share": one.about.get("training_share"),
            "sampling": one.sampling,
            "n": one.n,
            "seeds": one.seeds,
            "figures": {name: interval.plain() for name, interval in one.figures.items()},
            "against_baseline": {name: interval.plain() for name, interval in one.against.items()},
            "speedup": {str(batch): interval.plain() for batch, interval in one.speedup.items()},
            "counters": one.counters,
            "failed": one.failed,
        }

    return {
        "baseline": results.baseline,
        "space": results.space,
        "reference": results.reference,
        "arms": [row(one) for one in results.arms],
        "floors": [row(one) for one in results.floors],
        "noise": {str(batch): interval.plain() for batch, interval in results.noise.items()},
        "uncached_slower": None if results.uncached is None else results.uncached.plain(),
    }


def baseline_steps(results: Results) -> int:
    """Steps of the baseline; of one cell a step, where the run times a baseline that is no arm of its own."""
    own = (row.about["n_steps"] for row in results.arms if row.arm == results.baseline)
    return int(next(own, max(sum(row.about["sizes"]) for row in results.arms)))


def too_small(results: Results, row: Row) -> bool:
    """Whether a row's sample is too small for its Frechet distance to be read as a value."""
    return row.n is not None and row.n < SMALL_N * _dimensions(results)


def extrapolates_from(results: Results) -> int:
    """The least n whose Frechet distance is extrapolated in 1/n: five of the sub-samples that `runs/metrics.py` takes,
    of 2, 3, ... 10 tenths in whole blocks of one sample a class, need five samples a dimension."""
    classes = results.run.about["subject"]["model"].get("classes") or 1
    blocks, least = 1, 5 * _dimensions(results)
    while sum(size >= least for size in {tenths * blocks // 10 * classes for tenths in range(2, 11)}) < 5:
        blocks += 1
    return blocks * classes


def is_fid(results: Results) -> bool:
    """Whether the Frechet distance is FID: in Inception's space, of 2048 dimensions, as a file's name alone may lie."""
    return str(results.space).rpartition("-")[0] == "inception" and _dimensions(results) == 2048


def _dimensions(results: Results) -> int:
    spaces = results.run.about["subject"].get("spaces", [])
    return int(next((entry["dimensions"] for entry in spaces if entry["space"] == results.space), 0))
