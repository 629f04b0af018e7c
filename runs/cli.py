"""The command line: `bench`.

Knows what people type and how answers are shown. Refuses to compute anything itself: every command asks one of the
rooms and prints. Heavy imports stay inside the commands, so that `bench --help` is instant.

Exit codes: 0; 2 wrong usage or input; 3 regressed; 4 inconclusive or nothing comparable; 5 some arms failed;
130 interrupted; 1 only for our own bugs, with their traceback.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from orderbench.orders.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from orderbench.orders import Field, Grid, Plan
    from orderbench.orders.registry import Order

app = typer.Typer(
    name="bench", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _whole(text: str | int) -> int:
    text = str(text)  # typer parses defaults too
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise typer.BadParameter(f"'{text}' is not a whole number")
    return int(text)


def _number(text: str | float) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise typer.BadParameter(f"'{text}' is not a number")


def _optional_whole(text: str | int | None) -> int | None:
    return None if text is None else _whole(text)


def _optional_number(text: str | float | None) -> float | None:
    return None if text is None else _number(text)


GridOption = Annotated[str, typer.Option("--grid", metavar="SIDE|ROWSxCOLS", help="The token lattice.")]
ADAPTIVE = {"confidence": "likeliest codes first (MaskGIT, arXiv 2202.04200)"}  # models.adaptive's, known without torch
FieldOption = Annotated[str, typer.Option("--field", metavar="exp|power", help="Correlation law of the field.")]
LengthOption = Annotated[
    float, typer.Option("--length", parser=_number, metavar="CELLS", help="Length of the field, in cells.")
]
PowerOption = Annotated[float, typer.Option("--power", parser=_number, metavar="P", help="Power of --field power.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document.")]
IncludeOption = Annotated[
    list[str] | None, typer.Option("--include", metavar="FILE.py", help="Also load the orders of a Python file.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="PATH|download[:FOLDER]",
        help="A folder (one folder a class, or CIFAR-10's batches) or .npz, of which a tenth is held out if it has no "
        "test split; download fetches Fashion-MNIST (31 MB, into a cache). Default: what travels with the shipped "
        "weights, else an installed Fashion-MNIST.",
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]

UsageMistake = cast(type[Exception], typer.BadParameter.__mro__[1])  # click's UsageError, whichever click typer brings


def main() -> None:
    """Run `bench`: what a person can mend becomes a line on stderr and an exit code; our bugs keep their traceback."""
    try:
        code = app(standalone_mode=False, prog_name="bench")
        sys.stdout.flush()
        if code == 130:  # typer has seen Ctrl-C
            _say("interrupted", code)
    except BenchError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        code = _say(str(error), error.exit_code)
    except UsageMistake as error:
        code = _say_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = _say("interrupted", 130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_stdout()
        code = _say("the output could not be written: the disk is full", 2)
    sys.exit(code)


def _drop_stdout() -> None:
    """Nothing more can be written there, not even what is buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write(text: str) -> None:
    """Results go to stdout; a reader that leaves, as in `bench orders | head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(0) from None


def _say(sentence: str, code: int) -> int:
    print(f"bench: {sentence}", file=sys.stderr)
    return code


def _say_usage(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "bench"
    sentence = " ".join(error.format_message().split())
    if sentence.startswith("Usage:"):  # a command without its arguments: its help, as asked
        print(error.format_message(), file=sys.stderr)
        return 2
    return _say(f"{sentence.rstrip('.')}; `{command} --help` shows what would do", 2)


@app.callback(invoke_without_command=True)
def bench(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """What does a decoding order buy, in steps, time and quality, when everything else stays the same?

    \b
    Examples:
      bench orders                      every order, with its paper and its options
      bench show radial                 the plan of one order, drawn here
      bench orders --rank --steps 13    all orders, by what they lose to parallel steps
    """
    if version:
        from importlib.metadata import version as installed

        print(f"orderbench {installed('orderbench')}")


@app.command()
def orders(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    rank: Annotated[bool, typer.Option("--rank", help="Rank all orders by their parallel tax.")] = False,
    grid: GridOption = "16",
    steps: Annotated[
        int, typer.Option("--steps", parser=_whole, metavar="T", help="Steps of --rank: cosine:T for all.")
    ] = 13,
    seeds: Annotated[
        int, typer.Option("--seeds", parser=_whole, metavar="N", help="Seeds that --rank averages over.")
    ] = 8,
    field: FieldOption = "exp",
    length: LengthOption = 4.0,
    power: PowerOption = 1.0,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="FILE.py", help="Test the orders of a Python file against the contract."),
    ] = None,
    include: IncludeOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of orders as Markdown.")] = False,
    debug: DebugOption = False,
) -> None:
    """List the orders, rank them before any training, or check one of your own.

    --rank gives every order the same step sizes (cosine:T) and prints the parallel tax: the bits a token that a step
    loses by treating its cells as independent, on a Gaussian field. Orders that draw are averaged over seeds.

    --check runs the whole property suite on the orders that a file registers. Exit code 2 if one breaks a promise.

    \b
    Examples:
      bench orders
      bench orders radial locality
      bench orders --rank --grid 16 --steps 13
      bench orders --rank --field power --length 2 --power 1.5 --json
      bench orders --check my_order.py
    """
    _refuse_without(context, "--rank", rank, ("grid", "steps", "seeds", "field", "length", "power"))
    if check is not None and names:
        raise BenchError(f"--check tests the orders of '{check}'; leave {' '.join(names)} away")
    if sum([rank, check is not None, markdown]) > 1 or (markdown and as_json):
        raise BenchError("--rank, --check, --markdown and a list are different answers; ask for one of them")
    _include(include)
    if check is not None:
        _check(check, include or [], as_json, debug)
        return
    from orderbench.orders import Grid
    from orderbench.orders.registry import broken_entry_points, get_order, order_names

    _refuse_adaptive(names or ())
    chosen = [get_order(name) for name in names or order_names()]
    for name, why in broken_entry_points().items():
        print(f"bench: the installed order '{name}' did not load: {why}", file=sys.stderr)
    if rank:
        _rank(Grid.parse(grid), [order.name for order in chosen], steps, seeds, _field(field, length, power), as_json)
    elif as_json:
        _print_json([_order_json(order) for order in chosen])
    elif markdown:
        _write(orders_markdown(chosen))
    elif names:
        _print_options(chosen)
    else:
        _print_orders(chosen)


@app.command()
def show(
    arms: Annotated[list[str], typer.Argument(metavar="ORDER[@PACE]", help="One or more, by comma or space.")],
    grid: GridOption = "16",
    pace: Annotated[str | None, typer.Option("--pace", metavar="PACE", help="As after @, for all orders.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", parser=_whole, metavar="T", help="Short for --pace cosine:T.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", parser=_whole, metavar="N", help="Seed of the orders that draw.")] = 0,
    field: FieldOption = "exp",
    length: LengthOption = 4.0,
    power: PowerOption = 1.0,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save the map: .png, .svg, or .gif, animated.")
    ] = None,
    include: IncludeOption = None,
    debug: DebugOption = False,
) -> None:
    """Draw the plan of an order: the step of each cell, step sizes, and what its parallel steps cost on a field.

    Paces: native (rings, diagonals, ... as the order ties them), one, even:T, cosine:T, arccos:T, randar:T, halton:T,
    lpd:T, ear-shells, ear-sides. Steps count from 0.

    \b
    Examples:
      bench show radial
      bench show radial:center=3x4@native --grid 16
      bench show halton@cosine:13 --json
      bench show raster,radial,halton,designed --steps 13 --out orders.png
      bench show spiral@ear-shells --grid 12x16 --out spiral.gif
    """
    from orderbench.orders import Grid, make_plan
    from orderbench.orders.plan import spell_arm

    if out is not None:
        from orderbench.reports.maps import check_target

        check_target(out)
    _include(include)
    if steps is not None:
        if pace is not None:
            raise BenchError(
                f"--steps {steps} means --pace cosine:{steps}, and --pace {pace} was given; keep one of them"
            )
        pace = f"cosine:{steps}"
    _refuse_adaptive(",".join(arms).split(","))
    lattice, law = Grid.parse(grid), _field(field, length, power)
    named = []
    for arm in ",".join(arms).split(","):
        named.append((spell_arm(arm, pace), make_plan(arm, lattice, pace, seed)))
    if as_json:
        documents = [_plan_json(name, plan, law, seed) for name, plan in named]
        _print_json(documents[0] if len(documents) == 1 else documents)
    else:
        console = _console()
        for name, plan in named:
            _print_plan(console, name, plan, law, seed)
    if out is not None:
        from orderbench.reports.maps import save_map

        print(f"wrote {save_map(out, named)}", file=sys.stderr if as_json else sys.stdout)


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="tokenizer|features|model", help="What to train.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Checkpoints and weights.")],
    data: DataOption = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="The tokenizer whose codes a model learns.")
    ] = None,
    codes: Annotated[int, typer.Option("--codes", parser=_whole, metavar="V", help="Codes of a tokenizer.")] = 16,
    network: Annotated[
        str, typer.Option("--network", metavar="plain|residual", help="Which feature network; residual for colour.")
    ] = "plain",
    mixture: Annotated[
        str, typer.Option("--mixture", metavar="shipped|random|FILE", help="Which orders a model sees, how often.")
    ] = "shipped",
    steps: Annotated[
        int | None, typer.Option("--steps", parser=_optional_whole, metavar="N", help="Length of the schedule.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", parser=_optional_number, metavar="M", help="Stop and checkpoint after so long."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the folder's checkpoint stopped.")] = False,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="Begin with these weights, not fresh ones.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", parser=_optional_whole, metavar="B", help="Images a step.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", parser=_optional_number, metavar="R", help="Its peak.")
    ] = None,
    every: Annotated[
        int, typer.Option("--every", parser=_whole, metavar="N", help="Steps between checkpoints and reports.")
    ] = 100,
    seed: Annotated[
        int, typer.Option("--seed", parser=_whole, metavar="N", help="Of the first weights, and of all that is drawn.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", parser=_optional_whole, metavar="N", help="Processor threads.")
    ] = None,
    side: Annotated[int, typer.Option("--side", parser=_whole, metavar="PIXELS", help="Side of the images.")] = 32,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="bfloat16 autocast; default where it is fast.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Train the tokenizer, the feature network or the shared transformer.

    Everything a step draws is addressed by (seed, step): --resume goes on bit for bit on the same machine and thread
    count, and `torchrun` splits every batch among its processes. A kill loses at most --every steps. --steps fixes the
    schedule; --minutes only stops and checkpoints.

    \b
    Examples:
      bench train tokenizer --out run/tokenizer
      bench train tokenizer --out run/tokenizer --data download
      bench train model --tokenizer run/tokenizer/tokenizer.safetensors --out run/model --minutes 120
      bench train model --tokenizer run/tokenizer/tokenizer.safetensors --out run/model --resume
      bench train features --out run/features --data images.npz --device cuda
      bench train features --network residual --out run/features --data cifar10
    """
    from orderbench.runs.training import TrainSpec
    from orderbench.runs.training import train as run_training

    _fetch(data)
    spec = TrainSpec(
        what=what, out=out, data=data, device=device, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed,
        minutes=minutes, every=every, threads=threads, bf16=bf16, resume=resume, init=init, tokenizer=tokenizer,
        mixture=mixture, codes=codes, network=network, side=side,
    )  # fmt: skip
    with _training_progress(what) as (report, tick):
        card = run_training(spec, report, tick)
    if not card:  # another process of torchrun writes and speaks
        return
    if as_json:
        _print_json(card)
    else:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in card["figures"].items() if name != "step")
        _write(f"{card['steps_done']} of {card['train']['steps']} steps, {card['images_seen']} images: {shown}")
        _write(f"wrote {card['weights']}")


def _fetch(data: str | None) -> None:
    """--data download: what is missing, fetched under a bar; after that it is a folder like any other."""
    if data is not None:
        from orderbench.models.download import download_folder, fetch

        folder = download_folder(data)
        if folder is not None:
            fetch(folder, each=_progress("fetching Fashion-MNIST"))


@app.command()
def run(
    orders: Annotated[
        str | None,
        typer.Option("--orders", metavar="ARM,ARM,...", help="Arms, ORDER[@PACE][+CORRECTION]. Default raster,radial."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="T,T,...", help="Every order in so many cosine steps.")
    ] = None,
    pace: Annotated[str | None, typer.Option("--pace", metavar="PACE,...", help="Every order at these paces.")] = None,
    correction: Annotated[
        str | None,
        typer.Option("--correction", metavar="off,nested[:...]", help="Every order with these corrections."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", parser=_optional_whole, metavar="N", help="Images an arm. Default 256.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", parser=_optional_whole, metavar="S", help="Replicates. Default 1.")
    ] = None,
    first_seed: Annotated[
        int | None,
        typer.Option("--first-seed", parser=_optional_whole, metavar="S", help="Of the replicates. Default 0."),
    ] = None,
    held_out: Annotated[
        int | None,
        typer.Option("--held-out", parser=_optional_whole, metavar="N", help="Images of the likelihood. Default 1000."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", parser=_optional_whole, metavar="B", help="Throughput batch. Default 16.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", parser=_optional_whole, metavar="R", help="Timings, all arms in turns. Default 9."),
    ] = None,
    guidance: Annotated[
        str | None,
        typer.Option("--guidance", metavar="S|KIND:scale=S", help="Linear up to S, or as in constant:scale=1.5; none."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", parser=_optional_number, metavar="T", help="Above 0.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", parser=_optional_whole, metavar="K", help="0 for all codes.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", parser=_optional_number, metavar="P", help="1 for all codes.")
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option("--tune", metavar="NAME=V,V,...", help="Also each arm's best setting, found on other seeds."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME|FILE|pkg.module:factory", help="Default: the weights in the package."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="FILE", help="The tokenizer of a model of your own.")
    ] = None,
    data: DataOption = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="FILE.npz", help="ADM's images or statistics to compare with.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            "--space",
            metavar="NAME|FILE,...",
            help="fashion-features, the default, lite0, inception:WEIGHTS, or a file.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="fp32|bf16", help="Of the weights.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", parser=_optional_whole, metavar="N", help="Of the processor.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="quality,latency,likelihood", help="Some measurements alone.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A first look: 64 samples an arm, 100 held-out images, 5 rounds, batch 4; no uncached baseline.",
        ),
    ] = False,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="The same settings from .toml or .json; flags win.")
    ] = None,
    include: IncludeOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to write. Default bench-runs/DATE-ORDERS.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first arm that fails.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the trials and what they will take, and stop.")
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Records and summary alone; bench report draws the page later.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Decode real samples under every arm; measure quality, likelihood and speed; write records and a summary.

    Without --steps, --pace and --correction each order gets its ladder: an order of single cells also in as many even
    steps as the grid has rings, any other also with nested correction, and halton in as many cosine steps beside them.

    \b
    Examples:
      bench run --orders raster,radial
      bench run --orders raster,radial --quick
      bench run --orders raster,halton,random --steps 8,13,32 --only likelihood
      bench run --orders radial --correction off,nested:margin=1,nested:every=3:window=3 --samples 5000 --seeds 3
      bench run --orders raster,radial --tune guidance=1,1.5,2,3
      bench run --config sweep.toml --out runs/sweep
      bench run --resume --out runs/sweep
      torchrun --nproc-per-node 8 -m orderbench.runs --orders raster,radial --samples 50000 --out runs/big
    """
    from orderbench.runs.record import load_run
    from orderbench.runs.spec import RunSpec, effective, read_config, read_tune

    _include(include)
    given: dict[str, Any] = {
        "orders": _words(orders), "steps": _words(steps, _whole), "pace": _words(pace),
        "correction": _words(correction), "samples": samples, "seeds": seeds, "first_seed": first_seed,
        "held_out": held_out, "batch": batch,
        "rounds": rounds, "guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "tune": read_tune(tune), "model": model, "tokenizer": tokenizer, "data": data, "reference": reference,
        "space": _words(space), "device": device, "dtype": dtype, "threads": threads, "only": _words(only),
        "include": include, "quick": quick or None,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    settings = read_config(config) if config else {}
    if resume:
        if out is None:
            raise BenchError(
                "--resume goes on with the run in a folder; name it, as in --resume --out bench-runs/my-run"
            )
        if not (out / "run.json").is_file():
            raise BenchError(f"'{out}' holds no run to go on with; leave --resume away to start one")
        settings = {**load_run(out).about["config"], **settings, **given}
    else:
        settings = effective(settings, given)
    spec = RunSpec.from_json(settings, f"'{config}'" if config else "the settings")
    _include([file for file in spec.include if file not in (include or [])])
    _fetch(spec.data)
    return _run(spec, out, resume=resume, fail_fast=fail_fast, dry_run=dry_run, no_report=no_report, as_json=as_json)


def _run(
    spec: Any, out: Path | None, *, resume: bool, fail_fast: bool, dry_run: bool, no_report: bool, as_json: bool
) -> int:
    from orderbench.models.processes import gather, is_first_process, join_processes
    from orderbench.runs.arms import expand_arms
    from orderbench.runs.estimate import estimate_s
    from orderbench.runs.execute import execute, is_done, new_folder, plan_trials
    from orderbench.runs.live import watching
    from orderbench.runs.record import load_run
    from orderbench.runs.subject import load_subject

    subject = load_subject(spec)
    arms = expand_arms(spec.orders, spec.paces, spec.correction, subject.model.lattice)
    trials = plan_trials(spec, arms, subject)
    estimates = estimate_s(trials, arms, spec, subject)
    if dry_run:
        before = load_run(out).trials if resume and out is not None else {}
        left = [trial for trial in trials if not is_done(before.get(trial.id, {}))]
        _print_trials(left, len(trials), {trial.id: estimates[trial.id] for trial in left if estimates}, as_json)
        return 0
    join_processes(subject.device)
    folder = gather(out or new_folder(spec))[0]  # the name holds the second, and processes start at their own
    try:
        with watching(estimates) as watcher:
            ended = execute(spec, subject, folder, watcher, resume=resume, fail_fast=fail_fast)
    except KeyboardInterrupt:
        raise SystemExit(
            _say(f"interrupted; what was measured is kept, and `bench run --resume --out {folder}` goes on", 130)
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

        page = write_report([finished], folder / "report", each=_progress("drawing the report"))
    if as_json:
        _print_json(
            {
                "run": str(folder),
                "report": None if page is None else str(page),
                "failed": list(ended.failed),
                **to_json(results),
            }
        )
    else:
        console = _console()
        console.print(summary(results, console.width))
        _write(f"records: {folder}")
        if page is not None:
            _write(f"report:  {page}")
    if ended.failed:
        return _say(f"{len(ended.failed)} of {len(trials)} trials failed; --resume --out {folder} tries them again", 5)
    return 0


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    other: Annotated[Path | None, typer.Argument(metavar="RUN2", help="A second run; without it, arms of one.")] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="ARM", help="Compare the arms of one run with this one.")
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="The feature space; default the first.")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> int:
    """Compare the arms of a run with its baseline, or two runs with each other, through paired intervals.

    Without --baseline, a run whose own baseline is none of its arms is compared with its first arm. Exit code 0 where
    any measured number could be judged, for better or worse, else 4. Counters are no measurement.

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
        raise BenchError("--baseline names an arm within one run; leave it or the second run away")
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
        _print_json({
            "before": str(run), "after": str(other or run), "baseline": first.baseline if other is None else None,
            "exit_code": code, "notes": notes, "lines": engine.to_json(lines),
        })  # fmt: skip
        return code
    titles = (first.baseline, "arm") if other is None else (run.name, other.name)
    _console().print(comparison(lines, titles))
    for note in notes:
        _console().print(note, style="dim", markup=False, highlight=False)
    return code


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    npz: Annotated[bool, typer.Option("--npz", help="One file an arm, as ADM's evaluator reads it.")] = False,
    png: Annotated[bool, typer.Option("--png", help="One folder of pictures an arm.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Default RUN/export.")] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to decode pixels.")] = "auto",
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
    target = out or run / "export"
    written = export_run(load_run(run), target, npz=npz, png=png, device=device, each=_progress("exporting"))
    if as_json:
        _print_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            _write(f"wrote {path}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="The folder of a run; several are joined.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Default RUN/report; of several, RUN/report-with-RUN2-..."),
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Also PDF figures, one and two columns wide.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw the figures, tables and page of a run, from its records alone.

    Several runs become one table where they measured alike; what may not be joined, such as times of two machines,
    stands in a part of its own, with the reason. --json prints all tables as one document, and the page is written too.

    \b
    Examples:
      bench report bench-runs/my-run
      bench report bench-runs/monday bench-runs/friday --out both
      bench report bench-runs/my-run --paper --out paper/figures
    """
    from orderbench.reports.page import tables_json, write_report
    from orderbench.runs.record import load_run

    loaded = [load_run(run) for run in runs]
    joined = "-".join(["with", *(run.resolve().name for run in runs[1:])])[:100]
    default = runs[0] / ("report" if len(runs) == 1 else f"report-{joined}")  # each set of runs has a page of its own
    page = write_report(loaded, out or default, paper=paper, each=_progress("drawing"))
    if as_json:
        _print_json({**tables_json(loaded), "page": str(page)})
    else:
        _write(f"wrote {page}")


@app.command()
def check(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE|RUN", help="What must not get worse: bench baseline's file."),
    ] = None,
    min_speedup: Annotated[
        list[str] | None,
        typer.Option("--min-speedup", metavar="ARM/ARM=X", help="Within the run, the first so many times faster."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", parser=_optional_whole, metavar="B", help="Of --min-speedup. Default 1.")
    ] = None,
    max_fd_increase: Annotated[
        float | None,
        typer.Option("--max-fd-increase", parser=_optional_number, metavar="PERCENT", help="Of the baseline's value."),
    ] = None,
    max_bits_increase: Annotated[
        float | None,
        typer.Option("--max-bits-increase", parser=_optional_number, metavar="PERCENT", help="The same, likelihood."),
    ] = None,
    max_speedup_loss: Annotated[
        float | None,
        typer.Option("--max-speedup-loss", parser=_optional_number, metavar="PERCENT", help="Default 10."),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            "--max-slowdown", parser=_optional_number, metavar="PERCENT", help="Absolute; same hardware only."
        ),
    ] = None,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="A baseline of other weights will do, for counters and speed alone.")
    ] = False,
    rules: Annotated[str | None, typer.Option("--rules", metavar="FILE.toml", help="The same; flags win.")] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="The feature space; default the first.")
    ] = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="A table for a job summary.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE.xml", help="Also write the findings as JUnit's XML.")
    ] = None,
    debug: DebugOption = False,
) -> int:
    """Gate a change: fail only where something really got worse.

    Exit code 0 where all passed or improved, 3 where anything regressed, 4 where something stays open, or was asked for
    and could not be compared. Counters compare exactly, everything else through its interval.

    \b
    Examples:
      bench check bench-runs/my-run --min-speedup radial/raster=3
      bench check bench-runs/my-run --baseline baseline.json --max-fd-increase 5
      bench check bench-runs/my-run --rules check.toml --markdown >> $GITHUB_STEP_SUMMARY
    """
    from orderbench.reports import check as gate
    from orderbench.reports.results import results_of
    from orderbench.runs.record import load_run

    if as_json and markdown:
        raise BenchError("--json and --markdown both want stdout; give one of them")
    given = {
        "min_speedup": dict(_speedup(text) for text in min_speedup or []), "batch": batch,
        "max_fd_increase": max_fd_increase, "max_bits_increase": max_bits_increase,
        "max_speedup_loss": max_speedup_loss, "max_slowdown": max_slowdown, "any_model": any_model or None,
    }  # fmt: skip
    asked = gate.read_rules(rules, given)
    before = None
    if baseline is not None:
        folder = baseline.is_dir()
        before = gate.baseline_of(results_of(load_run(baseline), space)) if folder else gate.read_snapshot(baseline)
    findings = gate.check(results_of(load_run(run), space), before, asked, _canonical)
    if junit is not None:
        try:
            junit.write_text(gate.to_junit(findings))
        except OSError as problem:
            raise BenchError(f"'{junit}' could not be written: {problem.strerror}; name another place") from problem
    if as_json:
        _print_json(gate.to_json(findings))
    elif markdown:
        _write(gate.to_markdown(findings))
    else:
        from orderbench.reports.summary import findings_table

        _console().print(findings_table(findings))
    return gate.exit_code(findings)


@app.command()
def baseline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.json", help="What to write.")] = Path("baseline.json"),
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="The feature space; default the first.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write what `bench check --baseline` compares with: small enough to be reviewed and committed.

    \b
    Examples:
      bench baseline bench-runs/my-run --out baseline.json
    """
    from orderbench.reports.check import baseline_of
    from orderbench.reports.results import results_of
    from orderbench.runs.record import load_run, write_json

    write_json(out, baseline_of(results_of(load_run(run), space)))
    _write(f"wrote {out}")


def _canonical(arm: str) -> str:
    """An arm as records spell it; one that is not known here, such as an order of --include, stays as it is."""
    from orderbench.runs.arms import parse_arm  # needs torch, so it is asked only for what a run has not by name

    try:
        return parse_arm(arm).name
    except BenchError:
        return arm


def _speedup(text: str) -> tuple[str, float]:
    """'radial/raster=3': an arm may hold '=' itself, the number comes last."""
    pair, _, least = text.rpartition("=")
    try:
        return pair, float(least)
    except ValueError:
        raise BenchError(f"'{text}' is no least speed-up; it is spelled ARM/ARM=X, as in radial/raster=3") from None


def _words(text: str | None, parse: Any = str) -> list[Any] | None:
    """A comma list; None stays None, so that what was not given does not override."""
    return None if text is None else [parse(word.strip()) for word in text.split(",") if word.strip()]


def _print_trials(trials: Sequence[Any], planned: int, estimates: dict[str, float], as_json: bool) -> None:
    total_s = sum(estimates.values())
    if as_json:
        listed = [
            {"trial": t.id, "kind": t.kind, "arm": t.arm, "seed": t.seed, "setting": t.setting, "batch": t.batch,
             "estimate_s": estimates.get(t.id)}
            for t in trials
        ]  # fmt: skip
        _print_json(
            {
                "trials": listed,
                "done_before": planned - len(trials),
                "estimate_s": total_s if estimates or not trials else None,
            }
        )
        return
    for t in trials:
        what = f"batch {t.batch}, all arms in turns" if t.kind == "latency" else t.arm
        more = f"  seed {t.seed}" if t.kind in ("quality", "tuning") else ""
        setting = "" if t.setting == "fixed" else f"  {t.setting}"
        about = f"  about {estimates[t.id]:.0f} s" if estimates else ""
        _write(f"{t.kind:11s} {what}{more}{setting}{about}")
    said = f"{len(trials)} trials" if len(trials) == planned else f"{len(trials)} of {planned} trials are left"
    if not trials:
        _write(f"all {planned} trials are done")
    elif estimates:
        _write(f"{said}, about {total_s / 60:.1f} min here, within a factor of two")
    else:
        _write(f"{said}; the model could not decode, so there is no estimate")


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


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option("--model", metavar="pkg.module:factory", help="Test this model, not the machine.")
    ] = None,
    device: Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Look whether this machine has what `bench run` needs; or test a model of your own before it is measured.

    --model imports the factory (a function without arguments), and tries what it returns: are logits what they must be,
    do cells that are asked together see each other, does the cache say what a fresh one says, do rewind and refill
    forget? Exit code 2 if something that is needed is missing, or a check fails.

    \b
    Examples:
      bench doctor
      bench doctor --json
      bench doctor --device cuda
      bench doctor --model my_model:build
    """
    from orderbench.runs import doctor as ward
    from orderbench.runs.factory import call_factory

    if model is None:
        things = ward.examine(device)
        lacking = [thing.what for thing in things if thing.needed and thing.state != "works"]
        if as_json:
            _print_json({"works": not lacking, "things": [vars(thing) for thing in things]})
        else:
            for thing in things:
                _write(str(thing))
            _write(f"\n`bench run` {'lacks: ' + ', '.join(lacking) if lacking else 'has all it needs'}")
        if lacking:
            raise typer.Exit(2)
        return
    from orderbench.runs.training import choose_device

    chosen = choose_device(device)
    verdicts = ward.check_model(call_factory(model), chosen, _progress("trying the model"))
    failed = sum(verdict.verdict == "fail" for verdict in verdicts)
    if as_json:
        checks = [vars(verdict) for verdict in verdicts]
        _print_json({"works": not failed, "model": model, "device": chosen, "checks": checks})
    else:
        for verdict in verdicts:
            _write(str(verdict))
        said = f"fails {failed} of {len(verdicts)} checks" if failed else "keeps the protocol"
        _write(f"\n{model} {said} on {chosen}")
    if failed:
        raise typer.Exit(2)


def orders_markdown(listed: Sequence[Order]) -> str:
    """The table of orders as Markdown; the README holds this text, and a test compares the two."""
    lines = ["| order | decodes | after | options |", "| --- | --- | --- | --- |"]
    for order in listed:
        options = ", ".join(f"`{option.name}`" for option in order.options)
        lines.append(f"| `{order.name}` | {order.idea} | {order.paper} | {options} |")
    return "\n".join(lines)


def _print_orders(listed: Sequence[Order]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold cyan")
    table.add_column()
    for order in listed:
        options = "; options " + ", ".join(option.name for option in order.options) if order.options else ""
        table.add_row(order.name, Text(order.idea).append(f"\n{order.paper}{options}", "dim"))
    console = _console()
    console.print(table)
    console.print("\n`bench orders NAME` lists an order's options, `bench show NAME` draws it.", highlight=False)
    for name, idea in ADAPTIVE.items():
        console.print(
            f"Beside them `bench run` takes {name}@PACE, which chooses its cells as it decodes: {idea}.",
            highlight=False,
        )


def _print_options(listed: Sequence[Order]) -> None:
    console = _console()
    for order in listed:
        console.print(f"{order.name}: {order.idea}", style="bold", highlight=False, markup=False)
        console.print(f"  after {order.paper}; {_nature(order)}", highlight=False, markup=False)
        for option in order.options:
            default = "" if option.default is None else f"  (default {_spelled(option.default)})"
            console.print(f"  {option.name:10s} {option.expects}{default}", highlight=False, markup=False)
        if not order.options:
            console.print("  no options", highlight=False)


def _nature(order: Order) -> str:
    draws = (
        "draws one ranking a sample"
        if order.per_sample
        else "may draw, once a plan"
        if order.seeded
        else "draws nothing"
    )
    return f"{draws}; built for its step sizes, so it needs a pace" if order.sized else draws


def _spelled(value: object) -> str:
    from orderbench.orders.spelling import spell

    return spell(value)


def _order_json(order: Order) -> dict[str, Any]:
    return {
        "name": order.name,
        "idea": order.idea,
        "paper": order.paper,
        "seeded": order.seeded,
        "per_sample": order.per_sample,
        "built_for_sizes": order.sized,
        "origin": order.origin,
        "options": [
            {
                "name": option.name,
                "expects": option.expects,
                "default": None if option.default is None else _spelled(option.default),
            }
            for option in order.options
        ],
    }


def _rank(grid: Grid, names: Sequence[str], steps: int, seeds: int, field: Field, as_json: bool) -> None:
    from orderbench.orders import rank_orders

    if seeds < 1:
        raise BenchError(f"--seeds {seeds} averages over nothing; give 1 or more, as in --seeds 8")
    pace = f"cosine:{steps}"
    lines = rank_orders(grid, pace, field, seeds, names, each=_progress("ranking orders"))
    if as_json:
        _print_json(
            {
                "grid": grid.to_json(),
                "pace": pace,
                "field": str(field),
                "unit": "bits per token",
                "orders": [vars(line) for line in lines],
            }
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("order", no_wrap=True, style="bold cyan")
    table.add_column("tax, bits per token", justify="right")
    table.add_column("spread", justify="right")
    table.add_column("")
    for place, line in enumerate(lines, start=1):
        if line.tax_bits is None:
            table.add_row("-", line.order, "-", "", "not served")
        else:
            spread = "" if line.spread_bits is None else f"{line.spread_bits:.5f}"
            note = "" if line.plans == 1 else f"{line.plans} seeds"
            table.add_row(str(place), line.order, f"{line.tax_bits:.5f}", spread, note)
    console = _console()
    console.print(
        f"Parallel tax on a {grid} grid at {pace}, field {field}: what steps lose by treating their cells as "
        f"independent. A prediction from geometry, not a measurement.\n",
        highlight=False,
    )
    console.print(table)
    for line in lines:
        if line.refusal is not None:
            console.print(f"\nnot served: {line.refusal}", highlight=False, markup=False, soft_wrap=True)


def _check(file: str, include: Sequence[str], as_json: bool, debug: bool) -> None:
    from orderbench.orders.contract import GRIDS, check_order
    from orderbench.orders.registry import include_file

    names = include_file(file)
    verdicts = {name: check_order(name, [*include, file]) for name in _progress("checking orders")(names)}
    document = {}
    for name, verdict in verdicts.items():
        found = [{"where": finding.where, "problem": finding.problem} for finding in verdict.findings]
        grids = [str(grid) for grid in verdict.served]
        document[name] = {"findings": found, "grids_served": grids, "refusals": list(verdict.refusals)}
        if debug:
            for finding in verdict.findings:
                if finding.fault is not None:
                    traceback.print_exception(finding.fault)
        if not as_json:
            kept = f"keeps its contract on {len(grids)} of {len(GRIDS)} grids, at every pace"
            _write(f"{name}: {'breaks its contract' if found else kept}")
            for finding in verdict.findings:
                _write(f"  {finding}")
            for refusal in verdict.refusals[-1:] if grids else []:
                _write(f"  it refuses the others, as in: {refusal}")
    if as_json:
        _print_json(document)
    if any(verdict.findings for verdict in verdicts.values()):
        raise typer.Exit(2)


def _refuse_adaptive(arms: Iterable[str]) -> None:
    """What has no ranking has no map either."""
    for arm in arms:
        name = re.split("[:@+]", arm.strip())[0]
        if name in ADAPTIVE:
            raise BenchError(
                f"{name} chooses its cells as it decodes, so there is no plan to look at; bench run takes it, as in "
                f"bench run --orders raster,{name}@cosine:13"
            )


def _plan_json(arm: str, plan: Plan, field: Field, seed: int) -> dict[str, Any]:
    tax = _tax(plan, field)
    about = {
        "arm": arm,
        "seed": seed,
        "n_steps": plan.n_steps,
        "field": str(field),
        "parallel_tax_bits_per_token": None if tax is None else tax[0],
    }
    return {**plan.to_json(), "about": about}


def _tax(plan: Plan, field: Field) -> tuple[float, int] | None:
    """The parallel tax, the mean of how many samples; None where the lattice is larger than the field serves."""
    from orderbench.orders.field import MAX_CELLS, parallel_tax

    if plan.lattice.n_cells > MAX_CELLS:
        return None
    samples = 8 if plan.per_sample and plan.lattice.n_cells <= 1024 else 1
    return parallel_tax(plan, field, samples=range(samples)), samples


def _print_plan(console: Console, arm: str, plan: Plan, field: Field, seed: int) -> None:
    from orderbench.reports.terminal import sizes_line, step_map

    plural = "s" * (plan.n_steps != 1)
    console.print(
        f"{arm}  {plan.lattice} grid, {plan.n_steps} step{plural}", style="bold", highlight=False, markup=False
    )
    if plan.per_sample:
        console.print(f"each sample draws its own; seed {seed}, sample 0 is shown", highlight=False)
    if plan.lattice.cols > console.width:
        console.print(f"(no map: {plan.lattice.cols} columns do not fit here; --out map.png draws it)", highlight=False)
    else:
        plain = console.color_system is None
        console.print(step_map(plan, width=console.width, plain=plain), soft_wrap=True, end="")
    console.print(f"sizes   {sizes_line(plan.sizes)}", highlight=False)
    tax = _tax(plan, field)
    if tax is None:
        console.print(f"tax     not computed above {64 * 64} cells", highlight=False)
    else:
        mean = "" if tax[1] == 1 else f" (mean of {tax[1]} samples)"
        console.print(f"tax     {tax[0]:.5f} bits per token on the field {field}{mean}", highlight=False)
    console.print(f"digest  {plan.digest[:16]}\n", highlight=False)


def _refuse_without(context: typer.Context, flag: str, given: bool, names: Sequence[str]) -> None:
    """Options that would be ignored are a mistake worth a sentence."""
    idle = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if idle and not given:
        raise BenchError(f"--{idle[0]} says something about {flag} alone; add {flag}, or leave --{idle[0]} away")


def _field(kind: str, length: float, power: float) -> Field:
    from orderbench.orders import Field

    return Field(kind, length, power)  # type: ignore[arg-type]  # the field refuses other kinds itself


def _include(files: Iterable[str] | None) -> None:
    from orderbench.orders.registry import include_file

    for file in files or ():
        include_file(file)


def _console() -> Console:
    from rich.console import Console

    class Piped(Console):
        """A console whose reader may leave."""

        def on_broken_pipe(self) -> None:
            _drop_stdout()
            raise SystemExit(0)

    return Piped()


def _progress(label: str) -> Any:
    """A progress bar with ETA on stderr around what is walked; nothing where stderr is no terminal."""

    def walk(items: Sequence[str]) -> Iterable[str]:
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(items, label, console=console, transient=True, disable=not console.is_terminal)

    return walk


def _print_json(document: object) -> None:
    _write(json.dumps(document))
