"""Arms: what is compared, spelled ORDER[@PACE][+DECODER][~MODEL], bound and ready to be decoded.

Knows how arms are read and spelled, how orders multiply by paces and decoders, which arm a model's others are measured
against, and which arms a model refuses. Refuses to know how an arm is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orderbench.models.decode import DECODERS, BoundDecoder, parse_decoder
from orderbench.models.mixtures import parts_of
from orderbench.models.model import Model, refusal
from orderbench.models.objective import ObjectiveConfig
from orderbench.orders import BenchError, Lattice, Plan, make_plan
from orderbench.orders.order import ORDERS, BoundOrder, parse_order
from orderbench.orders.pace import Pace
from orderbench.orders.plan import cut
from orderbench.orders.spelling import ArmParts, split_arm
from orderbench.runs.cuts import Cut, choose

NATIVE, ONE = Pace("native"), Pace("one")
PLAIN = parse_decoder("off")
ANY_WALK = parse_order("random")
WALK = parse_order("raster")  # for a decoder that chooses its cells: of such a plan only the step sizes are used


@dataclass(frozen=True)
class Arm:
    """One thing compared; its `str` is canonical, so equal arms are spelled alike.

    order: bound; None where the decoder chooses the cells as it goes. pace: native where it chooses how many, too.
    model: whose network, by its name in the run; '' is the run's own.
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
        """Whether bits per token are defined: not for what rewrites codes."""
        return "rewrites" not in self.traits

    def plan(self, lattice: Lattice, seed: int = 0) -> Plan:
        """The plan of this arm: one cell a step where its decoder decodes so, whatever the pace. `seed` matters to
        orders that draw. BenchError where the order cannot serve the lattice."""
        plan = cut(WALK if self.order is None else self.order, self.pace, lattice, seed)
        return plan.singly() if self.decoder.entry.drafts else plan


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
        instead = chosen if chosen.entry.paces else f"{chosen}@cosine:13"
        raise BenchError(f"'{parts}' puts {chosen.name} behind +, and it takes the place of an order; write {instead}")
    if _is_decoder(order) and not _chooses(order):
        raise BenchError(f"'{order}' is a decoder, and stands behind an order; write raster+{order}")
    if not _chooses(order):
        return Arm(parse_order(order), paced, chosen, model or "")
    chooser = parse_decoder(order)
    if chooser.entry.paces:
        if pace is not None or chosen.name != "off":
            raise BenchError(
                f"'{parts}' chooses its cells, and how many a step takes: it takes no pace and no other decoder; write "
                f"{chooser}"
            )
        return Arm(None, NATIVE, chooser, model or "")
    if paced.fits_walks or paced.measured:
        raise BenchError(
            f"'{parts}' chooses its cells as it decodes, so there is no walk that {paced} could be fitted to; "
            f"{order}@cosine:{paced.steps} would do"
        )
    if pace is None or paced == NATIVE or chosen.name != "off":
        raise BenchError(
            f"'{parts}' chooses its cells as it decodes: it needs a pace and takes no other decoder, "
            f"as in {order}@cosine:13"
        )
    return Arm(None, paced, chooser, model or "")


def _chooses(order: str) -> bool:
    """Whether what stands in the place of an order is a decoder that chooses its cells."""
    return _is_decoder(order) and DECODERS.get(order.partition(":")[0]).chooses


def _is_decoder(order: str) -> bool:
    """Whether what stands in the place of an order is the name of a decoder, with or without options."""
    name = order.partition(":")[0]
    return name not in ORDERS.names() and name in DECODERS.names()


def _takes_no_pace(order: str) -> bool:
    return _chooses(order) and parse_decoder(order).entry.paces


@dataclass(frozen=True)
class Baseline:
    """The arm that the other arms of its model are measured against. ratio: whether it decodes one cell at a time.
    Only then are ratios to it shown."""

    arm: Arm
    ratio: bool


@dataclass(frozen=True)
class Lineup:
    """What a run compares. arms: in the order asked. refused: arms that were asked for and that their models refuse,
    each with its sentence. baselines: by the name of the model; they are among the arms. added: names of the arms that
    nobody asked for. cuts: why an arm has its pace, where only its steps were asked for."""

    arms: tuple[Arm, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    cuts: Mapping[str, Cut] = field(default_factory=dict)

    def baseline(self, arm: Arm) -> Baseline | None:
        """What an arm is measured against; None where its model has no baseline."""
        return self.baselines.get(arm.model)

    @property
    def again(self) -> Arm | None:
        """The arm that is timed twice, to show how far the clock can be trusted: the first baseline."""
        return next((baseline.arm for baseline in self.baselines.values()), None)


def refused_arm(arm: Arm, model: Model, name: str = "the model") -> str:
    """Why a model cannot decode an arm, in one sentence; empty if it can. BenchError where there is no such plan.

    A decoder that chooses its cells may walk any way, so its model must follow a walk that is drawn.
    """
    plan = arm.plan(model.lattice) if arm.order is not None else cut(ANY_WALK, arm.pace, model.lattice, 0)
    return refusal(model, plan, arm.decoder.entry.needs, name)


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
    steps: Sequence[int] = (),
    objectives: Mapping[str, ObjectiveConfig | None] | None = None,
    systems: Sequence[str] = (),
    plain: str = "",
) -> Lineup:
    """The arms that were asked for, without doubles, in the order asked, and what they are measured against.

    models: by name; '' is the run's own, and `own` is another name for it. objectives: what they were trained on, by
    the same names, where that is known. An order that names no pace is taken at every one of `paces`, and at the pace
    that `cuts.choose` finds for each of `steps`, unless it is a decoder that takes none; one that names no decoder with
    every one of `decoders`. Where none of these is asked for, an order gets its ladder (see `_ladder`). with_baseline:
    the baseline of every model that is used is an arm too, the first one where nobody asked for it. systems: arms that
    are taken as they stand. Their models have one baseline, `plain`; without it each has its native arm, and no ratio.

    BenchError for anything misspelt, for a model that the run has not, for an order that has no such plan on its
    model's lattice, and where no arm that was asked for is served.
    """
    asked: dict[str, Arm] = {}
    extra: set[str] = set()
    bare: dict[str, None] = {}
    cuts: dict[str, Cut] = {}
    laddered = not paces and not steps and not decoders
    for text in orders:
        asks = split_arm(text)
        asks = asks._replace(model=None if asks.model == own else asks.model)
        chosen: dict[str | None, Cut | None] = {asks.pace: None}
        if asks.pace is None and (paces or steps) and not _takes_no_pace(asks.order):
            model, objective = _model(asks.model or "", models), (objectives or {}).get(asks.model or "")
            found = choose(_order_of(asks), list(dict.fromkeys(steps)), model, objective) if steps else []
            chosen = {**dict.fromkeys(paces), **{one.pace: one for one in found}}
        arms = []
        for pace, how in chosen.items():
            for decoder in [asks.decoder] if asks.decoder is not None or not decoders else decoders:
                arms.append(bind(asks._replace(pace=pace, decoder=decoder)))
                if how is not None:
                    cuts.setdefault(arms[-1].name, how)
        extra -= {arm.name for arm in arms}
        if laddered and asks.pace is None and asks.decoder is None and arms[0].order is not None:
            bare.setdefault(arms[0].model)
            ladder = list(_ladder(arms[0], _model(arms[0].model, models)))
            extra |= {arm.name for arm in ladder if arm.name not in asked}
            arms += ladder
        for arm in arms:
            asked.setdefault(arm.name, arm)
    for text in systems:
        arm = parse_arm(text)
        asked.setdefault(arm.name, arm)
        extra.discard(arm.name)
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
    by_system = {arm.model: arm for arm in map(parse_arm, systems)}
    baselines = _baselines(tuple(asked.values()), models, by_system, plain) if with_baseline else {}
    first = {str(baseline.arm): baseline.arm for baseline in baselines.values()}
    arms = list({**{name: arm for name, arm in first.items() if name not in asked}, **asked}.values())
    added = tuple(arm.name for arm in arms if arm.name in extra or arm.name not in asked)
    kept = {arm.name: cuts[arm.name] for arm in arms if arm.name in cuts}
    return Lineup(tuple(arms), refused, baselines, added, kept)


def _order_of(asks: ArmParts) -> BoundOrder | None:
    """The order of an arm that names no pace yet; None where a decoder takes its place."""
    return bind(asks._replace(pace=str(ONE))).order


def _baselines(
    arms: Sequence[Arm], models: Mapping[str, Model], systems: Mapping[str, Arm], plain: str
) -> dict[str, Baseline]:
    """The baseline of every model that is used. An arm that was asked for and is that very plan serves as it, under
    the name that it was given. systems: the native arms of those that are measured against `plain`, by model."""
    common = parse_arm(plain) if plain else None
    if common is not None and not (systems and _serves(common, _model(common.model, models))):
        common = None
    found = {} if common is None else {common.model: Baseline(common, ratio=True)}
    for name in dict.fromkeys(arm.model for arm in arms):
        model = _model(name, models)
        if name in systems and (common is not None or systems[name] in arms):
            found[name] = Baseline(systems[name], ratio=False) if common is None else Baseline(common, ratio=True)
            continue
        baseline = baseline_of(model, name)
        if baseline is not None:
            plan = baseline.arm.plan(model.lattice)
            alike = [arm for arm in arms if replace(arm, pace=baseline.arm.pace) == baseline.arm]
            same = (arm for arm in alike if arm.plan(model.lattice) == plan)
            found[name] = replace(baseline, arm=next(same, baseline.arm))
    return found


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


def told(lineup: Lineup) -> Iterator[str]:
    """What a run compares, in sentences for those who asked: how each number of steps was cut, and which arms were
    added to those that were asked for."""
    by_steps: dict[int, dict[str, str]] = {}
    for arm in lineup.arms:
        if arm.name in lineup.cuts:
            chosen = lineup.cuts[arm.name]
            plain = str(replace(arm, decoder=PLAIN)) if arm.order is not None else arm.name
            by_steps.setdefault(chosen.steps, {})[plain] = chosen.why
    for steps, chosen_by in by_steps.items():
        yield f"--steps {steps}: " + ", ".join(f"{name} ({why})" for name, why in chosen_by.items())
    baselines = {str(baseline.arm) for baseline in lineup.baselines.values()}

    def role(arm: Arm) -> str:
        words = ["baseline"] * (arm.name in baselines) + ["added"] * (arm.name in lineup.added)
        return f"{arm.name} ({', '.join(words)})" if words else arm.name

    yield f"{len(lineup.arms)} arm{'s' * (len(lineup.arms) != 1)}: " + ", ".join(map(role, lineup.arms))
    hints = []
    if set(lineup.added) - baselines:
        hints.append("--correction off leaves the added variants out")
    if set(lineup.added) & baselines:
        hints.append("--no-baseline leaves out a baseline that nobody asked for")
    if hints:
        yield "; ".join(hints)


def training_share(arm: Arm, objective: ObjectiveConfig | None, lattice: Lattice) -> tuple[float | None, float | None]:
    """The share of training batches that followed this arm's order, however either is spelled, and the share that
    followed it in these very steps; None where the mixture is not known."""
    if objective is None:
        return None, None
    parts = parts_of(objective, arm.order_name, lattice)
    sizes = arm.plan(lattice).sizes
    same = [part.share * sum(make_plan(part.order, lattice, p).sizes == sizes for p in part.paces) / len(part.paces)
            for part in parts]  # fmt: skip
    return sum(part.share for part in parts), sum(same)
