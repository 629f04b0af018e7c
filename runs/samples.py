"""Samples of an arm, decoded in tiles and judged in feature spaces; and the floors beside them, which no arm made.

Knows tiles, what tuning chose, and judges. Under `torchrun` the tiles are divided among the processes; since they are
fixed, neither that nor a resumed run changes a token. Refuses to know metrics: a judge answers.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.decode import TILE, Counters, decode
from orderbench.models.processes import gather, is_first_process, n_processes, process_rank
from orderbench.models.sampling import Sampling
from orderbench.orders import BenchError, Plan
from orderbench.orders.streams import generator
from orderbench.runs.arms import Arm
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Cost, Workload
from orderbench.runs.record import RecordProblem, read_arrays, read_json, write_arrays
from orderbench.runs.trials import Trial, describe_sampling, sampling_of, tried_settings

PICTURES = 40
_NOISE_TABLE = 1 << 41  # samples from here on: codes of the noise floor
_JUDGED_S = 0.004  # seconds to turn an image into pixels and features


def measure(trial: Trial, bench: Bench) -> dict[str, Any] | None:
    """Decode and judge the samples of one arm under one setting; every process takes part, the first one answers."""
    arm = bench.arms[trial.arm]
    sampling = _sampling(trial, bench)
    plan = arm.plan(bench.grid, trial.seed)
    n = bench.spec.samples
    numbers = range(-(-n // TILE))
    files = [bench.tiles(trial) / f"{number:05d}.npz" for number in numbers]
    problem: Exception | None = None
    try:
        for number in numbers[process_rank() :: n_processes()]:
            _decode_tile(files[number], trial, bench, arm, plan, sampling, number)
            bench.progress(trial, min(n, (number + 1) * TILE), n)
    except Exception as caught:  # told to the others, who would wait for its tiles
        problem = caught
    problems = [one for one in gather(None if problem is None else str(problem)) if one is not None]
    if problem is not None:
        raise problem
    if problems:
        raise BenchError(f"another process failed: {problems[0]}")
    if not is_first_process():
        return None
    tiles = [read_arrays(file) for file in files]
    tokens_NL = np.concatenate([tile["tokens_NL"] for tile in tiles])
    changed_NL = np.concatenate([tile["changed_NL"] for tile in tiles])
    counters = Counters(*tiles[0]["counters"].tolist())
    labels_N = np.arange(n) % bench.subject.model.n_classes
    write_arrays(bench.data(trial, "tokens"), {"tokens_NL": tokens_NL, "labels_N": labels_N.astype(np.int32)})
    images_Nchw = bench.subject.pixels(torch.from_numpy(tokens_NL.astype(np.int64)))
    return {
        "n": n,
        "sampling": describe_sampling(sampling),
        "plan_digest": None if arm.adaptive else plan.digest,
        "n_steps": plan.n_steps,
        "counters": asdict(counters),
        "flops_per_image": bench.flops_per_image(counters, sampling),
        "tokens_digest": hashlib.sha256(np.ascontiguousarray(tokens_NL, "<i4").tobytes()).hexdigest(),
        "decode_s": float(sum(tile["wall_s"] for tile in tiles)),
        "changed_per_image": float(changed_NL.sum(1).mean()),
        "changed_by_cell": changed_NL.mean(0),
        "quality": _judge(trial, bench, images_Nchw, labels_N),
    }


def seconds(trial: Trial, cost: Cost, work: Workload) -> float:
    """The time of decoding whole tiles, and of judging every sample."""
    tiles = -(-work.spec.samples // TILE)
    return tiles * cost.decode_s(work.counters[trial.arm], TILE) + _JUDGED_S * work.spec.samples


def _sampling(trial: Trial, bench: Bench) -> Sampling:
    if trial.setting == "fixed":
        return bench.fixed
    tried = tried_settings(bench.spec)
    name = _best_setting(trial.arm, bench) if trial.setting == "tuned" else trial.setting
    return sampling_of(bench.spec, bench.subject.recommended, tried[name])


def _best_setting(arm: str, bench: Bench) -> str:
    """The setting with the least Frechet distance in the first space, over the tuning seeds; BenchError until all
    were tried, since a choice among some would be another one after --resume."""
    distances: dict[str, list[float]] = {}
    for trial in bench.trials:
        if trial.kind == "tuning" and trial.arm == arm:
            record = read_json(bench.file(trial))
            if record["status"] != "done":
                raise BenchError(f"the setting {trial.setting} could not be tried, so none is chosen for {arm}")
            distances.setdefault(trial.setting, []).append(record["quality"][0]["fd"]["value"])
    return min(distances, key=lambda name: float(np.mean(distances[name])))


def _decode_tile(file: Path, trial: Trial, bench: Bench, arm: Arm, plan: Plan, sampling: Sampling, number: int) -> None:
    if file.is_file():
        try:
            read_arrays(file)
            return
        except RecordProblem:
            pass  # broken: decoded anew
    began = time.perf_counter()
    decoded = decode(
        bench.subject.model,
        plan,
        range(number * TILE, min(bench.spec.samples, (number + 1) * TILE)),
        sampling=sampling,
        seed=trial.seed,
        device=bench.subject.device,
        decoder=arm.decoder,
    )
    kind = np.uint8 if bench.subject.model.n_codes <= 256 else np.int32
    write_arrays(
        file,
        {
            "tokens_NL": decoded.tokens_NL.numpy().astype(kind),
            "changed_NL": decoded.changed_NL.numpy().astype(np.int32),
            "counters": np.array(list(asdict(decoded.counters).values()), np.int64),
            "wall_s": np.array(time.perf_counter() - began),
        },
    )


def _judge(trial: Trial, bench: Bench, images_Nchw: Tensor, labels_N: np.ndarray) -> list[dict[str, Any]]:
    pictures = images_Nchw[:PICTURES].permute(0, 2, 3, 1).numpy()
    write_arrays(bench.data(trial, "pictures"), {"images_Nhwc": pictures, "labels_N": labels_N[:PICTURES]})
    results = []
    for judge in bench.subject.judges:
        features_ND, logits_NC = judge.space.extract(images_Nchw)
        results.append(_result(trial, bench, judge, features_ND, logits_NC, labels_N))
    return results


def _result(
    trial: Trial, bench: Bench, judge: Any, features_ND: np.ndarray, logits_NC: np.ndarray | None, labels_N: np.ndarray
) -> dict[str, Any]:
    arrays = {"features_ND": features_ND} | ({} if logits_NC is None else {"logits_NC": logits_NC})
    write_arrays(bench.data(trial, f"features-{judge.space.id}"), arrays)
    result: dict[str, Any] = judge.judge(features_ND, logits_NC, labels_N, bench.subject.model.n_classes)
    return result


def measure_floor(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Judge images that no arm made: real ones, real ones through the tokenizer, or random codes."""
    n, classes = bench.spec.samples, bench.subject.model.n_classes
    if trial.arm == "real":
        results = []
        for judge in bench.subject.judges:
            if judge.real is not None:
                features, logits, labels = (None if part is None else part[:n] for part in judge.real)
                assert features is not None  # noqa: S101 (only logits may be None)
                assert labels is not None  # noqa: S101
                results.append(_result(trial, bench, judge, features, logits, labels))
        return {"n": min(n, results[0]["n"]), "quality": results}
    if trial.arm == "reconstructed":
        assert bench.subject.held_out is not None  # noqa: S101 (planned only where there are some)
        tokens_NL, labels_N = bench.subject.held_out[0][:n], bench.subject.held_out[1][:n].numpy()
    else:
        shape = bench.grid.n_cells
        codes = [
            generator(0, "noise", _NOISE_TABLE + i).integers(0, bench.subject.model.n_codes, shape) for i in range(n)
        ]
        tokens_NL, labels_N = torch.from_numpy(np.stack(codes)), np.arange(n) % classes
    return {"n": len(tokens_NL), "quality": _judge(trial, bench, bench.subject.pixels(tokens_NL), labels_N)}


def floor_seconds(trial: Trial, cost: Cost, work: Workload) -> float:
    """The time of judging; nothing is decoded."""
    return 1 + _JUDGED_S * work.spec.samples
