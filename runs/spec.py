"""What a run was asked for: one frozen value, from flags, from a file, or from both.

Knows names, ranges and files of configuration. Refuses to know models, and to guess: a key it does not know is an
error. `RunSpec.to_json` is what `run.json` keeps and `--config` reads again.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from orderbench.orders import BenchError
from orderbench.orders.errors import unknown

KINDS = ("quality", "latency", "likelihood")
TUNABLE = ("guidance", "temperature", "top_k", "top_p")
TUNING_SEED = 1_000_000  # seeds from here on choose settings; seeds that are reported lie below
QUICK = {"samples": 64, "held_out": 100, "rounds": 5, "batch": 4}


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run. Settings that are None take what the weights' card recommends, or the plain ones.

    orders: arms, or orders that paces and corrections multiply. samples: images a trial. seeds: replicates, of seeds
    first_seed, first_seed + 1, .... batch: of the throughput measurement. rounds: of the speed measurement, each all
    arms once. held_out: images of the likelihood. tune: settings to try for each arm, on seeds of their own.
    """

    orders: tuple[str, ...] = ("raster", "radial")
    steps: tuple[int, ...] = ()
    pace: tuple[str, ...] = ()
    correction: tuple[str, ...] = ()
    samples: int = 256
    seeds: int = 1
    first_seed: int = 0
    held_out: int = 1000
    batch: int = 16
    rounds: int = 9
    guidance: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    tune: Mapping[str, tuple[Any, ...]] | None = None
    model: str | None = None
    tokenizer: str | None = None
    data: str | None = None
    reference: str | None = None
    space: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "fp32"
    threads: int | None = None
    only: tuple[str, ...] = KINDS
    include: tuple[str, ...] = ()
    quick: bool = False

    def __post_init__(self) -> None:
        for name in ("samples", "seeds", "held_out", "batch", "rounds"):
            _whole(name, getattr(self, name), 1)
        _whole("first_seed", self.first_seed, 0)
        if self.threads is not None:
            _whole("threads", self.threads, 1)
        for steps in self.steps:
            _whole("steps", steps, 1)
        if not self.orders:
            raise BenchError("no order was asked for; name some, as in --orders raster,radial")
        if self.steps and self.pace:
            raise BenchError("--steps and --pace both cut orders into steps; give one of them")
        if not self.only:
            raise BenchError("no measurement was asked for; name some, as in --only quality,likelihood")
        for kind in self.only:
            if kind not in KINDS:
                raise unknown("measurement", kind, KINDS, "as in --only quality,likelihood")
        if self.dtype not in ("fp32", "bf16"):
            raise BenchError(f"a dtype of '{self.dtype}' is not served; fp32 or bf16 would do")
        if self.first_seed + self.seeds >= TUNING_SEED:
            raise BenchError(
                f"{self.seeds} replicates from seed {self.first_seed} on reach the seeds that settings are tuned on, "
                f"{TUNING_SEED} and above; give fewer, or a lower --first-seed"
            )
        for name, values in (self.tune or {}).items():
            if name not in TUNABLE:
                raise unknown("setting to tune", name, TUNABLE, "as in --tune guidance=1,1.5,2")
            if not values:
                raise BenchError(f"--tune {name}= tries nothing; give values, as in --tune guidance=1,1.5,2")
            for tried in values:
                number = isinstance(tried, int | float) and not isinstance(tried, bool) and math.isfinite(tried)
                if name != "guidance" and (not number or (name == "top_k" and tried != int(tried))):
                    kind, example = ("a whole number", "0,50") if name == "top_k" else ("a number", "0.9,1")
                    raise BenchError(f"--tune {name}={tried} is not {kind}; as in --tune {name}={example}")

    @property
    def replicates(self) -> range:
        """The seeds that are reported."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def repaired(self) -> int:
        """Images whose injected errors are to be repaired."""
        return min(64, -(-self.samples // 2))

    @property
    def paces(self) -> tuple[str, ...]:
        """The paces asked for; a number of steps is a cosine pace, so that arms share their step sizes."""
        return self.pace or tuple(f"cosine:{steps}" for steps in self.steps)

    def to_json(self) -> dict[str, Any]:
        """Plain values, None left away; `from_json` reads them again."""
        value = {name: entry for name, entry in asdict(self).items() if entry is not None}
        return {name: list(entry) if isinstance(entry, tuple) else entry for name, entry in value.items()} | (
            {"tune": {name: list(values) for name, values in self.tune.items()}} if self.tune else {}
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> RunSpec:
        """The spec of plain values; BenchError for a key that is not known, or a value of another type."""
        known = {f.name: f for f in fields(cls)}
        given: dict[str, Any] = {}
        for raw, entry in value.items():
            name = raw.replace("-", "_")
            if name not in known:
                raise unknown(f"key in {where}", raw, known, "`bench run --help` lists the flags of the same names")
            given[name] = _typed(name, entry, str(known[name].type), where)
        return cls(**given)


def read_config(file: str) -> dict[str, Any]:
    """A .toml or .json file of settings, or the run.json of a run, whose configuration is taken."""
    path = Path(file)
    try:
        text = path.read_text()
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise BenchError(f"the configuration '{file}' could not be read: {problem}; name a .toml or .json file") from (
            problem
        )
    except ValueError as problem:
        raise BenchError(f"'{file}' is not {'TOML' if path.suffix == '.toml' else 'JSON'}: {problem}") from problem
    if not isinstance(value, dict):
        raise BenchError(f"'{file}' holds a {type(value).__name__}; settings by name would do")
    config = value.get("config") if "schema" in value else value
    if not isinstance(config, dict):
        raise BenchError(f"'{file}' holds no settings; a run.json of this suite keeps them under 'config'")
    return dict(config)


def effective(file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """A new run's settings: flags beat a file, and `quick` sets what stands neither beside it nor in a flag."""
    if flags.get("quick"):
        return {**file, **QUICK, **flags}
    quick = QUICK if file.get("quick") else {}
    return {**quick, **file, **flags}


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
        return float(text)
    except ValueError:
        return text


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        flag = name.replace("_", "-")
        raise BenchError(f"{name} is {value!r}; give a whole number of {least} or more, as in --{flag} {max(least, 8)}")


def _taken(name: str, kind: str) -> str:
    if name == "tune":
        return "lists by name, as in guidance = [1, 2]"
    several = kind.startswith("tuple")
    words = {"int": "whole numbers" if several else "a whole number", "float": "a number", "bool": "true or false"}
    return next((word for start, word in words.items() if start in kind), "a list of names" if several else "a name")


def _typed(name: str, entry: Any, kind: str, where: str) -> Any:
    wrong = BenchError(f"{where} gives {name} as {entry!r}, and it takes {_taken(name, kind)}; see `bench run --help`")
    if name == "tune":
        if not isinstance(entry, dict) or not all(isinstance(values, list) for values in entry.values()):
            raise wrong
        return {axis.replace("-", "_"): tuple(values) for axis, values in entry.items()}
    if kind.startswith("tuple"):
        entries = [entry] if isinstance(entry, str | int) else entry
        inner = int if "int" in kind else str
        if not isinstance(entries, list | tuple) or not all(
            isinstance(one, inner) and not isinstance(one, bool) for one in entries
        ):
            raise wrong
        return tuple(entries)
    if entry is None and "None" in kind:
        return None
    if kind.startswith("bool"):
        allowed: tuple[type, ...] = (bool,)
    elif kind.startswith("int"):
        allowed = (int,)
    elif kind.startswith("float"):
        allowed = (int, float)
    else:
        allowed = (str, int, float) if name == "guidance" else (str,)
    if not isinstance(entry, allowed) or (isinstance(entry, bool) and bool not in allowed):
        raise wrong
    if name == "guidance":
        return str(entry)
    return float(cast(float, entry)) if kind.startswith("float") else entry
