"""What all tests share: no test depends on what another one registered, and in CI a skip is a failure."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from orderbench.orders import registry

if TYPE_CHECKING:
    from orderbench.reports.results import Results
    from orderbench.runs.record import Run

settings.register_profile("suite", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it; Python's global randomness stays where it was."""
    for kept in registry.registries():
        kept.names()
        monkeypatch.setattr(kept, "entries", dict(kept.entries))
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of a model on 4x4, its tokenizer, a feature network and 8x8 pictures, all with random content."""
    from toy_runs import write_files

    return write_files(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def whole(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing happened to."""
    from toy_runs import run, spec_of

    return run(spec_of(files), tmp_path_factory.mktemp("runs") / "whole")[1]


@pytest.fixture(scope="session")
def record() -> Run:
    """The kept record of a tiny run."""
    from kept import RECORD

    from orderbench.runs.record import load_run

    return load_run(RECORD)


@pytest.fixture(scope="session")
def results(record: Run) -> Results:
    """Its one table."""
    from orderbench.reports.results import results_of

    return results_of(record)


@pytest.fixture
def one_seed_less(record: Run) -> Run:
    """Raster failed under seed 0: the only seed that all arms have is 1."""
    from kept import changed

    def fail(trial: dict[str, Any]) -> None:
        if (trial["kind"], trial["arm"], trial["seed"]) == ("quality", "raster", 0):
            trial.update(status="failed", reason="[/red] out of memory")

    return changed(record, "less", trial=fail)


def pytest_collection_finish() -> None:
    """The clock collects garbage before every sample, and what is imported by now would be looked through each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test that could not run has proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        reporter.write_line("CI: a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
