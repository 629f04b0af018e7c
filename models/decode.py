"""Decoding: a model and a plan to codes, one step at a time.

Knows plans, caches and counters. Refuses to know clocks, names of orders and files: whoever wants times stands outside
and walks the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from orderbench.models.likelihood import InGroup, as_bias, check_lattice, walk
from orderbench.models.sampling import PLAIN, Sampling, filtered, guide, inverse_cdf, uniforms
from orderbench.orders import BenchError, Grid, Plan

TILE = 64  # samples are decoded in fixed tiles of consecutive indices, so that a split of the work changes no bit
_NO_MEMORY = ("out of memory", "can't allocate memory")  # torch's words on a GPU and on a processor


class AnyOrderModel(Protocol):
    """What decoding needs of a model; `orderbench.models.Transformer` is one, and so may be a user's own network."""

    @property
    def lattice(self) -> Grid:
        """Where the cells are."""

    @property
    def n_codes(self) -> int:
        """V."""

    @property
    def n_classes(self) -> int:
        """C; the label C is none of them."""

    def start(self, labels_B: Tensor, slots: int) -> Any:
        """A cache with room for `slots` slots, the class fed as the first."""

    def step(self, cache: Any, tokens_BG: Tensor, cells_BG: Tensor, bias_GS: Tensor | None = None) -> None:
        """Feed decoded codes: they see every slot fed before and, unless a bias says otherwise, each other."""

    def logits(self, cache: Any, cells_BQ: Tensor) -> Tensor:
        """(B, Q, V) fp32 logits of these cells, given every slot fed so far."""

    def refill(self, cache: Any, labels_B: Tensor, tokens_BM: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group, each seeing all."""

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots."""


@dataclass
class Counters:
    """Exact counts of one sample's decoding, one branch of guidance: they depend on the plan alone.

    passes: calls of the network's second pass. content_tokens: slots through the first pass, the class included.
    query_tokens: targets through the second. content_pairs, query_pairs: slots that attend times slots they attend to,
    in one layer of the first and second pass, those that a mask hides included, since they are computed. cache_bytes:
    keys and values allocated.
    """

    passes: int = 0
    content_tokens: int = 0
    query_tokens: int = 0
    content_pairs: int = 0
    query_pairs: int = 0
    cache_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """One step: which cells it wrote, with what, and what the network said.

    cells_BQ, tokens_BQ: the cells asked and the codes they hold after the step. fresh: how many of them, at the end,
    were decoded for the first time; those before were decoded earlier and asked again. logits_BQV: guided, before
    temperature.
    """

    index: int
    cells_BQ: Tensor
    tokens_BQ: Tensor
    fresh: int
    logits_BQV: Tensor


@dataclass(frozen=True)
class Decoded:
    """tokens_NL: int64 in raster order; counters of one sample; changed_NL: how often a decoded code was rewritten."""

    tokens_NL: Tensor
    counters: Counters
    changed_NL: Tensor
    samples: tuple[int, ...] = field(default=())


Decoder = Callable[..., Iterator[Step]]


@dataclass
class Tile:
    """Some samples of one plan, on their device, ready to be decoded: everything that no step needs to build.

    cells_BL: each sample's cells, first to last. uniforms_BL: noise by cell index. labels_B: doubled when guidance is
    on, the null class behind. starts: where each step begins in the walk, and L. forced_BL: codes by cell index that
    new cells take in place of drawn ones. slots: how many the cache holds, counted here, since a user's own cache need
    not say; so a tile has one cache at a time, the one opened last. constants: what `constant` keeps.
    """

    model: AnyOrderModel
    plan: Plan
    samples: tuple[int, ...]
    seed: int
    sampling: Sampling
    in_group: InGroup
    labels_B: Tensor
    cells_BL: Tensor
    uniforms_BL: Tensor
    counters: Counters
    starts: list[int]
    forced_BL: Tensor | None = None
    slots: int = 0
    constants: dict[Hashable, Tensor] = field(default_factory=dict)

    def constant(self, name: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that follows from the plan and the setting alone, made and moved to the device once a tile.

        A step that is recorded for replay (`graphs.py`) may build nothing on the processor.
        """
        if name not in self.constants:
            self.constants[name] = make()
        return self.constants[name]

    def both(self, x: Tensor) -> Tensor:
        """Both halves of guidance see the same."""
        return torch.cat([x, x]) if self.sampling.guidance.on else x

    def open(self) -> Any:
        """A cache with the class fed and room for all that the plan feeds."""
        cache = self.model.start(self.labels_B, 1 + self.plan.lattice.n_cells)
        self.slots = 0
        self._count_content(1)
        self.counters.cache_bytes = getattr(cache, "n_bytes", 0) // len(self.labels_B)
        return cache

    def feed(self, cache: Any, tokens_BG: Tensor, cells_BG: Tensor, seen_GS: Tensor | None = None) -> None:
        """Pass 1 over one group, or over several at once: seen_GS, bool, then says who sees which of the S slots, those
        fed before and these."""
        size = cells_BG.shape[1]
        if seen_GS is None and self.in_group == "causal" and size > 1:
            before = self.slots
            seen_GS = self.constant(
                ("causal", before, size),
                lambda: torch.ones(size, before + size, dtype=torch.bool).tril(before).to(tokens_BG.device),
            )
        bias = None if seen_GS is None else as_bias(seen_GS, torch.float32)
        self.model.step(cache, self.both(tokens_BG), self.both(cells_BG), bias)
        self._count_content(size)

    def refill(self, cache: Any, tokens_BM: Tensor, cells_BM: Tensor) -> None:
        """Pass 1 anew, over the class and all these codes as one group."""
        self.model.refill(cache, self.labels_B, self.both(tokens_BM), self.both(cells_BM))
        self.slots = 0
        self._count_content(1 + cells_BM.shape[1])

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots, the class among them."""
        self.model.rewind(cache, slots)
        self.slots = slots

    def _count_content(self, size: int) -> None:
        self.slots += size
        self.counters.content_tokens += size
        self.counters.content_pairs += size * self.slots

    def ask(self, cache: Any, cells_BQ: Tensor, scales_Q: Tensor) -> Tensor:
        """Pass 2: guided logits of these cells."""
        logits = self.model.logits(cache, self.both(cells_BQ))
        self.counters.passes += 1
        self.counters.query_tokens += cells_BQ.shape[1]
        self.counters.query_pairs += cells_BQ.shape[1] * self.slots
        return guide(logits, scales_Q) if self.sampling.guidance.on else logits

    def scales(self, first: int, step: int) -> Tensor:
        """(Q,) guidance scales of the walk's places `first` to the end of a step: all by how far the step has come, or,
        counting by token, each by its own place."""
        return self.constant(("scales", first, step), lambda: self._scales(first, step))

    def _scales(self, first: int, step: int) -> Tensor:
        guidance, n = self.sampling.guidance, self.plan.lattice.n_cells
        start, stop = self.starts[step], self.starts[step + 1]
        own = guidance.scales(start, stop - start, n)
        if guidance.count == "token":
            return torch.cat([guidance.scales(first, start - first, n), own]).to(self.cells_BL.device)
        return own[:1].expand(stop - first).to(self.cells_BL.device)

    def draw(self, logits_BQV: Tensor, cells_BQ: Tensor) -> Tensor:
        """Codes by each cell's own number."""
        probs = filtered(logits_BQV / self.sampling.temperature, self.sampling)
        return inverse_cdf(probs, self.uniforms_BL.gather(1, cells_BQ))

    def new_codes(self, logits_BGV: Tensor, cells_BG: Tensor) -> Tensor:
        """Codes of cells that are decoded for the first time."""
        return self.draw(logits_BGV, cells_BG) if self.forced_BL is None else self.forced_BL.gather(1, cells_BG)


def make_tile(
    model: AnyOrderModel,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling,
    seed: int,
    in_group: InGroup,
    device: torch.device | str,
) -> Tile:
    """Check what was asked and lay everything out. Labels default to sample index modulo C."""
    check_lattice(model.lattice, plan)
    chosen = [i % model.n_classes for i in samples] if labels is None else list(labels)
    if len(chosen) != len(samples) or any(not 0 <= label <= model.n_classes for label in chosen):
        raise BenchError(
            f"labels {chosen[:8]} do not serve {len(samples)} samples; one each of 0 to {model.n_classes - 1}, "
            f"or {model.n_classes} for no class, would do"
        )
    labels_B = torch.tensor(chosen, device=device)
    if sampling.guidance.on:
        labels_B = torch.cat([labels_B, torch.full_like(labels_B, model.n_classes)])
    return Tile(
        model=model,
        plan=plan,
        samples=tuple(samples),
        seed=seed,
        sampling=sampling,
        in_group=in_group,
        labels_B=labels_B,
        cells_BL=walk(plan, samples, device),
        uniforms_BL=uniforms(seed, samples, plan.lattice.n_cells).to(device),
        counters=Counters(),
        starts=[0, *np.cumsum(plan.sizes).tolist()],
    )


def plain_steps(tile: Tile) -> Iterator[Step]:
    """Decode step by step with a cache: feed the group before, ask the next. The last group is never fed."""
    cache = tile.open()
    for index in range(tile.plan.n_steps):
        cells_BG = tile.cells_BL[:, tile.starts[index] : tile.starts[index + 1]]
        logits_BGV = tile.ask(cache, cells_BG, tile.scales(tile.starts[index], index))
        tokens_BG = tile.new_codes(logits_BGV, cells_BG)
        yield Step(index, cells_BG, tokens_BG, cells_BG.shape[1], logits_BGV)
        if index + 1 < tile.plan.n_steps:
            tile.feed(cache, tokens_BG, cells_BG)


def uncached_steps(tile: Tile) -> Iterator[Step]:
    """Plain decoding that keeps nothing: every step feeds all codes anew, in one masked pass.

    The same codes as `plain_steps`, but for rounding. Many published speed-ups are measured against it.
    """
    codes_BL = torch.zeros_like(tile.cells_BL)
    seen_LS = tile.constant("walk", lambda: _seen_along(tile))
    for index in range(tile.plan.n_steps):
        start, stop = tile.starts[index], tile.starts[index + 1]
        cache = tile.open()
        if index:
            known_BM = tile.cells_BL[:, :start]
            tile.feed(cache, codes_BL.gather(1, known_BM), known_BM, seen_LS[:start, : 1 + start])
        cells_BG = tile.cells_BL[:, start:stop]
        logits_BGV = tile.ask(cache, cells_BG, tile.scales(start, index))
        tokens_BG = tile.new_codes(logits_BGV, cells_BG)
        codes_BL.scatter_(1, cells_BG, tokens_BG)
        yield Step(index, cells_BG, tokens_BG, stop - start, logits_BGV)


def _seen_along(tile: Tile) -> Tensor:
    """(L, S) bool: which of the S = 1 + L slots each place of the walk sees, the class first."""
    step_L = torch.repeat_interleave(torch.arange(tile.plan.n_steps), torch.tensor(tile.plan.sizes))
    own_L = step_L if tile.in_group == "block" else torch.arange(len(step_L))
    seen_LS = torch.ones(len(own_L), 1 + len(own_L), dtype=torch.bool)
    seen_LS[:, 1:] = own_L[None, :] <= own_L[:, None]
    return seen_LS.to(tile.cells_BL.device)


def decode_steps(
    model: AnyOrderModel,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    in_group: InGroup = "block",
    device: torch.device | str = "cpu",
    decoder: Decoder = plain_steps,
) -> Iterator[Step]:
    """Decode these samples together, a Step a step. `decoder` is plain decoding or a correction around it."""
    tile = make_tile(
        model, plan, samples, labels=labels, sampling=sampling, seed=seed, in_group=in_group, device=device
    )
    return _without_gradients(tile, decoder)


@torch.inference_mode()  # as a decorator: between steps, whoever walks them is not in inference mode
def _without_gradients(tile: Tile, decoder: Decoder) -> Iterator[Step]:
    yield from decoder(tile)


def decode(
    model: AnyOrderModel,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    in_group: InGroup = "block",
    device: torch.device | str = "cpu",
    decoder: Decoder = plain_steps,
    tile: int = TILE,
    each: Callable[[int], object] = lambda _: None,
) -> Decoded:
    """Decode samples in tiles of consecutive indices; codes in raster order, one row a sample asked.

    A tile is always computed whole (its missing samples are computed and dropped), so that how a list of samples is
    split changes no bit. Labels by default are the sample index modulo C; given, they belong to `samples`. each:
    called with the number of samples done, after every tile.

    Raises BenchError for a plan of another lattice, a sample asked twice, labels out of range, logits that are not
    finite, and a tile that does not fit in memory.
    """
    given = None if labels is None else dict(zip(samples, labels, strict=True))
    wanted = {sample: place for place, sample in enumerate(samples)}
    if len(wanted) < len(samples):
        twice = next(sample for place, sample in enumerate(samples) if wanted[sample] != place)
        raise BenchError(f"sample {twice} is asked more than once; each once would do, since its codes are the same")
    tokens_NL = torch.empty(len(samples), plan.lattice.n_cells, dtype=torch.int64)
    changed_NL = torch.zeros_like(tokens_NL)
    counters = Counters()
    done = 0
    for number in sorted({sample // tile for sample in samples}):
        members = range(number * tile, (number + 1) * tile)
        own_labels = None if given is None else [given.get(sample, 0) for sample in members]
        work = make_tile(
            model, plan, members, labels=own_labels, sampling=sampling, seed=seed, in_group=in_group, device=device
        )
        codes_BL, changes_BL = run_tile(work, decoder)
        kept = [sample for sample in members if sample in wanted]
        rows = [wanted[sample] for sample in kept]
        places = [sample - members.start for sample in kept]
        tokens_NL[rows], changed_NL[rows] = codes_BL[places].cpu(), changes_BL[places].cpu()
        counters = work.counters
        done += len(kept)
        each(done)
    return Decoded(tokens_NL, counters, changed_NL, tuple(samples))


@torch.inference_mode()
def run_tile(tile: Tile, decoder: Decoder) -> tuple[Tensor, Tensor]:
    """(B, L) each: final codes, and how often each was rewritten, in raster order."""
    codes_BL = torch.zeros_like(tile.cells_BL)
    changes_BL = torch.zeros_like(tile.cells_BL)
    finite = torch.ones((), dtype=torch.bool, device=codes_BL.device)
    try:
        for step in decoder(tile):
            again = step.cells_BQ.shape[1] - step.fresh
            if again:
                old = codes_BL.gather(1, step.cells_BQ[:, :again])
                changes_BL.scatter_add_(1, step.cells_BQ[:, :again], (old != step.tokens_BQ[:, :again]).long())
            codes_BL.scatter_(1, step.cells_BQ, step.tokens_BQ)
            finite &= step.logits_BQV.isfinite().all()
    except (MemoryError, RuntimeError) as problem:
        if not isinstance(problem, MemoryError) and not any(words in str(problem) for words in _NO_MEMORY):
            raise
        raise BenchError(
            f"there is no memory for {len(codes_BL)} samples at once; a smaller model, another --device or --dtype "
            f"bf16 may do"
        ) from problem
    if not finite:
        raise BenchError(
            "the model's logits are not finite; its weights hold NaN or infinity, or its precision overflowed"
        )
    return codes_BL, changes_BL


@torch.inference_mode()
def step_bits(
    model: AnyOrderModel,
    plan: Plan,
    tokens_BL: Tensor,
    labels: Sequence[int],
    *,
    samples: Sequence[int],
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L) bits of given codes, by cell index, as decoding step by step predicts them: the likelihood of any model
    that keeps the protocol. Our own transformer's is the same in one pass (`plan_logits`).

    samples: whose cells, where samples draw their own.
    """
    tile = make_tile(
        model, plan, samples, labels=labels, sampling=PLAIN, seed=0, in_group=in_group, device=tokens_BL.device
    )
    tile.forced_BL = tokens_BL
    bits_BL = torch.empty(tokens_BL.shape, device=tokens_BL.device)
    for step in plain_steps(tile):
        log_probs = step.logits_BQV.log_softmax(-1).gather(-1, step.tokens_BQ[..., None]).squeeze(-1)
        bits_BL.scatter_(1, step.cells_BQ, -log_probs / math.log(2))
    return bits_BL
