"""Records: what was asked, what happened and on what machine, in one folder a run.

    RUN/run.json            schema, configuration, models, arms, environments, the trials that were planned
    RUN/trials/ID.json      one trial: what was asked of it, its status, its numbers and raw samples
    RUN/data/ID.*.npz       its arrays: tokens, features, bits an image, a few pictures
    RUN/tiles/ID/           tokens of tiles that are decoded, until the trial has all of them

Knows files: written whole or not at all, one writer at a time, checked when read and of the current schema from then
on. Refuses to know torch, and what the numbers mean. `schema` holds the types, docs/record-format.md what fields mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np

from orderbench.orders import BenchError
from orderbench.orders.arrays import BrokenArrays, UnreadArrays, read_npz
from orderbench.orders.documents import misfit, read_document
from orderbench.orders.files import check_folder, write_whole
from orderbench.runs import migration
from orderbench.runs.schema import (
    ARRAYS,
    KIND,
    NEEDED_ARRAYS,
    SCHEMA,
    TRIALS,
    FileName,
    FloorTrial,
    LatencyTrial,
    LikelihoodTrial,
    QualityTrial,
    RepairTrial,
    RunAbout,
    TrialHead,
    about_misfit,
    trial_misfit,
)


@dataclass(frozen=True)
class Run:
    """A run that was read. folder: where; about: run.json; trials: by id, in the order planned, those that exist."""

    folder: Path
    about: RunAbout
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """On one line, since notebooks show what a cell returns: a whole record is hundreds of lines."""
        arms = ", ".join(arm["name"] for arm in self.about["arms"])
        return f"<run '{self.folder}' of {arms}: {len(self.done())} of {len(self.about['trials'])} trials done>"

    @overload
    def done(self, kind: Literal["quality", "tuning"]) -> list[QualityTrial]: ...
    @overload
    def done(self, kind: Literal["floor"]) -> list[FloorTrial]: ...
    @overload
    def done(self, kind: Literal["likelihood"]) -> list[LikelihoodTrial]: ...
    @overload
    def done(self, kind: Literal["repair"]) -> list[RepairTrial]: ...
    @overload
    def done(self, kind: Literal["latency"]) -> list[LatencyTrial]: ...
    @overload
    def done(self, kind: str | None = None) -> list[Any]: ...
    def done(self, kind: str | None = None) -> list[Any]:
        """The trials that ended well, of one kind or of all; such a trial has all fields of its kind."""
        return [t for t in self.trials.values() if t["status"] == "done" and kind in (None, t["kind"])]

    @property
    def failed(self) -> tuple[str, ...]:
        """The ids of trials that failed; their records hold the reason."""
        return tuple(name for name, trial in self.trials.items() if trial["status"] == "failed")

    @property
    def threads(self) -> int | None:
        """How many threads computed where this run was started or gone on with last; None where no record says."""
        last: Mapping[str, Any] = (self.about["environments"] or [{}])[-1]
        said = (last.get("threads") or {}).get("torch")
        return said if isinstance(said, int) and said > 0 else None

    def arrays(self, trial: str, what: str) -> dict[str, np.ndarray]:
        """The arrays of one trial: 'tokens', 'features-SPACE', 'bits' or 'pictures'; RecordProblem if they are not
        there, are broken, or are of other types and lengths than `schema.ARRAYS` says."""
        file = self.folder / "data" / f"{trial}.{what}.npz"
        if misfit(trial, FileName) or misfit(what, FileName):
            raise RecordProblem(f"'{file}' is no name of arrays of a run")
        found = read_arrays(file)
        unlike = _arrays_misfit(found, what.partition("-")[0])
        if unlike:
            raise RecordProblem(f"'{file}' {unlike}; remove its trial's record, and --resume measures anew")
        return found


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in canonical form, 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_name(*words: object) -> str:
    """Words joined into a name that every file system takes; distinct words stay distinct by a digest's eight
    digits."""
    plain = "-".join(re.sub(r"[^A-Za-z0-9.+@=]+", "_", str(word)) for word in words if word != "")
    return f"{plain[:80]}-{digest_of([str(word) for word in words])[:8]}"


def plain(value: Any) -> Any:
    """A value as JSON takes it: numpy numbers and arrays unwrapped, tuples as lists, numbers that are not finite as
    null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(file: Path, write: Callable[[Path], object], then: str) -> None:
    for folder, lock in _HELD.items():
        if folder in file.parents and _lock_of(folder) != lock:
            raise RecordProblem(
                f"'{folder}' was removed or replaced while this run was writing there; start it again, in a place of "
                f"its own, as in --out {folder.name}-2"
            )
    write_whole(
        file,
        write,
        error=lambda reason: RecordProblem(
            f"'{file}' could not be written: {reason}; what was there before is kept; {then}"
        ),
    )


class RecordProblem(BenchError):
    """The store itself cannot be used: the run stops, where a trial's failure would only be recorded."""


GO_ON = "mend the cause and start again, a run with --resume"
ELSEWHERE = "name another place, as in --out"


def write_json(file: Path, value: Mapping[str, Any], then: str = GO_ON) -> None:
    """A JSON document, whole or not at all. then: what to do where it cannot be written."""
    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    _write(file, lambda temporary: temporary.write_text(text), then)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray], then: str = GO_ON) -> None:
    """Arrays, compressed, whole or not at all. then: what to do where they cannot be written."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as opened:
            np.savez_compressed(opened, **dict(arrays))  # type: ignore[arg-type] # its stub wants allow_pickle typed

    _write(file, write, then)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; RecordProblem if the file is missing, half-written or something else."""
    try:
        value = read_document(file)
    except FileNotFoundError as problem:
        raise RecordProblem(f"there is no '{file}'; name a folder that bench run wrote") from problem
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise RecordProblem(f"'{file}' could not be read: {why}") from problem
    except ValueError as problem:
        raise RecordProblem(f"'{file}' is not a whole JSON document: {problem}; {_remedy(file)}") from problem
    if not isinstance(value, dict):
        raise RecordProblem(f"'{file}' holds a {type(value).__name__}, not a record of this suite; {_remedy(file)}")
    return value


def _remedy(file: Path) -> str:
    if file.parent.name == "trials":
        return "remove it, and --resume measures anew"
    return "bring the file back, or name another"


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays by name; RecordProblem if the file is missing or broken. Nothing in it is ever run."""
    try:
        return read_npz(file)
    except FileNotFoundError as problem:
        raise RecordProblem(f"there is no '{file}'; the run that should hold it is incomplete") from problem
    except UnreadArrays as problem:
        raise RecordProblem(f"'{file}' {problem}; a plain file that you may read would do") from problem
    except BrokenArrays as problem:
        raise RecordProblem(
            f"'{file}' {problem}; it is not a whole file of arrays: remove it, and measure its trial anew"
        ) from problem


def _arrays_misfit(arrays: Mapping[str, np.ndarray], what: str) -> str:
    """What keeps arrays from being those of a kind of file, as the middle of a sentence."""
    lacking = [name for name in NEEDED_ARRAYS.get(what, ()) if name not in arrays]
    if lacking:
        return f"lacks the array {lacking[0]}"
    lengths: dict[str, int] = {}
    for name, (axes, kinds) in ARRAYS.get(what, {}).items():
        if name not in arrays:
            continue
        array = arrays[name]
        if array.ndim != len(axes) or array.dtype.kind not in kinds or not array.size:
            return f"holds {name} as {array.dtype} of shape {array.shape}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"holds {name} with numbers that are not finite"
        if lengths.setdefault("N", len(array)) != len(array):
            return f"holds {name} of {len(array)} samples and others of {lengths['N']}"
    return ""


# What may be made again


def write_kept(file: Path, arrays: Mapping[str, np.ndarray], key: object) -> None:
    """Arrays that a run may need again. key: a JSON value that names what they were made from."""
    write_arrays(file, {**arrays, "digest": _digest_of_arrays(arrays, key)})


def read_kept(file: Path, key: object) -> dict[str, np.ndarray] | None:
    """What `write_kept` wrote under the same key; None where there is no file. RecordProblem for a file that is broken,
    or was made from something else."""
    if not file.exists():
        return None
    arrays = read_arrays(file)
    digest = arrays.pop("digest", None)
    if digest is None or not np.array_equal(digest, _digest_of_arrays(arrays, key)):
        raise RecordProblem(f"'{file}' does not hold what this run would have written there")
    return arrays


def _digest_of_arrays(arrays: Mapping[str, np.ndarray], key: object) -> np.ndarray:
    digest = hashlib.sha256(json.dumps(plain(key), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


# Runs


def load_run(folder: str | Path, broken: Callable[[str], object] | None = None) -> Run:
    """A run from its folder, of the current schema whatever wrote it; the files stay as they are.

    All of it is checked here, against `runs/schema.py`, and texts in it are made printable. So whoever reads a run need
    not ask again. broken: called with the reason for every trial whose record or arrays are broken, which is then left
    out, for a run that goes on and measures it again.

    Raises RecordProblem for a folder that holds none, a newer schema, and files that are broken or foreign.
    """
    stored, about = _load_about(Path(folder))
    run = Run(Path(folder), about, {})
    for name in about["trials"]:
        file = run.folder / "trials" / f"{name}.json"
        if not file.is_symlink() and not file.exists():
            continue
        try:
            run.trials[name] = _load_trial(file, name, stored, about)
            if broken is not None:
                _read_through(run, run.trials[name])
        except RecordProblem as problem:
            if broken is None:
                raise
            run.trials.pop(name, None)
            broken(str(problem))
    return run


def _read_through(run: Run, trial: Mapping[str, Any]) -> None:
    """Read the arrays of a finished trial. Without its bits a run cannot be read; others may have been removed."""
    if trial["status"] != "done":
        return
    if trial["kind"] == "likelihood":
        run.arrays(trial["trial"], "bits")
    spaces = [f"features-{result['space']}" for result in trial.get("quality", ())]
    for what in ("tokens", "pictures", *spaces):
        if (run.folder / "data" / f"{trial['trial']}.{what}.npz").exists():
            run.arrays(trial["trial"], what)


def _load_about(where: Path) -> tuple[dict[str, Any], RunAbout]:
    """run.json as it is stored, and brought up to date."""
    if not os.path.isdir(where):  # nor where its name is too long
        raise RecordProblem(f"there is no folder '{where}'; name a folder that bench run wrote")
    file = where / "run.json"
    stored = read_json(file)
    schema = _schema_of(stored, file)
    missing = [name for name, kind in migration.RUN_1.items() if schema == 1 and not isinstance(stored.get(name), kind)]
    if missing:
        raise RecordProblem(f"'{file}' lacks {', '.join(missing)}; {_NO_WHOLE}")
    about = cast(RunAbout, _migrated(file, migration.run_from_1, stored) if schema == 1 else stored)
    unlike = misfit(about, RunAbout) or about_misfit(about)
    if unlike:
        raise RecordProblem(f"'{file}' {unlike}; {_NO_WHOLE}")
    return stored, cast(RunAbout, {**about, "schema": SCHEMA})


def _load_trial(file: Path, name: str, stored: Mapping[str, Any], about: RunAbout) -> dict[str, Any]:
    trial = read_json(file)
    if trial.get("trial") != name or "status" not in trial or "kind" not in trial:
        raise RecordProblem(f"'{file}' is not the record of trial {name}; remove it, and --resume measures anew")
    unlike = misfit(trial, TrialHead)
    if not unlike and stored["schema"] == 1:
        trial = _migrated(file, migration.trial_from_1, trial, stored)
    if not unlike and trial["status"] == "done":
        unlike = misfit(trial, TRIALS.get(trial["kind"], TrialHead)) or trial_misfit(trial, about)
    if not unlike and "failed_arms" in trial:
        unlike = misfit(trial["failed_arms"], dict[str, str], "failed_arms")
    if unlike:
        raise RecordProblem(f"'{file}' {unlike}; remove it, and --resume measures anew")
    return trial


def _schema_of(stored: Mapping[str, Any], file: Path) -> int:
    schema = stored.get("schema")
    if stored.get("kind") != KIND or not isinstance(schema, int) or isinstance(schema, bool):
        raise RecordProblem(f"'{file}' is not the record of a run of this suite; name a folder that bench run wrote")
    if schema > SCHEMA:
        raise RecordProblem(
            f"'{file}' has schema {schema} and this orderbench reads up to {SCHEMA}; install a newer orderbench, "
            f"from where you have this one"
        )
    if schema < 1:
        raise RecordProblem(f"'{file}' has schema {schema}, which this orderbench cannot bring up to {SCHEMA}")
    return schema


_NO_WHOLE = "it is no whole record of a run, so bring the file back or measure anew, as in bench run --out NEW"


def _migrated(file: Path, migrate: Callable[..., dict[str, Any]], *documents: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return migrate(*documents)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise RecordProblem(
            f"'{file}' has schema 1 and lacks part of what that schema holds ({type(problem).__name__}: {problem}); "
            f"bring the file back or measure anew, as in bench run --out NEW"
        ) from problem


_HELD: dict[Path, tuple[int, int] | None] = {}  # folders that this process writes to, by the file that is their lock


def _lock_of(folder: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = (folder / ".lock").stat()
        return found.st_dev, found.st_ino
    return None


@contextlib.contextmanager
def fellow_writer(folder: Path) -> Iterator[None]:
    """Write to a folder that another process of the same run holds: no longer than that folder is there."""
    _HELD[folder] = _lock_of(folder)
    try:
        yield
    finally:
        del _HELD[folder]


@contextlib.contextmanager
def sole_writer(folder: Path, holds: str = "a run") -> Iterator[None]:
    """Hold a folder: two runs or trainings in one folder at a time are refused. The lock dies with its process.
    A folder that is made for it and stays empty is removed."""
    import fcntl

    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        tiles = (f"tiles/{one.name}" for one in folder.glob("tiles/*"))
        check_folder(folder, "report", "trials", "data", "tiles", *tiles)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as problem:
        raise RecordProblem(
            f"'{folder}' cannot hold {holds}: {problem.strerror or problem}; name another place, as in --out my-run"
        ) from problem
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise RecordProblem(
                f"another process is running in '{folder}'; wait for it, or name another place, as in --out my-run"
            ) from problem
        with fellow_writer(folder):
            yield
    finally:
        held = os.fstat(handle)
        os.close(handle)
        with contextlib.suppress(OSError):  # it may be gone, and another run's be in its place
            if made and _lock_of(folder) == (held.st_dev, held.st_ino) and os.listdir(folder) == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
