"""Commands that compute: `bench train`, `bench run`, `bench doctor`.

Knows their flags and what they end with. Refuses to compute anything itself.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderbench.orders.errors import BenchError
from orderbench.runs.flags import IncludeOption, given_settings, setting_option, with_settings
from orderbench.runs.shell import (
    DebugOption,
    DeviceOption,
    JsonOption,
    check_out,
    include_files,
    optional_number,
    optional_whole,
    piped_console,
    print_json,
    progress,
    say,
    whole,
    write,
)
from orderbench.runs.spec import MACHINE, RunSpec, effective, merged, read_config

if TYPE_CHECKING:
    from orderbench.runs.trials import Trial


_LEARNED, _SCHEDULE, _TRAINING = "What is learned", "Schedule", "This training"  # groups of the help of `train`
_RUN = "This run"  # the group of what `run` has beside its settings


def train(
    what: Annotated[str, typer.Argument(metavar="tokenizer|features|model", help="What to train.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="Where checkpoints and weights are written.", rich_help_panel=_TRAINING
        ),
    ],
    data: Annotated[str | None, setting_option("data", _LEARNED)] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE|NAME",
            help="For a model: the tokenizer whose codes it learns; fashion-tokenizer is the one in the package. "
            "Default with --system: the system's own.",
            rich_help_panel=_LEARNED,
        ),
    ] = None,
    codes: Annotated[
        int,
        typer.Option(
            "--codes",
            parser=whole,
            metavar="V",
            help="For a tokenizer: how many codes it has.",
            rich_help_panel=_LEARNED,
        ),
    ] = 16,
    scales: Annotated[
        str,
        typer.Option(
            "--scales",
            metavar="N,...",
            help="For a tokenizer: a pyramid of codes, by the sides of its levels. Default: one grid.",
            rich_help_panel=_LEARNED,
        ),
    ] = "",
    network: Annotated[
        str,
        typer.Option(
            "--network",
            metavar="plain|residual",
            rich_help_panel=_LEARNED,
            help="For features: which network. plain suits grey images, residual colour.",
        ),
    ] = "plain",
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            metavar="NAME",
            rich_help_panel=_LEARNED,
            help="For a model: which system, at the budget that all share: 2000 steps of 64 images, 0.8 M parameters. "
            "`bench systems` lists them. Default: the shared network as it is shipped.",
        ),
    ] = None,
    mixture: Annotated[
        str | None,
        typer.Option(
            "--mixture",
            metavar="NAME|FILE",
            rich_help_panel=_LEARNED,
            help="For a model: which orders it is trained on and how often: shipped, random-only, raster-only, "
            "radial-only or halton-only. FILE is JSON, as in a card of weights. Default: the system's own.",
        ),
    ] = None,
    include: Annotated[list[str] | None, setting_option("include", _LEARNED)] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            parser=optional_whole,
            metavar="N",
            rich_help_panel=_SCHEDULE,
            help="How many steps the schedule has. Default: by recipe.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            parser=optional_number,
            metavar="M",
            help="Stop after so long, with a checkpoint.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint in --out.", rich_help_panel=_TRAINING),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init", metavar="FILE", help="Begin with these weights, not with random ones.", rich_help_panel=_LEARNED
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            parser=optional_whole,
            metavar="B",
            help="How many images a step sees. Default: by recipe.",
            rich_help_panel=_SCHEDULE,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            parser=optional_number,
            metavar="R",
            rich_help_panel=_SCHEDULE,
            help="The highest learning rate of the schedule. Default: by recipe.",
        ),
    ] = None,
    every: Annotated[
        int,
        typer.Option(
            "--every",
            parser=whole,
            metavar="N",
            rich_help_panel=_TRAINING,
            help="Write a checkpoint and a report after so many steps.",
        ),
    ] = 100,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            parser=whole,
            metavar="N",
            rich_help_panel=_SCHEDULE,
            help="The seed of the first weights and of every draw.",
        ),
    ] = 0,
    device: Annotated[
        str,
        typer.Option("--device", metavar="auto|cpu|cuda", help="Where to train.", rich_help_panel=MACHINE),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            parser=optional_whole,
            metavar="N",
            rich_help_panel=MACHINE,
            help="Compute with so many processor threads. Default: as many as do not wait for others.",
        ),
    ] = None,
    side: Annotated[
        int,
        typer.Option(
            "--side",
            parser=whole,
            metavar="PIXELS",
            help="Scale images to this side.",
            rich_help_panel=_LEARNED,
        ),
    ] = 32,
    bf16: Annotated[
        bool | None,
        typer.Option(
            "--bf16/--no-bf16", help="Train in bfloat16, or not. Default: where it is fast.", rich_help_panel=MACHINE
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Let torch's compiler fuse the network's blocks: on a processor with a C++ compiler up to 1.5 "
            "times as fast, after a minute. Roundings differ, so a training is compiled from first step to last.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the tokenizer, the feature network or the shared transformer.

    What a step draws follows from --seed and the number of the step. So --resume continues bit for bit, on the same
    machine and with as many threads, and `torchrun` splits every batch among its processes. A run that is killed loses
    at most --every steps. The schedule follows from --steps; --minutes only ends a session earlier.

    \b
    Examples:
      bench train tokenizer --out tokenizer
      bench train tokenizer --out tokenizer --data download
      bench train tokenizer --scales 1,2,4,8,16 --out pyramid
      bench train model --tokenizer tokenizer/tokenizer.safetensors --out model
      bench train model --tokenizer tok.safetensors --out model --minutes 120
      bench train model --tokenizer tok.safetensors --out model --resume
      bench train model --system randar --out randar
      bench train features --out features --data images.npz --device cuda
      bench train features --network residual --data cifar-10 --out features
      bench train model --include my_term.py --mixture mixture.json \\
          --tokenizer tok.safetensors --out mine
    """
    from orderbench.runs.training import TrainSpec
    from orderbench.runs.training import train as run_training

    include_files(include)
    fetch_data(data)
    spec = TrainSpec(
        what=what, out=out, data=data, device=device, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed,
        minutes=minutes, every=every, threads=threads, bf16=bf16, compiled=compiled, resume=resume, init=init,
        tokenizer=tokenizer, system=system, mixture=mixture, codes=codes, scales=scales, network=network, side=side,
    )  # fmt: skip
    try:
        with _training_progress(what) as (report, tick):
            card = run_training(spec, report, tick, lambda sentence: say(sentence, 0))
    except KeyboardInterrupt:
        raise SystemExit(say(_cut(what, out), 130)) from None
    if not card:  # another process of torchrun writes and speaks
        return
    if as_json:
        print_json(card)
    else:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in card["figures"].items() if name != "step")
        done = f"{card['steps_done']} of {card['train']['steps']} steps, {card['images_seen']} images"
        size = f"{card['parameters']:,} parameters"
        if "training_flops" in card:
            size += f", about {card['training_flops']:.2g} floating-point operations"
        write(f"{done}, {size}: {shown}")
        write(f"wrote {card['weights']}")


def _cut(what: str, out: Path) -> str:
    """How a training that was interrupted goes on."""
    if not (out / "checkpoint.pt").exists():
        return "interrupted before the first checkpoint; --every N writes them more often"
    return (
        f"interrupted; the last checkpoint is kept, and `bench train {what} --resume --out {out}`, with the flags that "
        f"were given, goes on"
    )


@contextlib.contextmanager
def _training_progress(what: str) -> Iterator[tuple[Any, Any]]:
    """Figures at every report and, in a terminal, a bar with ETA in between; all on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("steps, ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def report(progress: Any) -> None:
            left_s = progress.elapsed_s / max(1, progress.steps_here) * (progress.steps - progress.step)
            figures = "  ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
            done = f"step {progress.step}/{progress.steps}  {progress.images_seen} images"
            text = f"{done}  ETA {left_s / 60:.0f} min  {figures}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield report, lambda step, steps: bar.update(task, completed=step, total=steps)


def fetch_data(data: str | None) -> None:
    """For --data download: fetch the files that are missing, with a progress bar."""
    if data is not None:
        from orderbench.models.download import download_folder, fetch

        folder = download_folder(data)
        if folder is not None:
            fetch(folder, each=progress("fetching Fashion-MNIST"))


@with_settings
def run(
    *,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            rich_help_panel=_RUN,
            help="Read settings of the same names from a .toml or .json file. Flags override it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Where to write. Default bench-runs/DATE-ORDERS.", rich_help_panel=_RUN
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out.", rich_help_panel=_RUN)
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first arm that fails.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the trials and how long they will take, and stop.", rich_help_panel=_RUN),
    ] = False,
    no_report: Annotated[
        bool,
        typer.Option("--no-report", help="Do not draw the page; bench report can draw it later.", rich_help_panel=_RUN),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
    **settings: Any,
) -> int:
    """Decode samples with every arm, measure quality, likelihood and speed, and write records, a summary and a page.

    An arm is spelled ORDER[@PACE][+DECODER][~MODEL]. `bench orders` lists orders, `bench decoders` lists decoders, and
    `bench show --help` lists paces. confidence@cosine:13 takes the place of an order: it chooses its cells as it
    decodes.

    The model's native order one cell at a time (raster, for the weights in the package) is an arm of every run: the
    baseline that the others are measured against. --no-baseline leaves it out.

    Without --steps, --pace and --correction each order is also compared with a variant: at even:N if it decodes one
    cell a step (N is the number of rings of radial on this grid, 13 on 16x16), otherwise with +nested. halton@cosine:N
    is added too. So `--orders raster` compares raster, raster@even:13 and halton@cosine:13. To compare nothing but the
    orders that you name, add --correction off.

    An arm that its model cannot decode is left out with a sentence, and the run goes on. Exit code 0 if all went well,
    2 if nothing could be run, 5 if some arms failed.

    \b
    Examples:
      bench run --orders raster,radial
      bench run --orders raster,radial --quick
      bench run --orders raster,halton,random --steps 8,13,32 --only likelihood
      bench run --orders radial+nested:every=12,confidence@cosine:13
      bench run --orders radial --correction off,nested:every=3 --seeds 3
      bench run --orders raster,radial --tune guidance=1,1.5,2,3
      bench run --model my_model:build --tokenizer tok.safetensors
      bench run --model shared --model own=own.pt --orders radial,radial~own
      bench run --config sweep.toml --out runs/sweep
      bench run --resume --out runs/sweep
      torchrun --nproc-per-node 8 -m orderbench.runs --samples 50000 --out big
    """
    from orderbench.runs.record import load_run
    from orderbench.runs.subject import check_named

    include_files(settings["include"])
    given = given_settings(settings)
    from_file = read_config(config) if config else {}
    if resume:
        if out is None:
            raise BenchError(
                "--resume goes on with the run in a folder; name it, as in --resume --out bench-runs/my-run"
            )
        if not (out / "run.json").is_file():
            raise BenchError(f"'{out}' holds no run to go on with; leave --resume out to start one")
        asked = merged(load_run(out, lambda _: None).about["config"], from_file, given)
    else:
        asked = effective(from_file, given)
    spec = RunSpec.from_json(asked, f"'{config}'" if config else "the settings")
    file = str(out / "run.json") if resume and out is not None and not config else str(config)
    check_named(spec, given, file, _as_flags)
    fetch_data(spec.data)
    return _run(spec, out, resume=resume, fail_fast=fail_fast, dry_run=dry_run, no_report=no_report, as_json=as_json)


def _as_flags(settings: Mapping[str, str | Sequence[str]]) -> str:
    """Settings as they are typed."""
    each = [(name, [given] if isinstance(given, str) else given) for name, given in settings.items()]
    return " ".join(f"--{name} {shlex.quote(value)}" for name, values in each for value in values)


def _run(
    spec: RunSpec, out: Path | None, *, resume: bool, fail_fast: bool, dry_run: bool, no_report: bool, as_json: bool
) -> int:
    from orderbench.models.processes import gather, is_first_process, join_processes
    from orderbench.runs.arms import told
    from orderbench.runs.estimate import estimate_s, supposed
    from orderbench.runs.execute import execute, new_folder
    from orderbench.runs.live import watching
    from orderbench.runs.record import load_run
    from orderbench.runs.rounds import parse_rounds
    from orderbench.runs.subject import load_subjects
    from orderbench.runs.trials import is_done, make_agenda

    before = load_run(out, lambda _: None) if resume and out is not None else None
    subjects = load_subjects(spec, None if before is None else before.threads)
    agenda = make_agenda(spec, subjects)
    if not dry_run:
        join_processes(subjects.device)
    said = (*agenda.sentences, *(() if as_json else told(agenda.lineup)))
    for sentence in said if is_first_process() else ():
        say(sentence, 0)
    trials, estimates = agenda.trials, estimate_s(agenda)
    if dry_run:
        left = [trial for trial in trials if before is None or not is_done(before.trials.get(trial.id, {}))]
        _print_trials(left, len(trials), {trial.id: estimates[trial.id] for trial in left if estimates}, as_json)
        if not as_json and any(trial.batch for trial in left):
            say(parse_rounds(spec.rounds).promise(), 0)
        if not as_json and left and (sentence := supposed(agenda)):
            say(sentence, 0)
        return 0
    doubts = agenda.doubts()
    if doubts:
        say(doubts, 0)
    folder = gather(out or new_folder(spec))[0]  # the name holds the second, and processes start at their own
    try:
        with watching(estimates) as watcher:
            ended = execute(agenda, folder, watcher, resume=resume, fail_fast=fail_fast)
    except KeyboardInterrupt:
        raise SystemExit(
            say(f"interrupted; what was measured is kept, and `bench run --resume --out {folder}` goes on", 130)
        ) from None
    if not is_first_process():
        return 0
    from orderbench.reports.results import results_of, to_json
    from orderbench.reports.summary import summary

    finished = load_run(folder)
    results = results_of(finished)
    page = None
    if finished.done() and not no_report:
        from orderbench.reports.page import write_report

        page = write_report([finished], folder / "report", each=progress("drawing the report"))
    if as_json:
        print_json(
            {
                "run": str(folder),
                "report": None if page is None else str(page),
                "failed": list(ended.failed),
                **to_json(results),
            }
        )
    else:
        console = piped_console()
        console.print(summary(results, console.width))
        write(f"records: {folder}")
        if page is not None:
            write(f"report:  {page}")
        say(
            f"next: `bench compare {shlex.quote(str(folder))}` sets each arm against the baseline, `bench baseline "
            f"{shlex.quote(str(folder))} --out baseline.json` keeps it for a gate, and `bench export --help` says how "
            f"to write samples",
            0,
        )
    if ended.failed:
        return say(f"{len(ended.failed)} of {len(trials)} trials failed; --resume --out {folder} tries them again", 5)
    return 0


def _print_trials(trials: Sequence[Trial], planned: int, estimates: dict[str, float], as_json: bool) -> None:
    from orderbench.reports.listing import trial_line, trials_left
    from orderbench.runs.kinds import listed

    total_s = sum(estimates.values()) if estimates or not trials else None
    if as_json:
        rows = [{**trial.head(), "batch": trial.batch, "estimate_s": estimates.get(trial.id)} for trial in trials]
        print_json({"trials": rows, "done_before": planned - len(trials), "estimate_s": total_s})
        return
    for trial in trials:
        write(trial_line(trial.kind, listed(trial), trial.setting, estimates.get(trial.id)))
    write(trials_left(len(trials), planned, total_s))


def score(
    samples: Annotated[
        list[Path],
        typer.Argument(metavar="SAMPLES", help="An .npz in ADM's layout (arr_0), or a folder of pictures; or several."),
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            metavar="FILE.npz|FOLDER|shipped",
            help="What to compare with: images or statistics in the format of ADM, a folder of pictures, or the "
            "features of Fashion-MNIST that are in the package.",
        ),
    ] = "shipped",
    space: Annotated[str | None, setting_option("space", None)] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            parser=optional_whole,
            metavar="PIXELS",
            help="Bring all images to this size: the shorter side is scaled, then the middle is cut out. Default: as "
            "they are.",
        ),
    ] = None,
    include: IncludeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Judge samples that were made elsewhere: the metrics, intervals and sentences of `bench run`.

    Labels are read from arr_1 of an .npz, from folders (one for each class), or from names as `bench export --png`
    writes them. Without labels there is no agreement. Compare sets of equal size only.

    \b
    Examples:
      bench score samples.npz
      bench score mine.npz theirs.npz --json
      bench score pictures --reference photographs --space lite0 --size 64
      bench score samples.npz --reference VIRTUAL_imagenet256_labeled.npz \\
          --space inception:weights-inception-2015-12-05-6726825d.pth
    """
    from orderbench.reports.scores import scores, scores_json
    from orderbench.runs.device import choose_device
    from orderbench.runs.score import score as judged

    include_files(include)
    if size is not None and not 1 <= size <= 4096:
        raise BenchError(f"a size of {size} pixels is not served; 1 to 4096 would do, as in --size 32")
    spaces = [word.strip() for word in (space or "").split(",") if word.strip()]
    found = judged(
        samples, spaces, reference, size=size, device=choose_device(device), each=progress("reading samples")
    )
    if as_json:
        print_json(scores_json(found))
    else:
        console = piped_console()
        console.print(scores(found, console.width))


def fit_pace(
    orders: Annotated[
        str, typer.Option("--orders", metavar="ORDER,...", help="Whose step sizes are fitted.")
    ] = "raster,radial,halton,dither,random,spiral,diagonal,hilbert",
    steps: Annotated[str, typer.Option("--steps", metavar="T,...", help="In how many steps, each apart.")] = "8,13,20",
    model: Annotated[str | None, setting_option("model", None)] = None,
    tokenizer: Annotated[str | None, setting_option("tokenizer", None)] = None,
    data: Annotated[str | None, setting_option("data", None)] = None,
    images: Annotated[
        int, typer.Option("--images", parser=whole, metavar="N", help="Held-out images that sizes are fitted to.")
    ] = 128,
    score: Annotated[
        int, typer.Option("--score", parser=whole, metavar="N", help="Other held-out images that judge them.")
    ] = 128,
    every: Annotated[
        int,
        typer.Option(
            "--every",
            parser=whole,
            metavar="K",
            help="Let a step begin at each of the first 4 K places, then at each K-th: fewer askings, rougher sizes.",
        ),
    ] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the profile is written.")] = Path(
        "profile.json"
    ),
    threads: Annotated[int | None, setting_option("threads", None)] = None,
    device: DeviceOption = "auto",
    include: IncludeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit step sizes to what a model says of held-out images, and judge them on others.

    A step costs what its cells tell about each other. That is measured for steps of every size along an order, and the
    sizes of least sum are written to a file, which the pace profile:T takes. They are judged on images that they were
    not fitted to, beside cosine:T, even:T and optimal:T: bits per token, with 95 % intervals.

    \b
    Examples:
      bench fit-pace
      bench fit-pace --orders raster,halton --steps 8,13,20 --images 512
      bench fit-pace --model mine.pt --data FOLDER --out mine.json
      bench run --orders raster@cosine:13,raster@profile:13 --profile mine.json
    """
    from orderbench.runs.fitting import Fit, write_profile
    from orderbench.runs.fitting import fit_pace as fitted
    from orderbench.runs.subject import load_subjects

    include_files(include)
    check_out(out, "--out")
    fit = Fit(
        orders=tuple(word.strip() for word in orders.split(",")),
        steps=tuple(whole(word.strip()) for word in steps.split(",")),
        images=images, score=score, every=every,
    )  # fmt: skip
    given = given_settings({"model": model, "tokenizer": tokenizer, "data": data, "threads": threads})
    spec = RunSpec.from_json(effective({}, {**given, "device": device, "only": ["likelihood"],
                                            "samples": 1, "held_out": images + score}), "the settings")  # fmt: skip
    fetch_data(spec.data)
    document, without = fitted(load_subjects(spec).own, fit, progress("fitting step sizes"))
    write_profile(out, document)
    if as_json:
        print_json(document)
    else:
        from orderbench.reports.listing import print_fits

        print_fits(piped_console(), document)
        write(f"\nwrote {out}; bench run --orders ORDER@profile:T --profile {shlex.quote(str(out))} takes it")
    for sentence in without:
        print(f"bench: {sentence}", file=sys.stderr)


def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="pkg.module:factory", help="Test the model that this function returns, not the machine."
        ),
    ] = None,
    include: IncludeOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that this machine has what `bench run` needs; or test a model of your own before it is measured.

    --model calls a function without arguments and tests the model that it returns. Do answers have the right form? Does
    a filled cache give the answers of a fresh one? Do masks hide what they must? Do rewind and refill forget? Does
    every registered decoder keep its promises with it, also those of --include? Exit code 2 if something that is needed
    is missing, or if a check fails.

    \b
    Examples:
      bench doctor
      bench doctor --json
      bench doctor --device cuda
      bench doctor --model my_model:build
      bench doctor --model my_model:build --include my_decoder.py
    """
    include_files(include)
    if model is None:
        from orderbench.runs.doctor import examine

        things = examine(device)
        lacking = [thing.what for thing in things if thing.needed and thing.state != "works"]
        if as_json:
            print_json({"works": not lacking, "things": [vars(thing) for thing in things]})
        else:
            for thing in things:
                write(str(thing))
            write(f"\n`bench run` {'lacks: ' + ', '.join(lacking) if lacking else 'has all it needs'}")
        if lacking:
            raise typer.Exit(2)
        return
    from orderbench.models.contract import check_model
    from orderbench.runs.device import choose_device
    from orderbench.runs.factory import call_factory

    chosen = choose_device(device)
    verdicts = check_model(call_factory(model), chosen, progress("trying the model"))
    failed = sum(verdict.verdict == "fail" for verdict in verdicts)
    if as_json:
        checks = [vars(verdict) for verdict in verdicts]
        print_json({"works": not failed, "model": model, "device": chosen, "checks": checks})
    else:
        for verdict in verdicts:
            write(str(verdict))
        said = f"fails {failed} of {len(verdicts)} checks" if failed else "keeps the protocol"
        write(f"\n{model} {said} on {chosen}")
    if failed:
        raise typer.Exit(2)
