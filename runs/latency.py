"""Speed: all arms in turns at one batch, whole generations and single steps, and memory.

Knows who competes: every arm, the baseline, the baseline again (A/A), and, at batch 1, the baseline without a cache.
Refuses to hold a clock of its own: `runs.timing` does. Rounds are recorded as they are measured, so that none is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from orderbench.models.decode import Counters, Decoder, Tile, make_tile, run_tile, uncached_steps
from orderbench.models.transformer import Transformer
from orderbench.orders.plan import forget_drawn
from orderbench.runs.arms import BASELINE, Arm, parse_arm
from orderbench.runs.bench import Bench
from orderbench.runs.cost import Cost, Workload, count
from orderbench.runs.environment import capture
from orderbench.runs.record import read_json, write_json
from orderbench.runs.timing import Contender, WarmUp, clock_state, peak_memory, rounds, step_times, warm_up
from orderbench.runs.trials import Trial, describe_sampling, is_whole

_LEAST_S = 0.2  # every contender lasts so long at least


def measure(trial: Trial, bench: Bench) -> dict[str, Any]:
    """Samples of the clock of every contender, its set-up, counters, memory and, at batch 1, its steps."""
    subject, batch = bench.subject, trial.batch
    baseline = parse_arm(BASELINE)
    arms = {BASELINE: baseline, **bench.arms}
    setup_s: dict[str, float] = {}
    counters: dict[str, Any] = {}
    contenders = []

    def contend(name: str, arm: Arm, decoder: Decoder) -> None:
        forget_drawn()  # an arm's set-up includes drawing its cells, whoever drew them before
        began = time.perf_counter()
        tile = _batch(arm, batch, bench)
        setup_s[name] = time.perf_counter() - began

        def generate() -> Tensor:
            tile.counters = Counters()
            tokens_BL, _ = run_tile(tile, decoder)
            counters[name] = asdict(tile.counters)
            return tokens_BL

        contenders.append(Contender(name, generate))

    for name, arm in arms.items():
        contend(name, arm, arm.decoder)
    contend("A/A", baseline, baseline.decoder)
    if batch == 1 and isinstance(subject.model, Transformer) and not bench.spec.quick:
        contend("uncached", baseline, uncached_steps)
    body = _partial(trial, bench)
    kept: list[Any] = body["rounds"]
    pixels = None if subject.tokenizer is None else _pixel_decoder(bench)
    warm: dict[str, WarmUp] = {}
    failed: dict[str, str] = {}
    for contender in tuple(contenders):
        try:
            warm |= warm_up([contender], pixels, device=subject.device)
        except Exception as problem:  # an arm's failure is a result; the others are timed
            if contender.name == BASELINE:
                raise
            failed[contender.name] = str(problem)
            contenders.remove(contender)
    body["failed_arms"] = failed
    body["warm_up"] = {name: asdict(one) for name, one in warm.items()}
    for finished in rounds(
        contenders, pixels, rounds=bench.spec.rounds, first_round=len(kept), device=subject.device, warm=warm
    ):
        kept.append([asdict(sample) for sample in finished])
        write_json(bench.file(trial), {**trial.head(), "status": "partial", **body})
        bench.progress(trial, len(kept), bench.spec.rounds)
    body |= {"setup_s": setup_s, "counters": counters}
    body["flops_per_image"] = {
        name: bench.flops_per_image(Counters(**one), bench.fixed) for name, one in counters.items()
    }
    body["memory"] = {c.name: peak_memory(c.generate, subject.device) for c in contenders}
    body["weights_bytes"] = _bytes(subject.model)
    body["clock_after"] = clock_state(subject.device)
    if batch == 1:
        body["step_s"] = {name: _step_times(arm, bench) for name, arm in arms.items() if name not in failed}
    return body


def seconds(trial: Trial, cost: Cost, work: Workload) -> float:
    """The time of warm-up, rounds and memory, each all contenders once."""
    one = [cost.decode_s(counters, trial.batch) for counters in work.counters.values()]
    again = 2 * cost.decode_s(work.counters[BASELINE], trial.batch)
    uncached = trial.batch == 1 and not work.spec.quick
    rare = cost.decode_s(count(parse_arm(BASELINE), work.grid, uncached=True), 1) if uncached else 0.0
    return (work.spec.rounds + 3) * (sum(max(_LEAST_S, s) for s in one) + again + rare)


def _batch(arm: Arm, batch: int, bench: Bench) -> Tile:
    """The first samples of an arm, ready to be decoded."""
    return make_tile(
        bench.subject.model,
        arm.plan(bench.grid, 0),
        range(batch),
        sampling=bench.fixed,
        seed=0,
        in_group="block",
        device=bench.subject.device,
    )


def _step_times(arm: Arm, bench: Bench) -> list[list[float]]:
    tile = _batch(arm, 1, bench)
    return step_times(lambda: arm.decoder(tile), bench.subject.device)


def _pixel_decoder(bench: Bench) -> Callable[[Tensor], object]:
    grid, tokenizer = bench.grid, bench.subject.tokenizer
    assert tokenizer is not None  # noqa: S101 (the caller looked)
    return lambda tokens_BL: tokenizer.decode(tokens_BL, grid.rows, grid.cols)


def _partial(trial: Trial, bench: Bench) -> dict[str, Any]:
    """The rounds measured so far, if this is the machine and the number of threads that measured them."""
    fresh: dict[str, Any] = {
        "batch": trial.batch,
        "sampling": describe_sampling(bench.fixed),
        "device": _machine(bench.subject.device),
        "rounds": [],
    }
    file = bench.file(trial)
    if file.is_file():
        kept = read_json(file)
        if kept["status"] != "done" and is_whole(kept) and kept.get("device") == fresh["device"]:
            return {**fresh, "rounds": kept["rounds"]}
    return fresh


def _machine(device: str) -> dict[str, Any]:
    environment = capture(device)
    return {name: environment.get(name) for name in ("cpu", "gpu", "threads")} | {"device": device_kind(device)}


def _bytes(model: Any) -> int | None:
    if not isinstance(model, torch.nn.Module):
        return None
    return sum(p.numel() * p.element_size() for p in model.parameters())


def device_kind(device: str) -> str:
    """'cuda' of 'cuda:1': which of a machine's cards it was does not make another run."""
    return device.partition(":")[0]
