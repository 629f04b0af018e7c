"""Snapshots: what a check needs of a run, small enough to be reviewed in a pull request.

Knows results and a JSON file of its own schema, which `bench baseline` writes and whose every field has its type here.
Refuses to judge: `check` holds a snapshot of a run against one of an earlier run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.documents import Amount, Count, Least1, Limit, Line, Number, Positive, misfit
from orderbench.reports.compare import busy
from orderbench.reports.conditions import Conditions, Identity, images_of, reference_of
from orderbench.reports.results import (
    METRICS,
    Results,
    likelihood_of,
    may_have_seen,
    quality_replicates,
    replicate,
    tokenizer_of,
    with_flops,
)
from orderbench.reports.statistics import Interval
from orderbench.runs.migration import baseline_from_2
from orderbench.runs.record import Run, read_json
from orderbench.runs.schema import DeviceAbout, FileName, Setting, Spelled

SCHEMA = 3  # 1 left out other groups, and did not say on which images; 2 knew one model
KIND = "orderbench baseline"
GROUPS = 20  # of images, for the jackknife of bits per token

Whole = Annotated[str, Limit("a whole number", lambda text: text.isascii() and text.isdecimal() and len(text) < 19)]
Stored = Annotated[  # an interval of a positive number
    list[Positive | None],
    Limit("value, low and high, above 0, the last two null where there are none",
          lambda ends: len(ends) == 3 and ends[0] is not None),
]  # fmt: skip


class StoredMetric(TypedDict):
    """A metric, and what it is without each group of samples."""

    value: Number
    left_out: list[Number | None] | None


class StoredBits(StoredMetric):
    """Bits per token of some held-out images."""

    n: Least1


class StoredIdentity(TypedDict):
    """What identifies a file or a set of images."""

    name: str | None
    sha256: NotRequired[str | None]
    images: NotRequired[Count | None]
    unseen: NotRequired[bool]  # False where it is not known that the weights never saw these images


class StoredModel(TypedDict):
    """One model of a run. What an older baseline did not say is null."""

    name: Line
    sha256: str | None
    lattice: Line | None
    tokenizer: str
    images: StoredIdentity
    setting: Setting
    baseline: Spelled | None


class StoredArm(TypedDict):
    """One arm. rewrites: whether its decoder overwrites codes; older baselines do not say it. counters: those that all
    of its trials have, or its last one; counted: which trials those are; counters_by: those of the trials that have
    others."""

    model: str
    decoder: Spelled | None
    rewrites: NotRequired[bool]
    plan_digest: str | None
    counters: dict[Line, Amount]
    counters_exact: bool
    counted: NotRequired[list[str]]
    counters_by: NotRequired[dict[str, dict[Line, Amount]]]
    n: Least1 | None
    quality: dict[Line, dict[Whole, StoredMetric]]
    bits: StoredBits | None
    speedup: dict[Whole, Stored]
    latency_s: Stored | None


class Snapshot(TypedDict):
    """The file of `bench baseline`. commit: of the orderbench that measured, seven digits, and + where files had been
    changed. devices: of batches that were not timed on `device`."""

    schema: int
    kind: str
    created: NotRequired[str]
    commit: NotRequired[Line]
    models: dict[str, StoredModel]
    space: FileName | None
    reference: StoredIdentity
    dtype: str | None
    device: DeviceAbout | None
    devices: NotRequired[dict[Whole, DeviceAbout]]
    busy: str
    rounds: dict[Whole, Count]
    noise: dict[Whole, Annotated[float, Limit("a factor of 1 or more", lambda factor: 1 <= factor < 1e6)]]
    arms: dict[Spelled, StoredArm]


def snapshot(results: Results) -> dict[str, Any]:
    """What a check needs of a run, as plain values: a `Snapshot`."""
    run = results.run
    latency = run.done("latency")
    device = latency[0]["device"] if latency else None
    others = {str(trial["batch"]): trial["device"] for trial in latency if trial["device"] != device}
    arms = {}
    for row in results.arms:
        if row.setting != "fixed":
            continue
        quality = {}
        for metric in METRICS:
            by_seed = quality_replicates(run, row.arm, "fixed", results.space, metric)
            if by_seed and metric in ("fd", "kd", "agreement"):
                quality[metric] = {
                    str(seed): {"value": _short(value), "left_out": None if left is None else list(map(_short, left))}
                    for seed, (value, left) in by_seed.items()
                }
        arms[row.arm] = {
            "model": row.model,
            "decoder": row.about["decoder"],
            "rewrites": row.rewrites,
            "plan_digest": row.about["plan_digest"],
            "counters": row.counters,
            "counters_exact": row.counters_exact,
            **_counted(run, row.arm, row.counters),
            "n": row.n,
            "quality": quality,
            "bits": _bits(results, row.arm),
            "speedup": {str(batch): rounded(ratio) for batch, ratio in row.speedup.items()},
            "latency_s": rounded(row.figures["latency_s"]) if "latency_s" in row.figures else None,
        }
    space = next((entry for entry in run.about["spaces"] if entry["space"] == results.space), None)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "created": run.about["created"],
        **_commit(run),
        "models": {
            name: {
                "name": model["name"],
                "sha256": model.get("sha256"),
                "lattice": model["lattice"],
                "tokenizer": tokenizer_of(model),
                "images": vars(images_of(run, model)) | ({"unseen": False} if may_have_seen(model) else {}),
                "setting": model["setting"],
                "baseline": model["baseline"],
            }
            for name, model in run.about["models"].items()
        },
        "space": results.space,
        "reference": vars(Identity("") if space is None else reference_of(space)),
        "dtype": run.about["config"].get("dtype"),
        "device": device,
        **({"devices": others} if others else {}),
        "busy": busy(run),
        "rounds": {str(trial["batch"]): len(trial["rounds"]) for trial in latency},
        "noise": {str(batch): _short(noise_factor(twice)) for batch, twice in results.noise.items()},
        "arms": arms,
    }


def _commit(run: Run) -> dict[str, str]:
    """The commit that the last part of a run was measured at; nothing where it was made outside of a checkout."""
    git = next((one.get("git") for one in reversed(run.about["environments"])), None) or {}
    commit = git.get("commit")
    return {"commit": f"{commit[:7]}{'+' if git.get('dirty') else ''}"} if commit else {}


def _counted(run: Run, arm: str, counters: Mapping[str, float]) -> dict[str, Any]:
    """Which trials counted the work of an arm, and what those counted that do not agree with `counters`."""
    found = {
        f"batch {trial['batch']}": with_flops(trial["counters"][arm], trial["flops_per_image"].get(arm))
        for trial in run.done("latency")
        if arm in trial["counters"]
    }
    for trial in run.done("quality"):
        if (trial["arm"], trial["setting"]) == (arm, "fixed"):
            found[f"seed {trial['seed']}"] = with_flops(trial["counters"], trial["flops_per_image"])
    other = {name: counted for name, counted in found.items() if counted != counters}
    return {"counted": list(found), **({"counters_by": other} if other else {})}


def counters_in(about: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The counters of an arm in a snapshot, by the trial that counted; an older one does not say which, so it is ''."""
    by: Mapping[str, Mapping[str, float]] = about.get("counters_by", {})
    return {
        name: by.get(name, about["counters"]) for name in about.get("counted") or ([""] if about["counters"] else ())
    }


def _identity(stored: Mapping[str, Any]) -> Identity:
    return Identity(stored["name"], stored.get("sha256"), stored.get("images"))


def conditions_in(snapshot: Mapping[str, Any], arm: str, batch: str = "1") -> Conditions:
    """What the numbers of an arm were measured under, from a snapshot; of its speeds, those at a batch."""
    about = snapshot["arms"][arm]
    model, fd = snapshot["models"][about["model"]], about["quality"].get("fd", {})
    left_out = [replicate(one)[1] for one in fd.values()]
    return Conditions(
        model=Identity(model["name"], model["sha256"]),
        lattice=model["lattice"],
        plan=about["plan_digest"],
        decoder=about["decoder"],
        setting=model["setting"],
        dtype=snapshot["dtype"],
        tokenizer=model["tokenizer"],
        space=snapshot["space"],
        reference=_identity(snapshot["reference"]),
        n=about["n"],
        seeds=frozenset(map(int, fd)),
        groups=frozenset(len(values) for values in left_out if values is not None),
        images=_identity(model["images"]),
        n_images=(about["bits"] or {}).get("n"),
        device=snapshot.get("devices", {}).get(batch, snapshot["device"]),
        baseline=model["baseline"],
    )


def baseline_of(results: Results) -> dict[str, Any]:
    """The snapshot of a run that others may be compared with; BenchError for one that measured nothing of any arm."""
    folder = results.run.folder
    if not any(results.run.done(kind) for kind in ("quality", "likelihood", "latency")):
        raise BenchError(
            f"no trial of an arm of '{folder.name}' is finished, so it is no baseline; go on with bench run --resume "
            f"--out {folder}"
        )
    return snapshot(results)


def _short(value: float) -> float:
    return float(f"{value:.9g}")


def rounded(interval: Interval) -> list[float | None]:
    """An interval as value, low and high, to nine digits."""
    return [None if v is None else _short(v) for v in (interval.value, interval.low, interval.high)]


def _bits(results: Results, arm: str) -> dict[str, Any] | None:
    """Mean bits per token, and the mean without each of some groups of images."""
    stored_N, _ = likelihood_of(results.run, arm)
    if stored_N is None:
        return None
    bits_N = stored_N.astype(np.float64)
    group_N = np.arange(len(bits_N)) * GROUPS // len(bits_N)  # blocks: classes come in turn, and 20 is twice ten
    left = [float(bits_N[group_N != g].mean()) for g in range(GROUPS)] if len(bits_N) >= 2 * GROUPS else None
    n = next(trial["n"] for trial in results.run.done("likelihood") if trial["arm"] == arm)
    return {"n": n, "value": _short(float(bits_N.mean())), "left_out": left and list(map(_short, left))}


def read_snapshot(file: Path) -> dict[str, Any]:
    """A file of `bench baseline`; BenchError for anything else."""
    if not os.path.exists(file):  # nor where its name is too long
        raise BenchError(
            f"there is no baseline '{file}'; --baseline takes the folder of a run, or the file that `bench baseline "
            f"RUN --out {file.name}` writes"
        )
    value = read_json(file)
    if value.get("kind") != KIND:
        raise BenchError(f"'{file}' is no baseline of this suite; `bench baseline RUN --out {file.name}` writes one")
    schema = value.get("schema")
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        raise BenchError(
            f"'{file}' has schema {schema} and this orderbench reads {SCHEMA}: install a newer one, or write it "
            f"anew with bench baseline"
        )
    if schema not in (2, SCHEMA) or not isinstance(schema, int):
        raise BenchError(
            f"'{file}' has schema {schema} and this orderbench reads {SCHEMA}; write it anew with bench baseline"
        )
    anew = "write it anew with bench baseline"
    try:
        current = value if schema == SCHEMA else baseline_from_2(value)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise BenchError(
            f"'{file}' has schema 2 and lacks part of what that schema holds ({type(problem).__name__}: {problem}); "
            f"{anew}"
        ) from problem
    unlike = misfit(current, Snapshot)
    if unlike:
        raise BenchError(f"'{file}' is no whole baseline: it {unlike}; {anew}")
    if not current["arms"]:
        raise BenchError(f"'{file}' holds no arm; {anew}, from a run that is finished")
    foreign = [arm for arm, one in current["arms"].items() if one["model"] not in current["models"]]
    if foreign:
        raise BenchError(f"'{file}' says nothing of the model of {foreign[0]}; {anew}")
    return current


def noise_factor(twice: Interval | None) -> float:
    """The factor by which one arm timed twice may differ from itself: the far end of A/A's interval; 1 without one."""
    ends = [1.0] if twice is None else [end for end in (twice.value, twice.low, twice.high) if end]
    return float(np.exp(np.abs(np.log(ends)).max()))
