"""The contract of models and decoders, as checks that anyone can run: `bench doctor --model pkg.module:factory`.

Knows what a model promises by `orderbench.models.model`, and a decoder by its traits. Refuses to know any network in
particular; this project's own tests run the same checks over its own models and over every registered decoder.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from orderbench.models.adapter import MEMBERS, EightMembers, as_model, missing
from orderbench.models.answer import at
from orderbench.models.counting import count
from orderbench.models.decode import DECODERS, BoundDecoder, DecoderEntry, decode, decode_steps, parse_decoder
from orderbench.models.likelihood import plan_bits, step_bits
from orderbench.models.model import TRAITS, Model, serves
from orderbench.models.probe import SAMPLES, Broken, Probe, differs, same
from orderbench.orders import Grid, Plan, Pyramid
from orderbench.orders.errors import said

_REPLAYED = 8  # steps of a plan that are compared with a fresh cache: each is fed anew from the beginning


@dataclass(frozen=True)
class ModelVerdict:
    """What one check found. 'note': worth knowing, no failure. 'skipped': not tried, since an earlier check failed."""

    check: str
    verdict: Literal["pass", "fail", "note", "skipped"]
    says: str

    def __str__(self) -> str:
        return f"{self.verdict:8} {self.check:24} {self.says}"


# What a model promises


def _check_protocol(model: Model) -> str:
    old = isinstance(model, EightMembers)
    owner: Any = model.network if isinstance(model, EightMembers) else model
    calls = MEMBERS[3:] if old else ("refuses", "start", "step", "answer")
    wrong = [f"{name} cannot be called" for name in calls if not callable(getattr(owner, name))]
    if not isinstance(model.lattice, Grid | Pyramid):
        wrong.append(f"lattice is a {type(model.lattice).__name__}, and must be an orderbench.orders.Grid or Pyramid")
    sizes = model.code_sizes
    if not isinstance(sizes, tuple) or not sizes or not all(_whole(size, 2) for size in sizes):
        wrong.append(
            f"n_codes is {sizes[0]!r}, and must be a whole number of 2 or more" if old
            else f"code_sizes is {sizes!r}, and must be a tuple of whole numbers of 2 or more"
        )  # fmt: skip
    if not _whole(model.n_classes, 1):
        wrong.append(f"n_classes is {model.n_classes!r}, and must be a whole number of 1 or more")
    unknown = sorted(set(model.traits) - set(TRAITS))
    if unknown:
        wrong.append(f"traits hold {', '.join(unknown)}, and may hold {', '.join(TRAITS)}")
    if wrong:
        raise Broken("; ".join(wrong))
    codes = f"{sizes[0]} codes" if len(sizes) == 1 else f"{len(sizes)} codes a cell, of {', '.join(map(str, sizes))}"
    return f"{model.lattice} {_kind(model)}, {codes}, {model.n_classes} classes"


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _kind(model: Model) -> str:
    return "grid" if isinstance(model.lattice, Grid) else "pyramid"


def _check_answer(probe: Probe) -> str:
    K = len(probe.model.code_sizes)
    for groups, cells, when in (((), probe.fed[0], "before any code"), (probe.fed, probe.asked, "after some groups")):
        answer = probe.model.answer(probe.feed(probe.open(), *groups), cells)
        lacks = [name for name in ("guided", "draw", "log_prob", "likeliest", "law", "take", "finite")
                 if not callable(getattr(answer, name, None))]  # fmt: skip
        if lacks:
            raise Broken(f"answer() gives a {type(answer).__name__} without {', '.join(lacks)} {when}; "
                         f"orderbench.models.Categorical(logits_BQV) is one")  # fmt: skip
        logits = getattr(answer, "logits_BQV", None)
        if logits is not None:
            _check_logits(probe, logits, cells, when)
        likeliest = answer.likeliest()
        if tuple(likeliest.shape) != (SAMPLES, cells.shape[1], K):
            raise Broken(f"likeliest() gives {tuple(likeliest.shape)} {when}; (B, Q, K) = "
                         f"{(SAMPLES, cells.shape[1], K)} would do")  # fmt: skip
        if not bool(answer.finite()) or not probe.heard(answer, cells).isfinite().all():
            raise Broken(f"logits hold NaN or infinity {when}; mask by large finite numbers, or compute them in fp32")
    return f"(B, Q, K) = {(SAMPLES, probe.asked.shape[1], K)}, fp32, finite"


def _check_logits(probe: Probe, logits: Any, cells: Tensor, when: str) -> None:
    if not isinstance(logits, Tensor):
        raise Broken(f"logits() gives a {type(logits).__name__} {when}; a tensor would do")
    wanted = (SAMPLES, cells.shape[1], probe.model.code_sizes[0])
    if tuple(logits.shape) != wanted:
        raise Broken(f"logits() gives {tuple(logits.shape)} {when}; (B, Q, V) = {wanted} would do")
    if logits.dtype != torch.float32:
        raise Broken(f"logits() gives {logits.dtype} {when}; end it with .float(): sampling sums over the codes")
    if logits.device.type != torch.device(probe.device).type:
        raise Broken(f"logits are on {logits.device}, and labels and codes on {probe.device}; name its --device")
    if not logits.isfinite().all():
        raise Broken(f"logits hold NaN or infinity {when}; mask by large finite numbers, or compute them in fp32")


def _check_apart(probe: Probe) -> str:
    backwards = probe.after(*probe.fed, ask=probe.asked.flip(1)).flip(1)
    broken = (
        "cells asked together get other logits than cells asked apart: queries see each other; mask them, or say so by "
        "the trait 'joint'"
    )
    found = same(probe.usual, backwards, broken)
    for place in sorted({0, probe.asked.shape[1] // 2, probe.asked.shape[1] - 1}):
        alone = probe.after(*probe.fed, ask=probe.asked[:, place : place + 1])
        found = same(probe.usual[:, place : place + 1], alone, broken)
    return found


def _check_trace(probe: Probe) -> str:
    broken = "asking changes what is asked next: answer() must leave the cache as it is"
    cache = probe.feed(probe.open(), *probe.before)
    first = probe.ask(cache, probe.last)
    probe.ask(cache, probe.last)
    same(first, probe.ask(cache, probe.last), broken)
    return same(probe.ask(probe.feed(cache, probe.last), probe.asked), probe.usual, broken)


def _check_ahead(probe: Probe) -> str:
    later = probe.other_codes(probe.last)
    seen = []
    for codes_BLK in (probe.codes_BLK, later, probe.codes_BLK):
        cache = probe.feed(probe.open(), *probe.before[:-1], codes_BLK=codes_BLK)
        first = probe.ask(cache, probe.before[-1])
        seen.append((first, probe.ask(probe.feed(cache, probe.before[-1], codes_BLK=codes_BLK), probe.last)))
        probe.ask(probe.feed(cache, probe.last, codes_BLK=codes_BLK), probe.asked)
    broken = "a code moved logits of its own step or an earlier one: something outlives the cache it belongs to"
    return max(same(x, y, broken) for others in seen[1:] for x, y in zip(seen[0], others, strict=True))


def _check_codes(probe: Probe) -> str:
    for name, group in (("first", probe.fed[0]), ("last", probe.last)):
        moved = probe.after(*probe.fed, codes_BLK=probe.other_codes(group))
        differs(
            probe.usual, moved, f"other codes in the {name} group fed move no later logit: the model does not see them"
        )
    return "other codes, other logits, in the first group fed and in the last"


def _check_cells(probe: Probe) -> str:
    means = "the model knows one order alone, and cannot be asked for others"
    asked = probe.after(*probe.before, ask=torch.cat([probe.last, probe.asked], dim=1))
    differs(asked, asked.roll(1, dims=1), f"all cells asked get the same logits: {means}")
    cache = probe.feed(probe.open(), *probe.before)
    probe.model.step(cache, at(probe.codes_BLK, probe.last), probe.last.roll(1, dims=1))
    moved = probe.ask(cache, probe.asked)
    differs(probe.usual, moved, f"the same codes fed at other cells give the same logits: {means}")
    return "logits belong to the cells asked, codes to the cells fed"


def _check_group(probe: Probe) -> str:
    broken = "the order inside a group that is fed at once matters: its codes must see each other both ways"
    return same(probe.usual, probe.after(*probe.before, probe.last.flip(1)), broken)


def _check_behind(probe: Probe) -> str:
    few = max(1, probe.asked.shape[1] // 2)
    alone = probe.after(*probe.fed, ask=probe.asked[:, :few])
    return same(probe.usual[:, :few], alone, "cells asked behind others move their logits")


def _check_replay(probe: Probe, name: str) -> str:
    groups = probe.groups(probe.plans[name])
    cache, cached = probe.open(), []
    for index, group in enumerate(groups):
        cached.append(probe.ask(cache, group))
        if index + 1 < len(groups):
            probe.feed(cache, group)
    broken = "step by step, logits are others than those of a fresh cache that was fed the same groups"
    found = ""
    for index in dict.fromkeys(np.linspace(0, len(groups) - 1, _REPLAYED).astype(int).tolist()):
        found = same(cached[index], probe.after(*groups[:index], ask=groups[index]), f"{broken}, at step {index}")
    return f"{len(groups)} steps, {found}"


def _check_teacher(probe: Probe, name: str) -> str:
    plan = probe.plans[name]
    whole = plan_bits(probe.model, probe.codes_BLK, probe.labels_B, plan, samples=range(SAMPLES))
    steps = step_bits(probe.model, plan, probe.codes_BLK, probe.labels_B.tolist(), samples=range(SAMPLES))
    return same(whole, steps, "one feeding and one asking under masks give other logits than step by step")


def _check_rewind(probe: Probe) -> str:
    broken = "after rewind() the model remembers what it was told to forget"
    cache = probe.feed(probe.open(), *probe.fed)
    probe.model.rewind(cache, 1 + sum(group.shape[1] for group in probe.before))  # type: ignore[attr-defined]
    rewound = probe.ask(cache, probe.asked)
    again = probe.ask(probe.feed(cache, probe.last, codes_BLK=probe.other_codes(probe.last)), probe.asked)
    probe.model.rewind(cache, 1)  # type: ignore[attr-defined]
    empty = probe.ask(cache, probe.asked)
    same(rewound, probe.after(*probe.before), broken)
    same(again, probe.after(*probe.fed, codes_BLK=probe.other_codes(probe.last)), f"{broken}, once it is fed again")
    return same(empty, probe.after(), f"{broken}, back to the class alone")


def _check_refill(probe: Probe) -> str:
    known = torch.cat(probe.fed, dim=1)

    def refilled(cache: Any, cells_BM: Tensor) -> Tensor:
        codes_BMK = at(probe.codes_BLK, cells_BM)
        probe.model.refill(cache, probe.labels_B, codes_BMK, cells_BM)  # type: ignore[attr-defined]
        return probe.ask(cache, probe.asked)

    fresh = refilled(probe.open(), known)
    twice = refilled(probe.open(), known)
    other_label = refilled(probe.open((probe.labels_B + 1) % probe.C), known)
    other_past = refilled(probe.feed(probe.open(), probe.asked, codes_BLK=probe.other_codes(probe.asked)), known)
    backwards = refilled(probe.open(), known.flip(1))
    same(fresh, twice, "refill() of the same codes gives other logits each time")
    same(fresh, other_past, "refill() remembers codes that were fed before it")
    same(fresh, other_label, "refill() remembers the class that start() was given")
    return same(fresh, backwards, "the order of refilled codes matters: they are one group, each seeing all")


def _check_mask(probe: Probe) -> str:
    """For networks of the older form: the bias of step(), which causal groups and decoding without a cache need."""
    together = torch.cat(probe.fed, dim=1)
    n, few = together.shape[1], sum(group.shape[1] for group in probe.before)
    seen = torch.ones(1, n, 1 + n, dtype=torch.bool, device=probe.device)
    seen[:, :few, 1 + few :] = False
    cache = probe.open()
    probe.model.step(cache, at(probe.codes_BLK, together), together, seen=seen)
    broken = "step() does not apply bias_GS, which decoding without a cache and causal groups need"
    return same(probe.ask(cache, probe.asked), probe.usual, broken)


def _check_slots(probe: Probe) -> str:
    """Codes may be fed into slots in any order: a mask says which slots are seen, whatever their numbers."""
    few, size = sum(group.shape[1] for group in probe.before), probe.last.shape[1]
    cache = probe.open()
    places = torch.arange(1, 1 + few + size, device=probe.device).expand(SAMPLES, -1)
    late, early = places[:, :size], places[:, size:]
    start = 0
    for group in probe.before:
        own = early[:, start : start + group.shape[1]]
        start += group.shape[1]
        seen = torch.zeros(1, group.shape[1], 1 + few + size, dtype=torch.bool, device=probe.device)
        seen[..., 0] = True
        seen[..., 1 + size : 1 + size + start] = True
        probe.model.step(cache, at(probe.codes_BLK, group), group, seen=seen, slots_BG=own)
    seen = torch.ones(1, size, 1 + few + size, dtype=torch.bool, device=probe.device)
    probe.model.step(cache, at(probe.codes_BLK, probe.last), probe.last, seen=seen, slots_BG=late)
    shown = torch.ones(1, probe.asked.shape[1], 1 + few + size, dtype=torch.bool, device=probe.device)
    if serves(probe.model, "joint"):
        shown = torch.cat([shown, torch.ones_like(shown[..., :1]).expand(-1, -1, probe.asked.shape[1])], dim=2)
    broken = "codes fed into named slots give other logits than codes fed behind each other"
    return same(probe.ask(cache, probe.asked, seen=shown), probe.usual, broken)


def _check_keep(probe: Probe) -> str:
    """Samples leave in between: the ones that stay are answered as if nobody had left."""
    rows_B = torch.tensor([SAMPLES - 1, 1], device=probe.device)
    cache = probe.feed(probe.open(), *probe.before)
    probe.model.keep(cache, rows_B)  # type: ignore[attr-defined]
    last = probe.last[rows_B]
    probe.model.step(cache, at(probe.codes_BLK[rows_B], last), last)
    broken = "after keep() a sample's logits are those of another one, or depend on the samples that left"
    return same(probe.ask(cache, probe.asked[rows_B]), probe.usual[rows_B], broken)


def _check_joint(probe: Probe) -> str:
    Q, slots = probe.asked.shape[1], 1 + sum(group.shape[1] for group in probe.fed)
    cache = probe.feed(probe.open(), *probe.fed)
    seen = torch.ones(1, Q, slots + Q, dtype=torch.bool, device=probe.device)
    same(probe.ask(cache, probe.asked, seen=seen), probe.usual, "a mask that hides nothing gives other logits")
    if Q == 1:
        return "one cell a step"
    seen[:, :, slots:] = torch.eye(Q, dtype=torch.bool, device=probe.device)
    alone = torch.cat([probe.after(*probe.fed, ask=probe.asked[:, q : q + 1]) for q in range(Q)], dim=1)
    return same(
        probe.ask(cache, probe.asked, seen=seen), alone, "cells that a mask keeps apart see each other all the same"
    )


def _check_label(probe: Probe) -> str:
    if probe.C == 1:
        return "one class"
    other = probe.ask(probe.feed(probe.open((probe.labels_B + 1) % probe.C), *probe.fed), probe.asked)
    differs(probe.usual, other, "the class moves no logit: the model ignores it, so images of all are alike")
    return "another class, other logits"


def _check_null(probe: Probe) -> str:
    null = torch.full_like(probe.labels_B, probe.C)
    try:
        logits = probe.ask(probe.feed(probe.open(null), *probe.fed), probe.asked)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        raise Broken(f"label {probe.C}, no class, raised {said(problem)}; guidance needs it") from problem
    if not logits.isfinite().all():
        raise Broken(f"label {probe.C}, no class, gives logits that are not finite; guidance needs it")
    return f"label {probe.C} stands for no class"


def _check_batch(probe: Probe) -> str:
    found = ""
    for i in range(SAMPLES):
        one = slice(i, i + 1)
        cache = probe.open(probe.labels_B[one])
        for cells_BG in probe.fed:
            probe.model.step(cache, at(probe.codes_BLK[one], cells_BG[one]), cells_BG[one])
        found = same(
            probe.usual[one],
            probe.ask(cache, probe.asked[one]),
            "a sample's logits depend on the samples decoded beside it",
        )
    return found


# What a decoder promises


def _check_decoder(probe: Probe, name: str) -> str:
    """A registered decoder along the shortest of the model's plans, shared and drawn: see `check_decoder`."""
    by_length = sorted(probe.plans.items(), key=lambda item: item[1].n_steps)
    shortest = {plan.per_sample: (arm, plan) for arm, plan in reversed(by_length)}
    for _, plan in shortest.values():
        check_decoder(parse_decoder(name), probe.model, plan, device=probe.device)
    return ", ".join(arm for arm, _ in shortest.values())


def check_decoder(decoder: BoundDecoder, model: Model, plan: Plan, *, device: str = "cpu") -> None:
    """Check that a decoder keeps what every decoder promises, with a model, along a plan. Broken says what it breaks.

    Every cell is written once, unless the decoder rewrites. Samples get the same codes however they are split among
    calls, and again when they are decoded again. Another seed gives other codes. Unless the decoder varies, its
    counters equal those of a run that only counts. An exact decoder gives the codes of one cell at a time.
    """
    traits, samples = decoder.entry, range(4)
    decoded = partial(decode, model, plan, device=device, decoder=decoder)
    whole = decoded(samples, tile=4)
    if not traits.rewrites and int(whole.changed_NL.sum()):
        raise Broken(f"{decoder} rewrites codes and does not say so; register it with rewrites=True")
    written = torch.zeros(len(samples), plan.lattice.n_cells, dtype=torch.int64)
    for step in decode_steps(model, plan, samples, device=device, decoder=decoder):
        rows_B = torch.arange(len(written)) if step.rows_B is None else step.rows_B.cpu()
        own_BQ = (torch.ones_like(step.cells_BQ) if step.own_BQ is None else step.own_BQ.long()).cpu()
        written.index_add_(0, rows_B, torch.zeros_like(written[rows_B]).scatter_add_(1, step.cells_BQ.cpu(), own_BQ))
    if int(written.min()) < 1 or (not (traits.rewrites or traits.exact or traits.drafts) and int(written.max()) > 1):
        raise Broken(f"{decoder} writes cells {int(written.min())} to {int(written.max())} times; once would do")
    parts = [decoded(part, tile=4) for part in (range(1), range(1, 4))]
    if not torch.equal(torch.cat([part.codes_NLK for part in parts]), whole.codes_NLK):
        raise Broken(f"{decoder} gives other codes when samples are split among calls, or when it is run again; "
                     f"switch dropout off with .eval(), and draw with the tile's noise alone")  # fmt: skip
    if max(model.code_sizes) > 1 and torch.equal(decoded(samples, tile=4, seed=1).codes_NLK, whole.codes_NLK):
        raise Broken(f"{decoder} gives the same codes under another seed; draw with the tile's noise")
    if not traits.varies:
        counted = count(plan, decoder)
        if replace(whole.counters, cache_bytes=0) != counted:
            raise Broken(f"{decoder} counts {whole.counters}, and without a network {counted}; its work depends on "
                         f"what is drawn, so register it with varies=True")  # fmt: skip
    if traits.exact:
        singly = decode(model, plan.singly(), samples, device=device, tile=4)
        if not torch.equal(singly.codes_NLK, whole.codes_NLK):
            differ = int((singly.codes_NLK != whole.codes_NLK).any(-1).any(-1).sum())
            raise Broken(f"{decoder} is registered as exact, and {differ} of {len(samples)} images are not those of "
                         f"one cell at a time")  # fmt: skip


@dataclass(frozen=True)
class _Check:
    name: str
    promise: str
    run: Callable[[Probe], str]
    breaks: bool = True  # whether not keeping it is a failure, or only worth a note


def _checks(probe: Probe) -> list[_Check]:
    model = probe.model
    replays = [_Check(f"cache, {name}", "cached = fed anew", partial(_check_replay, name=name)) for name in probe.plans]
    checks = [
        _Check("asking", "leaves no trace", _check_trace),
        _Check("looking ahead", "no code moves a logit of its own step or an earlier one", _check_ahead),
        _Check("codes", "are seen", _check_codes),
        *replays,
        _Check("batch", "a sample alone = in a batch", _check_batch),
        _Check("class", "is seen", _check_label, breaks=False),
        _Check("no class", "is served", _check_null, breaks=False),
    ]
    if not serves(model, "joint"):
        checks.insert(0, _Check("cells apart", "asked together = asked apart", _check_apart))
    else:
        checks.append(_Check("cells together", "masks cover cells asked together", _check_joint))
    if probe.any_order:
        checks.append(_Check("cells", "any may be asked and fed", _check_cells))
        if serves(model, "causal"):
            checks.append(_Check("behind", "nothing sees what is asked behind it", _check_behind))
        else:
            checks.append(_Check("groups", "their codes see each other both ways", _check_group))
    if serves(model, "masks"):
        checks += [_Check(f"masks, {name}", "one feeding and one asking = step by step",
                          partial(_check_teacher, name=name)) for name in probe.plans]  # fmt: skip
    elif isinstance(model, EightMembers):
        checks.append(_Check("masks", "several groups in one feeding", _check_mask, breaks=False))
    if serves(model, "slots"):
        checks.append(_Check("slots", "named slots = slots in turn", _check_slots))
    if serves(model, "rewind"):
        checks += [_Check("rewind", "forgets", _check_rewind),
                   _Check("refill", "forgets, and feeds one group", _check_refill)]  # fmt: skip
    if serves(model, "keep"):
        checks.append(_Check("keep", "samples may leave", _check_keep))
    served: list[DecoderEntry] = [DECODERS.get(name) for name in DECODERS.names()]
    checks += [_Check(f"decoder {entry.name}", "keeps its traits", partial(_check_decoder, name=entry.name))
               for entry in served if all(serves(model, need) for need in entry.needs)
               and (probe.any_order or not entry.chooses)]  # fmt: skip
    return checks


def check_model(
    thing: object,
    device: str,
    each: Callable[[Sequence[str]], Iterable[str]] = lambda names: names,
) -> list[ModelVerdict]:
    """Check what `Model` promises, that different ways to one answer agree, and every decoder that the model serves.

    thing: a model, or a network of the older form. device: where labels and codes are put; the model must be there
    already. each: walks the names of the checks, for whoever shows progress. What the model prints goes to stderr. If
    answers are not as they must be, the checks that compare answers are skipped. A promise that a model with weights
    narrower than fp32 breaks is tried again with a copy in fp32: what holds there was rounding, and is said to be.
    Raises BenchError for fewer than four cells.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as `bench run` does
    with contextlib.redirect_stdout(sys.stderr), torch.inference_mode():
        if lacks := missing(thing):
            says = (
                f"a {type(thing).__name__} has no {', '.join(lacks)}; orderbench.models.model.Model says what each "
                f"must do"
            )
            return [ModelVerdict("protocol", "fail", says)]
        model = as_model(thing, "the model")
        first = _verdict(_Check("protocol", "all there", lambda _: _check_protocol(model)), None)
        if first.verdict == "fail":
            return [first]
        probe, wider = Probe(model, device), _fp32_copy(model)
        wide = None if wider is None else Probe(wider, device)
        verdicts = [first, _verdict(_Check("answer", "as it must be", _check_answer), probe)]
        checks = {check.name: check for check in _checks(probe)}
        for check in each(list(checks)):
            if verdicts[1].verdict == "fail":
                verdicts.append(ModelVerdict(check, "skipped", "it compares answers; mend those first"))
            else:
                verdicts.append(_verdict(checks[check], probe, wide))
    return verdicts


def _fp32_copy(model: Model) -> Model | None:
    """A copy in fp32 of a model with narrower weights, by which rounding is told from a fault; None of any other."""
    network: Any = model.network if isinstance(model, EightMembers) else model
    if not isinstance(network, torch.nn.Module):
        return None
    if not any(one.dtype in (torch.bfloat16, torch.float16) for one in network.parameters()):
        return None
    try:
        return as_model(copy.deepcopy(network).float(), "the model")
    except Exception:  # not every module can be copied
        return None


def _verdict(check: _Check, probe: Any, wide: Probe | None = None) -> ModelVerdict:
    """wide: the same model in fp32. What is broken in narrower numbers alone was rounding."""
    try:
        found = check.run(probe)
    except Broken as broken:
        if wide is not None and _verdict(check, wide).verdict == "pass":
            return ModelVerdict(check.name, "pass", f"{check.promise} (in fp32; in its own numbers {broken})")
        return ModelVerdict(check.name, "fail" if check.breaks else "note", str(broken))
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a user's model may do anything
        return ModelVerdict(
            check.name, "fail" if check.breaks else "note", f"it raised {said(problem)}{_line_of(problem)}"
        )
    return ModelVerdict(check.name, "pass", f"{check.promise} ({found})")


def _line_of(problem: BaseException) -> str:
    """Where it was raised: the innermost line that is neither ours nor torch's."""
    package = Path(__file__).parent.parent
    ours = (str(package / "runs"), str(package / "models"), str(package / "orders"), str(Path(torch.__file__).parent))
    lines = [line for line in traceback.extract_tb(problem.__traceback__) if not line.filename.startswith(ours)]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
