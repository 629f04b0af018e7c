"""Running: arms and a subject to records, one trial at a time.

Knows trials, their order, and how each is measured and stored. Refuses to know how results are shown: whoever watches
gets called. A trial that was done is never done again; one that fails is recorded as failed, and the others go on.

Under `torchrun` the tiles of samples are divided among the processes and the first one does all the rest. Since
samples are decoded in fixed tiles, neither that nor a resumed run changes a token.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from orderbench.models.correction import measure_repair
from orderbench.models.decode import (
    TILE,
    Counters,
    Tile,
    decode,
    make_tile,
    run_tile,
    step_bits,
    uncached_steps,
)
from orderbench.models.flops import flops
from orderbench.models.likelihood import bits_of, plan_logits, walk
from orderbench.models.processes import gather, is_first_process, join_processes, n_processes, process_rank
from orderbench.models.sampling import Guidance, Sampling, parse_guidance
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Field, Plan, parallel_tax
from orderbench.orders.plan import forget_drawn
from orderbench.orders.streams import generator
from orderbench.runs.arms import BASELINE, Arm, expand_arms, parse_arm, training_share
from orderbench.runs.environment import capture
from orderbench.runs.record import (
    KIND,
    SCHEMA,
    RecordProblem,
    file_name,
    load_run,
    plain,
    read_arrays,
    read_json,
    sole_writer,
    write_arrays,
    write_json,
)
from orderbench.runs.spec import TUNING_SEED, RunSpec
from orderbench.runs.subject import Subject
from orderbench.runs.timing import Contender, WarmUp, clock_state, peak_memory, rounds, step_times, warm_up

FLOORS = ("real", "reconstructed", "noise")
ERROR_RATES = (0.05, 0.1, 0.2)
PICTURES = 40
_CHUNK = 50  # images a likelihood pass
_NOISE_TABLE = 1 << 41  # samples from here on: codes of the noise floor


@dataclass(frozen=True)
class Trial:
    """One thing that is measured and recorded as a whole.

    kind: 'likelihood' (bits of held-out images), 'floor' (a set of images that no arm made), 'tuning' and 'quality'
    (samples of an arm under a setting), 'repair' (injected errors), 'latency' (all arms in turns at one batch).
    setting: 'fixed', 'tuned' (the best of this arm's tuning), or, when tuning, the values tried.
    """

    kind: str
    arm: str = ""
    seed: int = 0
    setting: str = "fixed"
    batch: int = 0

    @property
    def reads_held_out(self) -> bool:
        """Whether it needs codes of images that the model never saw."""
        return self.kind in ("likelihood", "repair") or self.arm == "reconstructed"

    @property
    def id(self) -> str:
        """A name for files."""
        setting = "" if self.setting == "fixed" else self.setting
        return file_name(self.kind, self.arm, setting, f"s{self.seed}" if self.kind != "latency" else f"b{self.batch}")


class Watcher(Protocol):
    """Whoever is told how a run goes."""

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        """Before anything is measured: all trials, and the ids of those that are done already."""

    def progress(self, trial: Trial, done: int, total: int) -> None:
        """Some of a trial is done."""

    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        """A trial is recorded."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: the ids of trials that failed."""

    folder: Path
    failed: tuple[str, ...]


def plan_trials(spec: RunSpec, arms: Sequence[Arm], subject: Subject) -> tuple[Trial, ...]:
    """Every trial of a run, in the order in which they are measured.

    Raises BenchError where what was asked cannot be measured on this subject.
    """
    sampling_of(spec, subject.recommended)  # what is out of range is said now
    trials: list[Trial] = []
    if "likelihood" in spec.only and subject.held_out_source is not None:
        trials += [Trial("likelihood", arm.name) for arm in arms if arm.has_likelihood]
    if "quality" in spec.only and subject.judges:
        there = {
            "real": any(judge.real is not None for judge in subject.judges),
            "reconstructed": subject.held_out_source is not None,
            "noise": True,
        }
        trials += [Trial("floor", name) for name in FLOORS if there[name]]
        tried = _tried(spec)
        for values in tried.values():
            sampling_of(spec, subject.recommended, values)
        trials += [
            Trial("tuning", arm.name, TUNING_SEED + seed, name)
            for arm in arms for name in tried for seed in range(spec.seeds)
        ]  # fmt: skip
        for seed in spec.replicates:
            for arm in arms:
                trials += [Trial("quality", arm.name, seed)]
                trials += [Trial("quality", arm.name, seed, "tuned")] if tried else []
        if subject.held_out_source is not None:
            trials += [Trial("repair", arm.name) for arm in arms if arm.correction != "off"]
    if "latency" in spec.only:
        trials += [Trial("latency", batch=batch) for batch in dict.fromkeys((1, spec.batch))]
    if not trials:
        raise BenchError(
            f"nothing of {', '.join(spec.only)} can be measured on this model: quality needs a tokenizer, as in "
            f"--tokenizer FILE, and likelihood held-out images too, as in --data FOLDER"
        )
    return tuple(trials)


def _tried(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The settings to tune over: every combination, by its spelling."""
    axes = spec.tune or {}
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    return {",".join(f"{name}={value}" for name, value in values.items()): values for values in combinations}


def sampling_of(spec: RunSpec, recommended: dict[str, Any], over: dict[str, Any] | None = None) -> Sampling:
    """The fixed setting: what was asked, else what the weights' card recommends, else plain; `over` replaces."""
    asked = {name: getattr(spec, name) for name in ("guidance", "temperature", "top_k", "top_p")}
    values = {**recommended, **{name: value for name, value in asked.items() if value is not None}, **(over or {})}
    guidance = parse_guidance(str(values["guidance"])) if "guidance" in values else Guidance()
    return Sampling(
        guidance=guidance,
        temperature=float(values.get("temperature", 1.0)),
        top_k=int(values.get("top_k", 0)),
        top_p=float(values.get("top_p", 1.0)),
    )


def _traceback(problem: Exception | None) -> str:
    """Its last frames, with no more of a file's path than its folder: records are published."""
    lines = [] if problem is None else traceback.format_exception(problem)[-6:]
    return re.sub(r'File "[^"]*?([^"/\\]+[/\\][^"/\\]+)"', r'File "\1"', "".join(lines))


def describe_sampling(sampling: Sampling) -> dict[str, Any]:
    """A setting as it stands in records."""
    return {
        "guidance": str(sampling.guidance),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
    }


def execute(
    spec: RunSpec, subject: Subject, folder: Path, watcher: Watcher, *, resume: bool = False, fail_fast: bool = False
) -> Ended:
    """Measure everything that was asked and is not done yet.

    Raises RecordProblem for a folder that cannot be used, and BenchError where a resumed run was another one.
    """
    join_processes(subject.device)
    arms = expand_arms(spec.orders, spec.paces, spec.correction, subject.model.lattice)
    trials = plan_trials(spec, arms, subject)
    if not is_first_process():
        return _Execution(spec, subject, folder, watcher, arms, trials).run(fail_fast)
    with sole_writer(folder):
        _open(spec, subject, folder, arms, trials, resume)
        return _Execution(spec, subject, folder, watcher, arms, trials).run(fail_fast)


def _open(
    spec: RunSpec, subject: Subject, folder: Path, arms: Sequence[Arm], trials: Sequence[Trial], resume: bool
) -> None:
    """Write run.json, or check that a resumed run is the same and note where it goes on."""
    file = folder / "run.json"
    held_out = subject.describe_held_out() if any(trial.reads_held_out for trial in trials) else {}
    environment = {"at": now(), **capture(subject.device), "clock": clock_state(subject.device)}
    about = plain(
        {
            "schema": SCHEMA,
            "kind": KIND,
            "created": now(),
            "config": spec.to_json(),
            "setting": describe_sampling(sampling_of(spec, subject.recommended)),
            "subject": {**subject.about, **held_out, "device": _kind_of(subject.device)},
            "arms": [_describe(arm, subject) for arm in arms],
            "baseline": BASELINE,
            "trials": [trial.id for trial in trials],
            "environments": [environment],
        }
    )
    if file.exists():
        if not resume:
            raise RecordProblem(
                f"'{folder}' holds a run already; go on with it by --resume, or name another place, as in "
                f"--out {folder.name}-2"
            )
        before = load_run(folder).about
        before["config"] = RunSpec.from_json(before["config"], "run.json").to_json()  # keys that came later
        for key in ("config", "setting", "subject", "arms", "trials"):
            if before[key] != about[key]:
                raise RecordProblem(
                    f"'{folder}' holds a run of another {_difference(before[key], about[key], key)}; go on with the "
                    f"same, or name another place, as in --out {folder.name}-2"
                )
        about = {**before, "environments": [*before["environments"], environment]}
    elif resume:
        raise RecordProblem(f"'{folder}' holds no run to go on with; leave --resume away to start one")
    write_json(file, about)


def _difference(before: Any, now: Any, where: str) -> str:
    """Where two values differ first, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}.{key}")
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            if pair[0] != pair[1]:
                return _difference(*pair, f"{where}[{index}]")
    shown = [text if len(text) < 60 else f"{text[:56]} ..." for text in (str(before), str(now))]
    return f"{where} ({shown[0]}, not {shown[1]})"


def _describe(arm: Arm, subject: Subject) -> dict[str, Any]:
    plan = arm.plan(subject.model.lattice, 0)
    share, share_at_pace = training_share(arm, subject.objective, subject.model.lattice)
    return {
        "name": arm.name,
        "order": arm.order,
        "pace": arm.pace,
        "correction": arm.correction,
        "n_steps": plan.n_steps,
        "sizes": list(plan.sizes),
        "plan": None if arm.adaptive else plan.to_json(),
        "plan_digest": None if arm.adaptive else plan.digest,
        "per_sample": plan.per_sample,
        "training_share": share,
        "training_share_at_pace": share_at_pace,
        "predicted_tax_bits": _predicted_tax(plan) if arm.has_likelihood else None,
    }


def _predicted_tax(plan: Plan) -> float | None:
    if plan.lattice.n_cells > 1024:
        return None  # the field's covariance is dense
    return round(parallel_tax(plan, Field(), range(4)), 9)  # the digits behind change with the threads of BLAS


def new_folder(spec: RunSpec) -> Path:
    """A folder name that is not taken: bench-runs/DATE-TIME-ORDERS."""
    words = "-".join(order.partition("@")[0].partition(":")[0].partition("+")[0] for order in spec.orders)
    name = f"{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}-{words[:40]}"
    folder = Path("bench-runs") / name
    return folder if not folder.exists() else folder.with_name(f"{name}-{os.getpid()}")


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Execution:
    """The state of one run in one process."""

    def __init__(
        self,
        spec: RunSpec,
        subject: Subject,
        folder: Path,
        watcher: Watcher,
        arms: Sequence[Arm],
        trials: Sequence[Trial],
    ) -> None:
        self.spec, self.subject, self.folder, self.watcher, self.trials = spec, subject, folder, watcher, trials
        self.arms = {arm.name: arm for arm in arms}
        self.grid = subject.model.lattice
        self.fixed = sampling_of(spec, subject.recommended)

    def run(self, fail_fast: bool) -> Ended:
        gather(None)  # run.json is there
        done = [trial.id for trial in self.trials if self._is_done(trial)]
        gather(None)  # every process has looked before anything changes
        failed: list[str] = []
        if is_first_process():
            self.watcher.planned(self.trials, done)
        for trial in self.trials:
            if trial.id in done:
                continue
            began, body, problem = time.perf_counter(), None, None
            try:
                body = self._measure(trial)
            except RecordProblem:
                raise
            except Exception as caught:  # an arm's failure is a result; the others go on
                problem = caught
            told = gather((None if problem is None else f"{type(problem).__name__}: {problem}", _is_whole(body)))
            reason = next((one for one, _ in told if one is not None), None)
            if is_first_process():
                record = self._record(trial, body, reason, problem, time.perf_counter() - began)
                if reason is None:
                    shutil.rmtree(self._tiles(trial), ignore_errors=True)
                self.watcher.ended(trial, record)
            if reason is not None or not all(whole for _, whole in told):
                failed.append(trial.id)
                if fail_fast:
                    break
            gather(None)  # the record is there for those that read it
        return Ended(self.folder, tuple(failed))

    def _is_done(self, trial: Trial) -> bool:
        file = self._file(trial)
        if not file.is_file():
            return False
        return is_done(read_json(file))

    def _file(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.id}.json"

    def _data(self, trial: Trial, what: str) -> Path:
        return self.folder / "data" / f"{trial.id}.{what}.npz"

    def _record(
        self, trial: Trial, body: dict[str, Any] | None, reason: str | None, problem: Exception | None, wall_s: float
    ) -> dict[str, Any]:
        record: dict[str, Any] = {
            "trial": trial.id,
            "kind": trial.kind,
            "arm": trial.arm,
            "seed": trial.seed,
            "setting": trial.setting,
            "status": "done" if reason is None else "failed",
            "ended": now(),
            "wall_s": wall_s,
        }
        if reason is None:
            record |= body or {}
        else:
            record["reason"] = reason.removeprefix("BenchError: ")
            record["traceback"] = _traceback(problem)
            if trial.kind == "latency" and self._file(trial).is_file():
                record = {**read_json(self._file(trial)), **record}  # rounds that were measured stay
        write_json(self._file(trial), record)
        return record

    def _measure(self, trial: Trial) -> dict[str, Any] | None:
        if trial.kind in ("quality", "tuning"):
            return self._samples(trial)
        if not is_first_process():
            return None
        measures: dict[str, Callable[[Trial], dict[str, Any]]] = {
            "likelihood": self._likelihood,
            "floor": self._floor,
            "repair": self._repair,
            "latency": self._latency,
        }
        return measures[trial.kind](trial)

    # Quality: samples in tiles, then features, then metrics

    def _samples(self, trial: Trial) -> dict[str, Any] | None:
        arm = self.arms[trial.arm]
        sampling = self._sampling(trial)
        plan = arm.plan(self.grid, trial.seed)
        n = self.spec.samples
        numbers = range(-(-n // TILE))
        files = [self._tiles(trial) / f"{number:05d}.npz" for number in numbers]
        problem: Exception | None = None
        try:
            for number in numbers[process_rank() :: n_processes()]:
                self._tile(files[number], trial, arm, plan, sampling, number)
                self.watcher.progress(trial, min(n, (number + 1) * TILE), n)
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
        labels_N = np.arange(n) % self.subject.model.n_classes
        write_arrays(self._data(trial, "tokens"), {"tokens_NL": tokens_NL, "labels_N": labels_N.astype(np.int32)})
        images_Nchw = self.subject.pixels(torch.from_numpy(tokens_NL.astype(np.int64)))
        return {
            "n": n,
            "sampling": describe_sampling(sampling),
            "plan_digest": None if arm.adaptive else plan.digest,
            "n_steps": plan.n_steps,
            "counters": asdict(counters),
            "flops_per_image": self._flops(counters, sampling),
            "tokens_digest": hashlib.sha256(np.ascontiguousarray(tokens_NL, "<i4").tobytes()).hexdigest(),
            "decode_s": float(sum(tile["wall_s"] for tile in tiles)),
            "changed_per_image": float(changed_NL.sum(1).mean()),
            "changed_by_cell": changed_NL.mean(0),
            "quality": self._judge(trial, images_Nchw, labels_N),
        }

    def _sampling(self, trial: Trial) -> Sampling:
        if trial.setting == "fixed":
            return self.fixed
        tried = _tried(self.spec)
        name = self._best_setting(trial.arm) if trial.setting == "tuned" else trial.setting
        return sampling_of(self.spec, self.subject.recommended, tried[name])

    def _best_setting(self, arm: str) -> str:
        """The setting with the least Frechet distance in the first space, over the tuning seeds; BenchError until all
        were tried, since a choice among some would be another one after --resume."""
        distances: dict[str, list[float]] = {}
        for trial in self.trials:
            if trial.kind == "tuning" and trial.arm == arm:
                record = read_json(self._file(trial))
                if record["status"] != "done":
                    raise BenchError(f"the setting {trial.setting} could not be tried, so none is chosen for {arm}")
                distances.setdefault(trial.setting, []).append(record["quality"][0]["fd"]["value"])
        return min(distances, key=lambda name: float(np.mean(distances[name])))

    def _tiles(self, trial: Trial) -> Path:
        return self.folder / "tiles" / trial.id

    def _tile(self, file: Path, trial: Trial, arm: Arm, plan: Plan, sampling: Sampling, number: int) -> None:
        if file.is_file():
            try:
                read_arrays(file)
                return
            except RecordProblem:
                pass  # broken: decoded anew
        began = time.perf_counter()
        decoded = decode(
            self.subject.model,
            plan,
            range(number * TILE, min(self.spec.samples, (number + 1) * TILE)),
            sampling=sampling,
            seed=trial.seed,
            device=self.subject.device,
            decoder=arm.decoder,
        )
        kind = np.uint8 if self.subject.model.n_codes <= 256 else np.int32
        write_arrays(
            file,
            {
                "tokens_NL": decoded.tokens_NL.numpy().astype(kind),
                "changed_NL": decoded.changed_NL.numpy().astype(np.int32),
                "counters": np.array(list(asdict(decoded.counters).values()), np.int64),
                "wall_s": np.array(time.perf_counter() - began),
            },
        )

    def _flops(self, counters: Counters, sampling: Sampling) -> int | None:
        config = self.subject.config
        return None if config is None else flops(config, counters) * (2 if sampling.guidance.on else 1)

    def _judge(self, trial: Trial, images_Nchw: Tensor, labels_N: np.ndarray) -> list[dict[str, Any]]:
        pictures = images_Nchw[:PICTURES].permute(0, 2, 3, 1).numpy()
        write_arrays(self._data(trial, "pictures"), {"images_Nhwc": pictures, "labels_N": labels_N[:PICTURES]})
        results = []
        for judge in self.subject.judges:
            features_ND, logits_NC = judge.space.extract(images_Nchw)
            results.append(self._result(trial, judge, features_ND, logits_NC, labels_N))
        return results

    def _result(
        self, trial: Trial, judge: Any, features_ND: np.ndarray, logits_NC: np.ndarray | None, labels_N: np.ndarray
    ) -> dict[str, Any]:
        arrays = {"features_ND": features_ND} | ({} if logits_NC is None else {"logits_NC": logits_NC})
        write_arrays(self._data(trial, f"features-{judge.space.id}"), arrays)
        result: dict[str, Any] = judge.judge(features_ND, logits_NC, labels_N, self.subject.model.n_classes)
        return result

    def _floor(self, trial: Trial) -> dict[str, Any]:
        n, classes = self.spec.samples, self.subject.model.n_classes
        if trial.arm == "real":
            results = []
            for judge in self.subject.judges:
                if judge.real is not None:
                    features, logits, labels = (None if part is None else part[:n] for part in judge.real)
                    assert features is not None  # noqa: S101 (only logits may be None)
                    assert labels is not None  # noqa: S101
                    results.append(self._result(trial, judge, features, logits, labels))
            return {"n": min(n, results[0]["n"]), "quality": results}
        if trial.arm == "reconstructed":
            assert self.subject.held_out is not None  # noqa: S101 (planned only where there are some)
            tokens_NL, labels_N = self.subject.held_out[0][:n], self.subject.held_out[1][:n].numpy()
        else:
            shape = self.grid.n_cells
            codes = [
                generator(0, "noise", _NOISE_TABLE + i).integers(0, self.subject.model.n_codes, shape) for i in range(n)
            ]
            tokens_NL, labels_N = torch.from_numpy(np.stack(codes)), np.arange(n) % classes
        return {"n": len(tokens_NL), "quality": self._judge(trial, self.subject.pixels(tokens_NL), labels_N)}

    def _repair(self, trial: Trial) -> dict[str, Any]:
        assert self.subject.held_out is not None  # noqa: S101 (planned only where there are some)
        arm, (tokens_NL, labels_N) = self.arms[trial.arm], self.subject.held_out
        n = self.spec.repaired
        tokens_BL, labels = tokens_NL[:n].to(self.subject.device), labels_N[:n].tolist()
        rates = []
        for done, rate in enumerate(ERROR_RATES, start=1):
            repair = measure_repair(
                self.subject.model,
                arm.plan(self.grid, trial.seed),
                tokens_BL,
                labels,
                rate,
                decoder=arm.decoder,
                sampling=self.fixed,
                seed=trial.seed,
            )
            rates.append(asdict(repair))
            self.watcher.progress(trial, done, len(ERROR_RATES))
        return {"n": len(tokens_BL), "sampling": describe_sampling(self.fixed), "rates": rates}

    # Likelihood: exact, in parallel, as the plan decodes and one cell at a time

    def _likelihood(self, trial: Trial) -> dict[str, Any]:
        assert self.subject.held_out is not None  # noqa: S101 (planned only where there are some)
        arm = self.arms[trial.arm]
        plan = arm.plan(self.grid, trial.seed)
        tokens_NL, labels_N = (part[: self.spec.held_out] for part in self.subject.held_out)
        total = len(tokens_NL) * (1 if plan.n_steps == self.grid.n_cells else 2)
        bits_NL = self._bits(plan, tokens_NL, labels_N, lambda done: self.watcher.progress(trial, done, total))
        singly_NL = bits_NL
        if plan.n_steps < self.grid.n_cells:
            singly_NL = self._singly_bits(
                plan, tokens_NL, labels_N, lambda done: self.watcher.progress(trial, len(tokens_NL) + done, total)
            )
        cells_NL = plan.cells_for(range(len(tokens_NL)) if plan.per_sample else [0])
        starts = np.cumsum([0, *plan.sizes[:-1]])
        walked = [np.take_along_axis(bits, np.broadcast_to(cells_NL, bits.shape), 1) for bits in (bits_NL, singly_NL)]
        by_step, singly_by_step = (np.add.reduceat(walk.mean(0), starts) / np.array(plan.sizes) for walk in walked)
        write_arrays(self._data(trial, "bits"), {"bits_N": bits_NL.mean(1), "singly_N": singly_NL.mean(1)})
        differences_N = (bits_NL - singly_NL).mean(1)
        return {
            "n": len(tokens_NL),
            "plan_digest": plan.digest,
            "n_steps": plan.n_steps,
            "bits_per_token": float(bits_NL.mean()),
            "bits_se": _standard_error(bits_NL.mean(1)),
            "singly_bits_per_token": float(singly_NL.mean()),
            "tax_bits": float(differences_N.mean()),
            "tax_se": _standard_error(differences_N),
            "predicted_tax_bits": _predicted_tax(plan),
            "field": str(Field()),
            "bits_by_step": by_step,
            "singly_bits_by_step": singly_by_step,
            "bits_by_cell": bits_NL.mean(0),
            "singly_bits_by_cell": singly_NL.mean(0),
        }

    def _singly_bits(
        self, plan: Plan, tokens_NL: Tensor, labels_N: Tensor, each: Callable[[int], object]
    ) -> np.ndarray:
        """`_bits` of the same cells one at a time, kept for other plans of the same cells."""
        singly = plan.singly()
        file = self.folder / "data" / f"singly-{singly.digest[:16]}.npz"
        if file.is_file():
            kept = read_arrays(file)["bits_NL"]
            if kept.shape == tuple(tokens_NL.shape):
                return kept
        bits_NL = self._bits(singly, tokens_NL, labels_N, each)
        write_arrays(file, {"bits_NL": bits_NL})
        return bits_NL

    @torch.inference_mode()
    def _bits(self, plan: Plan, tokens_NL: Tensor, labels_N: Tensor, each: Callable[[int], object]) -> np.ndarray:
        """(N, L) float32 bits of every code, by cell index."""
        model, parts = self.subject.model, []
        for start in range(0, len(tokens_NL), _CHUNK):
            samples = range(start, min(len(tokens_NL), start + _CHUNK))
            tokens_BL = tokens_NL[samples.start : samples.stop].to(self.subject.device)
            labels_B = labels_N[samples.start : samples.stop].to(self.subject.device)
            if isinstance(model, Transformer):
                logits_BLV = plan_logits(model, tokens_BL, labels_B, plan, samples=samples)
                cells_BL = walk(plan, samples if plan.per_sample else [0], self.subject.device).expand_as(tokens_BL)
                walked_BL = bits_of(logits_BLV, tokens_BL, cells_BL)
                bits_BL = torch.empty_like(walked_BL).scatter_(1, cells_BL, walked_BL)
            else:
                bits_BL = step_bits(model, plan, tokens_BL, labels_B.tolist(), samples=samples)
            if not bits_BL.isfinite().all():
                raise BenchError("the model's logits are not finite; its weights hold NaN or infinity")
            parts.append(bits_BL.cpu().numpy())
            each(samples.stop)
        return np.concatenate(parts)

    # Speed: all arms in turns

    def _latency(self, trial: Trial) -> dict[str, Any]:
        subject, batch = self.subject, trial.batch
        baseline = parse_arm(BASELINE)
        arms = {BASELINE: baseline, **self.arms}
        setup_s: dict[str, float] = {}
        counters: dict[str, Any] = {}
        contenders = []

        def contend(name: str, arm: Arm, decoder: Any) -> None:
            forget_drawn()  # an arm's set-up includes drawing its cells, whoever drew them before
            began = time.perf_counter()
            tile = self._batch(arm, batch)
            setup_s[name] = time.perf_counter() - began

            def generate() -> Tensor:
                tile.counters = Counters()
                tokens_BL, _ = run_tile(tile, decoder)
                counters[name] = asdict(tile.counters)
                return tokens_BL

            contenders.append(Contender(name, generate))

        for name, arm in arms.items():
            contend(name, arm, arm.decoder)
        contend("A/A", baseline, baseline.decoder)
        if batch == 1 and isinstance(subject.model, Transformer) and not self.spec.quick:
            contend("uncached", baseline, uncached_steps)
        body = self._partial(trial)
        kept: list[Any] = body["rounds"]
        pixels = None if subject.tokenizer is None else self._pixel_decoder()
        warm: dict[str, WarmUp] = {}
        failed: dict[str, str] = {}
        for contender in tuple(contenders):
            try:
                warm |= warm_up([contender], pixels, device=subject.device)
            except Exception as problem:  # an arm's failure is a result; the others are timed
                if contender.name == BASELINE:
                    raise
                failed[contender.name] = str(problem)
                contenders.remove(contender)
        body["failed_arms"] = failed
        body["warm_up"] = {name: asdict(one) for name, one in warm.items()}
        for finished in rounds(
            contenders, pixels, rounds=self.spec.rounds, first_round=len(kept), device=subject.device, warm=warm
        ):
            kept.append([asdict(sample) for sample in finished])
            self._record_partial(trial, body)
            self.watcher.progress(trial, len(kept), self.spec.rounds)
        body |= {"setup_s": setup_s, "counters": counters}
        body["flops_per_image"] = {name: self._flops(Counters(**one), self.fixed) for name, one in counters.items()}
        body["memory"] = {c.name: peak_memory(c.generate, subject.device) for c in contenders}
        body["weights_bytes"] = _bytes(subject.model)
        body["clock_after"] = clock_state(subject.device)
        if batch == 1:
            body["step_s"] = {name: self._step_times(arm) for name, arm in arms.items() if name not in failed}
        return body

    def _batch(self, arm: Arm, batch: int) -> Tile:
        """The first samples of an arm, ready to be decoded."""
        return make_tile(
            self.subject.model,
            arm.plan(self.grid, 0),
            range(batch),
            sampling=self.fixed,
            seed=0,
            in_group="block",
            device=self.subject.device,
        )

    def _step_times(self, arm: Arm) -> list[list[float]]:
        tile = self._batch(arm, 1)
        return step_times(lambda: arm.decoder(tile), self.subject.device)

    def _pixel_decoder(self) -> Callable[[Tensor], object]:
        grid, tokenizer = self.grid, self.subject.tokenizer
        assert tokenizer is not None  # noqa: S101 (the caller looked)
        return lambda tokens_BL: tokenizer.decode(tokens_BL, grid.rows, grid.cols)

    def _partial(self, trial: Trial) -> dict[str, Any]:
        """The rounds measured so far, if this is the machine and the number of threads that measured them."""
        fresh: dict[str, Any] = {
            "batch": trial.batch,
            "sampling": describe_sampling(self.fixed),
            "device": _machine(self.subject.device),
            "rounds": [],
        }
        file = self._file(trial)
        if file.is_file():
            kept = read_json(file)
            if kept["status"] != "done" and _is_whole(kept) and kept.get("device") == fresh["device"]:
                return {**fresh, "rounds": kept["rounds"]}
        return fresh

    def _record_partial(self, trial: Trial, body: dict[str, Any]) -> None:
        head = {"trial": trial.id, "kind": trial.kind, "arm": "", "seed": 0, "setting": "fixed", "status": "partial"}
        write_json(self._file(trial), {**head, **body})


def is_done(record: Mapping[str, Any]) -> bool:
    """Whether a recorded trial is not measured again: it is done, and no arm in it failed by itself."""
    return record.get("status") == "done" and _is_whole(record)


def _is_whole(body: Mapping[str, Any] | None) -> bool:
    """Whether no arm failed by itself, where one trial measures many."""
    return not (body or {}).get("failed_arms")


def _machine(device: str) -> dict[str, Any]:
    environment = capture(device)
    return {name: environment.get(name) for name in ("cpu", "gpu", "threads")} | {"device": _kind_of(device)}


def _kind_of(device: str) -> str:
    """'cuda' of 'cuda:1': which of a machine's cards it was does not make another run."""
    return device.partition(":")[0]


def _bytes(model: Any) -> int | None:
    if not isinstance(model, torch.nn.Module):
        return None
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _standard_error(values_N: np.ndarray) -> float | None:
    return float(values_N.std(ddof=1) / np.sqrt(len(values_N))) if len(values_N) > 1 else None
