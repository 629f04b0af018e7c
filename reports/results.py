"""Results: what a run's records say of every arm, with intervals, and how far each arm is from its baseline.

Knows records and statistics. Refuses to know how anything is shown, and torch. The summary of `bench run`,
`bench compare`, `bench check` and the report all read this one table.

Quality intervals come from delete-a-group jackknives over samples (the reference is held fixed); differences between
arms pair the groups, since arms that share a seed share their noise. Agreement is a share, so a count of images: its
intervals are a count's, and its differences are paired over images. Speed-ups are medians of ratios paired within
rounds. Likelihood is paired over images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.errors import printable
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
    share_difference,
    share_difference_apart,
    share_interval,
    spread,
)
from orderbench.runs.record import Run
from orderbench.runs.schema import (
    ArmAbout,
    LatencyTrial,
    ModelAbout,
    QualityResult,
    QualityTrial,
    Resampled,
    RunAbout,
    Setting,
)

METRICS = ("fd", "kd", "precision", "recall", "inception_score", "agreement")
BETTER = {"fd": "low", "kd": "low", "precision": "high", "recall": "high", "inception_score": "high",
          "agreement": "high", "bits": "low", "tax": "low", "latency_s": "low", "images_per_s": "high"}  # fmt: skip
SHARES = ("agreement",)  # counts of images; precision and recall are none, as their balls overlap
PLAIN = "off"  # how records spell plain decoding
SMALL_N = 10  # a Frechet distance wants about ten samples a dimension before its value means much (measurement notes)


@dataclass(frozen=True)
class Row:
    """One arm under one setting. What was not measured is None or empty.

    model: whose network, by its name in the run; own: whether that is the run's own, which spellings leave out.
    baseline: the arm that `against` and `speedup` are measured against, None where there is none; ratio: whether times
    over its times say something, as they do for one cell at a time and for an arm that was asked for. figures: by
    metric, with intervals; `bits` and `tax` in bits per token, `latency_s` at batch 1, `images_per_s` at the batch of
    the run. against: by metric, the paired difference from the baseline. speedup: how many times faster than the
    baseline, by batch. throughput: images a second, by batch above 1. spread: median, p90, iqr and min, in seconds, and
    n of the rounds behind `latency_s`. counters: of one sample, one branch of guidance; exact, or means over samples
    where the decoder's work depends on what is drawn. steps: then, how many it took, a mean over samples.
    """

    arm: str
    about: ArmAbout
    sampling: Setting
    setting: str = "fixed"
    model: str = ""
    own: bool = True
    baseline: str | None = None
    ratio: bool = False
    figures: dict[str, Interval] = field(default_factory=dict)
    against: dict[str, Interval] = field(default_factory=dict)
    speedup: dict[int, Interval] = field(default_factory=dict)
    throughput: dict[int, Interval] = field(default_factory=dict)
    spread: dict[str, float | int] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)
    counters_exact: bool = True
    n: int | None = None
    seeds: int = 0
    steps: float | None = None
    failed: str | None = None

    @property
    def n_steps(self) -> float:
        """Steps of its plan (of seed 0), or as many as were measured where the decoder takes others."""
        return self.about["n_steps"] if self.steps is None else self.steps

    @property
    def rewrites(self) -> bool:
        """Whether the decoder changes codes that are already there."""
        return "rewrites" in self.about["traits"]

    @property
    def line(self) -> str:
        """The order, its decoder and its model: what a line on a figure is called."""
        decoder, order = self.about["decoder"], self.about["order"]
        decoded = order if decoder == PLAIN else f"{order}+{decoder}"
        return decoded if self.own else f"{decoded}~{self.model}"

    @property
    def trained(self) -> float | None:
        """The share of training batches that followed this order; None where it is not known."""
        return self.about["training_share"]

    @property
    def predicted_tax(self) -> float | None:
        """What a Gaussian field predicts, in bits per token; None where it says nothing."""
        return self.about["predicted_tax_bits"]


@dataclass(frozen=True)
class Floor:
    """Images that no arm made: `real`, or `reconstructed` and `noise`, which are of a model's tokenizer. model: its
    name, '' for real images; own: whether that is the run's own. result: as the record holds it."""

    arm: str
    model: str = ""
    own: bool = True
    figures: dict[str, Interval] = field(default_factory=dict)
    n: int | None = None
    result: QualityResult | None = None

    @property
    def name(self) -> str:
        """As records spell it, as in 'reconstructed~par'."""
        return self.arm if self.own else f"{self.arm}~{self.model}"


@dataclass(frozen=True)
class Results:
    """The table of one run: arms in the order asked, then floors, and the noise floor of its timing.

    space: the feature space of the quality figures, None if there are none. baseline: the arm that was asked for, or
    else that of the first model that has one; None where no model has. repeated: the arm that A/A and `uncached` time
    again. noise: the A/A ratio by batch. uncached: how many times slower that arm is without a cache, at batch 1.
    """

    run: Run
    space: str | None
    reference: str
    baseline: str | None
    arms: tuple[Row, ...]
    floors: tuple[Floor, ...]
    repeated: str | None
    noise: dict[int, Interval]
    uncached: Interval | None

    def row(self, arm: str, setting: str = "fixed") -> Row:
        """One arm's row; BenchError if the run has none."""
        for row in self.arms:
            if row.arm == arm and row.setting == setting:
                return row
        raise BenchError(f"the run has no arm '{arm}'; it has {', '.join(dict.fromkeys(r.arm for r in self.arms))}")

    @property
    def baselines(self) -> tuple[str, ...]:
        """All arms that others are measured against."""
        return tuple(dict.fromkeys(row.baseline for row in self.arms if row.baseline is not None))

    @property
    def models(self) -> tuple[str, ...]:
        """The models of the arms, by name."""
        return tuple(dict.fromkeys(row.model for row in self.arms))


def model_of(about: RunAbout, arm: ArmAbout) -> ModelAbout:
    """The model of an arm."""
    return about["models"][arm["model"]]


def own_model(about: RunAbout) -> str:
    """The name of the run's own model, which arms leave out; empty in a run of systems where every arm names its
    model. Elsewhere it is the first one, whether arms of it are left or not."""
    named = [arm["name"].endswith(f"~{arm['model']}") for arm in about["arms"]]
    of_systems = bool(about["config"].get("systems")) and bool(named) and all(named)
    return "" if of_systems else next(iter(about["models"]), "")


def tokenizer_of(model: ModelAbout) -> str:
    """What identifies the tokenizer of a model; empty where it has none, and decodes no pixels."""
    said = model.get("tokenizer")
    return "" if said is None else said.get("sha256") or said.get("name") or ""


def other_tokens(results: Results) -> tuple[str, ...]:
    """Models whose likelihood was measured on tokens of another tokenizer than that of the first baseline, or else of
    the first arm: bits of theirs say nothing beside bits of the others."""
    models, rows = results.run.about["models"], [row for row in results.arms if "bits" in row.figures]
    first = next((row.model for row in rows if row.arm == results.baseline), next((row.model for row in rows), ""))
    known = {name: tokenizer_of(models[name]) for name in results.models if name in models}
    return tuple(dict.fromkeys(row.model for row in rows if known.get(row.model) != known.get(first)))


def floor_of(results: Results, row: Row) -> Floor | None:
    """Real images through the tokenizer of a row's model; None where they were not measured."""
    models = results.run.about["models"]
    own = tokenizer_of(models[row.model])
    known = (floor for floor in results.floors if floor.arm == "reconstructed" and floor.model in models)
    return next((floor for floor in known if own and tokenizer_of(models[floor.model]) == own), None)


def repeated_arm(about: RunAbout) -> str | None:
    """The arm that A/A and `uncached` time again: the baseline of the first model that has one."""
    baselines = (model_of(about, arm)["baseline"] for arm in about["arms"])
    return next((name for name in baselines if name is not None), None)


def held_out_words(results: Results) -> str:
    """What the likelihood is of."""
    models = results.run.about["models"]
    return images_words(any(may_have_seen(models[row.model]) for row in results.arms if row.model in models))


def may_have_seen(model: ModelAbout) -> bool:
    """Whether it is not known that a model never saw its held-out images."""
    return not model.get("held_out", {}).get("unseen", True)


def images_words(seen: bool) -> str:
    """What the likelihood is of: 'held-out images', unless it is not known that the weights never saw them."""
    return "images that the weights may have seen" if seen else "held-out images"


def n_seeds(rows: Sequence[Row]) -> str:
    """How many seeds some rows rest on: '2', or '1 to 2' where a trial failed."""
    counts = sorted({row.seeds for row in rows if row.seeds}) or [1]
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])


def times_seeds(rows: Sequence[Row]) -> str:
    """The same in words that follow an n, as in ' x 2 seeds'; empty for one seed."""
    n = n_seeds(rows)
    return "" if n == "1" else f" x {n} seeds"


def results_of(run: Run, space: str | None = None, baseline: str | None = None) -> Results:
    """The table of a run in one feature space, the first by default.

    baseline: one arm that all are measured against; by default every arm against its own model's.

    Raises BenchError for a space or a baseline that the run has not.
    """
    names = [arm["name"] for arm in run.about["arms"]]
    if baseline is not None and baseline not in names:
        raise BenchError(f"the run has no arm '{baseline}' to compare with; it has {', '.join(names)}")
    spaces = [entry["space"] for entry in run.about["spaces"]]
    if space is not None and space not in spaces:
        raise BenchError(f"the run has no quality in the space '{space}'; it has {', '.join(spaces) or 'none'}")
    chosen = space or (spaces[0] if spaces else None)
    settings = ["fixed"] + (["tuned"] if any(t["setting"] == "tuned" for t in run.trials.values()) else [])
    arms = tuple(_arm_row(run, arm, baseline, setting, chosen) for setting in settings for arm in run.about["arms"])
    floors = []
    for trial in run.done("floor"):
        result = _in_space(trial["quality"], chosen)
        if result is not None:
            figures = figures_of(result)
            name, _, other = trial["arm"].partition("~")
            model = "" if name == "real" else other or own_model(run.about)
            floors.append(Floor(name, model, not other, figures, result["n"], result))
    speeds = {trial["batch"]: trial for trial in run.done("latency")}
    timed = repeated_arm(run.about)
    noise = {
        batch: paired_ratio(*sides)
        for batch, trial in speeds.items()
        if timed is not None and all(sides := [round_times(trial, name) for name in (timed, "A/A")])
    }
    uncached = None
    if timed is not None and 1 in speeds and all(sides := [round_times(speeds[1], n) for n in ("uncached", timed)]):
        uncached = paired_ratio(*sides)
    reference = next((entry["reference"] for entry in run.about["spaces"] if entry["space"] == chosen), "")
    against = timed if baseline is None else baseline
    return Results(run, chosen, reference, against, arms, tuple(floors), timed, noise, uncached)


def row_against(results: Results, row: Row, baseline: str) -> Row:
    """A row once more, measured against another arm of the run."""
    return _arm_row(results.run, row.about, baseline, row.setting, results.space)


def _in_space(results: Sequence[QualityResult], space: str | None) -> QualityResult | None:
    return next((result for result in results if result["space"] == space), None)


def figures_of(result: QualityResult) -> dict[str, Interval]:
    """All metrics of one set of images, each with its interval."""
    figures = {name: one for name in METRICS if (one := interval_of(name, [result])) is not None}
    return figures | _extrapolated([result])


def metric_of(result: QualityResult, metric: str) -> Resampled | None:
    """One of `METRICS`; None where it was not measured."""
    found = cast(Resampled | None, result.get(metric))
    return found if found and found["value"] is not None else None


def _replicates(results: Sequence[QualityResult], metric: str) -> list[Replicates]:
    """A metric's value and its left-out values in each of some trials."""
    return [replicate(found) for result in results if (found := metric_of(result, metric)) is not None]


def replicate(stored: Resampled) -> Replicates:
    """A metric's value and its left-out values, as records hold them; none where one of them is null."""
    left_out = [value for value in stored.get("left_out") or () if value is not None]
    whole = len(left_out) == len(stored.get("left_out") or ())
    return cast(float, stored["value"]), left_out if left_out and whole else None


def interval_of(metric: str, results: Sequence[QualityResult]) -> Interval | None:
    """A metric, a mean over some trials, with its interval; None where it was not measured."""
    own = _replicates(results, metric)
    if not own:
        return None
    if metric in SHARES:
        counts = [result["n"] for result in results if metric_of(result, metric) is not None]
        return share_interval([value for value, _ in own], counts)
    return jackknife(own)


def paired_difference(
    metric: str, baseline: Sequence[QualityResult], other: Sequence[QualityResult]
) -> Interval | None:
    """Other minus baseline, trial by trial of one seed each; None where they cannot be paired."""
    sides = [_replicates(results, metric) for results in (baseline, other)]
    if not sides[0] or len(sides[0]) != len(baseline) or not correspond(*sides):
        return None
    if metric not in SHARES:
        return jackknife_difference(*sides)
    pairs = [(_right(metric, a), _right(metric, b)) for a, b in zip(baseline, other, strict=True)]
    known = [(a_N, b_N) for a_N, b_N in pairs if a_N is not None and b_N is not None and len(a_N) == len(b_N)]
    if len(known) == len(pairs):
        return share_difference(known)
    one, two = interval_of(metric, baseline), interval_of(metric, other)
    return None if one is None or two is None else share_difference_apart(one, two)


def _right(metric: str, result: QualityResult) -> np.ndarray | None:
    """(N,) float, 1 where an image counts; None where the record, an older one, holds their number alone."""
    found = metric_of(result, metric)
    packed = bytes.fromhex("" if found is None else found.get("right", ""))
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    return bits[: result["n"]].astype(float) if 0 < result["n"] <= len(bits) else None


def share_of(value: float | None, count: int) -> Interval | None:
    """A share of so many with its interval; None where there is none."""
    return None if value is None or count < 1 else share_interval([value], [count])


def _extrapolated(results: Sequence[QualityResult]) -> dict[str, Interval]:
    """The Frechet distance extrapolated in 1/n, a mean over trials; empty where their n was too small for it."""
    found = [one for result in results if (one := result.get("fd_extrapolated")) is not None]
    return {"fd_extrapolated": Interval(float(np.mean(found)))} if found else {}


def quality_of(run: Run, arm: str | None, setting: str, space: str | None) -> dict[int, QualityResult]:
    """The results of an arm by seed."""
    found = {}
    for trial in run.done("quality"):
        result = _in_space(trial["quality"], space)
        if trial["arm"] == arm and trial["setting"] == setting and result is not None:
            found[trial["seed"]] = result
    return found


def quality_replicates(run: Run, arm: str, setting: str, space: str | None, metric: str) -> dict[int, Replicates]:
    """A metric of one arm by seed: its value, and its values without each group of samples."""
    found = {}
    for seed, result in quality_of(run, arm, setting, space).items():
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


def round_times(trial: LatencyTrial, name: str, pixels: bool = True) -> list[float]:
    """Seconds of whole generations of one contender, a round each; with the pixel decoder where there is one."""
    samples = [sample for one in trial["rounds"] for sample in one if sample["name"] == name]
    return [s["tokens_s"] + ((s["pixels_s"] or 0.0) if pixels else 0.0) for s in samples]


def _arm_row(run: Run, about: ArmAbout, asked: str | None, setting: str, space: str | None) -> Row:
    """asked: the arm to measure against; None: the baseline of the arm's own model."""
    arm, model = about["name"], model_of(run.about, about)
    baseline = model["baseline"] if asked is None else asked
    ratio = baseline is not None and (model["ratio"] or asked is not None)
    figures: dict[str, Interval] = {}
    against: dict[str, Interval] = {}
    alike = tokenizer_of(model) in _tokenizers(run.about, baseline)  # else images and codes are others
    quality = quality_of(run, arm, setting, space)
    theirs = quality_of(run, baseline, setting, space)
    for metric in METRICS:
        own = interval_of(metric, list(quality.values()))
        if own is not None:
            figures[metric] = own
        shared = [seed for seed in quality if seed in theirs]
        apart = paired_difference(metric, [theirs[seed] for seed in shared], [quality[seed] for seed in shared])
        if arm != baseline and apart is not None and alike:
            against[metric] = apart
    figures |= _extrapolated(list(quality.values()))
    _add_likelihood(run, arm, baseline if alike else None, figures, against)
    speedup: dict[int, Interval] = {}
    throughput: dict[int, Interval] = {}
    latency: dict[str, float | int] = {}
    counters: dict[str, float] = {}
    exact = True
    for trial in sorted(run.done("latency"), key=lambda trial: trial["batch"]):  # the largest gives `images_per_s`
        times = round_times(trial, arm)
        if times and setting == "fixed":
            name = "latency_s" if trial["batch"] == 1 else "images_per_s"
            figures[name] = median_interval([t if trial["batch"] == 1 else trial["batch"] / t for t in times])
            figures[f"network_{name}"] = median_interval(
                [t if trial["batch"] == 1 else trial["batch"] / t for t in round_times(trial, arm, pixels=False)]
            )
            if trial["batch"] == 1:
                latency = spread(times)
            else:
                throughput[trial["batch"]] = figures[name]
            theirs_s = [] if baseline is None else round_times(trial, baseline)
            if arm != baseline and theirs_s and ratio:  # joined runs may have timed them in different rounds
                speedup[trial["batch"]] = paired_ratio(theirs_s, times)
            counters = with_flops(trial["counters"][arm], trial["flops_per_image"].get(arm))
            exact = trial["counters_exact"].get(arm, True)
    trials = [t for t in run.trials.values() if (t["kind"], t["arm"], t["setting"]) == ("quality", arm, setting)]
    sampled = max(trials, key=lambda t: bool(t["status"] == "done"), default={})  # a failed seed knows no n
    if not counters and sampled.get("status") == "done":
        trial_of = cast(QualityTrial, sampled)
        counters, exact = with_flops(trial_of["counters"], trial_of["flops_per_image"]), trial_of["counters_exact"]
    return Row(
        arm=arm,
        about=about,
        setting=setting,
        model=about["model"],
        own=about["model"] == own_model(run.about),
        baseline=baseline,
        ratio=ratio,
        figures=figures,
        against=against,
        speedup=speedup,
        throughput=throughput,
        spread=latency,
        counters=counters,
        counters_exact=exact,
        sampling=sampled.get("sampling", model["setting"]),
        n=sampled.get("n"),
        seeds=len(quality),
        steps=_measured_steps(run, about, setting, counters),
        failed=next((reason for one, reason in failures(run) if one == arm), None),
    )


def _tokenizers(about: RunAbout, arm: str | None) -> list[str]:
    """The tokenizer of an arm's model, in a list that is empty where the run has no such arm."""
    return [tokenizer_of(model_of(about, one)) for one in about["arms"] if one["name"] == arm]


def _measured_steps(run: Run, about: ArmAbout, setting: str, counters: Mapping[str, float]) -> float | None:
    """Of a decoder whose work depends on what is drawn; None for any other, and where nothing was drawn. One that takes
    no pace makes a pass a step, so what counts its passes counts its steps."""
    if "varies" not in about["traits"]:
        return None
    taken = [t["n_steps"] for t in run.done("quality") if (t["arm"], t["setting"]) == (about["name"], setting)]
    if not taken and "paces" in about["traits"]:
        passes = counters.get("passes")
        forced = [t["n_steps"] for t in run.done("likelihood") if t["arm"] == about["name"]]
        taken = forced if passes is None else [passes]
    return float(np.mean(taken)) if taken else None


def with_flops(counted: Mapping[str, float], flops_per_image: float | None) -> dict[str, float]:
    """Counts of one branch of guidance, and the operations of both, where the network's are known."""
    return {**counted, **({"flops_per_image": flops_per_image} if counted and flops_per_image else {})}


def _add_likelihood(
    run: Run, arm: str, baseline: str | None, figures: dict[str, Interval], against: dict[str, Interval]
) -> None:
    bits_N, singly_N = likelihood_of(run, arm)
    if bits_N is None:
        return
    figures["bits"] = mean_interval(bits_N)
    if singly_N is not None:
        figures["singly_bits"] = mean_interval(singly_N)
        figures["tax"] = paired_mean(singly_N, bits_N)
    theirs_N, _ = likelihood_of(run, baseline)
    if arm != baseline and theirs_N is not None and len(theirs_N) == len(bits_N):
        against["bits"] = paired_mean(theirs_N, bits_N)


def likelihood_of(run: Run, arm: str | None) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Bits per token of every held-out image under an arm, and of the same cells one at a time; None where they were
    not measured."""
    trial = next((trial for trial in reversed(run.done("likelihood")) if trial["arm"] == arm), None)
    if trial is None:
        return None, None
    arrays = run.arrays(trial["trial"], "bits")
    return arrays["bits_N"], arrays.get("singly_N")


def to_json(results: Results) -> dict[str, Any]:
    """The whole table as plain values: intervals as value, low, high (null where there is none)."""

    def plain(figures: Mapping[Any, Interval]) -> dict[str, Any]:
        return {str(name): interval.plain() for name, interval in figures.items()}

    return {
        "baseline": results.baseline,
        "space": results.space,
        "reference": results.reference,
        "arms": [
            {
                "arm": row.arm,
                "model": row.model,
                "setting": row.setting,
                "n_steps": row.n_steps,
                "cut": row.about.get("cut"),
                "plan_digest": row.about["plan_digest"],
                "training_share": row.trained,
                "sampling": row.sampling,
                "n": row.n,
                "seeds": row.seeds,
                "figures": plain(row.figures),
                "baseline": row.baseline,
                "against_baseline": plain(row.against),
                "speedup": plain(row.speedup),
                "images_per_s": plain(row.throughput),
                "counters": row.counters,
                "counters_exact": row.counters_exact,
                "failed": row.failed,
            }
            for row in results.arms
        ],
        "refused": results.run.about["refused"],
        "floors": [
            {"arm": floor.arm, "model": floor.model, "n": floor.n, "figures": plain(floor.figures)}
            for floor in results.floors
        ],
        "noise": plain(results.noise),
        "uncached_slower": None if results.uncached is None else results.uncached.plain(),
    }


def step_ratio(results: Results, row: Row) -> float | None:
    """Steps of a row's baseline over its own; None where no ratio is shown. A baseline that is timed and is no arm of
    the run takes one step a cell."""
    if not row.ratio:
        return None
    known = (one.n_steps for one in results.arms if one.arm == row.baseline)
    return float(next(known, sum(row.about["sizes"])) / row.n_steps)


def too_small(results: Results, row: Row | Floor) -> bool:
    """Whether a row's sample is too small for its Frechet distance to be read as a value."""
    return row.n is not None and row.n < SMALL_N * _dimensions(results)


def extrapolates_from(results: Results) -> int:
    """The least n whose Frechet distance is extrapolated in 1/n: five of the sub-samples that `runs/metrics.py` takes,
    of 2, 3, ... 10 tenths in whole blocks of one sample a class, need five samples a dimension."""
    classes = max((model["classes"] for model in results.run.about["models"].values()), default=1) or 1
    blocks, least = 1, 5 * _dimensions(results)
    while sum(size >= least for size in {tenths * blocks // 10 * classes for tenths in range(2, 11)}) < 5:
        blocks += 1
    return blocks * classes


def is_fid(results: Results) -> bool:
    """Whether the Frechet distance is FID: in Inception's space, of 2048 dimensions, as a file's name alone may lie."""
    return is_inception(str(results.space), _dimensions(results))


def is_inception(space: str, dimensions: int) -> bool:
    """Whether a space is the one of published FIDs."""
    return space.rpartition("-")[0] == "inception" and dimensions == 2048


def _dimensions(results: Results) -> int:
    spaces = results.run.about["spaces"]
    return next((entry["dimensions"] for entry in spaces if entry["space"] == results.space), 0)
