"""The record that tests of reports read, kept as it was made once, and variations of it."""

import io
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
from rich.console import Console

from orderbench.orders.documents import misfit, required
from orderbench.runs.record import Run
from orderbench.runs.schema import RunAbout

RECORD = Path(__file__).parent / "records" / "schema-1"
ARMS = ["raster", "raster@even:4", "radial", "radial+nested", "hilbert@cosine:4", "halton@cosine:4"]


def blank(shape: Any) -> Any:
    """A least value of a type that documents are held against."""
    if is_typeddict(shape):
        hints = get_type_hints(shape, include_extras=True)
        return {name: blank(hints[name]) for name in required(shape)}
    origin, inner = get_origin(shape), get_args(shape)
    if origin is Annotated:
        tried = (blank(inner[0]), 1, 1.0, "x", [blank(get_args(inner[0])[0])] if get_args(inner[0]) else None)
        return next(value for value in tried if not misfit(value, shape))
    if origin in (Union, types.UnionType):
        return None
    return (origin or shape)()


def only(run: Run, *kinds: str, arms: tuple[str, ...] = ()) -> Run:
    """A run that measured less."""
    trials = {
        name: t for name, t in run.trials.items()
        if t["kind"] in kinds and (not arms or t["arm"] in arms or t["kind"] in ("floor", "latency"))
    }  # fmt: skip
    about: RunAbout = {**run.about, "trials": list(trials)}
    if arms:
        about["arms"] = [arm for arm in about["arms"] if arm["name"] in arms]
    return replace(run, about=about, trials=trials)


def changed(run: Run, folder: str, about: Callable[[dict[str, Any]], None] = lambda _: None,
            trial: Callable[[dict[str, Any]], None] = lambda _: None) -> Run:  # fmt: skip
    """Another run, in another folder: the same records but for what is changed."""
    documents = json.loads(json.dumps([run.about, run.trials]))
    about(documents[0])
    for one in documents[1].values():
        trial(one)

    class Elsewhere(Run):
        def arrays(self, trial: str, what: str) -> dict[str, np.ndarray]:
            return run.arrays(trial, what)

    return Elsewhere(Path(folder), documents[0], documents[1])


class Text(HTMLParser):
    """What a reader sees, tags aside; and every address that something is loaded from."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.skipped = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipped += tag in ("script", "style")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.skipped -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.words.append(data)


def busy_machine(trial: dict[str, Any]) -> None:
    if trial["kind"] == "latency":
        trial["clock_after"] = {"load_average": [9.5, 9, 9]}


def own(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its own model."""
    found: dict[str, Any] = next(iter(about["models"].values()))
    return found


def model(about: dict[str, Any]) -> None:
    own(about)["sha256"] = "0" * 64


def space(about: dict[str, Any]) -> None:
    about["spaces"][0]["space"] = "inception-0000"


def plan(about: dict[str, Any]) -> None:
    about["arms"][2]["plan_digest"] = "f" * 64


def setting(about: dict[str, Any]) -> None:
    own(about)["setting"]["guidance"] = "linear:scale=3"


def fewer_samples(trial: dict[str, Any]) -> None:
    if trial["kind"] == "quality":
        trial["n"] = 24


def hardware(trial: dict[str, Any]) -> None:
    if trial["kind"] == "latency":
        trial["device"]["gpu"] = {"name": "NVIDIA H100"}


def fewer_groups(trial: dict[str, Any]) -> None:
    for result in trial.get("quality", []):
        for metric in ("fd", "kd"):
            result[metric]["left_out"] = result[metric]["left_out"][:-1]


def several(run: Run, folder: str = "several") -> Run:
    """The same run, in which halton and hilbert are of a second model, whose native arm decodes groups; one more arm
    of it was refused."""
    names = {name: f"{name}~par" for name in ("hilbert@cosine:4", "halton@cosine:4")}

    def about(about: dict[str, Any]) -> None:
        about["models"]["par"] = {**own(about), "name": "par.safetensors", "sha256": "1" * 64, "ratio": False,
                                  "native": "halton@cosine:4", "baseline": names["halton@cosine:4"]}  # fmt: skip
        about["refused"] = {"raster~par": "par does not serve this plan: it decodes groups"}
        for arm in about["arms"]:
            if arm["name"] in names:
                arm.update(name=names[arm["name"]], model="par")

    def trial(trial: dict[str, Any]) -> None:
        trial["arm"] = names.get(trial["arm"], trial["arm"])
        if (trial["kind"], trial["arm"]) == ("floor", "noise"):
            trial["arm"] = "noise~par"
        for sample in [sample for one in trial.get("rounds", []) for sample in one]:
            sample["name"] = names.get(sample["name"], sample["name"])
        for key in ("counters", "counters_exact", "flops_per_image", "memory", "step_s"):
            if trial["kind"] == "latency" and key in trial:
                trial[key] = {names.get(name, name): value for name, value in trial[key].items()}

    return changed(run, folder, about, trial)


def without_baseline(run: Run) -> Run:
    """The same run as `--no-baseline` makes it."""

    def trial(trial: dict[str, Any]) -> None:
        if trial["kind"] == "latency":
            trial["rounds"] = [[s for s in one if s["name"] not in ("A/A", "uncached")] for one in trial["rounds"]]

    return changed(run, "alone", lambda about: own(about).update(baseline=None, ratio=False), trial)


def printed(shown: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
