"""Commands about what arms are made of: `bench orders`, `bench decoders`, `bench systems` and `bench show`.

Knows what people ask of orders, decoders, systems and plans before anything is trained. Refuses to compute and to draw:
it asks the rooms and prints.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orderbench.orders.errors import BenchError
from orderbench.runs.completion import complete_arms, complete_paces
from orderbench.runs.flags import IncludeOption
from orderbench.runs.shell import (
    DebugOption,
    JsonOption,
    include_files,
    number,
    piped_console,
    print_json,
    progress,
    whole,
    write,
)

if TYPE_CHECKING:
    from orderbench.models.decode import DecoderEntry
    from orderbench.models.systems import System
    from orderbench.orders import Field, Lattice, Plan
    from orderbench.orders.order import Order
    from orderbench.orders.registry import Entry

GridOption = Annotated[
    str,
    typer.Option(
        "--grid", metavar="SIDE|ROWSxCOLS|A/B/C",
        help="The token lattice: 16, 12x16, or a pyramid of grids, coarse to fine, as in 1/2/4/8.",
    ),
]  # fmt: skip
FieldOption = Annotated[str, typer.Option("--field", metavar="exp|power", help="Correlation law of the field.")]
LengthOption = Annotated[
    float, typer.Option("--length", parser=number, metavar="CELLS", help="Length of the field, in cells.")
]
PowerOption = Annotated[float, typer.Option("--power", parser=number, metavar="P", help="Power of --field power.")]


def orders(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these.", autocompletion=complete_arms)
    ] = None,
    rank: Annotated[bool, typer.Option("--rank", help="Rank all orders by their parallel tax.")] = False,
    grid: GridOption = "16",
    steps: Annotated[int, typer.Option("--steps", parser=whole, metavar="T", help="Steps of --rank.")] = 13,
    seeds: Annotated[
        int, typer.Option("--seeds", parser=whole, metavar="N", help="Seeds that --rank averages over.")
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

    --rank prints the parallel tax: the bits a token that steps lose by treating their cells as independent, on a
    Gaussian field. Orders stand by the tax at the best pace that each has in T steps, beside the tax at cosine:T, the
    same for all. Orders that draw are averaged over seeds.

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
        raise BenchError(f"--check tests the orders of '{check}'; leave {' '.join(names)} out")
    if sum([rank, check is not None, markdown]) > 1 or (markdown and as_json):
        raise BenchError("--rank, --check, --markdown and a list are different answers; ask for one of them")
    include_files(include)
    if check is not None:
        _check(check, include or [], as_json, debug)
        return
    from orderbench.orders.lattice import parse_lattice
    from orderbench.orders.order import broken_orders, get_order, order_names
    from orderbench.reports import listing

    _refuse_choosers(names or ())
    chosen = [get_order(name) for name in names or order_names()]
    for name, why in broken_orders().items():
        print(f"bench: the installed order '{name}' did not load: {why}", file=sys.stderr)
    if rank:
        law = _field(field, length, power)
        _rank(parse_lattice(grid), [order.name for order in chosen], steps, seeds, law, as_json)
    elif as_json:
        print_json([_order_json(order) for order in chosen])
    elif markdown:
        write(listing.orders_markdown(chosen))
    elif names:
        listing.print_options(piped_console(), chosen)
    else:
        listing.print_orders(piped_console(), chosen)


def decoders(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    include: IncludeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the decoders: what goes behind + in an arm, or takes the place of an order.

    \b
    Examples:
      bench decoders
      bench decoders nested
      bench decoders --include my_decoder.py --json
    """
    include_files(include)
    from orderbench.models.decode import DECODERS
    from orderbench.reports import listing

    chosen = [DECODERS.get(name) for name in names or DECODERS.names()]
    if as_json:
        print_json([_decoder_json(entry) for entry in chosen])
    elif names:
        listing.print_decoder_options(piped_console(), [(entry, entry.traits) for entry in chosen])
    else:
        listing.print_decoders(piped_console(), chosen, [entry.name for entry in chosen if entry.chooses])


def systems(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    include: IncludeOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the systems: published networks, each trained here at one budget or read from its authors' files.

    The arm of a system is the order, pace and decoder that its network was made for. With NAME: its parameters on the
    shipped codes, how it relates to its paper, and the commands that train and run it.

    \b
    Examples:
      bench systems
      bench systems par ear
      bench systems --json
    """
    include_files(include)
    from orderbench.models.systems import SYSTEMS
    from orderbench.reports import listing

    documents = [_system_json(SYSTEMS.get(name)) for name in names or SYSTEMS.names()]
    if as_json:
        print_json(documents)
    elif names:
        listing.print_system_details(piped_console(), documents)
    else:
        listing.print_systems(piped_console(), documents)


def show(
    arms: Annotated[
        list[str],
        typer.Argument(metavar="ORDER[@PACE]", help="One or more, by comma or space.", autocompletion=complete_arms),
    ],
    grid: GridOption = "16",
    pace: Annotated[
        str | None,
        typer.Option("--pace", metavar="PACE", help="As after @, for all orders.", autocompletion=complete_paces),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", parser=whole, metavar="T", help="Short for --pace cosine:T.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", parser=whole, metavar="N", help="Seed of the orders that draw.")] = 0,
    field: FieldOption = "exp",
    length: LengthOption = 4.0,
    power: PowerOption = 1.0,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="Sizes for profile:T, from `bench fit-pace`.")
    ] = None,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save the map: .png, .svg, or .gif, animated.")
    ] = None,
    include: IncludeOption = None,
    debug: DebugOption = False,
) -> None:
    """Draw the plan of an order: the step of each cell, step sizes, and what its parallel steps cost on a field.

    Paces: native (rings, diagonals, ... as the order ties them), one, even:T, cosine:T, arccos:T, randar:T, halton:T,
    lpd:T, ear-shells, ear-sides; optimal:T, the sizes that cost this order least; profile:T, sizes fitted to a model.
    Steps count from 0.

    \b
    Examples:
      bench show radial
      bench show radial:center=3x4@native --grid 16
      bench show halton@cosine:13 --json
      bench show raster,radial,halton,designed --steps 13 --out orders.png
      bench show spiral@ear-shells --grid 12x16 --out spiral.gif
      bench show scales,radial --grid 1/2/4/8
    """
    from orderbench.orders import make_plan
    from orderbench.orders.lattice import parse_lattice
    from orderbench.orders.plan import spell_arm

    if out is not None:
        from orderbench.reports.maps import check_target

        check_target(out)
    include_files(include)
    if profile is not None:
        from orderbench.orders.profile import read_profile, use_profile

        use_profile(read_profile(profile))
    if steps is not None:
        if pace is not None:
            raise BenchError(
                f"--steps {steps} means --pace cosine:{steps}, and --pace {pace} was given; keep one of them"
            )
        pace = f"cosine:{steps}"
    _refuse_choosers(",".join(arms).split(","))
    lattice, law = parse_lattice(grid), _field(field, length, power)
    named = []
    for arm in ",".join(arms).split(","):
        named.append((spell_arm(arm, pace), make_plan(arm, lattice, pace, seed)))
    if as_json:
        documents = [_plan_json(name, plan, law, seed) for name, plan in named]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        from orderbench.reports.listing import print_plan

        console = piped_console()
        for name, plan in named:
            print_plan(console, name, plan, law, seed, _tax(plan, law))
    if out is not None:
        from orderbench.reports.maps import save_map

        print(f"wrote {save_map(out, named)}", file=sys.stderr if as_json else sys.stdout)


def _order_json(order: Order) -> dict[str, Any]:
    traits = {"seeded": order.seeded, "per_sample": order.per_sample, "built_for_sizes": order.sized}
    return _entry_json(order, traits)


def _decoder_json(decoder: DecoderEntry) -> dict[str, Any]:
    return _entry_json(decoder, {**decoder.traits, "needs": list(decoder.needs)})


def _system_json(system: System) -> dict[str, Any]:
    from orderbench.models.systems import BUDGET, RELATIONS

    weights = "" if system.shipped else f" --model {system.name}={system.name}/model.safetensors"
    return {
        "name": system.name,
        "idea": system.idea,
        "paper": system.paper,
        "relation": system.relation,
        "relation_means": RELATIONS[system.relation],
        "note": system.note,
        "built": system.built,
        "arm": system.arm or None,
        "shipped": system.shipped,
        "lattice": str(system.lattice) if system.built else None,
        "parameters": system.parameters() if system.built else None,
        "budget": {"steps": BUDGET.steps, "batch": BUDGET.batch} if system.built else None,
        "train": system.training if system.built else None,
        "run": f"bench run --systems {system.name}{weights}" if system.built else None,
        "origin": system.origin,
    }


def _entry_json(entry: Entry, traits: dict[str, Any]) -> dict[str, Any]:
    from orderbench.orders.spelling import spell

    return {
        "name": entry.name,
        "idea": entry.idea,
        "paper": entry.paper,
        **traits,
        "origin": entry.origin,
        "options": [
            {
                "name": option.name,
                "expects": option.expects,
                "default": None if option.default is None else spell(option.default),
            }
            for option in entry.options
        ],
    }


def _rank(lattice: Lattice, names: Sequence[str], steps: int, seeds: int, field: Field, as_json: bool) -> None:
    from orderbench.orders import rank_orders

    if seeds < 1:
        raise BenchError(f"--seeds {seeds} averages over nothing; give 1 or more, as in --seeds 8")
    pace = f"cosine:{steps}"
    lines = rank_orders(lattice, pace, field, seeds, names, each=progress("ranking orders"))
    if as_json:
        print_json(
            {
                "grid": lattice.to_json(),
                "pace": pace,
                "field": str(field),
                "unit": "bits per token",
                "orders": [vars(line) for line in lines],
            }
        )
        return
    from orderbench.reports.listing import print_ranking

    print_ranking(piped_console(), lines, lattice, pace, field)


def _check(file: str, include: Sequence[str], as_json: bool, debug: bool) -> None:
    from orderbench.orders.contract import LATTICES, check_order
    from orderbench.orders.registry import include_file

    names = include_file(file)
    verdicts = {name: check_order(name, [*include, file]) for name in progress("checking orders")(names)}
    document = {}
    for name, verdict in verdicts.items():
        found = [{"where": finding.where, "problem": finding.problem} for finding in verdict.findings]
        served = [str(lattice) for lattice in verdict.served]
        document[name] = {"findings": found, "lattices_served": served, "refusals": list(verdict.refusals)}
        if debug:
            for finding in verdict.findings:
                if finding.fault is not None:
                    traceback.print_exception(finding.fault)
        if not as_json:
            kept = f"keeps its contract on {len(served)} of {len(LATTICES)} lattices, at every pace"
            write(f"{name}: {'breaks its contract' if found else kept}")
            for finding in verdict.findings:
                write(f"  {finding}")
            for refusal in verdict.refusals[-1:] if served else []:
                write(f"  it refuses the others, as in: {refusal}")
    if as_json:
        print_json(document)
    if any(verdict.findings for verdict in verdicts.values()):
        raise typer.Exit(2)


def _refuse_choosers(arms: Iterable[str]) -> None:
    """A decoder that chooses its cells has neither a ranking nor a map. Decoders come last: they import torch."""
    from orderbench.orders.order import order_names

    for arm in arms:
        name = re.split("[:@+~]", arm.strip())[0]
        if name in order_names():
            continue
        from orderbench.models.decode import DECODERS

        if name in DECODERS.names() and DECODERS.get(name).chooses:
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
    """The parallel tax, the mean of how many samples; None for a pyramid, and above the cells that a field serves."""
    from orderbench.orders import Grid
    from orderbench.orders.field import MAX_CELLS
    from orderbench.orders.tax import parallel_tax

    if not isinstance(plan.lattice, Grid) or plan.lattice.n_cells > MAX_CELLS:
        return None
    samples = 8 if plan.per_sample and plan.lattice.n_cells <= 1024 else 1
    return parallel_tax(plan, field, samples=range(samples)), samples


def _refuse_without(context: typer.Context, flag: str, given: bool, names: Sequence[str]) -> None:
    """Options that would be ignored are a mistake worth a sentence."""
    idle = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if idle and not given:
        raise BenchError(f"--{idle[0]} says something about {flag} alone; add {flag}, or leave --{idle[0]} out")


def _field(kind: str, length: float, power: float) -> Field:
    from orderbench.orders import Field

    return Field(kind, length, power)  # type: ignore[arg-type]  # the field refuses other kinds itself
