"""Orders, decoders, systems, rankings, plans and the trials of a run, listed in a terminal.

Knows rich, orders and plans. Refuses to compute, and to know where the text goes: whoever asks brings the console.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orderbench.orders.field import MAX_CELLS
from orderbench.orders.spelling import spell
from orderbench.reports.terminal import sizes_line, step_map

if TYPE_CHECKING:
    from orderbench.orders import Field, Lattice, Plan
    from orderbench.orders.order import Order
    from orderbench.orders.registry import Entry
    from orderbench.orders.tax import Ranked


DECODER_TRAITS = {
    "rewrites": "overwrites codes that were decoded, so bits per token are not defined",
    "exact": "gives the codes of one cell at a time",
    "chooses": "chooses its cells, so it takes the place of an order",
    "paces": "chooses how many cells a step takes, so it takes no pace",
    "varies": "its work depends on what is drawn",
    "drafts": "decodes one cell at a time, whatever the pace: what it asks further ahead are drafts",
}  # of decoders, in words


def orders_markdown(listed: Sequence[Order]) -> str:
    """The table of orders as Markdown; the README holds this text, and a test compares the two."""
    lines = ["| order | decodes | after | options |", "| --- | --- | --- | --- |"]
    for order in listed:
        options = ", ".join(f"`{option.name}`" for option in order.options)
        lines.append(f"| `{order.name}` | {order.idea} | {order.paper} | {options} |")
    return "\n".join(lines)


def print_orders(console: Console, listed: Sequence[Order]) -> None:
    """Every order with its idea, paper and options."""
    _print_entries(console, listed)
    console.print("\n`bench orders NAME` lists an order's options, `bench show NAME` draws it.", highlight=False)
    console.print(
        "Some decoders choose their cells as they decode and take the place of an order; `bench decoders` lists them.",
        highlight=False,
    )


def print_decoders(console: Console, listed: Sequence[Entry], choosers: Sequence[str]) -> None:
    """Every decoder with its idea, paper and options. choosers: the names of those that choose their cells."""
    _print_entries(console, listed)
    console.print(
        "\n`bench decoders NAME` lists a decoder's options. It is written behind +, as in radial+nested.",
        highlight=False,
    )
    if choosers:
        console.print(
            f"Those that choose their cells take the place of the order: {', '.join(f'{c}@PACE' for c in choosers)}. "
            f"With an option that chooses how many cells a step takes, they take no pace.",
            highlight=False,
        )


def print_systems(console: Console, listed: Sequence[Mapping[str, Any]]) -> None:
    """Every system: its arm, idea, paper, relation to it, and whether weights are shipped; those not built last."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold cyan")
    table.add_column()
    for one in [*filter(lambda one: one["built"], listed), *filter(lambda one: not one["built"], listed)]:
        text = Text()
        if one["built"]:
            text.append(one["arm"], "bold").append(f"  {_weights(one)}\n")
        text.append(one["idea"]).append(f"\n{one['paper']}; {one['relation']}", "dim")
        table.add_row(one["name"], text)
    console.print(table)
    meant = {one["relation"]: one["relation_means"] for one in listed}
    console.print()
    for relation, means in meant.items():
        console.print(f"{relation}: {means}.", highlight=False)
    console.print(
        "\n`bench systems NAME` lists a system's size and the commands that train and run it; `bench run --systems "
        "NAME,NAME` compares the arms above, each under its own weights.",
        highlight=False,
    )


def print_system_details(console: Console, listed: Sequence[Mapping[str, Any]]) -> None:
    """Each system with its size, how it relates to its paper, and its commands."""
    for one in listed:
        console.print(f"{one['name']}: {one['idea']}", style="bold", highlight=False, markup=False)
        rows = [("paper", one["paper"]), ("relation", f"{one['relation']}: {one['relation_means']}")]
        if one["note"]:
            rows.append(("note", one["note"]))
        if one["built"]:
            budget = one["budget"]
            rows += [
                ("arm", one["arm"]),
                ("weights", _weights(one)),
                ("size", f"{one['parameters']:,} parameters, for the shipped codes on {one['lattice']}"),
                ("budget", f"{budget['steps']} steps of {budget['batch']} images"),
                ("train", one["train"]),
                ("run", one["run"]),
            ]
        for name, text in rows:
            console.print(f"  {name:10s} {text}", highlight=False, markup=False, soft_wrap=name in ("train", "run"))


def _weights(system: Mapping[str, Any]) -> str:
    return "weights in the package" if system["shipped"] else "no weights in the package"


def _print_entries(console: Console, listed: Sequence[Entry]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold cyan")
    table.add_column()
    for entry in listed:
        options = "; options " + ", ".join(option.name for option in entry.options) if entry.options else ""
        table.add_row(entry.name, Text(entry.idea).append(f"\n{entry.paper}{options}", "dim"))
    console.print(table)


def print_options(console: Console, listed: Sequence[Order]) -> None:
    """Each order with its options, one a line."""
    for order in listed:
        _print_entry(console, order, _nature(order))


def print_decoder_options(console: Console, listed: Sequence[tuple[Entry, Mapping[str, bool]]]) -> None:
    """Each decoder, with the traits that hold of it, and its options, one a line."""
    for decoder, traits in listed:
        said = [words for trait, words in DECODER_TRAITS.items() if traits[trait]]
        _print_entry(console, decoder, "; ".join(said) or "decodes the cells of a plan, each once")


def _print_entry(console: Console, entry: Entry, nature: str) -> None:
    console.print(f"{entry.name}: {entry.idea}", style="bold", highlight=False, markup=False)
    console.print(f"  after {entry.paper}; {nature}", highlight=False, markup=False)
    for option in entry.options:
        default = "" if option.default is None else f"  (default {spell(option.default)})"
        console.print(f"  {option.name:10s} {option.expects}{default}", highlight=False, markup=False)
    if not entry.options:
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


def print_plan(console: Console, arm: str, plan: Plan, field: Field, seed: int, tax: tuple[float, int] | None) -> None:
    """The map of a plan, its step sizes, tax and digest.

    tax: bits per token on the field, and the mean of how many samples that is; None where it was not computed.
    """
    plural = "s" * (plan.n_steps != 1)
    head = f"{arm}  {plan.lattice} {plan.lattice.to_json()['kind']}, {plan.n_steps} step{plural}"
    console.print(head, style="bold", highlight=False, markup=False)
    if plan.per_sample:
        console.print(f"each sample draws its own; seed {seed}, sample 0 is shown", highlight=False)
    cols = max(grid.cols for grid in plan.lattice.levels)
    if cols > console.width:
        console.print(f"(no map: {cols} columns do not fit here; --out map.png draws it)", highlight=False)
    else:
        plain = console.color_system is None
        console.print(step_map(plan, width=console.width, plain=plain), soft_wrap=True, end="")
    console.print(f"sizes   {sizes_line(plan.sizes)}", highlight=False)
    if tax is None:
        one = len(plan.lattice.levels) == 1
        why = f"not computed above {MAX_CELLS} cells" if one else "none, since a field is of one grid"
        console.print(f"tax     {why}", highlight=False)
    else:
        mean = "" if tax[1] == 1 else f" (mean of {tax[1]} samples)"
        console.print(f"tax     {tax[0]:.5f} bits per token on the field {field}{mean}", highlight=False)
    console.print(f"digest  {plan.digest[:16]}\n", highlight=False)


def print_ranking(console: Console, lines: Sequence[Ranked], lattice: Lattice, pace: str, field: Field) -> None:
    """All orders by their parallel tax at the best pace that each has, the least first, with the tax at the common one;
    those that do not serve the grid last, with the reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("order", no_wrap=True, style="bold cyan")
    table.add_column("best pace", no_wrap=True)
    table.add_column("tax there", justify="right")
    table.add_column(f"tax at {pace}", justify="right")
    table.add_column("spread", justify="right")
    table.add_column("")
    for place, line in enumerate(lines, start=1):
        if line.tax_bits is None or line.best_bits is None:
            table.add_row("-", line.order, "", "-", "-", "", "not served")
        else:
            spread = "" if line.spread_bits is None else f"{line.spread_bits:.5f}"
            note = "" if line.plans == 1 else f"{line.plans} seeds"
            best = f"{line.best_bits:.5f}"
            table.add_row(str(place), line.order, line.best_pace, best, f"{line.tax_bits:.5f}", spread, note)
    console.print(
        f"Parallel tax on a {lattice} grid, field {field}, in bits per token: what steps lose by treating their cells "
        f"as independent. First at the pace of as many steps that costs the order least, then at {pace}, the same for "
        f"all. A prediction from geometry, not a measurement.\n",
        highlight=False,
    )
    console.print(table)
    for line in lines:
        if line.refusal is not None:
            console.print(f"\nnot served: {line.refusal}", highlight=False, markup=False, soft_wrap=True)


def print_fits(console: Console, document: Mapping[str, Any]) -> None:
    """Parallel taxes of fitted sizes and of the laws beside them; then what fitting to fewer images was worth."""
    taxes, most = document["taxes"], document["fitted_to"]
    console.print(
        f"Parallel tax in thousandths of a bit per token, with 95 % intervals, of {document['judged_on']} held-out "
        f"images that no sizes were fitted to. profile: sizes fitted to {most} others.\n",
        highlight=False,
    )
    names = ("cosine", "even", "optimal", "profile")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("order", no_wrap=True, style="bold cyan")
    for head in ("steps", *names):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("optimal - profile", justify="right")
    shown = {(row["order"], row["steps"], row["pace"]): row for row in taxes if row["images"] in (None, most)}
    for order, steps in dict.fromkeys((row["order"], row["steps"]) for row in taxes):
        rows = [shown[order, steps, name] for name in names]
        gain = _thousandths(rows[2]["above_profile_bits"], rows[2]["above_half_bits"])
        table.add_row(order, str(steps), *(_thousandths(row["tax_bits"], row["half_bits"]) for row in rows), gain)
    console.print(table)
    fitted = [row for row in taxes if row["pace"] == "profile"]
    counts = sorted({row["images"] for row in fitted})
    if len(counts) < 2:
        return
    steps = next(row["steps"] for row in fitted if row["images"] == counts[0])
    console.print(
        f"\nSizes of {steps} steps that were fitted to fewer images: what they cost there, and on the others.\n",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("order", no_wrap=True, style="bold cyan")
    for count in counts:
        table.add_column(f"{count} images", justify="right", no_wrap=True)
    for order in dict.fromkeys(row["order"] for row in fitted):
        rows = [row for row in fitted if (row["order"], row["steps"]) == (order, steps)]
        cells = {row["images"]: f"{1000 * row['seen_bits']:.1f} / {1000 * row['tax_bits']:.1f}" for row in rows}
        table.add_row(order, *(cells[count] for count in counts))
    console.print(table)


def _thousandths(bits: float, half: float | None) -> str:
    return f"{1000 * bits:.1f}" if half is None else f"{1000 * bits:.1f} ±{1000 * half:.1f}"


def trial_line(kind: str, what: str, setting: str, estimate_s: float | None) -> str:
    """One trial of a run that is still to come."""
    shown = "" if setting == "fixed" else f"  {setting}"
    about = "" if estimate_s is None else f"  about {estimate_s:.0f} s"
    return f"{kind:11s} {what}{shown}{about}"


def trials_left(left: int, planned: int, estimate_s: float | None) -> str:
    """How many trials are still to come, of how many, and how long they will take together."""
    if not left:
        return f"all {planned} trials are done"
    said = f"{left} trials" if left == planned else f"{left} of {planned} trials are left"
    if estimate_s is None:
        return f"{said}; the model could not decode, so there is no estimate"
    return f"{said}, about {estimate_s / 60:.1f} min here, within a factor of two"
