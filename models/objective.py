"""The any-order objective: what the shared transformer, and every system beside it, is trained on.

Knows plans, views, corruption and terms. Refuses to know schedules and files. The mixture decides which orders a model
is good at. So it is a value that is saved with the weights, and reports print it with every order.

A batch follows one plan of the mixture; an order with a draw a sample draws for every image. A batch has one of two
views. Plain: all cells are asked, and each sees what it sees when it is decoded. Nested: one step of the plan, where
some known codes are wrong and all known and new cells are asked. What was asked is a `Lesson`. The loss is the sum of
the terms that the objective names. The default is one term, `ce`, the cross-entropy of the true codes; the shipped
weights were trained with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from orderbench.models.answer import Answer, at
from orderbench.models.codec import Codec
from orderbench.models.config import NetworkConfig, to_plain
from orderbench.models.families import about_network, build_network
from orderbench.models.likelihood import answer_along, crop_answer, plan_bits
from orderbench.models.model import Meeting, Model, Rewindable, check, refusal, serves
from orderbench.models.sampling import PLAIN, UniformNoise
from orderbench.models.visibility import walk
from orderbench.orders import BenchError, Plan, make_plan
from orderbench.orders.errors import unknown
from orderbench.orders.registry import Bound, Entry, Registry
from orderbench.orders.spelling import read_options
from orderbench.orders.streams import generator


@dataclass(frozen=True)
class Draws:
    """What one training step draws. Numbers are drawn for the whole batch, and a process takes its share of them."""

    rng: np.random.Generator
    batch: int
    share: slice
    device: torch.device

    def random(self, *shape: int) -> Tensor:
        """(b, *shape) float64 in [0, 1)."""
        return torch.from_numpy(self.rng.random((self.batch, *shape))[self.share]).to(self.device)

    def integers(self, below: int, *shape: int) -> Tensor:
        """(b, *shape) int64 in [0, below)."""
        return torch.from_numpy(self.rng.integers(0, below, (self.batch, *shape))[self.share]).to(self.device)


@dataclass(frozen=True)
class Lesson:
    """What a network is taught in one batch; terms read it.

    cells_BQ, clean_BQK: the cells that were asked and their true codes. answer: what the network said of them. fed_BMK:
    the codes that were fed, some of them wrong in a nested view. done: the share of training that is over, in [0, 1).
    hidden: outputs of those modules of the network that a term `hears`, by name.
    """

    cells_BQ: Tensor
    clean_BQK: Tensor
    answer: Answer
    fed_BMK: Tensor
    done: float
    hidden: Mapping[str, Tensor] = field(default_factory=dict)


# Terms


@dataclass(frozen=True, kw_only=True)
class Term(Entry):
    """A registered term. hears: names of those modules of the network whose outputs it reads. helper: makes a module
    that is trained and checkpointed with the network and never shipped; the term's function gets it as `helper`."""

    hears: tuple[str, ...] = ()
    helper: Callable[[Any], nn.Module] | None = None


TERMS: Registry[Term] = Registry("an objective term", "terms are written as in ce or ce:weight=0.5")
TermFunction = TypeVar("TermFunction", bound=Callable[..., Tensor])


def register_term(
    name: str,
    *,
    paper: str,
    idea: str,
    hears: Sequence[str] = (),
    helper: Callable[[Any], nn.Module] | None = None,
) -> Callable[[TermFunction], TermFunction]:
    """Decorator: put `term(lesson, *, <typed options>) -> loss` (no axes) under a name."""

    def decorate(function: TermFunction) -> TermFunction:
        options = read_options(function, reserved=("helper",), first="lesson")
        TERMS.add(Term(name=name, paper=paper, idea=idea, function=function, options=options,
                       origin=function.__module__, hears=tuple(hears), helper=helper))  # fmt: skip
        return function

    return decorate


@register_term("ce", paper="none", idea="cross-entropy of the true codes")
def cross_entropy(lesson: Lesson, *, weight: Annotated[float, "of the term"] = 1.0) -> Tensor:
    """The mean over cells, in nats, all codes of a cell together."""
    return weight * -lesson.answer.log_prob(lesson.clean_BQK).mean()


# Corruptions


@dataclass(frozen=True)
class Scene:
    """What a corruption may use: the codes of whole images, the known cells, and the network's own answer to them."""

    codes_BLK: Tensor
    known_BM: Tensor
    code_sizes: tuple[int, ...]
    answer: Callable[[], Answer]
    draws: Draws


CORRUPTIONS: Registry[Entry] = Registry("a corruption", "an objective names them, as in uniform or image")
Corrupt = TypeVar("Corrupt", bound=Callable[[Scene], Tensor])


def register_corruption(name: str, *, paper: str, idea: str) -> Callable[[Corrupt], Corrupt]:
    """Decorator: put `corruption(scene) -> codes_BMK` under a name: a wrong code for every known cell, of which a batch
    takes some."""

    def decorate(function: Corrupt) -> Corrupt:
        CORRUPTIONS.add(Entry(name=name, paper=paper, idea=idea, function=function, origin=function.__module__))
        return function

    return decorate


@register_corruption("uniform", paper="none", idea="codes drawn uniformly")
def _uniform(scene: Scene) -> Tensor:
    M = scene.known_BM.shape[1]
    return torch.stack([scene.draws.integers(size, M) for size in scene.code_sizes], dim=-1)


@register_corruption("image", paper="none", idea="codes of other cells of the same image")
def _image(scene: Scene) -> Tensor:
    return at(scene.codes_BLK, scene.draws.integers(scene.codes_BLK.shape[1], scene.known_BM.shape[1]))


@register_corruption("model", paper="none", idea="the network's own samples at these cells")
def _model(scene: Scene) -> Tensor:
    M, K = scene.known_BM.shape[1], len(scene.code_sizes)
    noise = UniformNoise(torch.stack([scene.draws.random(M) for _ in range(K)], dim=-1))
    with torch.no_grad():
        return scene.answer().draw(noise, PLAIN)


# The objective


@dataclass(frozen=True, kw_only=True)
class Share:
    """One part of the mixture: an order, its paces (each as likely as the others), its share of the batches."""

    order: str
    paces: tuple[str, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The mixture and the nested part.

    nested: the share of batches that are one nested step. noise: in a nested batch, the share of known codes that are
    wrong is uniform in [0, noise]. corruptions: by name; each nested batch takes one of them. label_drop: the share of
    images whose label is replaced by the null class. terms: of the loss, as in 'ce' or 'ce:weight=0.5'.

    Whether corruptions and terms are registered is asked by whoever trains: a card is read without its plugins.
    """

    mixture: tuple[Share, ...]
    nested: float = 0.35
    noise: float = 0.3
    corruptions: tuple[str, ...] = ("uniform", "image", "model")
    label_drop: float = 0.1
    terms: tuple[str, ...] = ("ce",)

    def __post_init__(self) -> None:
        total = sum(part.share for part in self.mixture)
        if not abs(total - 1) <= 1e-9:
            raise BenchError(f"the mixture's shares sum to {total:g}; they must sum to 1")
        for part in self.mixture:
            if part.share < 0 or not part.paces:
                raise BenchError(
                    f"the mixture holds {part.order} with the share {part.share:g} and {len(part.paces)} paces; a "
                    f"share of 0 or more and one pace or more would do"
                )
        for name in ("nested", "noise", "label_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchError(f"the objective's {name} is {getattr(self, name):g}; it is a share, from 0 to 1")
        if not self.corruptions or not self.terms:
            raise BenchError("an objective has one corruption and one term or more, as in uniform and ce")


def objective_to_plain(objective: ObjectiveConfig) -> dict[str, Any]:
    """A plain value, as cards and checkpoints hold it. Default terms are left out, as in cards older than terms."""
    value = to_plain(objective)
    return {key: entry for key, entry in value.items() if key != "terms" or tuple(entry) != ("ce",)}


# Some orders are left out on purpose: hilbert, z-curve, dither, checkerboard, locality, raster-reverse, spiral-in.
SHIPPED = ObjectiveConfig(
    mixture=(
        Share(order="raster", paces=("one", "one", "one", "even:13"), share=0.25),
        Share(order="radial", paces=("native", "native", "one"), share=0.2),
        Share(order="radial:center=random", paces=("native",), share=0.04),
        Share(order="random", paces=("one", "cosine:8", "cosine:13", "cosine:20", "cosine:32", "cosine:64"),
              share=0.23),
        Share(order="halton", paces=("one", "cosine:13", "cosine:32"), share=0.07),
        Share(order="designed", paces=("cosine:8", "cosine:13", "cosine:20", "cosine:32"), share=0.04),
        Share(order="spiral", paces=("one", "ear-sides", "ear-shells"), share=0.05),
        Share(order="diagonal", paces=("native",), share=0.04),
        Share(order="regions", paces=("native",), share=0.04),
        Share(order="column", paces=("one",), share=0.02),
        Share(order="snake", paces=("one",), share=0.02),
    )
)  # fmt: skip
RANDOM_ONLY = ObjectiveConfig(
    mixture=(
        Share(order="random", paces=("one", "cosine:8", "cosine:13", "cosine:20", "cosine:32", "cosine:64"), share=1.0),
    )
)
HELD_OUT = ("raster", "raster@even:13", "radial", "radial@one", "random@cosine:13", "halton@cosine:13")


class ModelJob:
    """A network on the codes of a training split: the shared transformer, or one of a family, by its configuration.

    steps: of the whole training, for terms that anneal. tokens_NL: one code a cell. codec: whose codes they are, for a
    network that must know.
    """

    name = "model"

    def __init__(
        self,
        model: NetworkConfig,
        objective: ObjectiveConfig,
        tokens_NL: Tensor,
        labels_N: Tensor,
        held_out: tuple[Tensor, Tensor],
        *,
        data: str,
        codec: Codec | None = None,
        seed: int,
        device: str,
        steps: int = 1,
        held_out_images: int = 128,
    ) -> None:
        self.model, self.objective, self.seed, self.device, self.data = model, objective, seed, device, data
        self.codec, self.steps, self.terms = codec, steps, [TERMS.parse(term) for term in objective.terms]
        self.tokens_NL, self.labels_N = tokens_NL, labels_N
        self.held_codes_BLK = held_out[0][:held_out_images, :, None].long().to(device)
        self.held_labels_B = held_out[1][:held_out_images].to(device)
        for corruption in objective.corruptions:
            CORRUPTIONS.get(corruption)
        for part in objective.mixture:  # so that a plan that this lattice does not serve is refused now
            for pace in part.paces:
                make_plan(part.order, model.lattice, pace)

    def build(self) -> nn.Module:
        network = build_network(self.model)
        if isinstance(network, Meeting):
            network.meet(self.codec)
        for part in self.objective.mixture:
            for pace in part.paces:
                check(network, make_plan(part.order, self.model.lattice, pace), ("masks",))  # type: ignore[arg-type]
        if self.objective.nested and not serves(network, "rewind"):
            raise BenchError(
                f"{type(network).__name__} cannot be taught to correct: what it was fed cannot be taken back; a "
                f"mixture with nested 0 would do"
            )
        with listening(network, self._heard):  # a module that it has not is said now
            pass
        helpers = {str(n): term.entry.helper(self.model) for n, term in enumerate(self.terms) if term.entry.helper}
        return Taught(network, helpers) if helpers else network

    def hidden_matrices(self, network: nn.Module) -> list[nn.Parameter]:
        matrices: list[nn.Parameter] = self._own(network).hidden_matrices()
        return matrices

    def ships(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that are kept as weights: those of the network, without the terms' helpers."""
        own = {name.removeprefix("network."): tensor for name, tensor in state.items() if name.startswith("network.")}
        return own or dict(state)

    @property
    def _heard(self) -> list[str]:
        return [name for term in self.terms for name in term.entry.hears]

    def _own(self, network: nn.Module) -> Any:
        """What build() made, without helpers: a module that is a model."""
        return network.network if isinstance(network, Taught) else network

    def describe(self) -> dict[str, Any]:
        return {**about_network(self.model), "objective": objective_to_plain(self.objective), "data": self.data}

    def __len__(self) -> int:
        return len(self.tokens_NL)

    def loss(self, network: nn.Module, indices_B: Tensor, share: slice, step: int) -> tuple[Tensor, dict[str, float]]:
        own = self._own(network)
        rng = generator(self.seed, "train", step)
        codes_BLK = self.tokens_NL[indices_B[share]].long().to(self.device)[..., None]
        labels_B = self.labels_N[indices_B[share]].to(self.device)
        dropped_B = rng.random(len(indices_B))[share] < self.objective.label_drop
        labels_B = labels_B.masked_fill(torch.from_numpy(dropped_B).to(self.device), self.model.classes)
        plan = self.draw_plan(rng)
        cells_BL = walk(plan, indices_B[share].tolist() if plan.per_sample else [0], self.device)
        cells_BL = cells_BL.expand(codes_BLK.shape[:2])
        draws = Draws(rng, len(indices_B), share, codes_BLK.device)
        nested = rng.random() < self.objective.nested and plan.n_steps > 1
        with listening(own, self._heard) as hidden:
            view = self._nested if nested else self._plain
            lesson = view(own, codes_BLK, labels_B, cells_BL, plan, draws, step / self.steps, hidden)
        helpers = dict(network.helpers.items()) if isinstance(network, Taught) else {}
        losses = [term_loss(term, lesson, helpers.get(str(n))) for n, term in enumerate(self.terms)]
        return torch.stack(losses).sum(), {}

    def draw_plan(self, rng: np.random.Generator) -> Plan:
        """A plan of the mixture: a part by its share, then one of its paces, each as likely."""
        shares = [part.share for part in self.objective.mixture]
        part = self.objective.mixture[rng.choice(len(shares), p=shares)]
        pace = part.paces[rng.integers(len(part.paces))]
        return make_plan(part.order, self.model.lattice, pace, seed=int(rng.integers(2**62)))

    def _plain(
        self, network: Model, codes_BLK: Tensor, labels_B: Tensor, cells_BL: Tensor, plan: Plan, draws: Draws,
        done: float, hidden: Mapping[str, Tensor],
    ) -> Lesson:  # fmt: skip
        answer = answer_along(network, codes_BLK, labels_B, cells_BL, plan.sizes)
        walked_BLK = at(codes_BLK, cells_BL)
        return Lesson(cells_BL, walked_BLK, answer, walked_BLK[:, : -plan.sizes[-1]], done, hidden)

    def _nested(
        self, network: Rewindable, codes_BLK: Tensor, labels_B: Tensor, cells_BL: Tensor, plan: Plan, draws: Draws,
        done: float, hidden: Mapping[str, Tensor],
    ) -> Lesson:  # fmt: skip
        step = int(draws.rng.integers(1, plan.n_steps))
        known = sum(plan.sizes[:step])
        known_BM, crop_BQ = cells_BL[:, :known], cells_BL[:, : known + plan.sizes[step]]
        rate = self.objective.noise * draws.rng.random()
        kind = self.objective.corruptions[draws.rng.integers(len(self.objective.corruptions))]
        chosen_BM = draws.random(known) < rate

        def own_answer() -> Answer:
            return answer_along(network, codes_BLK, labels_B, cells_BL, plan.sizes).take(slice(known))

        scene = Scene(codes_BLK, known_BM, network.code_sizes, own_answer, draws)
        other_BMK = CORRUPTIONS.get(kind).function(scene)
        fed_BMK = torch.where(chosen_BM[..., None], other_BMK, at(codes_BLK, known_BM))
        answer = crop_answer(network, fed_BMK, labels_B, known_BM, crop_BQ)
        return Lesson(crop_BQ, at(codes_BLK, crop_BQ), answer, fed_BMK, done, hidden)

    def after(self, network: nn.Module, step: int) -> None:
        return None

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return None

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Bits per token of held-out images, by arm."""
        own, figures = self._own(network), {}
        for arm, plan in self._held_out_plans(own):
            bits = []
            for start in range(0, len(self.held_codes_BLK), 64):
                part = slice(start, start + 64)
                codes_BLK, labels_B = self.held_codes_BLK[part], self.held_labels_B[part]
                samples = range(start, start + len(codes_BLK))
                bits.append(plan_bits(own, codes_BLK, labels_B, plan, samples=samples))
            figures[arm] = float(torch.cat(bits).mean())
        return figures

    def _held_out_plans(self, network: Model) -> Iterator[tuple[str, Plan]]:
        """Arms that are watched: the usual ones, as far as the network serves them and the lattice has them; its own
        native arm if there are none of these."""
        served = []
        for arm in HELD_OUT:
            with suppress(BenchError):
                plan = make_plan(arm, self.model.lattice)
                if not refusal(network, plan):
                    served.append((arm, plan))
        return iter(served or [(network.native, make_plan(network.native, self.model.lattice))])


class Taught(nn.Module):
    """A network with the helpers of its objective's terms, trained together."""

    def __init__(self, network: nn.Module, helpers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.network, self.helpers = network, nn.ModuleDict(helpers)


def term_loss(term: Bound[Term], lesson: Lesson, helper: nn.Module | None = None) -> Tensor:
    """One term of the loss, with its options."""
    more = {"helper": helper} if helper is not None else {}
    loss: Tensor = term.entry.function(lesson, **term.values, **more)
    return loss


@contextmanager
def listening(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that holds the last output of each of these modules of a network, by name, while the context is
    open; BenchError for a module that the network does not have."""
    hidden: dict[str, Tensor] = {}
    modules = dict(network.named_modules())

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: hidden.__setitem__(name, output)

    absent = [name for name in names if name not in modules]
    if absent:
        ask = "a term's `hears` names modules as torch's named_modules() does"
        raise unknown(f"module of {type(network).__name__}", absent[0], filter(None, modules), ask)
    hooks = [modules[name].register_forward_hook(keep(name)) for name in dict.fromkeys(names)]
    try:
        yield hidden
    finally:
        for hook in hooks:
            hook.remove()
