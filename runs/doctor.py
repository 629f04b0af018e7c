"""The doctor: does this machine have what `bench run` needs?

Knows what to look at. Refuses to mend anything, and to fall over what it finds: a part that raises is a finding like
any other. Nothing heavy is imported before it is looked at.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from orderbench.orders.errors import said

KNOWN_BITS = 1e-5  # how far a measured tax may be from the known one, in bits per token: fp32
LEAST_BYTES = 200 << 20  # a default run keeps a few MB; full disks come from other programs


@dataclass(frozen=True)
class Thing:
    """One thing that was looked at. says: what is there; do: what to do about it; needed: by a plain `bench run`."""

    what: str
    state: Literal["works", "missing", "broken"]
    says: str
    do: str = ""
    needed: bool = True

    def __str__(self) -> str:
        return f"{self.state:8} {self.what:26} {self.says}{'; ' if self.do else ''}{self.do}"


def examine(device: str = "auto") -> list[Thing]:
    """All that a plain `bench run --device DEVICE` needs, and what is good to have.

    Raises nothing: a part that breaks is a `Thing` that says so.
    """
    looks: dict[str, Callable[[], Iterable[Thing]]] = {
        "python": _look_at_python,
        "torch": _look_at_torch,
        "device": lambda: _look_at_devices(device),
        "torch-fidelity": _look_at_fidelity,
        "known laws": _look_at_known_laws,
        "shipped weights": _look_at_weights,
        "Fashion-MNIST": _look_at_data,
        "order plugins": _look_at_plugins,
        "this folder": _look_at_folder,
    }
    things: list[Thing] = []
    for what, look in looks.items():
        try:
            things += look()
        except Exception as problem:  # whatever is wrong with it is what the doctor is asked for
            things.append(Thing(what, "broken", said(problem), "installing orderbench anew may mend it"))
    return things


def _look_at_python() -> Iterator[Thing]:
    yield Thing("python", "works", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _look_at_torch() -> Iterator[Thing]:
    import torch

    torch.ones(2).sum()
    yield Thing("torch", "works", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _look_at_devices(asked: str) -> Iterator[Thing]:
    import torch

    for name in dict.fromkeys(["cpu", "cuda", *([] if asked == "auto" else [asked])]):
        needed = name == (asked if asked != "auto" else "cpu")
        what = f"device {name}"
        if name.startswith("cuda") and not torch.cuda.is_available():
            do = "name another, as in --device cpu" if needed else "a GPU is not needed"
            yield Thing(what, "missing", "torch sees no GPU", do, needed)
            continue
        try:
            numbers = torch.arange(64.0).view(8, 8)
            right = torch.equal((numbers.to(name) @ numbers.to(name)).cpu(), numbers @ numbers)
        except (RuntimeError, AssertionError) as problem:  # torch's two ways to say: not here
            yield Thing(what, "broken", said(problem), "name another, as in --device cpu", needed)
            continue
        shown = torch.cuda.get_device_name(name) if name.startswith("cuda") else "computes"
        if right:
            yield Thing(what, "works", shown, needed=needed)
        else:
            yield Thing(what, "broken", f"{shown}, a matrix product came out wrong", "name another device", needed)


def _look_at_fidelity() -> Iterator[Thing]:
    from orderbench.runs.fidelity import fidelity_status

    status: dict[str, Any] = fidelity_status()
    if status["works"]:
        yield Thing("torch-fidelity", "works", f"{status['version']}, {status['how']}")
    else:
        state: Literal["broken", "missing"] = "missing" if status["version"] is None else "broken"
        yield Thing(
            "torch-fidelity", state, status["how"], "`pip install torch-fidelity` next to the torch that is here"
        )


def _look_at_known_laws() -> Iterator[Thing]:
    """Lattices so small that the tax of a plan is known: what likelihood says must be that."""
    from orderbench.models.analytic import markov_field, measured_tax, parity, permutation
    from orderbench.orders import Grid, make_plan

    laws = (markov_field(), permutation(Grid(2, 2)), parity())
    plans = [(law, make_plan("halton@even:2", law.grid)) for law in laws]
    worst = max(abs(measured_tax(law, plan) - law.tax(plan)) for law, plan in plans)
    if worst < KNOWN_BITS:
        says = f"the tax of {', '.join(law.name for law in laws)} is measured right"
        yield Thing("known laws", "works", says)
    else:
        says = f"a tax that is known is measured wrong, by {worst:.2g} bits a token"
        yield Thing("known laws", "broken", says, "install another version of torch, and report it")


def _look_at_weights() -> Iterator[Thing]:
    from orderbench.models.shipped import load_shipped, load_shipped_arrays, shipped_names
    from orderbench.runs.spaces import FEATURES, REFERENCE
    from orderbench.runs.spec import SHARED_FILE
    from orderbench.runs.subject import HELD_OUT, TOKENIZER

    needed = (SHARED_FILE, TOKENIZER, FEATURES)
    loads: dict[str, Callable[[], Any]] = {}
    for name in (*needed, *(other for other in shipped_names() if other not in needed)):
        loads[name] = partial(load_shipped, name)
    if set(needed) <= set(shipped_names()):
        loads[HELD_OUT] = partial(load_shipped_arrays, HELD_OUT, "held-out")
        loads[REFERENCE] = partial(load_shipped_arrays, REFERENCE, "reference")
    for name, load in loads.items():
        is_needed = name in (*needed, HELD_OUT, REFERENCE)
        if name in needed and name not in shipped_names():
            yield Thing(f"weights {name}", "missing", "not in this package", "install one that carries its weights")
            continue
        try:
            found = load()
        except Exception as problem:
            yield Thing(f"weights {name}", "broken", said(problem), "install orderbench anew", is_needed)
            continue
        if found.card:
            yield Thing(f"weights {name}", "works", f"sha256 {found.sha256[:16]} as on its card", needed=is_needed)
        else:
            says = "it has no card that says what it must hold"
            yield Thing(f"weights {name}", "broken", says, "install orderbench anew", is_needed)


def _look_at_data() -> Iterator[Thing]:
    from orderbench.models.data import DEBIAN
    from orderbench.models.download import SHA256, download_folder

    places = {"Debian's package": DEBIAN, "fetched, as in --data download": download_folder("download")}
    there = [how for how, place in places.items() if place and all((place / name).is_file() for name in SHA256)]
    if there:
        yield Thing("Fashion-MNIST", "works", there[0], needed=False)
    else:
        do = "only training asks for it: `apt-get install dataset-fashion-mnist`, or --data download"
        yield Thing("Fashion-MNIST", "missing", "not on this machine", do, needed=False)


def _look_at_plugins() -> Iterator[Thing]:
    from orderbench.orders.order import broken_orders, order_names

    names, broken = order_names(), broken_orders()
    yield Thing("orders", "works", f"{len(names)}, those of plugins among them", needed=False)
    for name, why in broken.items():
        do = "mend or uninstall the package that brings it"
        yield Thing(f"order plugin {name}", "broken", " ".join(why.split()), do, needed=False)


def _look_at_folder() -> Iterator[Thing]:
    free = shutil.disk_usage(".").free
    try:
        with tempfile.TemporaryFile(dir=os.curdir) as file:
            file.write(b"x")
            file.flush()
    except OSError as problem:
        says = f"nothing can be written here: {problem.strerror or problem}"
        yield Thing("this folder", "broken", says, "go to another folder, or name one, as in bench run --out FOLDER")
        return
    if free < LEAST_BYTES:
        says = f"{free / 1e6:.0f} MB are free"
        yield Thing("this folder", "broken", says, f"make room: a run may want {LEAST_BYTES >> 20} MB")
    else:
        yield Thing("this folder", "works", f"can be written, {free / 1e9:.1f} GB free")
