"""What became of every number: entries by date, what moved, and where two values were not measured alike."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kept import RECORD, Text, printed

from orderbench.orders import BenchError
from orderbench.reports.canvas import Sheet
from orderbench.reports.history import (
    History,
    draw_history,
    entries_of,
    history_csv,
    history_json,
    history_of,
    terminal,
    write_history,
)
from orderbench.reports.results import Results
from orderbench.reports.snapshot import snapshot


@pytest.fixture(scope="module")
def baselines(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three: as measured, a slower radial of other FD, and other weights. Their names are not in order."""
    folder = tmp_path_factory.mktemp("baselines")

    def slower(held: dict[str, Any]) -> None:
        radial = held["arms"]["radial"]
        radial["speedup"]["1"] = [value / 2 for value in radial["speedup"]["1"]]
        radial["counters"]["passes"] += 1
        held["busy"] = "other programs were running (load 9.0 on 2 cores)"

    def other(held: dict[str, Any]) -> None:
        held["models"]["toy-model"]["sha256"] = "4" * 64
        del held["arms"]["radial+nested"]

    def none(held: dict[str, Any]) -> None:
        held["commit"] = "1234567+"

    for name, date, change in (("c", "01", none), ("a", "02", slower), ("b", "03", other)):
        write(folder / f"{name}.json", results, f"2027-01-{date}T10:00:00+00:00", change)
    (folder / "notes.json").write_text("{}")
    return folder


def write(file: Path, results: Results, created: str, change: Callable[[dict[str, Any]], None]) -> None:
    held = json.loads(json.dumps(snapshot(results)))
    held["created"] = created
    change(held)
    file.write_text(json.dumps(held))


@pytest.fixture(scope="module")
def history(baselines: Path) -> History:
    return history_of(entries_of([baselines]))


def values(history: History, arm: str, number: str) -> list[tuple[float, bool] | None]:
    """Each value, and whether it is apart from the one before."""
    (trend,) = [trend for trend in history.trends if (trend.arm, trend.number) == (arm, number)]
    return [None if point is None else (point.value.value, bool(point.apart)) for point in trend.points]


def test_an_arm_whose_name_cannot_be_read_has_a_trend_as_any_other(results: Results, tmp_path: Path) -> None:
    def strange(held: dict[str, Any]) -> None:
        held["arms"]["radial+"] = held["arms"].pop("radial+nested")
        del held["arms"]["radial+"]["rewrites"]

    for name in "ab":
        write(tmp_path / f"{name}.json", results, f"2027-01-01T10:00:0{ord(name) - 97}+00:00", strange)
    found = history_of(entries_of([tmp_path]))
    assert {trend.rewrites for trend in found.trends if trend.arm == "radial+"} == {True}
    assert draw_history(found, "FD", Sheet(6.75)).axes


def test_entries_are_in_the_order_of_their_dates_and_counted_once(baselines: Path, history: History) -> None:
    assert [entry.name for entry in history.entries] == ["c.json", "a.json", "b.json"]
    assert [entry.title for entry in history.entries[:1]] == ["2027-01-01 1234567+"]
    again = entries_of([baselines / "b.json", baselines, baselines / ".." / baselines.name / "a.json"])
    assert [entry.name for entry in again] == ["c.json", "a.json", "b.json"]
    with_run = entries_of([RECORD, baselines])
    assert len(with_run) == 4
    assert RECORD.name in [entry.name for entry in with_run]


def test_a_number_is_followed_and_parted_where_it_was_not_measured_alike(history: History, results: Results) -> None:
    was = results.row("radial").speedup[1].value
    found = values(history, "radial", "times faster, batch 1")
    assert found == [(pytest.approx(was), False), (pytest.approx(was / 2), False), (pytest.approx(was), True)]
    fd = results.row("radial").figures["fd"].value
    assert values(history, "radial", "FD") == [(pytest.approx(fd), False), (pytest.approx(fd), False),
                                               (pytest.approx(fd), True)]  # fmt: skip
    assert values(history, "radial+nested", "FD")[2] is None
    whole = results.row("radial").counters["passes"]
    counted = values(history, "radial", "passes")
    assert [one and one[0] for one in counted] == [whole, whole + 1, whole]
    assert history.steady > 5
    assert not any(trend.number == "passes" and trend.arm != "radial" for trend in history.trends)


def test_a_terminal_shows_what_fits_and_every_reason(history: History) -> None:
    wide, narrow = (printed(terminal(history, width), width) for width in (140, 60))
    assert "[1] not measured like the one before it: the models differ" in wide
    assert "a.json: read no speed from this: other programs were running (load 9.0 on 2 cores)." in wide
    assert "2027-01-01" in wide
    assert "2027-01-01" not in narrow
    assert "2027-01-03" in narrow
    assert "of 3; --csv, --json and the page of --out have all" in " ".join(narrow.split())


def test_files_hold_every_number_once(history: History, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(history_csv(history))))
    expected = sum(point is not None for trend in history.trends for point in trend.points)
    assert len(rows) == len(history_json(history)["numbers"]) == expected
    apart = [row for row in rows if row["apart"]]
    assert {row["run"] for row in apart} == {"b.json"}
    page = write_history(history, tmp_path / "out")
    text = Text(page.read_text())
    assert "3 runs, 2027-01-01 1234567+ to 2027-01-03" in " ".join(text.words)
    assert not [address for address in text.addresses if not address.startswith("#")]
    assert (page.parent / "history.csv").read_text() == history_csv(history)
    drawn = {file.stem for file in (page.parent / "figures").glob("*.svg")}
    assert {"fd", "bits-token", "times-faster--batch-1"} <= drawn


def test_a_line_ends_where_values_are_apart(history: History) -> None:
    figure = draw_history(history, "times faster, batch 1", Sheet())
    arms = [trend for trend in history.trends if trend.number == "times faster, batch 1"]
    runs = [line for line in figure.axes[0].lines if len(set(line.get_xdata())) > 1]
    assert len(runs) == sum(point is not None and not point.apart for trend in arms for point in trend.points[1:])


def test_hollow_says_that_codes_are_rewritten(results: Results, tmp_path: Path) -> None:
    def added(held: dict[str, Any]) -> None:
        held["arms"]["radial+exact"] = {**held["arms"]["radial"], "decoder": "exact"}

    def older(held: dict[str, Any]) -> None:
        added(held)
        for about in held["arms"].values():
            del about["rewrites"]

    def filled(file: str) -> dict[str, bool]:
        axes = draw_history(history_of(entries_of([tmp_path / file])), "FD", Sheet()).axes[0]
        legend = axes.figure.legends[0]
        return {text.get_text(): line.get_markerfacecolor() != "white"
                for text, line in zip(legend.get_texts(), legend.get_lines(), strict=False)}  # fmt: skip

    write(tmp_path / "new.json", results, "2027-01-02", added)
    write(tmp_path / "old.json", results, "2027-01-01", older)
    asked = ("radial", "radial+exact", "radial+nested")
    new, old, both = (filled(name) for name in ("new.json", "old.json", "."))
    assert [new[arm] for arm in asked] == [both[arm] for arm in asked] == [True, True, False]
    assert [old[arm] for arm in asked] == [True, False, False]  # it does not say which decoders rewrite


def test_what_is_no_history_is_a_sentence(tmp_path: Path, baselines: Path) -> None:
    with pytest.raises(BenchError, match="holds neither runs nor files of bench baseline; name some"):
        entries_of([tmp_path])
    with pytest.raises(BenchError, match="is no baseline of this suite"):
        entries_of([baselines / "notes.json"])
    with pytest.raises(BenchError, match="there is no baseline"):
        entries_of([tmp_path / "nothing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="could not be written to"):
        write_history(history_of(entries_of([baselines])), tmp_path / "file")


def test_a_file_whose_name_is_no_text_is_read(baselines: Path, tmp_path: Path) -> None:
    odd = tmp_path / "of\udcff\x1b[31m.json"
    odd.write_bytes((baselines / "c.json").read_bytes())
    assert [entry.name for entry in history_of(entries_of([odd])).entries] == ["of.json"]
