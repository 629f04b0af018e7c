"""A whole run from Python: `run(orders=["raster", "radial"], samples=500)`.

Knows settings as keyword arguments, and the order in which a run is made. Refuses to know reports, so it draws no page:
`orderbench.reports` reads what it returns. Nothing heavy is imported before `run` is called.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from orderbench.orders.errors import BenchError
from orderbench.runs.spec import RunSpec, effective, merged

if TYPE_CHECKING:
    from orderbench.runs.record import Run
    from orderbench.runs.trials import Trial


def run(
    *,
    out: str | Path | None = None,
    resume: bool = False,
    fail_fast: bool = False,
    tell: Callable[[str], object] | None = None,
    **settings: Any,
) -> Run:
    """Measure, write records, and return them; the same as `bench run`, without its page.

    settings: the flags of `bench run` by name, with _ for -, as in `orders=["raster", "radial"]`, `held_out=100` or
    `tune={"guidance": [1, 1.5]}`; names, ranges and defaults are those of `RunSpec`. Where a flag takes a comma list,
    a list is meant. out: a folder that holds no run yet; by default bench-runs/DATE-ORDERS. resume: go on with the run
    in `out`, whose settings need not be given again. fail_fast: stop at the first arm that fails. tell: called with a
    sentence, such as an arm that is left out or a trial that is done; by default nothing is said.

    The number of threads and the precision of matrix products are set for the whole process. Arms that failed are in
    the `failed` of what is returned; the others are measured.

    Raises BenchError, one sentence, for whatever does not fit.
    """
    say = tell or (lambda sentence: None)
    before = _before(out, resume)
    given = {name: _plain(value) for name, value in settings.items()}
    asked = effective({}, given) if before is None else merged(before.about["config"], given)
    spec = RunSpec.from_json(asked, "run(...)")

    from orderbench.models.processes import gather, join_processes
    from orderbench.orders.registry import include_file
    from orderbench.runs.arms import told
    from orderbench.runs.execute import execute, new_folder
    from orderbench.runs.record import load_run
    from orderbench.runs.subject import check_named, load_subjects
    from orderbench.runs.trials import make_agenda

    if before is not None:
        check_named(spec, given, str(before.folder / "run.json"), _as_keywords)
    for file in spec.include:
        include_file(file)
    _fetch(spec.data)
    subjects = load_subjects(spec, None if before is None else before.threads)
    agenda = make_agenda(spec, subjects)
    for sentence in filter(None, (*agenda.sentences, *told(agenda.lineup), agenda.doubts())):
        say(sentence)
    join_processes(subjects.device)
    folder = gather(new_folder(spec) if out is None else Path(out))[0]
    execute(agenda, folder, _Told(say), resume=resume, fail_fast=fail_fast)
    return load_run(folder)


def _with_settings(function: Callable[..., Run]) -> None:
    """Let `help(run)` and editors list every setting with its default."""
    own = inspect.signature(function)
    named = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    kinds = get_type_hints(RunSpec)
    settings = [one.replace(annotation=kinds[name]) for name, one in inspect.signature(RunSpec).parameters.items()]
    function.__signature__ = own.replace(parameters=[*settings, *named])  # type: ignore[attr-defined]


_with_settings(run)


def _plain(value: Any) -> Any:
    """Paths as text, at any depth, as a file of settings would give them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _before(out: str | Path | None, resume: bool) -> Run | None:
    """The run that is gone on with."""
    if not resume:
        return None
    if out is None:
        raise BenchError("resume=True goes on with the run in a folder; name it, as in run(out='my-run', resume=True)")
    from orderbench.runs.record import load_run

    return load_run(out)


def _as_keywords(settings: Mapping[str, str | Sequence[str]]) -> str:
    """Settings as arguments of `run`."""
    return ", ".join(f"{name}={_plain(given)!r}" for name, given in settings.items())


def _fetch(data: str | None) -> None:
    if data is not None:
        from orderbench.models.download import download_folder, fetch

        folder = download_folder(data)
        if folder is not None:
            fetch(folder)


class _Told:
    """A watcher that turns what happens into sentences."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.say = say

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None:
        self.say(f"{len(trials) - len(done)} trials to measure, {len(done)} were done before")

    def noticed(self, sentence: str) -> None:
        self.say(sentence)

    def progress(self, trial: Trial, done: int, total: int) -> None:
        pass

    def ended(self, trial: Trial, record: Mapping[str, Any]) -> None:
        from orderbench.runs.kinds import title

        failed = record["status"] == "failed"
        self.say(f"{title(trial)} " + (f"failed: {record['reason']}" if failed else f"took {record['wall_s']:.0f} s"))
