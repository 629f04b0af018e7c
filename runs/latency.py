"""Speed: all arms in turns at one batch, whole generations and single steps, and memory.

Knows who competes: every arm, the baseline of each model, the first baseline again (A/A), and, at batch 1, that one
without a cache; and when all ratios are known well enough. Refuses to hold a clock of its own: `runs.timing` does.
Rounds are recorded as they are measured, so that none is lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from orderbench.models.adapter import EightMembers
from orderbench.models.decode import Counters, Decoder, Tile, make_tile, run_tile, uncached_steps
from orderbench.models.model import serves
from orderbench.orders.documents import misfit
from orderbench.orders.errors import said
from orderbench.orders.plan import forget_drawn
from orderbench.runs.arms import Arm
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Workload
from orderbench.runs.environment import capture
from orderbench.runs.intervals import median_interval, paired_ratio
from orderbench.runs.record import RecordProblem, read_json, write_json
from orderbench.runs.rounds import FEWEST, Rounds, parse_rounds, widest, width
from orderbench.runs.samples import whole_counters
from orderbench.runs.schema import Interrupted, TimedSample
from orderbench.runs.subject import Subject
from orderbench.runs.timing import (
    LEAST_S,
    Contender,
    WarmUp,
    clock_state,
    old_set_aside,
    peak_memory,
    rounds,
    step_times,
    warm_up,
)
from orderbench.runs.trials import Trial, is_whole


@old_set_aside()
def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Samples of the clock of every contender, its set-up, counters, memory and, at batch 1, its steps."""
    batch, device = trial.batch, bench.subjects.device
    setup_s: dict[str, float] = {}
    counters: dict[str, Counters] = {}
    contenders = []

    def contend(name: str, arm: Arm, decoder: Decoder) -> None:
        forget_drawn()  # an arm's set-up includes drawing its cells, whoever drew them before
        began = time.perf_counter()
        tile = _batch(arm, batch, bench)
        setup_s[name] = time.perf_counter() - began

        def generate() -> Tensor:
            run_tile(tile, decoder)
            counters[name] = tile.counters
            return tile.codes_BLK

        contenders.append(Contender(name, generate, _pixel_decoder(bench.subjects.of(arm.model))))

    for name, arm in bench.arms.items():
        contend(name, arm, arm.decoder)
    again = bench.agenda.lineup.again
    if again is not None and (batch == 1 or not bench.spec.quick):
        contend("A/A", again, again.decoder)
        if batch == 1 and serves(bench.subjects.of(again.model).model, "masks") and not bench.spec.quick:
            contend("uncached", again, uncached_steps)
    body = _partial(trial, bench)
    kept: list[Any] = body["rounds"]
    warm: dict[str, WarmUp] = {}
    failed: dict[str, str] = {}
    for contender in tuple(contenders):
        try:
            warm |= warm_up([contender], device=device)
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # an arm's failure is a result; the others are timed
            if again is not None and contender.name == str(again):
                raise
            failed[contender.name] = said(problem)
            contenders.remove(contender)
    body["failed_arms"] = failed
    body["warm_up"] = {name: asdict(one) for name, one in warm.items()}
    rule, against = parse_rounds(bench.spec.rounds), _against([one.name for one in contenders], bench)
    further = rounds(
        contenders, rounds=None, first_round=len(kept), device=device, warm=warm,
        interrupted=lambda one: body["interrupted"].append(asdict(one)),
    )  # fmt: skip
    reached = widest_interval(kept, against)
    while not rule.enough(len(kept), reached, _spent_s(kept)):
        kept.append([asdict(sample) for sample in next(further)])
        write_json(bench.file(trial), {**trial.head(), "status": "partial", **body})
        reached = widest_interval(kept, against) if rule.count is None and len(kept) >= FEWEST else None
        bench.progress(trial, len(kept), rule.expected(len(kept), reached, _spent_s(kept)))
    body["precision"] = _precision(rule, widest_interval(kept, against), kept)
    exact = [name for name in counters if name not in bench.arms or "varies" not in bench.arms[name].traits]
    body |= {"setup_s": setup_s, "counters": {name: whole_counters(one) for name, one in counters.items()}}
    body["counters_exact"] = {name: name in exact for name in counters}
    body["flops_per_image"] = {name: _flops(name, one, bench) for name, one in counters.items()}
    body["memory"] = {c.name: peak_memory(c.generate, device) for c in contenders}
    body["weights_bytes"] = _bytes(_told_of(bench).model)
    body["clock_after"] = clock_state(device)
    if batch == 1:
        arms = {name: arm for name, arm in bench.arms.items() if name not in failed}
        body["step_s"] = {name: _step_times(arm, bench) for name, arm in arms.items()}
    return body


def _against(names: Sequence[str], bench: Bench) -> dict[str, str]:
    """Which contender each is measured against; itself, where no ratio is shown."""
    lineup, again = bench.agenda.lineup, str(bench.agenda.lineup.again)
    found = {}
    for name in names:
        baseline = lineup.baseline(bench.arms[name]) if name in bench.arms else None
        ratio = baseline is not None and baseline.ratio and str(baseline.arm) in names
        found[name] = again if name not in bench.arms else str(baseline.arm) if baseline and ratio else name
    return found


def widest_interval(rounds: Sequence[Sequence[Mapping[str, Any]]], against: Mapping[str, str]) -> float | None:
    """How far the farthest bound of all ratios is from its ratio, as a share; of what is measured against itself, and
    is nobody's baseline, of its times. None while one of them has no interval."""
    times: dict[str, list[float]] = {name: [] for name in against}
    for one in rounds:
        for sample in one:
            if sample["name"] in times:
                times[sample["name"]].append(sample["tokens_s"] + (sample["pixels_s"] or 0.0))
    if not all(times.values()):
        return None
    baselines = {baseline for name, baseline in against.items() if name != baseline}
    found = [paired_ratio(times[baseline], times[name]) for name, baseline in against.items() if name != baseline]
    found += [median_interval(times[name]) for name, one in against.items() if name == one and name not in baselines]
    return widest(width(one.value, one.low, one.high) for one in found or map(median_interval, times.values()))


def _spent_s(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    return float(sum(s["repeats"] * (s["tokens_s"] + (s["pixels_s"] or 0.0)) for one in rounds for s in one))


def _precision(rule: Rounds, reached: float | None, rounds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    auto = rule.count is None
    return {
        "rounds": str(rule),
        "within": rule.within if auto else None,
        "widest": reached,
        "reached": rule.reached(len(rounds), reached) if auto else None,
        "spent_s": _spent_s(rounds),
    }


def seconds(trial: Trial, work: Workload) -> float:
    """The time of warm-up, rounds and memory, each all contenders once."""
    timed = [work.decode_s(name, trial.batch) for name in work.counters]
    if work.again and (trial.batch == 1 or not work.spec.quick):  # A/A
        timed.append(work.decode_s(work.again, trial.batch))
    if trial.batch == 1 and work.uncached is not None and not work.spec.quick:
        timed.append(work.costs[work.again].decode_s(work.uncached, 1))
    round_s = sum(max(LEAST_S, s) for s in timed)
    return (parse_rounds(work.spec.rounds).supposed(round_s) + 3) * round_s


def _flops(contender: str, counters: Counters, bench: Bench) -> float | None:
    arm = bench.arms.get(contender, bench.agenda.lineup.again)  # A/A and the uncached contender repeat that one
    if arm is None:
        return None
    sampling = bench.fixed(bench.subjects.of(arm.model))
    return bench.flops_per_image(arm, counters, sampling, uncached_steps if contender == "uncached" else None)


def _batch(arm: Arm, batch: int, bench: Bench) -> Tile:
    """The first samples of an arm, ready to be decoded."""
    subject = bench.subjects.of(arm.model)
    return make_tile(
        subject.model,
        arm.plan(subject.model.lattice),
        range(batch),
        sampling=bench.fixed(subject),
        device=subject.device,
        needs=arm.decoder.entry.needs,
    )


def _step_times(arm: Arm, bench: Bench) -> list[list[float]]:
    tile = _batch(arm, 1, bench)

    def steps() -> Iterator[object]:
        tile.begin()
        return arm.decoder(tile)

    return step_times(steps, bench.subjects.device, repeats=1 if bench.spec.quick else 3, warm=bench.spec.quick)


def _pixel_decoder(subject: Subject) -> Callable[[Tensor], object] | None:
    codec, lattice = subject.codec, subject.model.lattice
    return None if codec is None else lambda codes_BLK: codec.decode(codes_BLK, lattice)


def _partial(trial: Trial, bench: Bench) -> dict[str, Any]:
    """The rounds measured so far, if this is the machine and the number of threads that measured them."""
    fresh: dict[str, Any] = {
        "batch": trial.batch,
        "sampling": bench.fixed(_told_of(bench)).to_json(),
        "device": _machine(bench.subjects.device),
        "rounds": [],
        "interrupted": [],
    }
    file = bench.file(trial)
    with contextlib.suppress(RecordProblem):  # there is none, or it is broken
        kept = read_json(file)
        timed, interrupted = kept.get("rounds"), kept.get("interrupted", [])
        alike = all(kept.get(name) == fresh[name] for name in ("batch", "sampling", "device"))
        broken = misfit(timed, list[list[TimedSample]]) or misfit(interrupted, list[Interrupted])
        if alike and kept.get("status") != "done" and is_whole(kept) and not broken:
            return {**fresh, "rounds": timed, "interrupted": interrupted}
    return fresh


def _told_of(bench: Bench) -> Subject:
    """The one model whose weights and sampling a record holds: that of the arm which A/A repeats, or else the first."""
    again = bench.agenda.lineup.again
    return bench.subjects.own if again is None else bench.subjects.of(again.model)


def _machine(device: str) -> dict[str, Any]:
    environment = capture(device)
    return {name: environment.get(name) for name in ("cpu", "gpu", "threads")} | {"device": device_kind(device)}


def _bytes(model: Any) -> int | None:
    network = model.network if isinstance(model, EightMembers) else model
    if not isinstance(network, torch.nn.Module):
        return None
    return sum(p.numel() * p.element_size() for p in network.parameters())


def device_kind(device: str) -> str:
    """'cuda' of 'cuda:1': which of a machine's cards it was does not make another run."""
    return device.partition(":")[0]
