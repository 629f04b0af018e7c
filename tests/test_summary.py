"""In a terminal: every number whole in its width, and no word of a record taken for markup."""

import json
from dataclasses import replace
from typing import Any

import pytest
from kept import changed, printed

from orderbench.reports import summary
from orderbench.reports.canvas import Sheet
from orderbench.reports.compare import compare_arms, compare_runs
from orderbench.reports.figures import speedups
from orderbench.reports.results import Results, results_of
from orderbench.reports.summary import comparison
from orderbench.reports.tables import tables_of
from orderbench.reports.words import bounds
from orderbench.runs.record import Run


def test_a_comparison_shows_its_numbers_in_80_columns(results: Results) -> None:
    lines = compare_runs(results, results)
    shown = printed(comparison(lines, ("20261123-061234-raster-radial", "20261123-071234-raster-radial")))
    latency = results.row("radial").figures["latency_s"]
    assert latency.low is not None
    assert f"{latency.value:.4f}" in shown
    assert f"[{latency.low:.4f}, " in shown
    assert "no difference" in shown
    assert "…" not in shown
    tiny = compare_arms(results)[0]
    assert "-0.0000" not in printed(comparison([tiny], ("raster", "arm")))


def test_speeds_are_whole_in_80_columns(record: Run) -> None:
    """Names of arms break, numbers never do, whatever is as wide as it gets."""

    def slower(trial: dict[str, Any]) -> None:
        for number, samples in enumerate(trial.get("rounds", [])):
            for sample in samples:
                sample["tokens_s"] *= 100 * (1 + number * (sample["name"] == "raster"))

    def alike(trial: dict[str, Any]) -> None:  # ratios of three decimals, and many images a second
        for number, samples in enumerate(trial.get("rounds", [])):
            for place, sample in enumerate(samples):
                sample["tokens_s"] = (98 + (number + 3 * place) % 4) / 1e7
                sample["pixels_s"] = 0.0

    for change in (slower, alike):
        results = results_of(changed(record, change.__name__, trial=change))
        shown = printed(summary.summary(results, 80), 80)
        for row in results.arms:
            assert f"{row.figures['images_per_s'].value:.1f}" in shown
            for ratio in row.speedup.values():
                assert bounds(ratio, 2) in shown
        assert max(map(len, shown.splitlines())) <= 80
        assert "(noise)" in shown


def test_a_summary_points_at_what_it_shows(results: Results) -> None:
    narrow, wide = (printed(summary.summary(results, width), width) for width in (80, 120))
    ratio = "Ratio of steps, raster's to theirs: 4.0 for raster@even:4, radial, "
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert "KD \N{DOWNWARDS ARROW}" not in narrow
    assert "FD \N{DOWNWARDS ARROW}" in narrow
    assert "latency \N{DOWNWARDS ARROW}" in narrow
    assert "(ms/image)" in narrow
    assert "read KD (in the report), and" in narrow
    assert ratio in narrow
    assert " KD \N{DOWNWARDS ARROW}" in wide
    assert "read KD, and" in wide
    assert "x steps" in wide
    assert ratio not in wide


def test_reasons_and_names_are_no_markup(one_seed_less: Run, results: Results) -> None:
    assert "failed: raster: [/red] out of memory" in printed(summary.summary(results_of(one_seed_less), 80))
    named = replace(results.arms[1], arm="mine[/cyan]", failed="[/red] x")
    other = replace(results, arms=(results.arms[0], named), baseline="raster")
    assert "mine[/cyan]" in printed(summary.summary(other, 120), 120)
    line = compare_arms(results)[0]
    assert "[/green]" in printed(comparison([replace(line, arm="[/green]", why="[/bold]")], ("[/a]", "[/b]")), 120)


def test_a_long_name_takes_no_digit_from_a_number(record: Run) -> None:
    long = "radial+nested:margin=0.3:rule=sample:every=12:window=3"

    def renamed(about: dict[str, Any]) -> None:
        for arm in about["arms"]:
            arm["name"] = long if arm["name"] == "radial+nested" else arm["name"]

    def trial(trial: dict[str, Any]) -> None:
        if trial["arm"] == "radial+nested":
            trial["arm"] = long

    shown = printed(summary.summary(results_of(changed(record, "long", renamed, trial)), 80))
    assert "\u2026" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_every_batch_of_several_has_its_speed(record: Run) -> None:
    """The largest batch once more, twice as large and half as fast an image."""
    big = next(trial for trial in record.done("latency") if trial["batch"] != 1)
    larger: dict[str, Any] = json.loads(json.dumps(big))
    larger |= {"trial": "latency-larger", "batch": 2 * big["batch"]}
    for sample in [sample for one in larger["rounds"] for sample in one]:
        sample["tokens_s"], sample["pixels_s"] = 4 * sample["tokens_s"], 4 * sample["pixels_s"]
    about: Any = {**record.about, "trials": [*record.about["trials"], "latency-larger"]}
    results = results_of(replace(record, about=about, trials={**record.trials, "latency-larger": larger}))
    row = results.row("radial")
    assert sorted(row.speedup) == [1, big["batch"], 2 * big["batch"]]
    assert row.throughput[big["batch"]].value == pytest.approx(2 * row.throughput[2 * big["batch"]].value)
    assert row.figures["images_per_s"] == row.throughput[2 * big["batch"]]
    speed = {table.name: table for table in tables_of(results)}["speed"]
    heads = [column.key for column in speed.columns if column.key.startswith("images_per_s")]
    assert heads == [f"images_per_s_batch_{big['batch']}", "images_per_s"]
    cells = next(line.cells for line in speed.rows if line.cells["arm"] == "radial")
    assert [cells[head] for head in heads] == list(row.throughput.values())
    wide, narrow = (printed(summary.summary(results, width), width) for width in (200, 80))
    assert f"batch {big['batch']}" in wide
    assert f"(batch {big['batch']}: in the report)" in " ".join(narrow.split())
    assert "radial+nested" in narrow
    drawn = speedups(results, Sheet())
    assert drawn is not None
    markers = {line.get_marker() for axes in drawn.axes for line in axes.lines} & {"o", "s", "^"}
    assert markers == {"o", "s", "^"}
