"""Commands that read records: `bench compare`, `export`, `report`, `check` and `baseline`.

Knows their flags and exit codes. Refuses to judge: every verdict comes from `orderbench.reports`.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from orderbench.orders.errors import BenchError
from orderbench.orders.files import check_folder, reason_of, write_whole
from orderbench.runs.shell import (
    OUTPUT,
    DebugOption,
    JsonOption,
    check_out,
    number,
    optional_number,
    optional_whole,
    piped_console,
    print_json,
    progress,
    say,
    write,
)

_JUDGED, _RULES = "What is judged", "Rules"  # groups of the help of `check`


def compare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="RUN2", help="A second run; without it, the arms of RUN are compared.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="ARM", help="Compare all other arms of RUN with this one.")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="Which feature space. Default: the first.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Compare the arms of a run with its baseline, or two runs with each other, by paired intervals.

    Without --baseline, arms are compared with the baseline of the run if that is one of its arms, else with its first
    arm. Exit code 0 if any measured number could be judged, better or worse, else 4. Counters are not measured numbers.

    \b
    Examples:
      bench compare bench-runs/my-run
      bench compare bench-runs/my-run --baseline radial
      bench compare bench-runs/before bench-runs/after --json
    """
    from orderbench.reports import compare as engine
    from orderbench.reports.results import results_of
    from orderbench.reports.summary import comparison
    from orderbench.runs.record import load_run

    if other is not None and baseline is not None:
        raise BenchError("--baseline names an arm within one run; leave out either it or the second run")
    loaded = load_run(run)
    second = None
    if other is None:
        first = results_of(loaded, space, engine.baseline_arm(loaded, baseline, _canonical))
        lines = engine.compare_arms(first)
    else:
        first, second = results_of(loaded, space), results_of(load_run(other), space)
        lines = engine.compare_runs(first, second)
    notes = engine.notes(lines, first, second)
    code = 0 if engine.anything_judged(lines) else 4
    if as_json:
        print_json({
            "before": str(run), "after": str(other or run), "baseline": first.baseline if other is None else None,
            "exit_code": code, "notes": notes, "lines": engine.to_json(lines),
        })  # fmt: skip
        return code
    titles = (first.baseline or "baseline", "arm") if other is None else (run.name, other.name)
    piped_console().print(comparison(lines, titles))
    for note in notes:
        piped_console().print(note, style="dim", markup=False, highlight=False)
    return code


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    npz: Annotated[
        bool, typer.Option("--npz", help="Write one .npz for each arm, as ADM's evaluator reads it.")
    ] = False,
    png: Annotated[bool, typer.Option("--png", help="Write one folder of PNG files for each arm.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to write. Default RUN/export.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where codes are turned into pixels.")
    ] = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write the samples of a run as images.

    \b
    Examples:
      bench export bench-runs/my-run --npz
      bench export bench-runs/my-run --png --out pictures
    """
    from orderbench.runs.export import export_run
    from orderbench.runs.record import load_run

    if not npz and not png:
        raise BenchError("say which: --npz, one file an arm for ADM's evaluator, or --png, folders of pictures")
    target = out or _inside(run, "export")
    written = export_run(load_run(run), target, npz=npz, png=png, device=device, each=progress("exporting"))
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            write(f"wrote {path}")
        shown = shlex.quote(str(written[0]))
        evaluator = f"; ADM's evaluator: python evaluator.py REFERENCE.npz {shown}" if npz else ""
        write(f"to judge it again: bench score {shown}{evaluator}")


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The folder of a run; several are joined.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Where to write. Default RUN/report; for several runs RUN/report-with-RUN2-...",
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper",
            help="Also write clean figures to OUT/paper, one and two columns wide, each with its caption in a file.",
        ),
    ] = False,
    font: Annotated[
        str | None,
        typer.Option(
            "--font", metavar="serif|sans|NAME", help="The font of --paper, or any that is installed. Default sans."
        ),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw the figures, tables and page of a run, from its records alone.

    Several runs become one table where they measured alike. What may not be joined, such as times of two machines, gets
    a part of its own, with the reason. --json also prints all tables as one document.

    \b
    Examples:
      bench report bench-runs/my-run
      bench report bench-runs/monday bench-runs/friday --out both
      bench report bench-runs/my-run --paper --font serif
    """
    from orderbench.reports.page import tables_json, write_report
    from orderbench.runs.record import load_run

    if font is not None and not paper:
        raise BenchError(f"--font {font} is for --paper; give both, as in --paper --font serif")
    loaded = [load_run(run) for run in runs]
    joined = "-".join(["with", *(run.resolve().name for run in runs[1:])])[:100]
    name = "report" if len(runs) == 1 else f"report-{joined}"  # each set of runs has a page of its own
    target = out or _inside(runs[0], name)
    page = write_report(loaded, target, paper=paper, font=font or "sans", each=progress("drawing"))
    if as_json:
        print_json({**tables_json(loaded), "page": str(page)})
    else:
        write(f"wrote {page}")
        if paper:
            write(f"wrote {page.parent / 'paper'}")


def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="FILE|RUN",
            help="What must not get worse: a file of bench baseline, or a run.",
            rich_help_panel=_JUDGED,
        ),
    ] = None,
    min_speedup: Annotated[
        list[str] | None,
        typer.Option(
            "--min-speedup",
            metavar="ARM/ARM=X",
            help="The first arm must be at least X times as fast as the second; may be given again.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            parser=optional_whole,
            metavar="B",
            help="The batch of --min-speedup. Default 1.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    max_fd_increase: Annotated[
        float | None,
        typer.Option(
            "--max-fd-increase",
            parser=optional_number,
            metavar="PERCENT",
            help="How much the Frechet distance of an arm may grow, in percent of the baseline's.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    max_bits_increase: Annotated[
        float | None,
        typer.Option(
            "--max-bits-increase",
            parser=optional_number,
            metavar="PERCENT",
            help="How much the held-out bits of an arm may grow.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    max_speedup_loss: Annotated[
        float | None,
        typer.Option(
            "--max-speedup-loss",
            parser=optional_number,
            metavar="PERCENT",
            help="How much of its speed-up over the baseline arm an arm may lose. Default 10.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            "--max-slowdown",
            parser=optional_number,
            metavar="PERCENT",
            help="How much slower an arm may be in absolute time, on the same hardware only.",
            rich_help_panel=_RULES,
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="counters,latency,likelihood,quality",
            help="What of the baseline is asked for. Default: all that it holds.",
            rich_help_panel=_JUDGED,
        ),
    ] = None,
    any_model: Annotated[
        bool,
        typer.Option(
            "--any-model",
            help="Accept a baseline of other weights; only counters and speed are then compared.",
            rich_help_panel=_JUDGED,
        ),
    ] = False,
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            metavar="FILE.toml",
            help="Read rules of the same names; flags override them.",
            rich_help_panel=_JUDGED,
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space", metavar="SPACE", help="Which feature space. Default: the first.", rich_help_panel=_JUDGED
        ),
    ] = None,
    as_json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, for a job summary.", rich_help_panel=OUTPUT)
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit", metavar="FILE.xml", help="Also write the findings as JUnit XML.", rich_help_panel=OUTPUT
        ),
    ] = None,
    debug: DebugOption = False,
) -> int:
    """Gate a change: fail only if something really got worse.

    Exit code 0 if all passed or improved, 3 if anything regressed, 4 if something is inconclusive, or was asked for and
    could not be compared. All that the baseline holds is asked for, measured again and alike; --only asks for less.
    Counters are compared exactly, everything else by its interval.

    \b
    Examples:
      bench check bench-runs/my-run --min-speedup radial/raster=3
      bench check bench-runs/my-run --baseline baseline.json --max-fd-increase 5
      bench check my-run --baseline baseline.json --only counters,quality
      bench check my-run --rules check.toml --markdown >> $GITHUB_STEP_SUMMARY
    """
    from orderbench.reports import check as gate
    from orderbench.reports.results import results_of
    from orderbench.reports.snapshot import baseline_of, read_snapshot
    from orderbench.runs.record import load_run

    if as_json and markdown:
        raise BenchError("--json and --markdown both want stdout; give one of them")
    given = {
        "min_speedup": dict(_speedup(text) for text in min_speedup or []), "batch": batch,
        "max_fd_increase": max_fd_increase, "max_bits_increase": max_bits_increase,
        "max_speedup_loss": max_speedup_loss, "max_slowdown": max_slowdown, "any_model": any_model or None,
        "only": None if only is None else tuple(filter(None, only.split(","))),
    }  # fmt: skip
    if only is not None and not given["only"]:
        raise BenchError("--only names nothing; as in --only counters,quality")
    asked = gate.read_rules(rules, given)
    if junit is not None:
        check_out(junit, "--junit")
    before = None
    if baseline is not None:
        folder = os.path.isdir(baseline)  # a name that is too long is none
        before = baseline_of(results_of(load_run(baseline), space)) if folder else read_snapshot(baseline)
    findings = gate.check(results_of(load_run(run), space), before, asked, _spelling)
    if as_json:
        print_json(gate.to_json(findings))
    elif markdown:
        write(gate.to_markdown(findings))
    else:
        from orderbench.reports.summary import findings_table

        piped_console().print(findings_table(findings))
    code, text = gate.exit_code(findings), gate.to_junit(findings)
    if junit is not None:
        try:
            write_whole(junit, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        except OSError as problem:  # the verdict is there already
            return say(f"'{junit}' could not be written: {reason_of(problem)}; name another place", code or 2)
    return code


def baseline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.json", help="The file to write. Default baseline.json.")
    ] = Path("baseline.json"),
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="Which feature space. Default: the first.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write the file that `bench check --baseline` compares with: small enough to be reviewed and committed.

    \b
    Examples:
      bench baseline bench-runs/my-run --out baseline.json
    """
    from orderbench.reports.results import results_of
    from orderbench.reports.snapshot import baseline_of
    from orderbench.runs.record import ELSEWHERE, load_run, write_json

    check_out(out, "--out")
    write_json(out, baseline_of(results_of(load_run(run), space)), ELSEWHERE)
    write(f"wrote {out}")


def _inside(run: Path, name: str) -> Path:
    """The folder of a run that a command writes by default; BenchError if it leads elsewhere."""
    try:
        check_folder(run, name)
    except OSError as problem:
        raise BenchError(
            f"'{run}' is not written to: {problem.strerror}; name another place, as in --out {name}"
        ) from problem
    return run / name


def _spelling(arm: str) -> str:
    """An arm as records spell it; BenchError for what is none."""
    from orderbench.runs.arms import parse_arm  # needs torch, so it is asked only for what a run has not by name

    return parse_arm(arm).name


def history(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", help="Runs, files of bench baseline, or folders that hold some of either, in any order."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Also write a page, figures and a CSV file to this folder."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print a row for every number, comma-separated.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how every number that a check may hold changed, over dates and commits.

    A value that was not measured like the one before it (other weights, hardware, n, steps) is marked, with the reason.
    Whether a change is worse, bench check says.

    \b
    Examples:
      bench history bench-runs
      bench history monday tuesday wednesday
      bench history baselines --out history
      bench history bench-runs --csv > numbers.csv
    """
    from orderbench.reports.history import (
        entries_of,
        history_csv,
        history_json,
        history_of,
        terminal,
        write_history,
    )

    if as_json and csv:
        raise BenchError("--json and --csv both want stdout; give one of them")
    found = history_of(entries_of(runs))
    page = None if out is None else write_history(found, out)
    if as_json:
        print_json({**history_json(found), "page": None if page is None else str(page)})
    elif csv:
        write(history_csv(found).rstrip("\n"))
    else:
        console = piped_console()
        console.print(terminal(found, console.width))
        if page is not None:
            write(f"wrote {page}")


def _canonical(arm: str) -> str:
    """The same; one that is not known here, such as an order of --include, is left as it is."""
    try:
        return _spelling(arm)
    except BenchError:
        return arm


def _speedup(text: str) -> tuple[str, float]:
    """'radial/raster=3': an arm may hold '=' itself, the number comes last."""
    pair, _, least = text.rpartition("=")
    try:
        return pair, number(least)
    except typer.BadParameter:
        raise BenchError(f"'{text}' is no least speed-up; it is spelled ARM/ARM=X, as in radial/raster=3") from None
