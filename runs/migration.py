"""Migrations: records of older schemas brought to the current shape, once, when they are read.

Knows every shape that records have had. Refuses to know what the numbers mean, and to write: the files stay as they
are. What an older record does not say becomes an explicit None, or what was true of every run then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orderbench.runs.spec import model_name

_CHOOSING = ("confidence",)  # of schema 1: what is written in the place of an order and chooses its cells


# A run


RUN_1: Mapping[str, type] = {"arms": list, "baseline": str, "config": dict, "created": str, "environments": list,
                             "setting": dict, "subject": dict, "trials": list}  # fmt: skip


def run_from_1(about: Mapping[str, Any]) -> dict[str, Any]:
    """run.json of schema 1 in the shape of schema 2: its one model gets a name, and what was said of the run's model is
    said there."""
    subject = about["subject"]
    old = dict(subject["model"])
    name = model_name(str(old["name"]))
    model = {
        **{key: value for key, value in old.items() if key not in ("grid", "codes")},
        "lattice": str(old["grid"]),
        "code_sizes": [old["codes"]],
        "classes": old["classes"],
        "native": "raster",
        "setting": about["setting"],
        "baseline": about["baseline"],
        "ratio": True,  # always raster, one cell at a time
    }
    tokenizer = subject.get("tokenizer")
    if tokenizer:
        kept = {key: value for key, value in tokenizer.items() if key != "codes"}
        model["tokenizer"] = {**kept, "code_sizes": [tokenizer["codes"]]}
    if subject.get("held_out"):
        model["held_out"] = subject["held_out"]
    known = {key: value for key, value in about.items() if key not in ("setting", "baseline", "subject")}
    return {
        **known,
        "schema": 2,
        "models": {name: model},
        "spaces": [{"reference_sha256": None, **space} for space in subject.get("spaces", [])],
        "device": subject.get("device", "cpu"),
        "arms": [_arm_from_1(arm, name) for arm in about["arms"]],
        "refused": {},
        "environments": [_environment_from_1(one) for one in about["environments"]],
    }


def _arm_from_1(arm: Mapping[str, Any], model: str) -> dict[str, Any]:
    correction, order = arm["correction"], arm["order"].partition(":")[0]
    traits = ["rewrites"] if correction != "off" else ["chooses"] if order in _CHOOSING else []
    said = {"plan": None, "plan_digest": None, "per_sample": False, "training_share": None,
            "training_share_at_pace": None, "predicted_tax_bits": None}  # fmt: skip
    kept = {key: value for key, value in arm.items() if key != "correction"}
    one = {**said, **kept, "decoder": correction, "model": model, "traits": traits}
    parallel = arm["n_steps"] < sum(arm["sizes"])
    return {**one, "predicted_tax_bits": _predicted(one["predicted_tax_bits"], parallel)}


def _predicted(tax_bits: float | None, parallel: bool) -> float | None:
    """Schema 1 wrote 0 also where nothing was predicted. Parallel steps have a tax above 0, so there 0 becomes None."""
    return None if parallel and not tax_bits else tax_bits


def _environment_from_1(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The first records have the load alone, and not the state of the clock."""
    return {"clock": {"load_average": environment.get("load_average"), "gpu": None}, **environment}


# A trial


def trial_from_1(trial: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """A trial of schema 1 in the shape of schema 2. about: run.json of schema 1."""
    one = dict(trial)
    if one["status"] != "done":
        return one
    if one["kind"] in ("quality", "tuning", "repair", "latency"):
        one.setdefault("sampling", about["setting"])
    if one["kind"] in ("quality", "tuning"):
        one = {"flops_per_image": None, "counters_exact": True, **one}
    if one["kind"] == "latency":
        said: dict[str, Any] = {"flops_per_image": {}, "memory": {}, "setup_s": {}, "warm_up": {}, "failed_arms": {},
                                "weights_bytes": None, "clock_after": None}  # fmt: skip
        one = {**said, **one, "counters_exact": dict.fromkeys(one["counters"], True)}
    if one["kind"] == "likelihood":
        one = {"field": None, "predicted_tax_bits": None, **one}
        one["predicted_tax_bits"] = _predicted(one["predicted_tax_bits"], one["n_steps"] < len(one["bits_by_cell"]))
    if "quality" in one:
        one["quality"] = [_result_from_1(result) for result in one["quality"]]
    return one


def _result_from_1(result: Mapping[str, Any]) -> dict[str, Any]:
    """A kernel distance once said `n`: it was to the first n images of the reference."""
    kd = result.get("kd")
    if not kd or "n" not in kd:
        return dict(result)
    kept = {key: value for key, value in kd.items() if key != "n"}
    return {**result, "kd": {"n_reference": kd["n"], **kept}}


# The file of `bench baseline`


def baseline_from_2(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline file of schema 2 in the shape of schema 3: its one model gets a name, and counters are exact."""
    name = model_name(str(snapshot["model"]["name"]))
    moved = ("model", "tokenizer", "images", "setting", "baseline")
    model = {
        **snapshot["model"],
        "lattice": None,
        "tokenizer": snapshot["tokenizer"] or "",
        "images": snapshot["images"],
        "setting": snapshot["setting"],
        "baseline": snapshot.get("baseline"),
    }
    added = {"model": name, "decoder": None, "counters_exact": True}
    return {
        "dtype": None,
        "noise": {},
        **{key: value for key, value in snapshot.items() if key not in moved},
        "schema": 3,
        "models": {name: model},
        "arms": {arm: {**added, **one} for arm, one in snapshot["arms"].items()},
    }
