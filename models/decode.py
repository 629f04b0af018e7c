"""Decoding: a model and a plan to codes, one step at a time.

Knows plans, caches and counters. Refuses to know clocks, names of orders and files: to time a decoder, walk its steps
from outside.

A decoder is a generator of steps over a tile. A tile is some samples that are decoded together. A decoder is registered
with its traits, so that nothing compares names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.models.answer import Answer, at
from orderbench.models.model import Model, Rewindable, check
from orderbench.models.sampling import PLAIN, Noise, Sampling, make_noise
from orderbench.models.visibility import InGroup, content_seen, walk
from orderbench.orders import BenchError, Plan
from orderbench.orders.registry import Bound, Entry, Registry
from orderbench.orders.spelling import read_options

TILE = 64  # samples are decoded in fixed tiles of consecutive indices, so that no split of the work changes a bit
_NO_MEMORY = ("out of memory", "can't allocate memory")  # torch's words on a GPU and on a processor


@dataclass
class Counters:
    """Counts of decoding one sample, in one branch of guidance. They depend on the plan alone, unless the decoder has
    the trait `varies`; then they are means over samples.

    passes: how often cells were asked. content_tokens: units fed, the class included. query_tokens: cells asked.
    content_pairs, query_pairs: in one layer of feeding and of asking, units that attend times slots that they attend
    to; pairs that a mask hides are counted, since they are computed. cache_bytes: of all keys and values allocated.
    """

    passes: float = 0
    content_tokens: float = 0
    query_tokens: float = 0
    content_pairs: float = 0
    query_pairs: float = 0
    cache_bytes: float = 0


@dataclass(frozen=True)
class Step:
    """One step. cells_BQ: the cells that were asked. codes_BQK: the codes that they hold now. answer: what the network
    said of them, guided, before temperature. own_BQ: which of these cells belong to the step, where samples take
    different numbers of them; None for all. rows_B: of which samples of the tile; None for all."""

    index: int
    cells_BQ: Tensor
    codes_BQK: Tensor
    answer: Answer
    own_BQ: Tensor | None = None
    rows_B: Tensor | None = None


@dataclass(frozen=True)
class Decoded:
    """Samples that were decoded. codes_NLK: int64, by cell index. counters: of one sample. changed_NL: how often each
    code was rewritten. settled_NL: the pass after which each code was final, from 1; 0 where the decoder does not say.
    n_steps: how many steps it took; a mean over tiles where that varies, and over samples where each has its own
    number."""

    codes_NLK: Tensor
    counters: Counters
    changed_NL: Tensor
    settled_NL: Tensor
    n_steps: float
    samples: tuple[int, ...] = field(default=())

    @property
    def tokens_NL(self) -> Tensor:
        """(N, L) codes, for a model with one code a cell; BenchError for any other."""
        if self.codes_NLK.shape[2] != 1:
            raise BenchError(f"cells of this model hold {self.codes_NLK.shape[2]} codes; read codes_NLK")
        return self.codes_NLK[..., 0]


@dataclass
class Tile:
    """Some samples of one plan, on their device, ready to be decoded. What does not change from step to step is made
    here, once.

    cells_BL: each sample's cells, first to last: its walk. noise: of these samples. labels_B: class labels; with
    guidance (2B,), followed by null labels. starts: n_steps + 1 offsets into cells_BL; the last is L. scales_L: the
    guidance scale at every place of the walk. codes_BLK: by cell index, as far as they are written. changes_BL: how
    often a code was rewritten. settled_BL: by cell, the pass after which its code was final, from 1; 0 where it does
    not say. forced_BLK: codes that new cells take instead of drawn ones. slots: how many slots the
    cache holds. They are counted here, since a user's own cache may not say; so a tile has one cache at a time.
    """

    model: Model
    plan: Plan
    samples: tuple[int, ...]
    seed: int
    sampling: Sampling
    in_group: InGroup
    labels_B: Tensor
    cells_BL: Tensor
    noise: Noise
    starts: list[int]
    scales_L: Tensor
    codes_BLK: Tensor
    changes_BL: Tensor
    settled_BL: Tensor
    counters: Counters = field(default_factory=Counters)
    forced_BLK: Tensor | None = None
    slots: int = 0
    _content_seen: Tensor | None = None

    def begin(self) -> None:
        """Return to the state before the first step: no code written, nothing counted. Buffers keep their memory."""
        self.codes_BLK.zero_()
        self.changes_BL.zero_()
        self.settled_BL.zero_()
        self.counters = Counters()

    # Feeding and asking the model, both branches of guidance at once

    def both(self, x: Tensor) -> Tensor:
        """Values of all samples, twice with guidance: once for each branch."""
        return torch.cat([x, x]) if self.sampling.guidance.on else x

    def _both_seen(self, seen: Tensor | None) -> Tensor | None:
        return seen if seen is None or len(seen) == 1 else self.both(seen)

    def open(self) -> Any:
        """A cache with the class fed, and room for all cells."""
        cache = self.model.start(self.labels_B, 1 + self.plan.lattice.n_cells)
        self.slots = 0
        self._count_content(1)
        self.counters.cache_bytes = getattr(cache, "n_bytes", 0) // len(self.labels_B)
        return cache

    def feed(
        self, cache: Any, codes_BGK: Tensor, cells_BG: Tensor, seen: Tensor | None = None, *, together: bool = False
    ) -> None:
        """Feed one group, or several at once.

        seen: (B or 1, G, S), which of the S slots each unit sees, those fed before and these; needed for several
        groups. together: all of these units see each other, whatever `in_group` says.
        """
        size = cells_BG.shape[1]
        if seen is None and not together and self.in_group == "causal" and size > 1:
            seen = self.content_seen[:, self.slots : self.slots + size, : self.slots + size]
        self.model.step(cache, self.both(codes_BGK), self.both(cells_BG), seen=self._both_seen(seen))
        self._count_content(size)

    @property
    def content_seen(self) -> Tensor:
        """(1, S, S): what content sees, in the order of the walk, the class first; made once."""
        if self._content_seen is None:
            self._content_seen = content_seen(self.plan.sizes, self.in_group, self.cells_BL.device)
        return self._content_seen

    def refill(self, cache: Any, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and all these codes as one group. Needs 'rewind'."""
        model = cast(Rewindable, self.model)
        model.refill(cache, self.labels_B, self.both(codes_BMK), self.both(cells_BM))
        self.slots = 0
        self._count_content(1 + cells_BM.shape[1])

    def rewind(self, cache: Any, slots: int) -> None:
        """Forget all but the first `slots` slots, of which the class is one. Needs 'rewind'."""
        cast(Rewindable, self.model).rewind(cache, slots)
        self.slots = slots

    def _count_content(self, size: int) -> None:
        self.slots += size
        self.counters.content_tokens += size
        self.counters.content_pairs += size * self.slots

    def ask(self, cache: Any, cells_BQ: Tensor, scales_Q: Tensor, seen: Tensor | None = None) -> Answer:
        """The guided answer to these cells."""
        answer = self.model.answer(cache, self.both(cells_BQ), seen=self._both_seen(seen))
        self.counters.passes += 1
        self.counters.query_tokens += cells_BQ.shape[1]
        self.counters.query_pairs += cells_BQ.shape[1] * self.slots
        return answer.guided(scales_Q) if self.sampling.guidance.on else answer

    def scales(self, first: int, step: int) -> Tensor:
        """(Q,) guidance scales of the places of the walk from `first` to the end of a step. All of them have the scale
        of the step, or, where guidance counts by token, each that of its own place."""
        start, stop = self.starts[step], self.starts[step + 1]
        if self.sampling.guidance.count == "token":
            return self.scales_L[first:stop]
        return self.scales_L[start : start + 1].expand(stop - first)

    # Codes

    def new_codes(self, answer: Answer, cells_BG: Tensor) -> Tensor:
        """(B, G, K) codes for cells that have none yet: drawn with the cells' own noise, or forced."""
        if self.forced_BLK is not None:
            return at(self.forced_BLK, cells_BG)
        return answer.draw(self.noise.at(cells_BG), self.sampling)

    def noise_of(self, visit: int) -> Noise:
        """Other noise of these samples at all cells, for codes that are drawn again; visit: which, from 1."""
        addresses = [(visit << 44) + sample for sample in self.samples]
        n_cells, K = self.codes_BLK.shape[1:]
        return make_noise(self.sampling.noise, self.seed, addresses, n_cells, K, self.codes_BLK.device)

    def held(self, cells_BG: Tensor) -> Tensor:
        """(B, G, K) the codes that cells hold now."""
        return at(self.codes_BLK, cells_BG)

    def write(self, cells_BG: Tensor, codes_BGK: Tensor) -> None:
        """Write codes of cells that had none."""
        self.codes_BLK.scatter_(1, cells_BG[..., None].expand_as(codes_BGK), codes_BGK)

    def rewrite(self, cells_BM: Tensor, codes_BMK: Tensor) -> None:
        """Write codes of cells that had some; those that differ count as changed."""
        changed_BM = (self.held(cells_BM) != codes_BMK).any(-1)
        self.changes_BL.scatter_add_(1, cells_BM, changed_BM.long())
        self.write(cells_BM, codes_BMK)


def make_tile(
    model: Model,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    in_group: InGroup = "block",
    device: torch.device | str = "cpu",
    needs: tuple[str, ...] = (),
    forced_BLK: Tensor | None = None,
) -> Tile:
    """A tile, after a check of what was asked. Labels default to the sample index modulo C.

    needs: what the decoder needs of the model. forced_BLK: codes that new cells take instead of drawn ones. BenchError
    where the model refuses the plan or does not serve a need, and for labels out of range.
    """
    check(model, plan, needs)
    chosen = [i % model.n_classes for i in samples] if labels is None else list(labels)
    if len(chosen) != len(samples) or any(not 0 <= label <= model.n_classes for label in chosen):
        raise BenchError(
            f"labels {chosen[:8]} do not serve {len(samples)} samples; one each of 0 to {model.n_classes - 1}, "
            f"or {model.n_classes} for no class, would do"
        )
    labels_B = torch.tensor(chosen, device=device)
    if sampling.guidance.on:
        labels_B = torch.cat([labels_B, torch.full_like(labels_B, model.n_classes)])
    cells_BL = walk(plan, samples, device)
    K = len(model.code_sizes)
    return Tile(
        model=model,
        plan=plan,
        samples=tuple(samples),
        seed=seed,
        sampling=sampling,
        in_group=in_group,
        labels_B=labels_B,
        cells_BL=cells_BL,
        noise=make_noise(sampling.noise, seed, samples, plan.lattice.n_cells, K, device),
        starts=[0, *np.cumsum(plan.sizes).tolist()],
        scales_L=sampling.guidance.along(plan.sizes).to(device),
        codes_BLK=torch.zeros(*cells_BL.shape, K, dtype=torch.int64, device=device),
        changes_BL=torch.zeros_like(cells_BL),
        settled_BL=torch.zeros_like(cells_BL),
        forced_BLK=forced_BLK,
    )


# Decoders

Decoder = Callable[[Tile], Iterator[Step]]


@dataclass(frozen=True, kw_only=True)
class DecoderEntry(Entry):
    """A registered decoder and its traits.

    rewrites: it overwrites codes that were decoded, so bits per token are not defined. exact: its codes equal those of
    one cell at a time along the same walk, whatever the steps of the plan. chooses: it chooses the cells as it goes, so
    it takes the place of an order and uses only the step sizes of a plan. paces: it chooses how many cells a step takes
    too, so it takes no pace. varies: its work depends on what is drawn, so its counters are means. drafts: it decodes
    one cell at a time along the walk, whatever the steps of the plan, by steps that ask cells whose codes may still
    change. needs: what the model must serve, see `orderbench.models.model.serves`. by_options: which of these are
    otherwise with some options, from their values; it raises BenchError for values that are not served.
    """

    rewrites: bool = False
    exact: bool = False
    chooses: bool = False
    paces: bool = False
    varies: bool = False
    drafts: bool = False
    needs: tuple[str, ...] = ()
    by_options: Callable[..., Mapping[str, Any]] | None = None

    @property
    def traits(self) -> dict[str, bool]:
        """Which of its traits hold."""
        return {name: getattr(self, name) for name in ("rewrites", "exact", "chooses", "paces", "varies", "drafts")}

    def bound_to(self, values: Mapping[str, Any]) -> DecoderEntry:
        """The entry with the traits that it has under these options."""
        return self if self.by_options is None else replace(self, **self.by_options(**values))


DECODERS: Registry[DecoderEntry] = Registry("a decoder", "decoders are written after +, as in radial+nested:margin=1")
DecoderFunction = TypeVar("DecoderFunction", bound=Callable[..., Iterator[Step]])


def register_decoder(
    name: str,
    *,
    paper: str,
    idea: str,
    rewrites: bool = False,
    exact: bool = False,
    chooses: bool = False,
    paces: bool = False,
    varies: bool = False,
    drafts: bool = False,
    needs: tuple[str, ...] = (),
    by_options: Callable[..., Mapping[str, Any]] | None = None,
) -> Callable[[DecoderFunction], DecoderFunction]:
    """Decorator: put `decoder(tile, *, <typed options>) -> Iterator[Step]` under a name, with its traits.

    Raises BenchError for a name that is taken or misspelt, and for a signature that cannot be read.
    """

    def decorate(function: DecoderFunction) -> DecoderFunction:
        options = read_options(function, reserved=(), first="tile")
        DECODERS.add(
            DecoderEntry(
                name=name, paper=paper, idea=idea, function=function, options=options, origin=function.__module__,
                rewrites=rewrites, exact=exact, chooses=chooses, paces=paces, varies=varies, drafts=drafts,
                needs=needs, by_options=by_options,
            )
        )  # fmt: skip
        return function

    return decorate


@dataclass(frozen=True)
class BoundDecoder(Bound[DecoderEntry]):
    """A decoder with every option set; called with a tile, it decodes it."""

    def __call__(self, tile: Tile) -> Iterator[Step]:
        steps: Iterator[Step] = self.entry.function(tile, **self.values)
        return steps


def parse_decoder(text: str) -> BoundDecoder:
    """'off' or 'nested:margin=1:every=2'; BenchError for anything else, and for options that the decoder refuses.

    >>> str(parse_decoder("nested:every=2:margin=1.0"))
    'nested:every=2'
    """
    entry, values = DECODERS.read(text)
    return BoundDecoder(entry.bound_to(values), values)


@register_decoder("off", paper="none", idea="plain decoding: ask a group, feed it, ask the next")
def plain_steps(tile: Tile) -> Iterator[Step]:
    """Decode step by step with a cache: feed the group before, ask the next. The last group is never fed."""
    cache = tile.open()
    last = tile.plan.n_steps - 1
    for index in range(last + 1):
        cells_BG = tile.cells_BL[:, tile.starts[index] : tile.starts[index + 1]]
        answer = tile.ask(cache, cells_BG, tile.scales(tile.starts[index], index))
        codes_BGK = tile.new_codes(answer, cells_BG)
        tile.write(cells_BG, codes_BGK)
        yield Step(index, cells_BG, codes_BGK, answer)
        if index < last:
            tile.feed(cache, codes_BGK, cells_BG)


PLAIN_DECODER = parse_decoder("off")


def uncached_steps(tile: Tile) -> Iterator[Step]:
    """Plain decoding without a cache: every step feeds all codes again, in one masked pass. Needs 'masks'.

    The codes are those of `plain_steps`, up to rounding. Many published speed-ups are measured against it.
    """
    for index in range(tile.plan.n_steps):
        start, stop = tile.starts[index], tile.starts[index + 1]
        cache = tile.open()
        if index:
            known_BM = tile.cells_BL[:, :start]
            tile.feed(cache, tile.held(known_BM), known_BM, tile.content_seen[:, 1 : 1 + start, : 1 + start])
        cells_BG = tile.cells_BL[:, start:stop]
        answer = tile.ask(cache, cells_BG, tile.scales(start, index))
        codes_BGK = tile.new_codes(answer, cells_BG)
        tile.write(cells_BG, codes_BGK)
        yield Step(index, cells_BG, codes_BGK, answer)


# Walking a decoder


def decode_steps(
    model: Model,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    in_group: InGroup = "block",
    device: torch.device | str = "cpu",
    decoder: Decoder = PLAIN_DECODER,
) -> Iterator[Step]:
    """Decode these samples together; one Step for each step."""
    tile = make_tile(
        model, plan, samples, labels=labels, sampling=sampling, seed=seed, in_group=in_group, device=device,
        needs=needs_of(decoder),
    )  # fmt: skip
    return _without_gradients(tile, decoder)


def needs_of(decoder: Decoder) -> tuple[str, ...]:
    """What a decoder needs of a model, by its registration; nothing for a function that is not registered."""
    return decoder.entry.needs if isinstance(decoder, BoundDecoder) else ()


def _paces(decoder: Decoder) -> bool:
    """Whether every sample has its own number of steps, each of one pass."""
    return isinstance(decoder, BoundDecoder) and decoder.entry.paces


@torch.inference_mode()  # as a decorator: between steps the caller is not in inference mode
def _without_gradients(tile: Tile, decoder: Decoder) -> Iterator[Step]:
    yield from decoder(tile)


def decode(
    model: Model,
    plan: Plan,
    samples: Sequence[int],
    *,
    labels: Sequence[int] | None = None,
    sampling: Sampling = PLAIN,
    seed: int = 0,
    in_group: InGroup = "block",
    device: torch.device | str = "cpu",
    decoder: Decoder = PLAIN_DECODER,
    tile: int = TILE,
    each: Callable[[int], object] = lambda _: None,
) -> Decoded:
    """Decode samples in tiles of consecutive indices.

    A tile is always computed whole, and samples that were not asked for are dropped. So how a list of samples is split
    changes no bit. labels: one for each of `samples`; by default the sample index modulo C. each: called after every
    tile with the number of samples done.

    Raises BenchError for a plan that the model refuses, a sample asked twice, labels out of range, answers that are not
    finite, and a tile that does not fit in memory.
    """
    given = None if labels is None else dict(zip(samples, labels, strict=True))
    wanted = {sample: place for place, sample in enumerate(samples)}
    if len(wanted) < len(samples):
        twice = next(sample for place, sample in enumerate(samples) if wanted[sample] != place)
        raise BenchError(f"sample {twice} is asked more than once; each once would do, since its codes are the same")
    codes_NLK = torch.empty(len(samples), plan.lattice.n_cells, len(model.code_sizes), dtype=torch.int64)
    changed_NL = torch.zeros(codes_NLK.shape[:2], dtype=torch.int64)
    settled_NL = torch.zeros_like(changed_NL)
    counted: list[Counters] = []
    steps: list[float] = []
    done = 0
    for number in sorted({sample // tile for sample in samples}):
        members = range(number * tile, (number + 1) * tile)
        own_labels = None if given is None else [given.get(sample, 0) for sample in members]
        work = make_tile(
            model, plan, members, labels=own_labels, sampling=sampling, seed=seed, in_group=in_group, device=device,
            needs=needs_of(decoder),
        )  # fmt: skip
        taken = run_tile(work, decoder)
        steps.append(work.counters.passes if _paces(decoder) else taken)
        kept = [sample for sample in members if sample in wanted]
        rows = [wanted[sample] for sample in kept]
        places = [sample - members.start for sample in kept]
        codes_NLK[rows], changed_NL[rows] = work.codes_BLK[places].cpu(), work.changes_BL[places].cpu()
        settled_NL[rows] = work.settled_BL[places].cpu()
        counted.append(work.counters)
        done += len(kept)
        each(done)
    return Decoded(
        codes_NLK, mean_counters(counted), changed_NL, settled_NL, float(np.mean(steps or [0])), tuple(samples)
    )


def mean_counters(counted: Sequence[Counters]) -> Counters:
    """The mean of some counters; a mean that is a whole number is an int."""
    if not counted:
        return Counters()
    means = np.mean([astuple(one) for one in counted], axis=0).tolist()
    return Counters(*(int(mean) if mean == int(mean) else mean for mean in means))


@torch.inference_mode()
def run_tile(tile: Tile, decoder: Decoder) -> int:
    """Decode a whole tile and return the number of steps. Codes, counters and changes are then in the tile.

    Raises BenchError for answers that are not finite, and where memory runs out.
    """
    tile.begin()
    finite = torch.ones((), dtype=torch.bool, device=tile.codes_BLK.device)
    steps = 0
    try:
        for step in decoder(tile):
            finite &= step.answer.finite()
            steps += 1
    except (MemoryError, RuntimeError) as problem:
        if not isinstance(problem, MemoryError) and not any(words in str(problem) for words in _NO_MEMORY):
            raise
        raise BenchError(
            f"there is no memory for {len(tile.cells_BL)} samples at once; a smaller model, another --device or "
            f"--dtype bf16 may do"
        ) from problem
    if not finite:
        raise BenchError(
            "the model's logits are not finite; its weights hold NaN or infinity, or its precision overflowed"
        )
    return steps
