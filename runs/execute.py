"""Running: an agenda to records, one trial at a time.

Knows the folder of a run, in which order things are measured, and what becomes of a failure. Refuses to know how a kind
of trial is measured, and how results are shown: whoever watches gets called. A trial that was done is never done again;
one that fails is recorded as failed, and the others go on.

Under `torchrun` the processes share the trials whose kind says so, and the first one does all the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast

from orderbench.models.processes import gather, is_first_process, join_processes, n_processes
from orderbench.orders.errors import said
from orderbench.orders.files import sha256_of
from orderbench.runs.arms import Arm, Lineup, training_share
from orderbench.runs.bench import Bench, set_up
from orderbench.runs.bits import predicted_tax
from orderbench.runs.environment import capture
from orderbench.runs.kinds import kind_of
from orderbench.runs.latency import device_kind
from orderbench.runs.record import (
    RecordProblem,
    Run,
    fellow_writer,
    load_run,
    plain,
    read_json,
    sole_writer,
    write_json,
)
from orderbench.runs.schema import KIND, SCHEMA
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject
from orderbench.runs.timing import clock_state
from orderbench.runs.trials import Agenda, Trial, is_done, is_whole, sampling_of

_SHARED_S = 5  # so long a shared folder may take to show what another machine wrote


class Watcher(Protocol):
    """Whoever is told how a run goes."""

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        """Before anything is measured: all trials, and the ids of those that are done already."""

    def noticed(self, sentence: str) -> None:
        """Something in the folder was broken, and is made again."""

    def progress(self, trial: Trial, done: int, total: int) -> None:
        """Some of a trial is done."""

    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        """A trial is recorded."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: the ids of trials that failed."""

    folder: Path
    failed: tuple[str, ...]


def execute(agenda: Agenda, folder: Path, watcher: Watcher, *, resume: bool = False, fail_fast: bool = False) -> Ended:
    """Measure everything on the agenda that is not done yet.

    Raises RecordProblem for a folder that cannot be used, and where a resumed run was another one.
    """
    join_processes(agenda.subjects.device)
    bench = set_up(agenda, folder, watcher.progress, watcher.noticed)
    if not is_first_process():
        return _measure_all(bench, watcher, fail_fast)
    with sole_writer(folder):
        _open(agenda, folder, resume)
        return _measure_all(bench, watcher, fail_fast)


def _open(agenda: Agenda, folder: Path, resume: bool) -> None:
    """Write run.json, or check that a resumed run is the same and note where it goes on."""
    spec, subjects, lineup, file = agenda.spec, agenda.subjects, agenda.lineup, folder / "run.json"
    environment = {"at": now(), **capture(subjects.device), "clock": clock_state(subjects.device)}
    about = plain(
        {
            "schema": SCHEMA,
            "kind": KIND,
            "created": now(),
            "config": spec.to_json(),
            "models": {name: _describe_model(subject, agenda) for name, subject in subjects.by_name.items()},
            "spaces": subjects.describe_spaces(),
            "device": device_kind(subjects.device),
            "arms": [_describe(arm, subjects.of(arm.model)) | _describe_cut(arm, lineup) for arm in lineup.arms],
            "refused": dict(lineup.refused),
            "trials": [trial.id for trial in agenda.trials],
            "environments": [environment],
        }
    )
    if file.exists():
        if not resume:
            raise RecordProblem(
                f"'{folder}' holds a run already; go on with it by --resume, or name another place, as in "
                f"--out {folder.name}-2"
            )
        before = load_run(folder, lambda _: None).about
        before["config"] = cast(Any, RunSpec.from_json(before["config"], "run.json").to_json())  # keys that came later
        for name, model in before["models"].items():
            if "class_names" in about["models"].get(name, {}):
                model.setdefault("class_names", about["models"][name]["class_names"])
        other = [name for name in before["models"] if _weights_differ(before["models"], about["models"], name)]
        if other:
            raise RecordProblem(
                f"'{folder}' was measured with other weights of the model '{other[0]}' than it has now; go on with "
                f"those, or name another place, as in --out {folder.name}-2"
            )
        _check_baselines(before, about, folder)
        for key in ("config", "models", "spaces", "device", "arms", "refused", "trials"):
            if before[key] != about[key]:
                raise RecordProblem(
                    f"'{folder}' holds a run of another {_difference(before[key], about[key], key)}; go on with the "
                    f"same, or name another place, as in --out {folder.name}-2"
                )
        about = {**before, "environments": [*before["environments"], environment]}
    elif resume:
        raise RecordProblem(f"'{folder}' holds no run to go on with; leave --resume out to start one")
    write_json(file, about)


def _check_baselines(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """RecordProblem for a run of an older orderbench, whose baseline was timed and was no arm."""
    had = {arm["name"] for arm in before["arms"]}
    lacking = [name for model in now["models"].values() if (name := model["baseline"]) is not None and name not in had]
    if lacking and had == {arm["name"] for arm in now["arms"]} - set(lacking):
        raise RecordProblem(
            f"'{folder}' was begun when the baseline {lacking[0]} was no arm of a run, which it is now, and cannot be "
            f"gone on with; `bench report {folder}` still reads it, and a new place would do, as in "
            f"--out {folder.name}-2"
        )


def _weights_differ(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    shas = [(models.get(name) or {}).get("sha256") for models in (before, now)]
    return None not in shas and shas[0] != shas[1]


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


def _describe_model(subject: Subject, agenda: Agenda) -> dict[str, Any]:
    """A model as run.json holds it, with the baseline of its arms and, if a trial reads them, its held-out codes."""
    baseline = agenda.lineup.baselines.get(agenda.subjects.called(subject))
    readers = [trial for trial in agenda.trials if kind_of(trial).reads_held_out(trial)
               and agenda.subjects.of(trial.model) is subject]  # fmt: skip
    return {
        **subject.about,
        **(subject.describe_held_out() if readers else {}),
        "setting": sampling_of(agenda.spec, subject.recommended).to_json(),
        "baseline": None if baseline is None else str(baseline.arm),
        "ratio": baseline is not None and baseline.ratio,
    }


def _describe(arm: Arm, subject: Subject) -> dict[str, Any]:
    plan = arm.plan(subject.model.lattice)
    share, share_at_pace = training_share(arm, subject.objective, subject.model.lattice)
    return {
        "name": arm.name,
        "order": arm.order_name,
        "pace": str(arm.pace),
        "decoder": arm.decoder_name,
        "model": subject.name,
        "traits": list(arm.traits),
        "n_steps": plan.n_steps,
        "sizes": list(plan.sizes),
        "plan": None if arm.order is None else plan.to_json(),
        "plan_digest": None if arm.order is None else plan.digest,
        "per_sample": plan.per_sample,
        "training_share": share,
        "training_share_at_pace": share_at_pace,
        "predicted_tax_bits": predicted_tax(plan) if arm.has_likelihood and arm.order is not None else None,
    }


def _describe_cut(arm: Arm, lineup: Lineup) -> dict[str, Any]:
    chosen = lineup.cuts.get(arm.name)
    return {} if chosen is None else {"cut": chosen.to_json()}


def new_folder(spec: RunSpec) -> Path:
    """A folder name that is not taken: bench-runs/DATE-TIME-ORDERS."""
    orders = [order.partition("@")[0].partition(":")[0].partition("+")[0] for order in spec.orders]
    words = "-".join([*orders, *spec.systems])
    name = f"{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}-{words[:40]}"
    folder = Path("bench-runs") / name
    return folder if not folder.exists() else folder.with_name(f"{name}-{os.getpid()}")


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _measure_all(bench: Bench, watcher: Watcher, fail_fast: bool) -> Ended:
    _check_folder(bench.folder)
    kept = load_run(bench.folder, lambda why: _notice(bench, f"{why.partition('; ')[0]}: it is measured again"))
    done = [trial.id for trial in bench.trials if _was_done(trial, kept)]
    gather(None)  # every process has looked before anything changes
    with contextlib.nullcontext() if is_first_process() else fellow_writer(bench.folder):
        return _measure_left(bench, watcher, done, fail_fast)


def _measure_left(bench: Bench, watcher: Watcher, done: Sequence[str], fail_fast: bool) -> Ended:
    failed: list[str] = []
    if is_first_process():
        watcher.planned(bench.trials, done)
    for trial in bench.trials:
        if trial.id in done:
            continue
        began, body, problem = time.perf_counter(), None, None
        try:
            body = _measure(trial, bench)
        except RecordProblem:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as caught:  # an arm's failure is a result, whatever its model raised; the others go on
            problem = caught
        told = gather((None if problem is None else said(problem), is_whole(body)))
        reason = next((one for one, _ in told if one is not None), None)
        if is_first_process():
            record = _record(trial, bench, body, reason, problem, time.perf_counter() - began)
            if reason is None:
                shutil.rmtree(bench.tiles(trial), ignore_errors=True)
            watcher.ended(trial, record)
        if reason is not None or not all(whole for _, whole in told):
            failed.append(trial.id)
            if fail_fast:
                break
        gather(None)  # the record is there for those that read it
    return Ended(bench.folder, tuple(failed))


def _check_folder(folder: Path) -> None:
    """Wait until run.json is there. RecordProblem in every process, where one does not see what the first one wrote."""
    if n_processes() == 1:
        return
    file = folder / "run.json"
    written = gather(sha256_of(file) if is_first_process() else None)[0]
    until_s = time.monotonic() + _SHARED_S
    while not (seen := file.is_file() and sha256_of(file) == written) and time.monotonic() < until_s:
        time.sleep(0.1)
    sees = gather(seen)
    if not all(sees):
        raise RecordProblem(
            f"process {sees.index(False)} of {len(sees)} does not see '{folder}', where the first one writes; name a "
            f"folder that all machines share, as in --out /shared/{folder.name}"
        )


def _notice(bench: Bench, sentence: str) -> None:
    if is_first_process():
        bench.noticed(sentence)


def _was_done(trial: Trial, kept: Run) -> bool:
    record = kept.trials.get(trial.id, {})
    return is_done(record) and all(record[name] == value for name, value in trial.head().items())


def _measure(trial: Trial, bench: Bench) -> dict[str, Any] | None:
    kind = kind_of(trial)
    return kind.measure(trial, bench) if kind.shared or is_first_process() else None


def _record(
    trial: Trial,
    bench: Bench,
    body: dict[str, Any] | None,
    reason: str | None,
    problem: BaseException | None,
    wall_s: float,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        **trial.head(),
        "status": "done" if reason is None else "failed",
        "ended": now(),
        "wall_s": wall_s,
    }
    if reason is None:
        record |= body or {}
    else:
        record["reason"] = reason.removeprefix("BenchError: ")
        record["traceback"] = _traceback(problem)
        if kind_of(trial).grows and bench.file(trial).is_file():
            with contextlib.suppress(RecordProblem):
                record = {**read_json(bench.file(trial)), **record}  # what was measured stays
    write_json(bench.file(trial), record)
    return record


def _traceback(problem: BaseException | None) -> str:
    """Its last frames, with no more of a file's path than its folder: records are published."""
    lines = [] if problem is None else traceback.format_exception(problem)[-6:]
    return re.sub(r'File "[^"]*?([^"/\\]+[/\\][^"/\\]+)"', r'File "\1"', "".join(lines))
