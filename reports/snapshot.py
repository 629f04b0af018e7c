"""Snapshots: what a check needs of a run, small enough to be reviewed in a pull request.

Knows results and a JSON file of its own schema, which `bench baseline` writes. Refuses to judge: `check` holds a
snapshot of a run against one of an earlier run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.reports.compare import busy
from orderbench.reports.conditions import Conditions, Identity, images_of, reference_of, tokenizer_of
from orderbench.reports.results import METRICS, Results, likelihood_of, quality_replicates, replicate
from orderbench.reports.statistics import Interval, jackknife
from orderbench.runs.migration import baseline_from_2
from orderbench.runs.record import read_json

SCHEMA = 3  # 1 left out other groups, and did not say on which images; 2 knew one model
KIND = "orderbench baseline"
GROUPS = 20  # of images, for the jackknife of bits per token


def snapshot(results: Results) -> dict[str, Any]:
    """What a check needs of a run, as plain values."""
    run = results.run
    latency = run.done("latency")
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
            "plan_digest": row.about["plan_digest"],
            "counters": row.counters,
            "counters_exact": row.counters_exact,
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
        "models": {
            name: {
                "name": model["name"],
                "sha256": model.get("sha256"),
                "lattice": model["lattice"],
                "tokenizer": tokenizer_of(model),
                "images": vars(images_of(run, model)),
                "setting": model["setting"],
                "baseline": model["baseline"],
            }
            for name, model in run.about["models"].items()
        },
        "space": results.space,
        "reference": vars(Identity("") if space is None else reference_of(space)),
        "dtype": run.about["config"].get("dtype"),
        "device": latency[0]["device"] if latency else None,
        "busy": busy(run),
        "rounds": {str(trial["batch"]): len(trial["rounds"]) for trial in latency},
        "noise": {str(batch): _short(noise_factor(twice)) for batch, twice in results.noise.items()},
        "arms": arms,
    }


def conditions_in(snapshot: Mapping[str, Any], arm: str) -> Conditions:
    """What the numbers of an arm were measured under, from a snapshot."""
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
        reference=Identity(**snapshot["reference"]),
        n=about["n"],
        seeds=frozenset(map(int, fd)),
        groups=frozenset(len(values) for values in left_out if values is not None),
        images=Identity(**model["images"]),
        n_images=(about["bits"] or {}).get("n"),
        device=snapshot["device"],
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
    if not file.exists():
        raise BenchError(
            f"there is no baseline '{file}'; --baseline takes the folder of a run, or the file that `bench baseline "
            f"RUN --out {file.name}` writes"
        )
    value = read_json(file)
    if value.get("kind") != KIND:
        raise BenchError(f"'{file}' is no baseline of this suite; `bench baseline RUN --out {file.name}` writes one")
    schema = value.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BenchError(
            f"'{file}' has schema {schema} and this orderbench reads {SCHEMA}: install a newer one, or write it "
            f"anew with bench baseline"
        )
    if schema not in (2, SCHEMA):
        raise BenchError(
            f"'{file}' has schema {schema} and this orderbench reads {SCHEMA}; write it anew with bench baseline"
        )
    whole = _PARTS if schema == SCHEMA else _PARTS_2
    parts = [
        ("baseline", value, whole),
        *(("model", model, _MODEL_PARTS) for model in _values(value.get("models", {}))),
        *(("arm", arm, _ARM_PARTS[: None if schema == SCHEMA else -3]) for arm in _values(value.get("arms"))),
    ]
    for what, part, needed in parts:
        missing = [name for name in needed if not isinstance(part, Mapping) or name not in part]
        if missing:
            raise BenchError(
                f"'{file}' is no whole baseline: an entry of kind {what} lacks {', '.join(missing)}; write it anew "
                f"with bench baseline"
            )
    if not value["arms"]:
        raise BenchError(f"'{file}' holds no arm; write it anew with bench baseline, from a run that is finished")
    foreign = [arm for arm, one in value["arms"].items() if schema == SCHEMA and one["model"] not in value["models"]]
    if foreign:
        raise BenchError(f"'{file}' says nothing of the model of {foreign[0]}; write it anew with bench baseline")
    current = value if schema == SCHEMA else baseline_from_2(value)
    try:
        for arm in current["arms"]:
            _read_through(current, arm)
    except (KeyError, TypeError, ValueError, AttributeError, BenchError) as problem:
        raise BenchError(
            f"'{file}' holds something else where numbers belong ({type(problem).__name__}: {problem}); write it anew "
            f"with bench baseline"
        ) from problem
    return current


def _read_through(value: Mapping[str, Any], arm: str) -> None:
    """Read everything that a check reads of an arm; raises whatever a foreign value leads to."""
    about = value["arms"][arm]
    conditions_in(value, arm)
    for by_seed in about["quality"].values():
        jackknife([replicate(one) for one in by_seed.values()])
    if about["bits"]:
        jackknife([replicate(about["bits"])])
    for stored in (*about["speedup"].values(), about["latency_s"]):
        if stored is not None:
            Interval(*stored).scaled(1.0)
    for count in (*about["counters"].values(), *value["rounds"].values(), *value["noise"].values()):
        float(count)


_PARTS = ("models", "space", "reference", "dtype", "device", "busy", "rounds", "noise", "arms")
_PARTS_2 = ("model", "tokenizer", "images", "space", "reference", "setting", "device", "busy", "rounds", "arms")
_MODEL_PARTS = ("name", "sha256", "lattice", "tokenizer", "images", "setting", "baseline")
_ARM_PARTS = ("plan_digest", "counters", "n", "quality", "bits", "speedup", "latency_s", "model", "decoder",
              "counters_exact")  # fmt: skip # the last three are schema 3's


def _values(arms: Any) -> list[Any]:
    return list(arms.values()) if isinstance(arms, Mapping) else [arms]


def noise_factor(twice: Interval | None) -> float:
    """The factor by which one arm timed twice may differ from itself: the far end of A/A's interval; 1 without one."""
    ends = [1.0] if twice is None else [end for end in (twice.value, twice.low, twice.high) if end]
    return float(np.exp(np.abs(np.log(ends)).max()))
