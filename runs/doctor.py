"""The doctor: does this machine have what `bench run` needs, and does a stranger's model keep the protocol?

Knows what to look at, and what a broken promise means for whoever made it. Refuses to mend anything, and to fall over
what it finds: a part that raises is a finding like any other. Nothing heavy is imported before it is looked at.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from orderbench.orders import BenchError, Grid, Plan, make_plan
from orderbench.runs.factory import NEEDS, said

if TYPE_CHECKING:
    from torch import Tensor

    from orderbench.models.decode import AnyOrderModel

TOLERANCE = 1e-4  # of the largest logit, or of 1 where logits are smaller
LEAST_BYTES = 200 << 20  # a default run keeps a few MB; full disks come from other programs


# The machine


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
            "torch-fidelity", state, status["how"], "`pip install torch-fidelity` beside the torch that is here"
        )


def _look_at_weights() -> Iterator[Thing]:
    from orderbench.models.shipped import load_shipped, load_shipped_arrays, shipped_names
    from orderbench.runs.spaces import FEATURES, REFERENCE
    from orderbench.runs.subject import HELD_OUT, MODEL, TOKENIZER

    needed = (MODEL, TOKENIZER, FEATURES)
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
            says = "no card beside it says what it must hold"
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
    from orderbench.orders.registry import broken_entry_points, order_names

    names, broken = order_names(), broken_entry_points()
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


# A model


@dataclass(frozen=True)
class Verdict:
    """What one check found. A note is worth knowing and breaks nothing; 'skipped': an earlier failure stands before."""

    check: str
    verdict: Literal["pass", "fail", "note", "skipped"]
    says: str

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.check:24} {self.says}"


class Broken(Exception):
    """A promise that is not kept: what was seen, and what it means."""


class _Probe:
    """A model with labels, codes and cells to try it on: three samples, each with its own walk, cut into three groups.

    One cache at a time, since decoding asks for no more.
    """

    def __init__(self, model: AnyOrderModel, device: str) -> None:
        import numpy as np
        import torch

        from orderbench.models.likelihood import walk

        self.model, self.device = model, device
        self.L, self.V, self.C = model.lattice.n_cells, model.n_codes, model.n_classes
        if self.L < 4:
            raise BenchError(
                f"a {model.lattice} grid is too small to tell models apart; the checks need 4 cells or more, as in "
                f"Grid(2, 2)"
            )
        rng = np.random.default_rng(0)
        self.labels_B = torch.arange(3, device=device) % self.C
        self.codes_BL = torch.from_numpy(rng.integers(0, self.V, (3, self.L))).to(device)
        cells_BL = walk(make_plan("random@one", model.lattice), range(3), device)
        few = max(1, self.L // 4)
        sizes = [few, max(2, few)]
        self.a, self.b, self.c = torch.split(cells_BL, [*sizes, self.L - sum(sizes)], dim=1)

    def open(self, labels_B: Tensor | None = None) -> Any:
        return self.model.start(self.labels_B if labels_B is None else labels_B, 1 + self.L)

    def feed(self, cache: Any, *groups: Tensor, codes_BL: Tensor | None = None) -> Any:
        codes = self.codes_BL if codes_BL is None else codes_BL
        for cells_BG in groups:
            self.model.step(cache, codes.gather(1, cells_BG), cells_BG)
        return cache

    def ask(self, cache: Any, cells_BQ: Tensor) -> Tensor:
        return self.model.logits(cache, cells_BQ).clone()

    def after(self, *groups: Tensor, ask: Tensor | None = None, codes_BL: Tensor | None = None) -> Tensor:
        """Logits of some cells (of c), from a fresh cache that was fed these groups."""
        return self.ask(self.feed(self.open(), *groups, codes_BL=codes_BL), self.c if ask is None else ask)

    def other_codes(self, cells_BG: Tensor) -> Tensor:
        """The codes, with others at these cells."""
        return self.codes_BL.scatter(1, cells_BG, (self.codes_BL.gather(1, cells_BG) + 1) % self.V)


def _far(x: Tensor, y: Tensor) -> float:
    """The largest difference, in units of the largest logit or of 1."""
    return float((x - y).abs().max() / x.abs().max().clamp(min=1))


def _same(x: Tensor, y: Tensor, broken: str) -> str:
    far = _far(x, y)
    if not far <= TOLERANCE:
        raise Broken(f"{broken} (logits differ by {far:.2g} of the largest; up to {TOLERANCE:g} would do)")
    return f"largest difference {far:.1g}"


def _differs(x: Tensor, y: Tensor, broken: str) -> None:
    if not _far(x, y) > 1e-6:
        raise Broken(broken)


def _check_protocol(model: Any) -> str:
    missing = [need for need in NEEDS if not hasattr(model, need)]
    if missing:
        raise Broken(
            f"a {type(model).__name__} has no {', '.join(missing)}; orderbench.models.decode.AnyOrderModel says what "
            f"each must do"
        )
    wrong = [f"{name} cannot be called" for name in NEEDS[3:] if not callable(getattr(model, name))]
    if not isinstance(model.lattice, Grid):
        wrong.append(f"lattice is a {type(model.lattice).__name__}, and must be an orderbench.orders.Grid")
    for name, least in (("n_codes", 2), ("n_classes", 1)):
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            wrong.append(f"{name} is {value!r}, and must be a whole number of {least} or more")
    if wrong:
        raise Broken("; ".join(wrong))
    return f"{model.lattice} grid, {model.n_codes} codes, {model.n_classes} classes"


def _check_logits(probe: _Probe) -> str:
    import torch

    for groups, when in (((), "before any code"), ((probe.a, probe.b), "after two groups")):
        cache = probe.feed(probe.open(), *groups)
        logits = probe.model.logits(cache, probe.c)
        if not isinstance(logits, torch.Tensor):
            raise Broken(f"logits() gives a {type(logits).__name__} {when}; a tensor would do")
        wanted = (3, probe.c.shape[1], probe.V)
        if tuple(logits.shape) != wanted:
            raise Broken(f"logits() gives {tuple(logits.shape)} {when}; (B, Q, V) = {wanted} would do")
        if logits.dtype != torch.float32:
            raise Broken(f"logits() gives {logits.dtype} {when}; end it with .float(): sampling sums over the codes")
        if logits.device.type != torch.device(probe.device).type:
            raise Broken(f"logits are on {logits.device}, and labels and codes on {probe.device}; name its --device")
        if not logits.isfinite().all():
            raise Broken(f"logits hold NaN or infinity {when}; mask by large finite numbers, or compute them in fp32")
    return f"(B, Q, V) = {wanted}, fp32, finite"


def _check_apart(probe: _Probe) -> str:
    together = probe.after(probe.a, probe.b)
    backwards = probe.after(probe.a, probe.b, ask=probe.c.flip(1)).flip(1)
    broken = "cells asked together get other logits than cells asked apart: queries see each other; mask them"
    said = _same(together, backwards, broken)
    for place in sorted({0, probe.c.shape[1] // 2, probe.c.shape[1] - 1}):
        alone = probe.after(probe.a, probe.b, ask=probe.c[:, place : place + 1])
        said = _same(together[:, place : place + 1], alone, broken)
    return said


def _check_trace(probe: _Probe) -> str:
    broken = "asking changes what is asked next: logits() must leave the cache as it is"
    cache = probe.feed(probe.open(), probe.a)
    first = probe.ask(cache, probe.b)
    probe.ask(cache, probe.c)
    _same(first, probe.ask(cache, probe.b), broken)
    asked = probe.ask(probe.feed(cache, probe.b), probe.c)
    return _same(asked, probe.after(probe.a, probe.b), broken)


def _check_ahead(probe: _Probe) -> str:
    later = probe.other_codes(probe.b)
    seen = []
    for codes_BL in (probe.codes_BL, later, probe.codes_BL):
        cache = probe.open()
        first = probe.ask(cache, probe.a)
        seen.append((first, probe.ask(probe.feed(cache, probe.a, codes_BL=codes_BL), probe.b)))
        probe.ask(probe.feed(cache, probe.b, codes_BL=codes_BL), probe.c)
    broken = "a code moved logits of its own step or an earlier one: something outlives the cache it belongs to"
    return max(_same(x, y, broken) for others in seen[1:] for x, y in zip(seen[0], others, strict=True))


def _check_codes(probe: _Probe) -> str:
    logits = probe.after(probe.a, probe.b)
    for name, group in (("first", probe.a), ("last", probe.b)):
        moved = probe.after(probe.a, probe.b, codes_BL=probe.other_codes(group))
        _differs(logits, moved, f"other codes in the {name} group fed move no later logit: the model does not see them")
    return "other codes, other logits, in the first group fed and in the last"


def _check_cells(probe: _Probe) -> str:
    import torch

    means = "the model knows one order alone, and cannot be asked for others"
    asked = probe.after(probe.a, ask=torch.cat([probe.b, probe.c], dim=1))
    _differs(asked, asked.roll(1, dims=1), f"all cells asked get the same logits: {means}")
    logits = probe.after(probe.a, probe.b)
    cache = probe.feed(probe.open(), probe.a)
    probe.model.step(cache, probe.codes_BL.gather(1, probe.b), probe.b.roll(1, dims=1))
    moved = probe.ask(cache, probe.c)
    _differs(logits, moved, f"the same codes fed at other cells give the same logits: {means}")
    return "logits belong to the cells asked, codes to the cells fed"


def _check_group(probe: _Probe) -> str:
    broken = "the order inside a group that is fed at once matters: its codes must see each other both ways"
    return _same(probe.after(probe.a, probe.b), probe.after(probe.a, probe.b.flip(1)), broken)


def _check_replay(probe: _Probe, text: str) -> str:
    import torch

    from orderbench.models.likelihood import walk

    plan: Plan = make_plan(text, probe.model.lattice)
    groups = torch.split(walk(plan, range(3), probe.device), list(plan.sizes), dim=1)
    cache, cached = probe.open(), []
    for group in groups:
        cached.append(probe.ask(cache, group))
        if group is not groups[-1]:
            probe.feed(cache, group)
    broken = "step by step, logits are others than those of a fresh cache that was fed the same groups"
    said = [
        _same(logits, probe.after(*groups[:index], ask=groups[index]), f"{broken}, at step {index}")
        for index, logits in enumerate(cached)
    ]
    return f"{plan.n_steps} steps, {said[-1]}"


def _check_rewind(probe: _Probe) -> str:
    broken = "after rewind() the model remembers what it was told to forget"
    cache = probe.feed(probe.open(), probe.a, probe.b)
    probe.model.rewind(cache, 1 + probe.a.shape[1])
    rewound = probe.ask(cache, probe.c)
    again = probe.ask(probe.feed(cache, probe.b, codes_BL=probe.other_codes(probe.b)), probe.c)
    probe.model.rewind(cache, 1)
    empty = probe.ask(cache, probe.c)
    _same(rewound, probe.after(probe.a), broken)
    _same(again, probe.after(probe.a, probe.b, codes_BL=probe.other_codes(probe.b)), f"{broken}, once it is fed again")
    return _same(empty, probe.after(), f"{broken}, back to the class alone")


def _check_refill(probe: _Probe) -> str:
    import torch

    known = torch.cat([probe.a, probe.b], dim=1)

    def refilled(cache: Any, cells_BM: Tensor) -> Tensor:
        probe.model.refill(cache, probe.labels_B, probe.codes_BL.gather(1, cells_BM), cells_BM)
        return probe.ask(cache, probe.c)

    fresh = refilled(probe.open(), known)
    twice = refilled(probe.open(), known)
    other_label = refilled(probe.open((probe.labels_B + 1) % probe.C), known)
    other_past = refilled(probe.feed(probe.open(), probe.c, codes_BL=probe.other_codes(probe.c)), known)
    backwards = refilled(probe.open(), known.flip(1))
    _same(fresh, twice, "refill() of the same codes gives other logits each time")
    _same(fresh, other_past, "refill() remembers codes that were fed before it")
    _same(fresh, other_label, "refill() remembers the class that start() was given")
    return _same(fresh, backwards, "the order of refilled codes matters: they are one group, each seeing all")


def _check_mask(probe: _Probe) -> str:
    import torch

    from orderbench.models.likelihood import as_bias

    together = torch.cat([probe.a, probe.b], dim=1)
    n, few = together.shape[1], probe.a.shape[1]
    seen = torch.ones(n, 1 + n, dtype=torch.bool)
    seen[:few, 1 + few :] = False
    cache = probe.open()
    bias = as_bias(seen, torch.float32).to(probe.device)
    probe.model.step(cache, probe.codes_BL.gather(1, together), together, bias)
    broken = "step() does not serve bias_GS, which decoding without a cache and causal groups need"
    return _same(probe.ask(cache, probe.c), probe.after(probe.a, probe.b), broken)


def _check_label(probe: _Probe) -> str:
    if probe.C == 1:
        return "one class"
    other = probe.ask(probe.feed(probe.open((probe.labels_B + 1) % probe.C), probe.a), probe.c)
    _differs(probe.after(probe.a), other, "the class moves no logit: the model ignores it, so images of all are alike")
    return "another class, other logits"


def _check_null(probe: _Probe) -> str:
    import torch

    null = torch.full_like(probe.labels_B, probe.C)
    try:
        logits = probe.ask(probe.feed(probe.open(null), probe.a), probe.c)
    except Exception as problem:
        raise Broken(f"label {probe.C}, no class, raised {said(problem)}; guidance needs it") from problem
    if not logits.isfinite().all():
        raise Broken(f"label {probe.C}, no class, gives logits that are not finite; guidance needs it")
    return f"label {probe.C} stands for no class"


def _check_repeat(probe: _Probe) -> str:
    import torch

    from orderbench.models.decode import decode

    plan = make_plan("radial", probe.model.lattice)
    first, second = (decode(probe.model, plan, range(2), device=probe.device, tile=2).tokens_NL for _ in range(2))
    if not torch.equal(first, second):
        n = int((first != second).sum())
        raise Broken(f"{n} of {first.numel()} codes differ between two equal runs; switch dropout off with .eval()")
    return f"the same {first.numel()} codes twice"


def _check_batch(probe: _Probe) -> str:
    whole, said = probe.after(probe.a, probe.b), ""
    for i in range(3):
        one = slice(i, i + 1)
        cache = probe.open(probe.labels_B[one])
        for cells_BG in (probe.a[one], probe.b[one]):
            probe.model.step(cache, probe.codes_BL[one].gather(1, cells_BG), cells_BG)
        said = _same(
            whole[one], probe.ask(cache, probe.c[one]), "a sample's logits depend on the samples decoded beside it"
        )
    return said


@dataclass(frozen=True)
class _Check:
    name: str
    promise: str
    run: Callable[[_Probe], str]
    breaks: bool = True  # or is only worth a note


def _checks(grid: Grid) -> list[_Check]:
    steps = min(8, grid.n_cells)
    plans = (f"raster@even:{steps}", "radial", f"random@cosine:{steps}")
    replays = [_Check(f"cache, {plan}", "cached = fed anew", partial(_check_replay, text=plan)) for plan in plans]
    return [
        _Check("cells apart", "asked together = asked apart", _check_apart),
        _Check("asking", "leaves no trace", _check_trace),
        _Check("looking ahead", "no code moves a logit of its own step or an earlier one", _check_ahead),
        _Check("codes", "are seen", _check_codes),
        _Check("cells", "any may be asked and fed", _check_cells),
        _Check("groups", "their codes see each other both ways", _check_group),
        *replays,
        _Check("rewind", "forgets", _check_rewind),
        _Check("refill", "forgets, and feeds one group", _check_refill),
        _Check("repeat", "decoding is deterministic", _check_repeat),
        _Check("batch", "a sample alone = in a batch", _check_batch),
        _Check("class", "is seen", _check_label, breaks=False),
        _Check("no class", "is served", _check_null, breaks=False),
        _Check("masks", "several groups in one feeding", _check_mask, breaks=False),
    ]


def check_model(
    model: object,
    device: str,
    each: Callable[[Sequence[str]], Iterable[str]] = lambda names: names,
) -> list[Verdict]:
    """The protocol of `AnyOrderModel`, and parity of its ways to the same logits, on random codes.

    device: where labels and codes are put; the model must be there already. each: walks the names of the checks, for
    whoever shows progress. What the model prints goes to stderr. Later checks are skipped where an earlier failure says
    all. Raises BenchError for a grid of fewer than four cells.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as `bench run` does
    with contextlib.redirect_stdout(sys.stderr), torch.inference_mode():
        verdicts = [_verdict(_Check("protocol", "all there", lambda _: _check_protocol(model)), None)]
        if verdicts[0].verdict == "fail":
            return verdicts
        probe = _Probe(cast("AnyOrderModel", model), device)
        verdicts.append(_verdict(_Check("logits", "as they must be", _check_logits), probe))
        checks = {check.name: check for check in _checks(probe.model.lattice)}
        for name in each(list(checks)):
            if verdicts[1].verdict == "fail":
                verdicts.append(Verdict(name, "skipped", "it compares logits; mend those first"))
            else:
                verdicts.append(_verdict(checks[name], probe))
    return verdicts


def _verdict(check: _Check, probe: Any) -> Verdict:
    try:
        found = check.run(probe)
    except Broken as broken:
        return Verdict(check.name, "fail" if check.breaks else "note", str(broken))
    except Exception as problem:  # a stranger's model may do anything
        return Verdict(check.name, "fail" if check.breaks else "note", f"it raised {said(problem)}{_line_of(problem)}")
    return Verdict(check.name, "pass", f"{check.promise} ({found})")


def _line_of(problem: BaseException) -> str:
    """Where in the model: the innermost line that is neither ours nor torch's."""
    import torch

    package = Path(__file__).parent.parent
    ours = (str(package / "runs"), str(package / "models"), str(package / "orders"), str(Path(torch.__file__).parent))
    lines = [line for line in traceback.extract_tb(problem.__traceback__) if not line.filename.startswith(ours)]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
