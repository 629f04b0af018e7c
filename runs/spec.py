"""What a run was asked for: one frozen value, from flags, from a file, or from both.

Knows names, types, ranges and help of every setting, and files of configuration. Refuses to know models, and to guess:
a key it does not know is an error. `RunSpec.to_json` is what `run.json` keeps and `--config` reads again; `runs.flags`
makes the options of `bench run` from the fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any, NewType, get_args, get_type_hints

from orderbench.orders import BenchError
from orderbench.orders.documents import read_document
from orderbench.orders.errors import unknown
from orderbench.runs.rounds import parse_rounds

MEASUREMENTS = ("quality", "latency", "likelihood")
SAMPLING: dict[str, type] = {"guidance": str, "temperature": float, "top_k": int, "top_p": float,
                             "noise": str}  # can be tuned  # fmt: skip
TUNING_SEED = 1_000_000  # seeds from here on choose settings; seeds that are reported lie below
SHARED, SHARED_FILE = "shared", "fashion-model"  # the model in the package: its name in a run, and its file
COMPARED, AMOUNT, SAMPLED, GIVEN, MACHINE = (  # groups of `bench run --help`
    "What is compared", "How much is measured", "Sampling", "Models, data and judges", "Machine",
)  # fmt: skip
_ALONE = ("model", "tokenizer")  # lists that may also be given as one value, or as null
_GUIDED = ("guidance", "cfg_scale")  # two spellings of one setting
_MOST = {"samples": 10_000_000, "seeds": 100_000, "held_out": 10_000_000, "batch": 65_536, "steps": 1_000_000,
         "threads": 4096}  # fmt: skip # beyond them nothing could be allocated, or waited for
QUICK: dict[str, Any] = {"samples": 64, "held_out": 64, "rounds": "auto:10%:6s", "batch": [4]}

Scale = Annotated[str, "a number, or KIND:scale=S"]  # a file may give the number as one
RoundsText = NewType("RoundsText", str)  # as `rounds.parse_rounds` reads it
Axes = Mapping[str, tuple[Any, ...]]  # values by the name of a setting


@dataclass(frozen=True)
class Flag:
    """How a setting is given on a command line, under its own name. metavar: of the option. says: its help, whole
    sentences in which {default} is filled in. repeated: the option is given once for each value, where others take a
    comma list. group: the part of the help that it stands in."""

    metavar: str | None
    says: str
    repeated: bool = False
    group: str = COMPARED


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run. Sampling settings that are None take what the card of the weights recommends, else no filter at all.

    orders: arms, or orders that are combined with every pace and every decoder; `from_json` takes none by default where
    there are systems. systems: names of `models.systems`, or 'all', whose native arms are compared too. samples: images
    a trial. seeds: how many replicates, with the seeds first_seed, first_seed + 1, .... batch: of the speed
    measurement, see `batches`. rounds: of the speed measurement, as `runs.rounds` spells them; all arms are timed once
    a round. cfg_scale: becomes guidance, and is None afterwards. held_out: images of the likelihood. tune: settings to
    try for each arm, on seeds that are used for nothing else.
    """

    orders: Annotated[
        tuple[str, ...],
        Flag(
            "ARM,ARM,...",
            "The arms that are compared. An arm is spelled ORDER[@PACE][+DECODER][~MODEL], as in halton@cosine:13 or "
            "radial+nested. Default {default}.",
        ),
    ] = (
        "raster",
        "radial",
    )
    systems: Annotated[
        tuple[str, ...],
        Flag(
            "NAME,NAME,...|all",
            "Compare published systems by their native arms, each under its own weights, with the plain "
            "raster~llamagen; `bench systems` lists them. Then no order is compared but those of --orders.",
        ),
    ] = ()
    steps: Annotated[
        tuple[int, ...],
        Flag(
            "T,T,...",
            "Take every order that names no pace in T steps, for each T: at a pace in which its model was trained in T "
            "steps, or else at the pace of least predicted tax. The choice is printed and recorded.",
        ),
    ] = ()
    pace: Annotated[
        tuple[str, ...],
        Flag(
            "PACE,...",
            "Take every order that names no pace at each of these, as in native,even:13. With cosine:8,cosine:13 all "
            "orders have the same step sizes.",
        ),
    ] = ()
    profile: Annotated[
        str | None,
        Flag(
            "FILE",
            "The file of `bench fit-pace` whose step sizes the pace profile:T takes, as in raster@profile:13. Default: "
            "that of the shipped weights, for a run on them.",
        ),
    ] = None
    correction: Annotated[
        tuple[str, ...],
        Flag("off,nested[:...]", "Take every order that names no decoder with each of these. off is plain decoding."),
    ] = ()
    samples: Annotated[
        int, Flag("N", "Decode so many images for each arm and seed. Default {default}.", group=AMOUNT)
    ] = 256
    seeds: Annotated[int, Flag("S", "Repeat the samples with so many seeds. Default {default}.", group=AMOUNT)] = 1
    first_seed: Annotated[int, Flag("S", "The first of these seeds. Default {default}.", group=AMOUNT)] = 0
    held_out: Annotated[
        int, Flag("N", "Measure the likelihood of so many held-out images. Default {default}.", group=AMOUNT)
    ] = 1000
    batch: Annotated[
        tuple[int, ...],
        Flag(
            "B|B,B,...",
            "Measure speed at batch 1 and at this batch. Several, as in 1,16,64, are measured as they stand. Default "
            "{default}.",
            group=AMOUNT,
        ),
    ] = (16,)
    rounds: Annotated[
        RoundsText,
        Flag(
            "R|auto[:P%][:Ss]",
            "Time each arm so often; in a round all arms take turns. auto measures until the interval of every ratio "
            "to the baseline is within P percent of it (5 if not given), and at most S seconds at each batch (180 if "
            "not given), as in auto:3%:60s. Default {default}.",
            group=AMOUNT,
        ),
    ] = RoundsText("auto")
    cfg_scale: Annotated[
        float | None,
        Flag(
            "S",
            "Classifier-free guidance with a scale that stays as it is: another spelling of --guidance "
            "constant:scale=S. 1 is no guidance.",
            group=SAMPLED,
        ),
    ] = None
    guidance: Annotated[
        Scale | None,
        Flag(
            "S|KIND:scale=S",
            "Classifier-free guidance by a law. S is a scale that rises linearly to S; constant:scale=S stays as it "
            "is, which --cfg-scale S says in short; none is "
            "no guidance. Default: what the card of the weights recommends, and so for the next three.",
            group=SAMPLED,
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Flag("T", "Divide the logits by this number, above 0, before a code is drawn.", group=SAMPLED),
    ] = None
    top_k: Annotated[int | None, Flag("K", "Sample among the K likeliest codes. 0 is for all.", group=SAMPLED)] = None
    top_p: Annotated[
        float | None,
        Flag("P", "Sample among the fewest codes that hold this share of probability. 1 is for all.", group=SAMPLED),
    ] = None
    noise: Annotated[
        str | None,
        Flag(
            "uniform|gumbel",
            "How codes are drawn: by one number a cell, which is the default, or by one for every code of a cell, with "
            "which exact decoders need fewer passes. Both draw from the same law, and not the same codes.",
        ),
    ] = None
    tune: Annotated[
        Axes | None,
        Flag(
            "NAME=V,V,...",
            "Also measure each arm at its own best setting, which is found on other seeds, as in guidance=1,2,3.",
            group=SAMPLED,
        ),
    ] = None
    model: Annotated[
        tuple[str, ...],
        Flag(
            "[NAME=]NAME|FILE[:OPTION=V]|pkg.module:factory",
            "The model that decodes: a shipped name, a file of weights, or a function that returns a model. What a "
            "published file does not say stands behind it, as in c2i_L_384.pt:side=24. Default: "
            "the weights in the package, called shared. Give it again for more models, as in --model shared "
            "--model par=par.safetensors; then raster is decoded by the first one and raster~par by par. With "
            "--systems par such a file takes the place of shipped weights.",
            repeated=True,
            group=GIVEN,
        ),
    ] = ()
    tokenizer: Annotated[
        tuple[str, ...],
        Flag(
            "[NAME=]FILE",
            "The tokenizer that turns codes of a model into images; with NAME=, that of the model NAME. "
            "Default: the one in the package, if it fits.",
            repeated=True,
            group=GIVEN,
        ),
    ] = ()
    weights: Annotated[
        str | None,
        Flag(
            "ema|model",
            "Which weights of a published file are taken, where it holds both: their average, or those that were "
            "trained. Default: the average.",
            group=GIVEN,
        ),
    ] = None
    data: Annotated[
        str | None,
        Flag(
            "PATH|download[:FOLDER]",
            "Images: a folder with one folder for each class, CIFAR-10's batches, or an .npz file. Without test/ or "
            "val/, a tenth is held out. download fetches Fashion-MNIST (31 MB, into a cache or FOLDER). Default: the "
            "data that is shipped with the weights, else an installed Fashion-MNIST.",
            group=GIVEN,
        ),
    ] = None
    reference: Annotated[
        str | None,
        Flag(
            "FILE.npz|FOLDER",
            "Compare samples with these images or statistics, in the format of ADM, or with the pictures of a folder.",
            group=GIVEN,
        ),
    ] = None
    space: Annotated[
        tuple[str, ...],
        Flag(
            "NAME|FILE,...",
            "Feature spaces of the quality: fashion-features (the default), lite0, inception:WEIGHTS, or a file of "
            "bench train features.",
            group=GIVEN,
        ),
    ] = ()
    device: Annotated[str, Flag("auto|cpu|cuda", "Where to compute. auto is a GPU if there is one.", group=MACHINE)] = (
        "auto"
    )
    dtype: Annotated[str, Flag("fp32|bf16", "Cast the weights to this type. Default {default}.", group=MACHINE)] = (
        "fp32"
    )
    threads: Annotated[
        int | None,
        Flag("N", "Compute with so many processor threads. Default: as many as do not wait for others.", group=MACHINE),
    ] = None
    only: Annotated[
        tuple[str, ...],
        Flag(",".join(MEASUREMENTS), "Make these measurements alone. Default: all of them.", group=AMOUNT),
    ] = MEASUREMENTS
    include: Annotated[
        tuple[str, ...],
        Flag(
            "FILE.py",
            "First run a Python file that registers orders, decoders or models.",
            repeated=True,
            group=GIVEN,
        ),
    ] = ()
    no_baseline: Annotated[
        bool,
        Flag(
            None,
            "Leave the baseline out: the model's native order one cell at a time, as in raster. It is an arm of every "
            "run otherwise, and the other arms are measured against it.",
        ),
    ] = False
    quick: Annotated[
        bool,
        Flag(
            None,
            f"A first look in about a minute: {QUICK['samples']} samples an arm, {QUICK['held_out']} held-out images, "
            f"--rounds {QUICK['rounds']}, --batch {QUICK['batch'][0]}, one pass over single steps, and no timing "
            f"without a cache.",
            group=AMOUNT,
        ),
    ] = False

    def __post_init__(self) -> None:
        for name in _ALONE:
            given = getattr(self, name)
            if given is None or isinstance(given, str):
                object.__setattr__(self, name, () if given is None else (given,))
        object.__setattr__(self, "rounds", str(parse_rounds(self.rounds)))
        for name in ("samples", "seeds", "held_out"):
            _whole(name, getattr(self, name), 1)
        if isinstance(self.batch, int):
            object.__setattr__(self, "batch", (self.batch,))
        if not self.batch:
            raise BenchError("no batch was asked for; give one or more, as in --batch 16 or --batch 1,16,64")
        for batch in self.batch:
            _whole("batch", batch, 1)
        if self.cfg_scale is not None:
            if self.guidance is not None:
                raise BenchError(
                    "--cfg-scale and --guidance both set the guidance; give one of them, as in --cfg-scale 1.5"
                )
            if not (math.isfinite(self.cfg_scale) and self.cfg_scale >= 0):
                raise BenchError(f"--cfg-scale {self.cfg_scale:g} is not served; 0 or more would do, as in 1.5")
            shown = repr(float(self.cfg_scale)).removesuffix(".0")
            object.__setattr__(self, "guidance", "none" if self.cfg_scale == 1 else f"constant:scale={shown}")
            object.__setattr__(self, "cfg_scale", None)
        _whole("first_seed", self.first_seed, 0)
        if self.threads is not None:
            _whole("threads", self.threads, 1)
        for steps in self.steps:
            _whole("steps", steps, 1)
        if not self.orders and not self.systems:
            raise BenchError("no order was asked for; name some, as in --orders raster,radial")
        cutting = [f"--{name}" for name in ("steps", "pace", "correction") if getattr(self, name)]
        if cutting and not self.orders:
            raise BenchError(
                f"{cutting[0]} says how orders are decoded, and --systems compares native arms alone; leave it out, or "
                f"name orders too, as in --orders raster"
            )
        if self.steps and self.pace:
            raise BenchError("--steps and --pace both cut orders into steps; give one of them")
        if not self.only:
            raise BenchError("no measurement was asked for; name some, as in --only quality,likelihood")
        for kind in self.only:
            if kind not in MEASUREMENTS:
                raise unknown("measurement", kind, MEASUREMENTS, "as in --only quality,likelihood")
        if self.weights not in (None, "ema", "model"):
            raise BenchError(f"--weights {self.weights} names no set of weights; ema or model would do")
        if self.dtype not in ("fp32", "bf16"):
            raise BenchError(f"a dtype of '{self.dtype}' is not served; fp32 or bf16 would do")
        if self.first_seed + self.seeds >= TUNING_SEED:
            raise BenchError(
                f"{self.seeds} replicates from seed {self.first_seed} on reach the seeds that settings are tuned on, "
                f"{TUNING_SEED} and above; give fewer, or a lower --first-seed"
            )
        for name, values in (self.tune or {}).items():
            if name not in SAMPLING:
                raise unknown("setting to tune", name, SAMPLING, "as in --tune guidance=1,1.5,2")
            if not values:
                raise BenchError(f"--tune {name}= tries nothing; give values, as in --tune guidance=1,1.5,2")
            for tried in values:
                number = isinstance(tried, int | float) and not isinstance(tried, bool) and math.isfinite(tried)
                whole = SAMPLING[name] is int
                if SAMPLING[name] is not str and (not number or (whole and tried != int(tried))):
                    kind, example = ("a whole number", "0,50") if whole else ("a number", "0.9,1")
                    raise BenchError(f"--tune {name}={tried} is not {kind}; as in --tune {name}={example}")

    @property
    def replicates(self) -> range:
        """The seeds that are reported."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes at which speed is measured, the smallest first. One number is measured beside batch 1."""
        return tuple(sorted({1, *self.batch} if len(self.batch) == 1 else set(self.batch)))

    @property
    def repaired(self) -> int:
        """Images whose injected errors are to be repaired."""
        return min(16 if self.quick else 64, -(-self.samples // 2))

    def to_json(self) -> dict[str, Any]:
        """Plain values, None left out; `from_json` reads them again."""
        value = {name: entry for name, entry in asdict(self).items() if entry is not None}
        return {name: list(entry) if isinstance(entry, tuple) else entry for name, entry in value.items()} | (
            {"tune": {name: list(values) for name, values in self.tune.items()}} if self.tune else {}
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> RunSpec:
        """The spec of plain values; BenchError for a key that is not known, or a value of another type."""
        known = setting_kinds()
        given: dict[str, Any] = {}
        for raw, entry in value.items():
            name = raw.replace("-", "_")
            if name not in known:
                raise unknown(f"key in {where}", raw, known, "`bench run --help` lists the flags of the same names")
            try:
                none = entry is None and (_may_be_none(name) or name in _ALONE)
                given[name] = None if none else _READERS[known[name]].read(entry)
            except TypeError:
                taken = _READERS[known[name]].takes
                raise BenchError(
                    f"{where} gives {name} as {entry!r}, and it takes {taken}; see `bench run --help`"
                ) from None
        if given.get("systems"):
            given.setdefault("orders", ())
        return cls(**given)


@cache
def _hints() -> dict[str, tuple[Any, Flag]]:
    """The type and the flag of every setting, in the order of the fields."""
    hints = get_type_hints(RunSpec, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def _may_be_none(name: str) -> bool:
    return type(None) in get_args(_hints()[name][0])


def setting_kinds() -> dict[str, Any]:
    """The type of every setting by name, in the order of the fields; of those that may be None, the other type."""
    return {name: get_args(kind)[0] if _may_be_none(name) else kind for name, (kind, _) in _hints().items()}


def setting_flags() -> dict[str, Flag]:
    """How every setting is given on a command line, the default filled in."""
    flags = {}
    for one in fields(RunSpec):
        flag = _hints()[one.name][1]
        shown = ",".join(map(str, one.default)) if isinstance(one.default, tuple) else str(one.default)
        flags[one.name] = replace(flag, says=flag.says.replace("{default}", shown))
    return flags


def model_name(source: str) -> str:
    """What a run calls a model, from its file or factory.

    >>> model_name("fashion-model"), model_name("toy model.safetensors"), model_name("pkg.mine:build")
    ('shared', 'toy-model', 'mine')
    """
    if source == SHARED_FILE:
        return SHARED
    module, colon, _ = source.partition(":")
    plain = module.rpartition(".")[2] if colon else PurePath(source).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "model"


def read_config(file: str) -> dict[str, Any]:
    """A .toml or .json file of settings, or the run.json of a run, whose configuration is taken."""
    path = Path(file)
    try:
        value = read_document(path, toml=path.suffix == ".toml")
    except (OSError, UnicodeDecodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise BenchError(f"'{file}' could not be read: {why}; name a .toml or .json file of settings") from problem
    except ValueError as problem:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise BenchError(f"'{file}' is not {kind} that holds settings: {problem}") from problem
    if not isinstance(value, dict):
        raise BenchError(f"'{file}' holds a {type(value).__name__}; settings by name would do")
    config = value.get("config") if "schema" in value else value
    if not isinstance(config, dict):
        raise BenchError(f"'{file}' holds no settings; a run.json of this suite keeps them under 'config'")
    return dict(config)


def effective(file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a new run. Precedence: flags, then the file, then the values of `quick`. But `quick` given as a
    flag comes before the file."""
    if flags.get("quick"):
        return merged(file, QUICK, flags)
    return merged(QUICK if file.get("quick") else {}, file, flags)


def merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of several sources, of which later ones win. Guidance has two spellings: either takes the place of both
    that an earlier source gave.

    >>> merged({"guidance": "3", "seeds": 2}, {"cfg-scale": 1.5})
    {'seeds': 2, 'cfg_scale': 1.5}
    """
    settings: dict[str, Any] = {}
    for source in sources:
        given = {name.replace("-", "_"): value for name, value in source.items()}
        if any(given.get(name) is not None for name in _GUIDED):
            settings = {name: value for name, value in settings.items() if name not in _GUIDED}
        settings |= given
    return settings


def read_tune(given: Sequence[str] | None) -> dict[str, list[Any]] | None:
    """'guidance=1,1.5,2' and the like, to values by name; numbers stay numbers."""
    if not given:
        return None
    axes: dict[str, list[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise BenchError(f"--tune '{text}' names no values; write NAME=V,V,..., as in --tune guidance=1,1.5,2")
        tried = axes.setdefault(name.replace("-", "_"), [])
        tried += [value for value in map(_number, filter(None, values.split(","))) if value not in tried]
    return axes


def _number(text: str) -> float | str:
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def _whole(name: str, value: object, least: int) -> None:
    flag, most = name.replace("_", "-"), _MOST.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BenchError(f"{name} is {value!r}; give a whole number of {least} or more, as in --{flag} {max(least, 8)}")
    if most is not None and value > most:
        raise BenchError(f"{name} is {value}, more than any run can hold; give {most} or less, as in --{flag} 8")


def _one(entry: Any, *kinds: type) -> Any:
    """A value of these types; true and false are no numbers. TypeError for others."""
    if not isinstance(entry, kinds) or (isinstance(entry, bool) and bool not in kinds):
        raise TypeError
    return entry


def _several(entry: Any, kind: type) -> tuple[Any, ...]:
    """A list of such values; one alone is a list of one."""
    entries = [entry] if isinstance(entry, str | int) else _one(entry, list, tuple)
    return tuple(_one(one, kind) for one in entries)


def _axes(entry: Any) -> Axes:
    return {axis.replace("-", "_"): tuple(_one(values, list)) for axis, values in _one(entry, dict).items()}


@dataclass(frozen=True)
class _Reader:
    """How a file gives a setting. takes: in words. read: to what `RunSpec` holds; TypeError for a value of another
    type."""

    takes: str
    read: Callable[[Any], Any]


_READERS: dict[Any, _Reader] = {  # by the type of the field
    str: _Reader("a name", lambda entry: _one(entry, str)),
    int: _Reader("a whole number", lambda entry: _one(entry, int)),
    float: _Reader("a number", lambda entry: float(_one(entry, int, float))),
    bool: _Reader("true or false", lambda entry: _one(entry, bool)),
    Scale: _Reader("a name", lambda entry: str(_one(entry, str, int, float))),
    tuple[str, ...]: _Reader("a list of names", lambda entry: _several(entry, str)),
    tuple[int, ...]: _Reader("whole numbers", lambda entry: _several(entry, int)),
    Axes: _Reader("lists by name, as in guidance = [1, 2]", _axes),
    RoundsText: _Reader("a number, or a text such as 'auto:3%'", lambda entry: str(_one(entry, str, int))),
}
