"""Arms: what is compared, spelled ORDER[@PACE][+CORRECTION], ready to be decoded.

Knows spellings of orders, paces, corrections and adaptive orders, and how they multiply. Refuses to know how an arm
is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from orderbench.models.adaptive import is_adaptive, parse_adaptive
from orderbench.models.correction import parse_correction
from orderbench.models.decode import Decoder
from orderbench.models.objective import ObjectiveConfig
from orderbench.orders import BenchError, Grid, Plan, make_plan
from orderbench.orders.plan import spell_arm
from orderbench.orders.spelling import split_arm

BASELINE = "raster"  # one at a time, with cache: what speed-ups are measured against unless another is named


@dataclass(frozen=True)
class Arm:
    """One thing compared. name: canonical. order, pace ('native' where none was given), correction ('off'): its parts.

    adaptive: the order chooses its cells as it decodes; the plan gives step sizes alone.
    """

    name: str
    order: str
    pace: str
    correction: str
    decoder: Decoder
    adaptive: bool = False

    def plan(self, grid: Grid, seed: int) -> Plan:
        """The plan of this arm; `seed` matters to orders that draw. BenchError where the order cannot serve the
        grid."""
        if self.adaptive:
            return make_plan("raster", grid, self.pace)
        return make_plan(self.order, grid, self.pace, seed)

    @property
    def has_likelihood(self) -> bool:
        """Whether bits per token are defined: not for what rewrites codes or chooses cells by what was drawn."""
        return self.correction == "off" and not self.adaptive


def parse_arm(text: str) -> Arm:
    """An arm from its spelling; BenchError for anything misspelt.

    >>> parse_arm("radial:width=1.0@native+nested:margin=1.0").name
    'radial+nested'
    """
    order, pace, correction = split_arm(text)
    chosen = parse_correction("off" if correction is None else correction)
    tail = "" if chosen.name == "off" else f"+{chosen}"
    if not is_adaptive(order):
        spelled = spell_arm(order, pace)
        bound, _, shown_pace = spelled.partition("@")
        return Arm(spelled + tail, bound, shown_pace or "native", str(chosen), chosen.decoder)
    if pace is None or chosen.name != "off":
        raise BenchError(
            f"'{text}' chooses its cells as it decodes: it needs a pace and takes no correction, "
            f"as in {order}@cosine:13"
        )
    adaptive = parse_adaptive(order)
    shown_pace = spell_arm("raster", pace).partition("@")[2] or "native"
    return Arm(f"{adaptive}@{shown_pace}", str(adaptive), shown_pace, "off", adaptive.decoder, adaptive=True)


def expand_arms(orders: Sequence[str], paces: Sequence[str], corrections: Sequence[str], grid: Grid) -> tuple[Arm, ...]:
    """The arms that were asked for, without doubles, in the order asked.

    An order that names no pace is taken at every one of `paces`, one that names no correction with every one of
    `corrections`. Where neither is asked for, an order gets its ladder: an order of single cells also in as many even
    steps as the grid has rings, any other also with nested correction; and halton in as many cosine steps stands
    beside them.
    """
    rings = make_plan("radial", grid).n_steps
    laddered = not paces and not corrections
    spelled: list[str] = []
    for order in orders:
        name, pace, correction = split_arm(order)
        heads = [order] if pace is not None or not paces else [f"{name}@{p}" for p in paces]
        if correction is not None and pace is None and paces:
            heads = [f"{name}@{p}+{correction}" for p in paces]
        tails = (
            [""] if correction is not None or not corrections else ["" if c == "off" else f"+{c}" for c in corrections]
        )
        spelled += [head + tail for head in heads for tail in tails]
        if laddered and pace is None and correction is None:
            arm = parse_arm(order)
            single = arm.plan(grid, 0).n_steps == grid.n_cells
            spelled.append(f"{order}@even:{rings}" if single and rings < grid.n_cells else f"{order}+nested")
    if laddered and any("@" not in order and "+" not in order for order in orders):
        spelled.append(f"halton@cosine:{rings}")
    arms = {arm.name: arm for arm in map(parse_arm, spelled)}
    for arm in arms.values():
        arm.plan(grid, 0)  # what the grid cannot serve is said before anything is measured
    return tuple(arms.values())


def training_share(arm: Arm, objective: ObjectiveConfig | None, grid: Grid) -> tuple[float | None, float | None]:
    """The share of training batches that followed this arm's order, however either is spelled, and the share that
    followed it in these very steps; None where the mixture is not known."""
    if objective is None:
        return None, None
    parts = [part for part in objective.mixture if _same_order(part.order, arm.order, grid)]
    sizes = arm.plan(grid, 0).sizes
    same = [part.share * sum(make_plan(part.order, grid, p).sizes == sizes for p in part.paces) / len(part.paces)
            for part in parts]  # fmt: skip
    return sum(part.share for part in parts), sum(same)


@cache
def _same_order(one: str, two: str, grid: Grid) -> bool:
    """Whether two spellings walk this grid alike, as `radial` and `radial:center=8x8` do on 16x16."""
    if one == two:
        return True
    try:
        plans = [make_plan(order, grid, "one") for order in (one, two)]
    except BenchError:
        return False
    return not any(plan.per_sample for plan in plans) and plans[0].digest == plans[1].digest
