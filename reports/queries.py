"""Queries: what figures and the page ask of a run beyond its one table: plans, pictures, timings and rewritten cells.

Knows records and plans. Refuses to draw, and to judge: intervals and differences are the business of `results`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from orderbench.orders import BenchError, Grid, Lattice, Plan, make_plan, parse_lattice, walk_tax
from orderbench.orders.spelling import split_call
from orderbench.reports.results import Results, Row, likelihood_of, model_of, own_model, round_times
from orderbench.runs.record import RecordProblem
from orderbench.runs.schema import LatencyTrial, QualityTrial


def lattice(results: Results, row: Row) -> Lattice | None:
    """The token lattice of a row's model."""
    try:
        return parse_lattice(model_of(results.run.about, row.about)["lattice"])
    except BenchError:
        return None


def plan_of(row: Row) -> Plan | None:
    """The plan of an arm, if it has one that this orderbench can read: an order of a plugin may not be here."""
    try:
        plan = None if row.about["plan"] is None else Plan.from_json(row.about["plan"])
        if plan is not None:
            plan.step_of_cell()
        return plan
    except BenchError:
        return None


def rings_of(grid: Grid) -> np.ndarray:
    """(L,) the ring of every cell around the grid's middle cell: the steps of the radial order."""
    return make_plan("radial", grid).step_of_cell()


def shown_seed(results: Results, kind: str) -> int | None:
    """The lowest seed that all arms have samples of, or else most: pictures side by side share seed and noise."""
    having = Counter(trial["seed"] for trial in results.run.done(kind))
    return max(having, key=lambda seed: (having[seed], -seed), default=None)


def pictures_of(results: Results, kind: str, arm: str, setting: str = "fixed") -> np.ndarray | None:
    """(N, h, w, c) uint8: the first samples of an arm under the seed that all arms show, or of a floor; None if they
    are not there."""
    images = _pictures(results, kind, arm, setting).get("images_Nhwc")
    if images is None or images.ndim != 4 or not len(images) or images.dtype != np.uint8:
        return None
    return images


def labels_of(results: Results, kind: str, arm: str, setting: str = "fixed") -> list[int]:
    """The classes of the same samples, one each; empty where the record has none."""
    labels = _pictures(results, kind, arm, setting).get("labels_N")
    return (
        [int(label) for label in labels]
        if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
        else []
    )


def class_words(results: Results, kind: str, arm: str, setting: str = "fixed") -> list[str]:
    """The same classes in words, with the names that the record gives them, as in 'class 3, Dress'."""
    models = {row.arm: row.about["model"] for row in results.arms} | {one.name: one.model for one in results.floors}
    names = results.run.about["models"][models[arm] or own_model(results.run.about)].get("class_names", [])
    return [
        f"class {label}, {names[label]}" if 0 <= label < len(names) and names[label] != str(label) else f"class {label}"
        for label in labels_of(results, kind, arm, setting)
    ]


def _pictures(results: Results, kind: str, arm: str, setting: str) -> dict[str, np.ndarray]:
    seed = shown_seed(results, kind)
    trials = [t for t in results.run.done(kind) if t["arm"] == arm and t["setting"] == setting and t["seed"] == seed]
    if not trials:
        return {}
    try:
        return results.run.arrays(trials[0]["trial"], "pictures")
    except RecordProblem:
        return {}


def changed_cells(results: Results) -> list[tuple[Row, np.ndarray]]:
    """By arm whose decoder rewrites, how often an image's cell was rewritten: the mean over its seeds, by cell."""
    found = []
    for row in results.arms:
        changed = [
            np.array(trial["changed_by_cell"], dtype=float)
            for trial in results.run.done("quality")
            if trial["arm"] == row.arm and trial["setting"] == row.setting and trial["changed_by_cell"]
        ]
        if changed and row.rewrites and row.setting == "fixed":
            found.append((row, np.mean(changed, axis=0)))
    return found


def image_passes(results: Results, row: Row) -> float | None:
    """The passes of an image: the mean over an arm's samples, or of what was timed where there are none."""
    counted = [trial["counters"].get("passes") for trial in quality_trials(results, row)]
    known = [passes for passes in counted if passes is not None]
    return float(np.mean(known)) if known else row.counters.get("passes")


def quality_trials(results: Results, row: Row) -> list[QualityTrial]:
    """The samples of an arm under its setting, a trial a seed."""
    trials = results.run.done("quality")
    return [trial for trial in trials if (trial["arm"], trial["setting"]) == (row.arm, row.setting)]


def passes_and_tax(results: Results) -> list[tuple[Row, float, float]]:
    """Of every arm that decodes one cell at a time in fewer passes: the passes of an image, and what a Gaussian field
    predicts that its walk would pay at the common pace, in bits per token. Walks without a prediction are left out."""
    found = []
    for row in results.arms:
        plan = plan_of(row) if "drafts" in row.about["traits"] and row.setting == "fixed" else None
        passes, taxed = image_passes(results, row), None if plan is None else _walk_tax(plan)
        if passes is not None and taxed is not None:
            found.append((row, passes, taxed))
    return found


def _walk_tax(plan: Plan) -> float | None:
    try:
        return walk_tax(plan)
    except BenchError:  # an order that draws for every sample may refuse one
        return None


def likelihood_n(results: Results) -> str:
    """How many held-out images the likelihood rests on."""
    return ", ".join(map(str, sorted({trial["n"] for trial in results.run.done("likelihood")})))


def bits_apart(results: Results) -> list[tuple[Row, np.ndarray]]:
    """By arm, (N,) bits per token of every held-out image minus the baseline's of the same image."""
    found = []
    for row in results.arms:
        if row.setting == "fixed" and row.arm != row.baseline:
            (bits_N, _), (theirs_N, _) = (likelihood_of(results.run, arm) for arm in (row.arm, row.baseline))
            if bits_N is not None and theirs_N is not None and len(bits_N) == len(theirs_N):
                found.append((row, bits_N.astype(np.float64) - theirs_N))
    return found


def latency_trials(results: Results) -> dict[int, LatencyTrial]:
    """The timings by batch; where there are two of one batch, the later, which all figures use."""
    return {trial["batch"]: trial for trial in results.run.done("latency")}


def throughput_batch(results: Results) -> int | None:
    """The batch at which throughput was measured."""
    return max((batch for batch in latency_trials(results) if batch != 1), default=None)


def n_rounds(results: Results, batch: int | None) -> int:
    """How many rounds the timings of a batch have."""
    trial = latency_trials(results).get(batch or 0)
    return 0 if trial is None else len(trial["rounds"])


def timed_apart(results: Results, batch: int | None) -> bool:
    """Whether the times of all arms at a batch are of several sets of rounds, as joined runs can have them: arms of
    two sets never took turns, so between them only ratios to the baseline can be compared."""
    trials = [trial for trial in results.run.done("latency") if trial["batch"] == batch]
    used = {
        next((trial["trial"] for trial in reversed(trials) if round_times(trial, row.arm)), None)
        for row in results.arms if row.setting == "fixed"
    }  # fmt: skip
    return len(used - {None}) > 1


def step_seconds(results: Results) -> dict[str, np.ndarray]:
    """Median seconds of every step at batch 1, by arm, from passes of their own."""
    found: dict[str, np.ndarray] = {}
    for trial in results.run.done("latency"):
        for arm, passes in trial.get("step_s", {}).items():
            alike = [seconds for seconds in passes if len(seconds) == len(passes[0])]
            found[arm] = np.median(np.array(alike, dtype=float), axis=0)
    return found


def passes_words(results: Results) -> str:
    """What `step_seconds` rests on, as in 'median of 3 passes' or 'one pass'."""
    counts = {len(passes) for trial in results.run.done("latency") for passes in trial.get("step_s", {}).values()}
    least, most = min(counts, default=0), max(counts, default=0)
    return "one pass" if most == 1 else f"median of {least}{f' to {most}' * (most > least)} passes"


def guided(guidance: str) -> bool:
    """Whether a guidance, as it is spelled, has an unconditional branch with a cache of its own.

    >>> guided("constant:scale=1"), guided("linear:scale=3")
    (False, True)
    """
    kind, options = split_call(guidance)
    return kind != "none" and float(options.get("scale", 1)) != 1


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of the points that no other point beats, by being as low or lower in both coordinates.

    >>> pareto([(1, 3), (2, 2), (3, 3)])
    [0, 1]
    """

    def beaten(i: int) -> bool:
        (x, y) = points[i]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)

    return [i for i in range(len(points)) if not beaten(i)]
