"""Arms: what is compared, spelled ORDER[@PACE][+DECODER][~MODEL], bound and ready to be decoded.

Knows how arms are read and spelled, how orders multiply by paces and decoders, which arm a model's others are measured
against, and which arms a model refuses. Refuses to know how an arm is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from orderbench.models.decode import DECODERS, BoundDecoder, parse_decoder
from orderbench.models.model import Model, refusal
from orderbench.models.objective import ObjectiveConfig
from orderbench.orders import BenchError, Lattice, Plan, make_plan
from orderbench.orders.order import ORDERS, BoundOrder, parse_order
from orderbench.orders.pace import Pace
from orderbench.orders.plan import cut
from orderbench.orders.spelling import ArmParts, split_arm

NATIVE, ONE = Pace("native"), Pace("one")
PLAIN = parse_decoder("off")
WALK = parse_order("raster")  # for a decoder that chooses its cells: of such a plan only the step sizes are used


@dataclass(frozen=True)
class Arm:
    """One thing compared; its `str` is canonical, so equal arms are spelled alike.

    order: bound; None where the decoder chooses the cells as it goes. model: whose network, by its name in the run; ''
    is the run's own.
    """

    order: BoundOrder | None
    pace: Pace
    decoder: BoundDecoder
    model: str = ""

    def __str__(self) -> str:
        paced = self.order_name if self.pace == NATIVE else f"{self.order_name}@{self.pace}"
        decoded = paced if self.order is None or self.decoder_name == "off" else f"{paced}+{self.decoder_name}"
        return f"{decoded}~{self.model}" if self.model else decoded

    @property
    def name(self) -> str:
        """The canonical spelling."""
        return str(self)

    @property
    def order_name(self) -> str:
        """The order with its options, or the decoder that takes its place."""
        return str(self.decoder if self.order is None else self.order)

    @property
    def decoder_name(self) -> str:
        """The decoder behind +, with its options; 'off' for plain decoding and for a decoder in the order's place."""
        return "off" if self.order is None else str(self.decoder)

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits of its decoder that hold, by name."""
        return tuple(name for name, holds in self.decoder.entry.traits.items() if holds)

    @property
    def has_likelihood(self) -> bool:
        """Whether bits per token are defined: not for what rewrites codes or chooses cells by what was drawn."""
        return not {"rewrites", "chooses"} & set(self.traits)

    def plan(self, lattice: Lattice, seed: int = 0) -> Plan:
        """The plan of this arm; `seed` matters to orders that draw. BenchError where the order cannot serve the
        lattice."""
        return cut(WALK if self.order is None else self.order, self.pace, lattice, seed)


def parse_arm(text: str) -> Arm:
    """An arm from its spelling; BenchError for anything misspelt.

    >>> parse_arm("radial:width=1.0@native+nested:margin=1.0").name
    'radial+nested'
    """
    return bind(split_arm(text))


def bind(parts: ArmParts) -> Arm:
    """An arm from its parts as text."""
    order, pace, decoder, model = parts
    chosen = PLAIN if decoder is None else parse_decoder(decoder)
    paced = NATIVE if pace is None else Pace.parse(pace)
    if chosen.entry.chooses:
        raise BenchError(
            f"'{parts}' puts {chosen.name} behind +, and it takes the place of an order; write {chosen}@cosine:13"
        )
    name = order.partition(":")[0]
    if name in ORDERS.names() or name not in DECODERS.names() or not DECODERS.get(name).chooses:
        return Arm(parse_order(order), paced, chosen, model or "")
    if pace is None or paced == NATIVE or chosen.name != "off":
        raise BenchError(
            f"'{parts}' chooses its cells as it decodes: it needs a pace and takes no correction, "
            f"as in {order}@cosine:13"
        )
    return Arm(None, paced, parse_decoder(order), model or "")


@dataclass(frozen=True)
class Baseline:
    """The arm that the other arms of its model are measured against. ratio: whether it decodes one cell at a time.
    Only then are ratios to it shown."""

    arm: Arm
    ratio: bool


@dataclass(frozen=True)
class Lineup:
    """What a run compares. arms: in the order asked. refused: arms that were asked for and that their models refuse,
    each with its sentence. baselines: by the name of the model."""

    arms: tuple[Arm, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)

    def baseline(self, arm: Arm) -> Baseline | None:
        """What an arm is measured against; None where its model has no baseline."""
        return self.baselines.get(arm.model)

    @property
    def again(self) -> Arm | None:
        """The arm that is timed twice, to show how far the clock can be trusted: the first baseline."""
        return next((baseline.arm for baseline in self.baselines.values()), None)


def refused_arm(arm: Arm, model: Model, name: str = "the model") -> str:
    """Why a model cannot decode an arm, in one sentence; empty if it can. BenchError where there is no such plan."""
    return refusal(model, arm.plan(model.lattice), arm.decoder.entry.needs, name)


def _serves(arm: Arm, model: Model) -> bool:
    try:
        return not refused_arm(arm, model)
    except BenchError:
        return False


def baseline_of(model: Model, name: str = "") -> Baseline | None:
    """Its native order one cell at a time, where it serves that; else its native arm; None if it serves neither."""
    native = replace(parse_arm(model.native), model=name)
    singly = native.plan(model.lattice).n_steps == model.lattice.n_cells
    for arm, ratio in ((native if singly else replace(native, pace=ONE), True), (native, singly)):
        if _serves(arm, model):
            return Baseline(arm, ratio)
    return None


def line_up(
    orders: Sequence[str],
    paces: Sequence[str],
    decoders: Sequence[str],
    models: Mapping[str, Model],
    *,
    own: str = "",
    with_baseline: bool = True,
) -> Lineup:
    """The arms that were asked for, without doubles, in the order asked, and what they are measured against.

    models: by name; '' is the run's own, and `own` is another name for it. An order that names no pace is taken at
    every one of `paces`, one that names no decoder with every one of `decoders`. Where neither is asked for, an order
    gets its ladder (see `_ladder`).

    BenchError for anything misspelt, for a model that the run has not, for an order that has no such plan on its
    model's lattice, and where no arm that was asked for is served.
    """
    asked: dict[str, Arm] = {}
    extra: set[str] = set()
    bare: dict[str, None] = {}
    laddered = not paces and not decoders
    for text in orders:
        asks = split_arm(text)
        asks = asks._replace(model=None if asks.model == own else asks.model)
        multiplied = [
            asks._replace(pace=pace, decoder=decoder)
            for pace in ([asks.pace] if asks.pace is not None or not paces else paces)
            for decoder in ([asks.decoder] if asks.decoder is not None or not decoders else decoders)
        ]
        arms = [bind(parts) for parts in multiplied]
        extra -= {arm.name for arm in arms}
        if laddered and asks.pace is None and asks.decoder is None:
            bare.setdefault(arms[0].model)
            ladder = list(_ladder(arms[0], _model(arms[0].model, models)))
            extra |= {arm.name for arm in ladder if arm.name not in asked}
            arms += ladder
        for arm in arms:
            asked.setdefault(arm.name, arm)
    for name in bare:
        lattice = _model(name, models).lattice
        arm = Arm(parse_order("halton"), Pace("cosine", _rings(lattice)), PLAIN, name)
        extra |= {arm.name} - set(asked)
        asked.setdefault(arm.name, arm)
    refused = {}
    for name, arm in list(asked.items()):
        if name in extra:  # nobody asked for it
            if not _serves(arm, _model(arm.model, models)):
                del asked[name]
        elif why := refused_arm(arm, _model(arm.model, models), arm.model or "the model"):
            refused[name] = why
            del asked[name]
    if not set(asked) - extra:
        raise BenchError("; ".join(f"{name} is left out: {why}" for name, why in refused.items()))
    used = dict.fromkeys(arm.model for arm in asked.values())
    found = {name: baseline_of(_model(name, models), name) for name in used} if with_baseline else {}
    baselines = {name: baseline for name, baseline in found.items() if baseline is not None}
    return Lineup(tuple(asked.values()), refused, baselines)


def _rings(lattice: Lattice) -> int:
    """Rings of `radial` on a lattice: how many steps the arms of a ladder share."""
    return make_plan("radial", lattice).n_steps


def _ladder(arm: Arm, model: Model) -> Iterator[Arm]:
    """The variant that an order is compared with by default: in even steps, as many as the lattice has rings, if it
    decodes one cell a step; else with nested correction."""
    rings, cells = _rings(model.lattice), model.lattice.n_cells
    try:
        single = arm.plan(model.lattice).n_steps == cells
    except BenchError:  # said where the arm itself is refused
        return
    if not single or rings >= cells:
        yield replace(arm, decoder=parse_decoder("nested"))
    else:
        yield replace(arm, pace=Pace("even", rings))


def _model(name: str, models: Mapping[str, Model]) -> Model:
    if name not in models:
        known = ", ".join(filter(None, models)) or "no other than its own"
        raise BenchError(
            f"the run has no model named '{name}'; it has {known}; name its weights, as in --model {name}=FILE"
        )
    return models[name]


def training_share(arm: Arm, objective: ObjectiveConfig | None, lattice: Lattice) -> tuple[float | None, float | None]:
    """The share of training batches that followed this arm's order, however either is spelled, and the share that
    followed it in these very steps; None where the mixture is not known."""
    if objective is None:
        return None, None
    parts = [part for part in objective.mixture if _same_order(part.order, arm.order_name, lattice)]
    sizes = arm.plan(lattice).sizes
    same = [part.share * sum(make_plan(part.order, lattice, p).sizes == sizes for p in part.paces) / len(part.paces)
            for part in parts]  # fmt: skip
    return sum(part.share for part in parts), sum(same)


@cache
def _same_order(one: str, two: str, lattice: Lattice) -> bool:
    """Whether two spellings walk this lattice alike, as `radial` and `radial:center=8x8` do on 16x16."""
    if one == two:
        return True
    try:
        plans = [make_plan(order, lattice, "one") for order in (one, two)]
    except BenchError:
        return False
    return not any(plan.per_sample for plan in plans) and plans[0].digest == plans[1].digest
