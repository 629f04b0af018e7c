"""Samples of an arm, decoded in tiles and judged in feature spaces; also the floors, which are images that no arm made.

Knows tiles, what tuning chose, and judges. Under `torchrun` the tiles are divided among the processes. Tiles are fixed,
so the number of processes and a resumption change no code. Refuses to know metrics: a judge answers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orderbench.models.decode import TILE, Counters, decode, mean_counters
from orderbench.models.processes import gather, is_first_process, n_processes, process_rank
from orderbench.models.sampling import Sampling
from orderbench.orders import BenchError, Plan
from orderbench.orders.errors import said
from orderbench.orders.streams import generator
from orderbench.runs.arms import Arm
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Workload
from orderbench.runs.passes import differing, passes_of
from orderbench.runs.record import RecordProblem, read_json, read_kept, write_arrays, write_kept
from orderbench.runs.schema import Differing
from orderbench.runs.spaces import Judge
from orderbench.runs.subject import Subject
from orderbench.runs.trials import Trial, sampling_of, tried_settings

PICTURES = 40
_NOISE_TABLE = 1 << 41  # samples from here on: codes of the noise floor
_JUDGED_S = 0.004  # seconds to turn an image into pixels and features


def measure(trial: Trial, bench: Bench) -> dict[str, Any] | None:
    """Decode and judge the samples of one arm under one setting; every process takes part, the first one answers."""
    arm, subject = bench.arms[trial.arm], bench.subjects.of(trial.model)
    sampling = _sampling(trial, bench, subject)
    plan = arm.plan(subject.model.lattice, trial.seed)
    n = bench.spec.samples
    numbers = range(-(-n // TILE))
    files = [bench.tiles(trial) / f"{number:05d}.npz" for number in numbers]
    problem: BaseException | None = None
    try:
        for number in numbers[process_rank() :: n_processes()]:
            if _kept_tile(files[number], trial, bench, plan, sampling, number) is None:
                _decode_tile(files[number], trial, bench, arm, plan, sampling, number)
            bench.progress(trial, min(n, (number + 1) * TILE), n)
    except KeyboardInterrupt:
        raise
    except BaseException as caught:  # told to the others, who would wait for its tiles
        problem = caught
    problems = [one for one in gather(None if problem is None else said(problem)) if one is not None]
    if problem is not None:
        raise problem
    if problems:
        raise BenchError(f"another process failed: {problems[0]}")
    if not is_first_process():
        return None
    tiles = []
    for number, file in enumerate(files):
        tile = _kept_tile(file, trial, bench, plan, sampling, number)
        if tile is None:
            raise RecordProblem(f"'{file}' was removed while the run was going on; go on with --resume")
        tiles.append(tile)
    codes_NLK = np.concatenate([tile["codes_NLK"] for tile in tiles])
    changed_NL = np.concatenate([tile["changed_NL"] for tile in tiles])
    settled = [tile.get("settled_NL", np.zeros_like(tile["changed_NL"])) for tile in tiles]  # as of an older version
    settled_NL = np.concatenate(settled)
    counters = mean_counters([Counters(*tile["counters"].tolist()) for tile in tiles])
    labels_N = np.arange(n) % subject.model.n_classes
    write_arrays(bench.data(trial, "tokens"), {**codes_as_arrays(codes_NLK), "labels_N": labels_N.astype(np.int32)})
    judged_exact = trial.kind == "quality" and "exact" in arm.traits
    images_Nchw = subject.pixels(torch.from_numpy(codes_NLK.astype(np.int64)))
    return {
        "n": n,
        "sampling": sampling.to_json(),
        "plan_digest": None if arm.order is None else plan.digest,
        "n_steps": whole(float(np.mean([tile["n_steps"] for tile in tiles]))),
        "counters": whole_counters(counters),
        "counters_exact": "varies" not in arm.traits,
        "flops_per_image": bench.flops_per_image(arm, counters, sampling),
        "tokens_digest": hashlib.sha256(np.ascontiguousarray(codes_NLK, "<i4").tobytes()).hexdigest(),
        "decode_s": float(sum(tile["wall_s"] for tile in tiles)),
        "changed_per_image": float(changed_NL.sum(1).mean()),
        "changed_by_cell": changed_NL.mean(0),
        **({"passes": passes_of(settled_NL, counters)} if settled_NL.all() else {}),
        **({"differing": _from_singly(codes_NLK[:TILE], trial, bench)} if judged_exact else {}),
        "quality": _judge(trial, bench, subject, images_Nchw, labels_N),
    }


def seconds(trial: Trial, work: Workload) -> float:
    """The time of decoding whole tiles, the first one also one cell at a time where codes are held to that, and of
    judging every sample."""
    decoded_s = -(-work.spec.samples // TILE) * work.decode_s(trial.arm, TILE)
    if trial.kind == "quality" and trial.arm in work.held_to_one:
        decoded_s += work.singly_s(trial.arm, TILE)
    return decoded_s + _JUDGED_S * work.spec.samples


def codes_as_arrays(codes_NLK: np.ndarray) -> dict[str, np.ndarray]:
    """Codes as records keep them: `tokens_NL` of one code a cell, `codes_NLK` of several."""
    return {"tokens_NL": codes_NLK[..., 0]} if codes_NLK.shape[2] == 1 else {"codes_NLK": codes_NLK}


def codes_of_arrays(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The inverse of `codes_as_arrays`: (N, L, K)."""
    return arrays["codes_NLK"] if "codes_NLK" in arrays else arrays["tokens_NL"][..., None]


def whole(value: float) -> float | int:
    """A mean as a whole number, where it is one."""
    return int(value) if value == int(value) else value


def whole_counters(counters: Counters) -> dict[str, float | int]:
    """Counters as plain values."""
    return {name: whole(value) for name, value in asdict(counters).items()}


def _sampling(trial: Trial, bench: Bench, subject: Subject) -> Sampling:
    if trial.setting == "fixed":
        return bench.fixed(subject)
    tried = tried_settings(bench.spec)
    name = _best_setting(trial.arm, bench) if trial.setting == "tuned" else trial.setting
    return sampling_of(bench.spec, subject.recommended, tried[name])


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
    began = time.perf_counter()
    subject = bench.subjects.of(trial.model)
    decoded = decode(
        subject.model,
        plan,
        range(number * TILE, min(bench.spec.samples, (number + 1) * TILE)),
        sampling=sampling,
        seed=trial.seed,
        device=subject.device,
        decoder=arm.decoder,
    )
    kind = np.uint8 if max(subject.model.code_sizes) <= 256 else np.int32
    write_kept(
        file,
        {
            "codes_NLK": decoded.codes_NLK.numpy().astype(kind),
            "changed_NL": decoded.changed_NL.numpy().astype(np.int32),
            "settled_NL": decoded.settled_NL.numpy().astype(np.int32),
            "counters": np.array(astuple(decoded.counters), np.float64),
            "n_steps": np.array(decoded.n_steps),
            "wall_s": np.array(time.perf_counter() - began),
        },
        _origin(trial, bench, plan, sampling, number),
    )


def _kept_tile(
    file: Path, trial: Trial, bench: Bench, plan: Plan, sampling: Sampling, number: int
) -> dict[str, np.ndarray] | None:
    """A tile that is decoded already; None where there is none, or where it is broken or another's."""
    try:
        return read_kept(file, _origin(trial, bench, plan, sampling, number))
    except RecordProblem as problem:
        bench.noticed(f"{str(problem).partition('; ')[0]}: these samples are decoded again")
        return None


def _origin(trial: Trial, bench: Bench, plan: Plan, sampling: Sampling, number: int) -> list[Any]:
    """What the codes of a tile follow from, for a tile that is kept."""
    model = bench.subjects.of(trial.model).about
    of = min(TILE, bench.spec.samples - number * TILE)
    return [trial.id, number, of, plan.digest, sampling.to_json(), model.get("sha256"), bench.spec.dtype]


def _from_singly(codes_NLK: np.ndarray, trial: Trial, bench: Bench) -> Differing:
    """Decode some samples of an exact arm one cell at a time too, and count the images that differ. Rounding may make
    some differ, as a pass of many cells rounds otherwise than one of one."""
    arm, subject = bench.arms[trial.arm], bench.subjects.of(trial.model)
    plan = arm.plan(subject.model.lattice, trial.seed).singly()
    singly = decode(
        subject.model, plan, range(len(codes_NLK)), sampling=_sampling(trial, bench, subject), seed=trial.seed,
        device=subject.device,
    )  # fmt: skip
    return differing(codes_NLK, singly.codes_NLK.numpy())


def _judge(
    trial: Trial, bench: Bench, subject: Subject, images_Nchw: Tensor, labels_N: np.ndarray
) -> list[dict[str, Any]]:
    pictures = images_Nchw[:PICTURES].permute(0, 2, 3, 1).numpy()
    write_arrays(bench.data(trial, "pictures"), {"images_Nhwc": pictures, "labels_N": labels_N[:PICTURES]})
    results = []
    for judge in bench.subjects.judges:
        features_ND, logits_NC = judge.space.extract(images_Nchw)
        results.append(_result(trial, bench, subject, judge, features_ND, logits_NC, labels_N))
    return results


def _result(
    trial: Trial, bench: Bench, subject: Subject, judge: Judge, features_ND: np.ndarray, logits_NC: np.ndarray | None,
    labels_N: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    arrays = {"features_ND": features_ND} | ({} if logits_NC is None else {"logits_NC": logits_NC})
    write_arrays(bench.data(trial, f"features-{judge.space.id}"), arrays)
    try:
        return judge.judge(features_ND, logits_NC, labels_N, subject.model.n_classes)
    except BenchError as problem:
        name = subject.about["name"]
        raise BenchError(
            f"{trial.arm} of {name} has no quality in the space {judge.space.name}: {problem}"
        ) from problem


def measure_floor(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Judge images that no arm made: real ones, real ones through a model's tokenizer, or random codes."""
    subject, what = bench.subjects.of(trial.model), trial.arm.removesuffix(f"~{trial.model}")
    n, classes = bench.spec.samples, subject.model.n_classes
    if what == "real":
        results = []
        for judge in bench.subjects.judges:
            if judge.real is not None:
                features, logits, labels = (None if part is None else part[:n] for part in judge.real)
                assert features is not None  # noqa: S101 (only logits may be None)
                assert labels is not None  # noqa: S101
                results.append(_result(trial, bench, subject, judge, features, logits, labels))
        return {"n": min(n, results[0]["n"]), "quality": results}
    if what == "reconstructed":
        assert subject.held_out is not None  # noqa: S101 (planned only where there are some)
        codes_NLK, labels_N = subject.held_out[0][:n], subject.held_out[1][:n].numpy()
    else:
        cells = subject.model.lattice.n_cells
        rngs = [generator(0, "noise", _NOISE_TABLE + i) for i in range(n)]
        codes = [np.stack([rng.integers(0, size, cells) for size in subject.model.code_sizes], -1) for rng in rngs]
        codes_NLK, labels_N = torch.from_numpy(np.stack(codes)), np.arange(n) % classes
    return {"n": len(codes_NLK), "quality": _judge(trial, bench, subject, subject.pixels(codes_NLK), labels_N)}


def floor_seconds(trial: Trial, work: Workload) -> float:
    """The time of judging; nothing is decoded."""
    return 1 + _JUDGED_S * work.spec.samples
