"""Conditions: what a number was measured under, and whether two numbers may be set against each other.

Knows one table: which conditions part which kinds of number, and in which words. Refuses to know the numbers
themselves. `compare`, `check` and `join` ask here, so that they give one answer with one reason.

A condition is one of three things for a kind of number. It parts two numbers, so that their difference would mean
nothing. It was changed on purpose, so that the difference shows what the change does. Or it does not matter.

    parted by           quality   kernel distance   bits   counters   speed-up   time
    lattice, plan          x             x            x        x          x        x
    decoder                x             x            x        x          x        x
    model, dtype           c             c            c        c          c        c
    sampling setting       c             c                                x        x
    guidance                                                   c
    tokenizer              x             x            x
    space, reference, n    x             x
    seeds, groups          x             x
    kernel reference                     x
    held-out images                                   x
    device, pixels                                                        x        x
    batch                                                                 x        x
    baseline                                                              x

x: parts. c: changed on purpose. What a side does not say is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from orderbench.reports.results import metric_of, model_of, replicate, round_times, tokenizer_of
from orderbench.runs.record import Run
from orderbench.runs.schema import ArmAbout, ModelAbout, Setting, SpaceAbout

What = Literal["quality", "kernel distance", "bits", "counters", "speed-up", "time"]


@dataclass(frozen=True)
class Identity:
    """What identifies a file or a set of images. images: how many, where that is known."""

    name: str | None
    sha256: str | None = None
    images: int | None = None

    def differs(self, other: Identity) -> bool:
        """SHA-256 is compared if both have one over equally many images, otherwise names."""
        if self.sha256 and other.sha256 and self.images == other.images:
            return self.sha256 != other.sha256
        return self.name != other.name

    def __str__(self) -> str:
        return f"{self.name} {(self.sha256 or '')[:8]}".strip()


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the numbers of one arm were measured under; what is not known, or not measured, is None or empty.

    tokenizer: its digest or name, '' where there is none and no pixels are decoded. plan: its digest. seeds: those of
    the samples. groups: how many groups of samples are left out in turn. kernel: to how many reference images kernel
    distances are. images, n_images: held out, for the likelihood. device: processor, GPU and threads of the timing.
    baseline: the arm that speed-ups are over.
    """

    model: Identity
    lattice: str | None = None
    plan: str | None = None
    decoder: str | None = None
    setting: Setting | None = None
    dtype: str | None = None
    tokenizer: str | None = None
    space: str | None = None
    reference: Identity | None = None
    n: int | None = None
    seeds: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    kernel: frozenset[int] = frozenset()
    images: Identity | None = None
    n_images: int | None = None
    device: Mapping[str, Any] | None = None
    batch: int | None = None
    baseline: str | None = None

    def of_any_arm(self) -> Conditions:
        """Without what makes arms of one model differ on purpose, and with seeds that may add up."""
        return replace(self, plan=None, decoder=None, seeds=frozenset())


# Two conditions


def apart(one: Conditions, two: Conditions, what: What) -> str:
    """Why a difference of two numbers would mean nothing; empty if it may be taken."""
    return next((rule.sentence(one, two, what) for rule in _differing(one, two) if what in rule.parts), "")


def changed(one: Conditions, two: Conditions, what: What) -> tuple[str, ...]:
    """What was changed on purpose between two numbers that may be compared, as in 'models (a, b)'."""
    return tuple(rule.noun + rule.detail(one, two) for rule in _differing(one, two) if what in rule.changes)


def unlike(one: Conditions, two: Conditions, what: What, forgive: str = "") -> str:
    """Why two numbers were not measured alike: apart, or changed on purpose; empty if they were. forgive: a condition
    that may have been changed."""
    for rule in _differing(one, two):
        if what in rule.parts or (what in rule.changes and rule.name != forgive):
            return rule.sentence(one, two, what)
    return ""


def unsaid(before: Conditions, after: Conditions, what: What, forgive: str = "") -> str:
    """What the first says of a number and the second does not, so that nobody can tell whether they were measured
    alike; empty if there is nothing. forgive: as of `unlike`."""
    for rule in _TABLE:
        if what in rule.parts or (what in rule.changes and rule.name != forgive):
            a, b = getattr(before, rule.name), getattr(after, rule.name)
            hidden = isinstance(a, Identity) and isinstance(b, Identity) and a.sha256 and not b.sha256
            if hidden or (a not in (None, frozenset()) and b in (None, frozenset())):
                return f"the {rule.noun} cannot be compared: the second does not say its own"
    return ""


# The table


def _pair(one: Any, two: Any) -> str:
    return f" ({one}, {two})"


def _no_detail(*_: Any) -> str:
    return ""


def _names(one: Identity, two: Identity) -> str:
    return _pair(one, two) if one.name != two.name else ", though not by name"


def _whole(setting: Setting) -> Mapping[str, Any]:
    """A setting with the noise that older records do not say."""
    return {"noise": "uniform", **setting}


def _settings(one: Setting, two: Setting) -> str:
    a, b = _whole(one), _whole(two)
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return f" ({', '.join(f'{key} {a.get(key)} and {b.get(key)}' for key in keys)})"


def _listed(one: Iterable[int], two: Iterable[int]) -> str:
    return _pair(*(" and ".join(map(str, sorted(side))) for side in (one, two)))


def _devices(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    said = [describe_device(device) for device in (one, two)]
    return f" ({'; '.join(said if said[0] != said[1] else _unequal(_known(one), _known(two)))})"


@dataclass(frozen=True)
class _Rule:
    """One row of the table.

    name: the field. noun: what differs, in the plural. parts, changes: the kinds of number that it parts, and for which
    it is a change on purpose. told: how two values that differ are shown behind the noun. because: by kind of number,
    what follows from the difference. differ: whether two values differ. whole: the whole sentence, where it is not made
    of these parts.
    """

    name: str
    noun: str
    parts: tuple[What, ...] = ()
    changes: tuple[What, ...] = ()
    told: Callable[[Any, Any], str] = _pair
    because: Mapping[str, str] = field(default_factory=dict)
    differ: Callable[[Any, Any], bool] = lambda a, b: bool(a != b)
    whole: str = ""

    def detail(self, one: Conditions, two: Conditions) -> str:
        return self.told(getattr(one, self.name), getattr(two, self.name))

    def sentence(self, one: Conditions, two: Conditions, what: What) -> str:
        more = self.because.get(what)
        return self.whole or f"the {self.noun} differ{self.detail(one, two)}" + (f", {more}" if more else "")


def _differing(one: Conditions, two: Conditions) -> Iterator[_Rule]:
    """The rows of the table whose condition both sides say, and say differently."""
    for rule in _TABLE:
        a, b = getattr(one, rule.name), getattr(two, rule.name)
        if a not in (None, frozenset()) and b not in (None, frozenset()) and rule.differ(a, b):
            yield rule


_QUALITY: tuple[What, ...] = ("quality", "kernel distance")
_SPEED: tuple[What, ...] = ("speed-up", "time")
_ALL: tuple[What, ...] = (*_QUALITY, "bits", "counters", *_SPEED)
_IMAGES, _CODES, _TIMED = "and with them the images", "and with them the codes", "and sampling is part of what is timed"
_TABLE = (
    _Rule("model", "models", changes=_ALL, differ=Identity.differs),
    _Rule("lattice", "lattices", _ALL),
    _Rule("plan", "plans", _ALL, told=lambda a, b: _pair(a[:8], b[:8])),
    _Rule("decoder", "decoders", _ALL),
    _Rule("dtype", "weights' types", changes=_ALL),
    _Rule("space", "feature spaces", _QUALITY),
    _Rule("reference", "references", _QUALITY, told=_names, differ=Identity.differs),
    _Rule("n", "numbers of samples", _QUALITY),
    _Rule("setting", "sampling settings", _SPEED, _QUALITY, _settings, dict.fromkeys(_SPEED, _TIMED),
          differ=lambda a, b: bool(_whole(a) != _whole(b))),
    _Rule("setting", "sampling settings", changes=("counters",), told=_settings,  # guidance doubles the operations
          differ=lambda a, b: any(_whole(a)[key] != _whole(b)[key] for key in ("guidance", "noise"))),
    _Rule("tokenizer", "tokenizers", (*_QUALITY, "bits"), told=_no_detail,
          because={**dict.fromkeys(_QUALITY, _IMAGES), "bits": _CODES}),
    _Rule("seeds", "seeds", _QUALITY, told=_listed, differ=lambda a, b: not a & b),
    _Rule("groups", "groups of samples that are left out in turn", _QUALITY, told=_no_detail),
    _Rule("kernel", "numbers of reference images", ("kernel distance",), told=_listed,
          because={"kernel distance": "as of an older orderbench"}),
    _Rule("images", "held-out images", ("bits",), told=_no_detail, differ=Identity.differs),
    _Rule("n_images", "numbers of held-out images", ("bits",)),
    _Rule("device", "hardware or its threads", _SPEED, told=_devices,
          because={"speed-up": "and with them what a speed-up is"},
          differ=lambda a, b: bool(_known(a) != _known(b))),
    _Rule("tokenizer", "", _SPEED, differ=lambda a, b: bool(a) != bool(b),
          whole="one of the two decodes pixels within its times and the other does not"),
    _Rule("batch", "batches", _SPEED),
    _Rule("baseline", "baselines", ("speed-up",)),
)  # fmt: skip


# From a run


def conditions_of(
    run: Run, arm: ArmAbout, *, space: str | None = None, batch: int | None = None, setting: str = "fixed"
) -> Conditions:
    """Of the numbers of one arm. space: of its quality; batch: of its speed; setting: 'fixed' or 'tuned'."""
    about, model = run.about, model_of(run.about, arm)
    name = arm["name"]
    samples = [trial for trial in run.done("quality") if (trial["arm"], trial["setting"]) == (name, setting)]
    results = [result for trial in samples for result in trial["quality"] if result["space"] == space]
    kernels = [kd for result in results if (kd := metric_of(result, "kd")) is not None]
    left_out = [replicate(result["fd"])[1] for result in results if metric_of(result, "fd") is not None]
    tuned = setting == "tuned" and samples
    entry = next((one for one in about["spaces"] if one["space"] == space), None)
    timed = run.done("latency")
    clock = next((trial for trial in timed if round_times(trial, name)), next(iter(timed), None))
    return Conditions(
        model=Identity(model["name"], model.get("sha256")),
        lattice=model["lattice"],
        plan=arm["plan_digest"],
        decoder=arm["decoder"],
        setting=samples[0]["sampling"] if tuned else model["setting"],
        dtype=about["config"].get("dtype"),
        tokenizer=tokenizer_of(model),
        space=space,
        reference=None if entry is None else reference_of(entry),
        n=next((trial["n"] for trial in samples), None),
        seeds=frozenset(trial["seed"] for trial in samples),
        groups=frozenset(len(values) for values in left_out if values is not None),
        kernel=frozenset(kd["n_reference"] for kd in kernels if "n_reference" in kd),
        images=images_of(run, model),
        n_images=next((trial["n"] for trial in run.done("likelihood") if trial["arm"] == name), None),
        device=None if clock is None else clock["device"],
        batch=batch,
        baseline=model["baseline"],
    )


def images_of(run: Run, model: ModelAbout) -> Identity:
    """The held-out images of a model; without their digest, the data that was asked for."""
    held_out = model.get("held_out")
    data = run.about["config"].get("data")  # a run encodes as many as it needs, so their number is said too
    return Identity(data) if held_out is None else Identity(data, held_out.get("sha256"), held_out.get("images"))


def reference_of(entry: SpaceAbout) -> Identity:
    """What the distances in a space are measured against."""
    return Identity(entry["reference"], entry["reference_sha256"])


# Machines


def describe_device(device: Mapping[str, Any]) -> str:
    """A machine in words, from a timing's `device` or an environment."""
    cpu, gpu, threads = (device.get(key) or {} for key in ("cpu", "gpu", "threads"))
    name = gpu.get("name") if isinstance(gpu, Mapping) else None
    if name is None:
        cores = cpu.get("cores_usable") or cpu.get("cores_logical")
        name = f"{cpu.get('model') or 'processor'}" + (f", {cores} cores" if cores else "")
    if cpu.get("quota_cores"):
        name += f", a quota of {cpu['quota_cores']:.3g} cores"
    n = threads.get("torch")
    return name + (f", {n} thread{'s' * (n != 1)}" if n else "")


def _known(device: Any) -> Any:
    """A machine without its entries that are None, since older records do not have them."""
    if not isinstance(device, Mapping):
        return device
    return {key: _known(value) for key, value in device.items() if value is not None}


def _unequal(one: Any, two: Any, where: str = "") -> Sequence[str]:
    """Where two machines differ that are described alike, as in 'threads variables none and 1'."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = [key for key in {**one, **two} if one.get(key) != two.get(key)]
        return [said for key in keys for said in _unequal(one.get(key), two.get(key), f"{where} {key}")]
    shown = ["none" if value in (None, {}) else value for value in (one, two)]
    return [f"{where.strip()} {shown[0]} and {shown[1]}"]
