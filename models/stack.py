"""One-stack networks: blocks after LlamaGen, a cache of slots, and one pass a step.

Knows slots, masks and when content is run. Refuses to know which slots a family puts into its sequence: each family is
a file of its own (`llamagen`, `par`, `ear`, `randar`, `lpd`, `nar`), a *slot programme* over this backbone.

A slot programme answers four questions. Which slots stand for a unit that is fed (the class, or a code at a cell)?
Which slots stand for a cell that is asked, or else, which output that exists already tells it? How are slots rotated?
Who sees whom inside a unit? What follows is the same for all: units that are fed are kept, and run with the next
asking, so a step is one pass, as these systems publish it. Keys and values of content stay; those of queries are
forgotten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from orderbench.models.answer import Categorical
from orderbench.models.config import StackConfig
from orderbench.models.model import Trait
from orderbench.models.positions import rotary_table, rotate
from orderbench.models.transformer import FeedForward, RMSNorm, attend, join_heads, split_heads
from orderbench.models.visibility import as_bias
from orderbench.orders import Grid, Plan, make_plan

SomeConfig = TypeVar("SomeConfig", bound=StackConfig)


class AnyBlock(Protocol):
    """What a stack asks of its blocks. told: what `told` gave, once a pass, for blocks that are told the class."""

    def told(self, condition: Tensor | None) -> tuple[Tensor, ...]:
        """What the class says to this block, from `Stack.condition`; nothing where it says nothing."""

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor, told: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, rotated where the family rotates, and values: (B, H, S, K) each."""

    def finish(self, x_BSD: Tensor, seen_BHSK: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """The residual stream after attention and feed-forward."""


class Attention(nn.Module):
    """The two matrices of LlamaGen's attention: queries, keys and values in one, and the way out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv, self.wo = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values."""
        q, k, v = (split_heads(part, self.heads) for part in self.wqkv(x_BSD).chunk(3, dim=-1))
        return rotate(q, turn_BSJ), rotate(k, turn_BSJ), v


class Block(nn.Module):
    """LlamaGen's block (arXiv 2406.06525, section 3.1): pre-norm, rotary positions, SwiGLU, no biases."""

    compiles = ("qkv", "finish")

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.attention = Attention(config.width, config.heads)
        self.feed_forward = FeedForward(config.width, config.ffn_width)
        self.attention_norm, self.ffn_norm = RMSNorm(config.width), RMSNorm(config.width)

    def told(self, condition: Tensor | None) -> tuple[Tensor, ...]:
        return ()

    def qkv(self, x_BSD: Tensor, turn_BSJ: Tensor, told: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.qkv(self.attention_norm(x_BSD), turn_BSJ)

    def finish(self, x_BSD: Tensor, seen_BHSK: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        x_BSD = x_BSD + self.attention.wo(join_heads(seen_BHSK))
        return x_BSD + cast(Tensor, self.feed_forward(self.ffn_norm(x_BSD)))


@dataclass(frozen=True)
class Fed:
    """Units that were fed together and not run yet.

    x_BSD, turn_BSJ: their slots. counts: how many slots each unit takes. seen: (B or 1, G, U), which units each of them
    sees, those fed before and these; None for all.
    """

    x_BSD: Tensor
    turn_BSJ: Tensor
    counts: tuple[int, ...]
    seen: Tensor | None


@dataclass
class StackCache:
    """Keys and values of the slots that were run, a pair for each layer, and the units that wait.

    (B, H, slots, K) each. For decoding, memory for all slots is allocated at the start; where gradients are needed
    (grows), new slots are concatenated. outputs: (B, slots, D), of the layers that a family reads later, by how many
    blocks came before. counts: slots of every unit fed, the class first. length: how many slots were run. asked_B: the
    first cell that was asked last, where its query still stands behind the content; fed_BG: the cells that were fed
    last; see `randar`.
    """

    labels_B: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    outputs: dict[int, Tensor]
    grows: bool
    waiting: list[Fed] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    length: int = 0
    asked_B: Tensor | None = None
    fed_BG: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes allocated."""
        return sum(x.numel() * x.element_size() for x in (*self.keys, *self.values, *self.outputs.values()))

    def put(
        self, layer: int, k_BHSK: Tensor, v_BHSK: Tensor, content: int, slots_BS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values of the first `content` slots, behind the slots that were run or in named ones, and
        return all that these slots may see: what was stored, these, and the queries behind them."""
        pair = []
        for kept, new in ((self.keys, k_BHSK), (self.values, v_BHSK)):
            old, stop = kept[layer], self.length + new.shape[2]
            if slots_BS is not None:
                old.scatter_(2, slots_BS[:, None, :, None].expand_as(new), new)
                pair.append(old)
            elif not self.grows and stop <= old.shape[2]:  # what lies behind the content is written over later
                old[:, :, self.length : stop] = new
                pair.append(old[:, :, :stop])
            else:
                both = torch.cat([old[:, :, : self.length].to(new.dtype), new], dim=2) if self.length else new
                if self.grows:
                    kept[layer] = both[:, :, : self.length + content]
                else:
                    old[:, :, self.length : self.length + content] = new[:, :, :content]
                pair.append(both)
        return pair[0], pair[1]

    def keep_outputs(self, after: int, x_BSD: Tensor) -> None:
        """Store the outputs of content after so many blocks, where a family reads them."""
        if after in self.outputs:
            old = self.outputs[after]
            if self.grows:
                self.outputs[after] = torch.cat([old[:, : self.length].to(x_BSD.dtype), x_BSD], dim=1)
            else:
                old[:, self.length : self.length + x_BSD.shape[1]] = x_BSD


class Stack(nn.Module, ABC, Generic[SomeConfig]):
    """A one-stack network; a family is a subclass that gives the slot programme.

    Labels are int64 in [0, C]; C is the null class. Tensors have the names of the released files.
    """

    joint, causal, named = False, False, False
    """Of a slot programme. joint: cells are asked by slots of their own, which see each other. causal: a slot sees no
    slot behind it, also within a group. named: units may be fed into named slots, each sample's own."""

    def __init__(self, config: SomeConfig) -> None:
        super().__init__()
        self.config = config
        self._tables: dict[tuple[str, torch.device], Tensor] = {}

    # The slot programme

    native = "raster"

    @abstractmethod
    def stack_blocks(self) -> Sequence[AnyBlock]:
        """All blocks, in the order in which they run."""

    @abstractmethod
    def class_slot(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, D) and (B, 1, J): the slot of the class, and how it is rotated."""

    @abstractmethod
    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """(B, S, D), (B, S, J): the slots of codes at cells and how they are rotated; how many slots each of the G
        units takes. fed: how many units, the class included, were fed before."""

    def queries(self, cells_BQ: Tensor) -> tuple[Tensor, Tensor] | None:
        """(B, Q, D), (B, Q, J): the slots that ask cells; None where outputs of content tell them."""
        return None

    def condition(self, labels_B: Tensor) -> Tensor | None:
        """What every block is told of the class; None for nothing."""
        return None

    @abstractmethod
    def read(self, x_BQD: Tensor) -> Tensor:
        """(B, Q, V) logits of outputs."""

    def look_up(self, cache: StackCache, cells_BQ: Tensor) -> Tensor:
        """(B, Q, V) logits of cells that outputs of content tell: slot p, the class being slot 0, tells the cell of
        rank p in the family's own walk."""
        return self.read(taken(cache.outputs[self.taps[-1]], self.rank_L(self.native)[cells_BQ]))

    taps: tuple[int, ...] = ()
    """After how many blocks outputs of content are kept for `look_up`."""

    # What it is

    @classmethod
    def skeleton(cls, config: SomeConfig) -> Stack[SomeConfig]:
        """A network without memory for its weights (the meta device)."""
        with torch.device("meta"):
            return cls(config)

    @abstractmethod
    def initialize(self) -> None:
        """Fresh weights, as the family's paper draws them."""

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices between embeddings and heads."""
        modules = cast("Iterable[nn.Module]", self.stack_blocks())
        return [parameter for block in modules for parameter in block.parameters() if parameter.ndim == 2]

    @property
    def lattice(self) -> Grid:
        """Where the cells are."""
        return self.config.grid

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """(V,): one code a cell."""
        return (self.config.codes,)

    @property
    def n_classes(self) -> int:
        """C; the label C is the null class."""
        return self.config.classes

    @property
    def traits(self) -> frozenset[Trait]:
        """What its calls serve: masks always; the others by the slot programme."""
        named = {"joint": self.joint, "causal": self.causal, "slots": self.named, "shifted": bool(self.taps)}
        return frozenset(cast("set[Trait]", {"masks", *(name for name, holds in named.items() if holds)}))

    def refuses(self, plan: Plan) -> str:
        """Why it cannot follow a plan; a family that serves one walk alone says so."""
        return ""

    @property
    def turn_LJ(self) -> Tensor:
        """(L, K/2) complex64 rotations of all cells, by their row and column."""
        return self.table("turn", lambda: rotary_table(self.config.grid, self.config.head_size))

    def table(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A table that follows from the sizes, on the network's device; made when it is first needed."""
        device = next(self.parameters()).device
        if (name, device) not in self._tables:
            with torch.inference_mode(False):  # training may use it later
                self._tables[name, device] = make().to(device)
        return self._tables[name, device]

    def rank_L(self, order: str) -> Tensor:
        """(L,) int64: the place of every cell in an order, from 0."""

        def ranks() -> Tensor:
            (cells_L,) = make_plan(order, self.config.grid).cells_for([0])
            return torch.from_numpy(np.argsort(cells_L))

        return self.table(f"rank {order}", ranks)

    def no_turn(self, B: int, slots: int = 1) -> Tensor:
        """(B, S, J) zeros: the query and the key of such a slot are the zero vector, as in LlamaGen's class slot."""
        return self.turn_LJ.new_zeros(B, slots, self.turn_LJ.shape[1])

    # The calls of a model

    def start(self, labels_B: Tensor, slots: int) -> StackCache:
        """A cache with room for the slots of so many units; the class waits to be run."""
        one = next(self.parameters())
        grows = torch.is_grad_enabled()
        room = 0 if grows else self.slots_of(slots)
        shape = (len(self.stack_blocks()), len(labels_B), self.config.heads, room, self.config.head_size)
        keys, values = (torch.zeros(shape, dtype=one.dtype, device=labels_B.device).unbind() for _ in range(2))
        outputs = {
            after: torch.zeros(len(labels_B), room, self.config.width, dtype=one.dtype, device=labels_B.device)
            for after in self.taps
        }
        cache = StackCache(labels_B, list(keys), list(values), outputs, grows)
        self._wait(cache, *self.class_slot(labels_B), (1,), None)
        return cache

    def slots_of(self, units: int) -> int:
        """How many slots so many units take, the class included."""
        return units

    def _wait(
        self, cache: StackCache, x_BSD: Tensor, turn_BSJ: Tensor, counts: tuple[int, ...], seen: Tensor | None
    ) -> None:
        cache.waiting.append(Fed(x_BSD, turn_BSJ, counts, seen))
        cache.counts += counts

    def step(
        self,
        cache: StackCache,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        """Feed decoded codes, to be run with the next asking; into named slots, they are run at once."""
        x, turn, counts = self.content(codes_BGK[..., 0], cells_BG, len(cache.counts))
        if slots_BG is None or seen is None:
            self._wait(cache, x, turn, counts, seen)
            return
        if cache.waiting:
            self.run(cache, None, None)
        self._through(cache, x, turn, as_bias(seen, x.dtype), x.shape[1], slots_BG, seen.shape[2])
        cache.length = seen.shape[2]
        cache.counts = [1] * cache.length

    def answer(self, cache: StackCache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        """What the network says of these cells; see `orderbench.models.model.Model.answer`."""
        asked = self.queries(cells_BQ)
        if asked is not None:
            outputs_BSD = self.run(cache, asked, seen)
            return Categorical(self.read(outputs_BSD[:, outputs_BSD.shape[1] - cells_BQ.shape[1] :]).float())
        if cache.waiting:
            self.run(cache, None, None)
        return Categorical(self.look_up(cache, cells_BQ).float())

    def keep(self, cache: StackCache, rows_B: Tensor) -> None:
        """Forget all samples but these."""
        for kept in (cache.keys, cache.values):
            kept[:] = [one[rows_B] for one in kept]
        cache.outputs = {after: one[rows_B] for after, one in cache.outputs.items()}
        cache.labels_B = cache.labels_B[rows_B]
        cache.asked_B, cache.fed_BG = None if cache.asked_B is None else cache.asked_B[rows_B], None

        def of(fed: Fed) -> Fed:
            seen = fed.seen if fed.seen is None or len(fed.seen) == 1 else fed.seen[rows_B]
            return Fed(fed.x_BSD[rows_B], fed.turn_BSJ[rows_B], fed.counts, seen)

        cache.waiting = [of(fed) for fed in cache.waiting]

    # One pass

    def run(self, cache: StackCache, asked: tuple[Tensor, Tensor] | None, seen: Tensor | None) -> Tensor:
        """One pass over what waits and what is asked; (B, S, D) outputs of these slots, those of queries last. What
        waited is content from now on."""
        parts = [(fed.x_BSD, fed.turn_BSJ) for fed in cache.waiting] + ([asked] if asked is not None else [])
        x = torch.cat([part[0] for part in parts], dim=1)
        turn = torch.cat([part[1] for part in parts], dim=1)
        Q = 0 if asked is None else asked[0].shape[1]
        content = x.shape[1] - Q
        bias = as_bias(self._seen(cache, content, Q, seen), x.dtype)
        x = self._through(cache, x, turn, bias, content)
        cache.length += content
        cache.waiting.clear()
        return x

    def _through(
        self,
        cache: StackCache,
        x_BSD: Tensor,
        turn_BSJ: Tensor,
        bias: Tensor | None,
        content: int,
        slots_BS: Tensor | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """All blocks. stop: how many slots the bias covers, where slots are named."""
        condition = self.condition(cache.labels_B)
        for layer, block in enumerate(self.stack_blocks()):
            told = block.told(condition)
            q, k, v = block.qkv(x_BSD, turn_BSJ, told)
            keys, values = cache.put(layer, k, v, content, slots_BS)
            x_BSD = block.finish(x_BSD, attend(q, keys[:, :, :stop], values[:, :, :stop], bias), told)
            cache.keep_outputs(layer + 1, x_BSD[:, :content])
        return x_BSD

    def _seen(self, cache: StackCache, content: int, Q: int, seen: Tensor | None) -> Tensor | None:
        """(B or 1, S, T): which of T slots the S slots of this pass see: those that were run, then those of this pass;
        None where all see all."""
        free = seen is None and not self.causal and all(fed.seen is None for fed in cache.waiting)
        if free and (not Q or not content) and len(cache.waiting) <= 1:
            return None
        device = cache.labels_B.device
        masks = [fed.seen for fed in cache.waiting if fed.seen is not None] + ([seen] if seen is not None else [])
        B = max((len(mask) for mask in masks), default=1)
        S, T = content + Q, cache.length + content + Q
        table = torch.zeros(B, S, T, dtype=torch.bool, device=device)
        first, units = 0, len(cache.counts) - sum(len(fed.counts) for fed in cache.waiting)
        for fed in cache.waiting:
            width, units = fed.x_BSD.shape[1], units + len(fed.counts)
            stop = cache.length + first + width
            rows = slice(first, first + width)
            if fed.seen is None:
                table[:, rows, :stop].fill_(True)
            else:
                table[:, rows, :stop] = spread(spread(fed.seen, cache.counts[:units], 2), fed.counts, 1)
            first += width
        if Q and seen is None:
            table[:, content:].fill_(True)
        elif Q and seen is not None:
            told = cache.length + content
            table[:, content:, :told] = spread(seen[..., : len(cache.counts)], cache.counts, 2)
            table[:, content:, told:] = seen[..., len(cache.counts) :]
        if self.causal:
            place_T = torch.arange(T, device=device)
            table &= place_T <= place_T[T - S :, None]
        return table


def spread(seen: Tensor, counts: Sequence[int], dim: int) -> Tensor:
    """A mask over units as one over their slots, along one axis."""
    if all(count == 1 for count in counts):
        return seen
    return seen.repeat_interleave(torch.tensor(counts, device=seen.device), dim=dim)


class Rewindable(Stack[SomeConfig]):
    """A stack whose content may be taken back, one slot a unit: what corrections need."""

    def refill(self, cache: StackCache, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        """Forget everything, then feed the class and these codes as one group, each seeing all."""
        self._forget(cache)
        cache.labels_B = labels_B
        x, turn, counts = self.content(codes_BMK[..., 0], cells_BM, 1)
        first_x, first_turn = self.class_slot(labels_B)
        self._wait(cache, torch.cat([first_x, x], 1), torch.cat([first_turn, turn], 1), (1, *counts), None)

    def rewind(self, cache: StackCache, slots: int) -> None:
        """Forget all but the first `slots` slots."""
        if slots > cache.length:
            self.run(cache, None, None)
        cache.waiting.clear()
        cache.length = slots
        del cache.counts[slots:]

    def _forget(self, cache: StackCache) -> None:
        cache.waiting.clear()
        cache.counts.clear()
        cache.length = 0


class LlamaStack(Stack[SomeConfig]):
    """What LlamaGen and the families that follow it share: their tables, blocks and head, under the names of the
    released files."""

    def __init__(self, config: SomeConfig) -> None:
        super().__init__(config)
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(config.classes + 1, config.width)})
        self.tok_embeddings = nn.Embedding(config.codes, config.width)
        self.layers = nn.ModuleList(self.make_block() for _ in range(self.depth()))
        self.norm = RMSNorm(config.width)
        self.output = nn.Linear(config.width, config.codes, bias=False)

    def depth(self) -> int:
        """How many blocks the stack has."""
        return self.config.blocks

    def make_block(self) -> nn.Module:
        """One block."""
        return Block(self.config)

    def initialize(self) -> None:
        """LlamaGen's: matrices and embeddings N(0, 0.02**2), norms 1, the head 0, so that a fresh model is uniform."""
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.output.weight)

    def stack_blocks(self) -> Sequence[AnyBlock]:
        return cast("Sequence[AnyBlock]", self.layers)

    def class_vector(self, labels_B: Tensor) -> Tensor:
        """(B, D): the class by its table; row C is no class."""
        x: Tensor = self.cls_embedding["embedding_table"](labels_B)
        return x

    def class_slot(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.class_vector(labels_B)[:, None], self.no_turn(len(labels_B))

    def content(self, codes_BG: Tensor, cells_BG: Tensor, fed: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """One slot a code, rotated by its own cell."""
        return self.tok_embeddings(codes_BG), self.turn_LJ[cells_BG], (1,) * cells_BG.shape[1]

    def read(self, x_BQD: Tensor) -> Tensor:
        logits: Tensor = self.output(self.norm(x_BQD))
        return logits


def taken(outputs_BSD: Tensor, slots_BQ: Tensor) -> Tensor:
    """(B, Q, D): the outputs of each sample's own slots."""
    return outputs_BSD.gather(1, slots_BQ[..., None].expand(-1, -1, outputs_BSD.shape[2]))


def walks_alone(model: Stack[Any], plan: Plan, *, sizes: bool = True) -> str:
    """Why a family that knows one walk cannot follow a plan; empty if it is that walk. sizes: also in its own steps."""
    own = make_plan(model.native, model.lattice)
    if (
        not plan.per_sample
        and (plan.cells_for([0]) == own.cells_for([0])).all()
        and (not sizes or plan.sizes == own.sizes)
    ):
        return ""
    steps = f" in its {own.n_steps} steps" if sizes else ", cut into any steps"
    return f"its network knows the walk of {model.native}{steps} and no other; --orders {model.native} would do"
