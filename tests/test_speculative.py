"""Speculative decoding: its law is the model's own, by branching over every draw that it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import chained_model, toy_model

from orderbench.models import speculative
from orderbench.models.answer import Answer, Categorical, at
from orderbench.models.decode import decode, decode_steps, make_tile, parse_decoder, run_tile
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import PLAIN, Sampling, filtered
from orderbench.models.speculative import Speculation
from orderbench.orders import BenchError, Grid, Plan, make_plan


class Table:
    """A model of a few cells that knows the joint law of all codes, so that every conditional is exact."""

    n_classes, native = 1, "raster"
    traits = frozenset({"masks", "slots"})

    def __init__(self, joint: Tensor) -> None:
        self.joint, self.lattice, self.code_sizes = joint / joint.sum(), Grid(1, joint.ndim), (joint.shape[0],)

    def refuses(self, plan: Plan) -> str:
        return ""

    def start(self, labels_B: Tensor, slots: int) -> list[dict[int, tuple[int, int]]]:
        return [{} for _ in labels_B]

    def step(self, cache: Any, codes_BGK: Tensor, cells_BG: Tensor, *, seen: Any = None, slots_BG: Any = None) -> None:
        for b, held in enumerate(cache):
            slots = (
                range(1 + len(held), 1 + len(held) + cells_BG.shape[1]) if slots_BG is None else slots_BG[b].tolist()
            )
            held.update(zip(slots, zip(cells_BG[b].tolist(), codes_BGK[b, :, 0].tolist(), strict=True), strict=True))

    def answer(self, cache: Any, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        V = self.code_sizes[0]
        logits = torch.empty(*cells_BQ.shape, V, dtype=torch.float64)
        for b, held in enumerate(cache):
            for q, cell in enumerate(cells_BQ[b].tolist()):
                law = self.joint
                for slot, (known, code) in held.items():
                    if seen is None or (slot < seen.shape[2] and seen[b % len(seen), q, slot]):
                        law = law * torch.zeros(V, dtype=torch.float64).index_fill(0, torch.tensor([code]), 1).view(
                            [-1 if axis == known else 1 for axis in range(law.ndim)])  # fmt: skip
                logits[b, q] = law.sum([axis for axis in range(law.ndim) if axis != cell]).log()
        return Categorical(logits.clamp(min=-60))


@dataclass
class Choices:
    """Walks every way that draws can fall: `taken` is replayed, then the first of each kind is taken."""

    taken: list[int]
    weights: list[list[float]]

    def choose(self, weights: Tensor) -> int:
        depth = len(self.weights)
        self.weights.append(weights.tolist())
        if depth == len(self.taken):
            self.taken.append(next(i for i, weight in enumerate(self.weights[-1]) if weight > 1e-15))
        return self.taken[depth]

    def probability(self) -> float:
        return float(
            torch.tensor([w[i] for w, i in zip(self.weights, self.taken, strict=True)], dtype=torch.float64).prod()
        )

    def following(self) -> list[int] | None:
        """The next way; None after the last one."""
        for depth in reversed(range(len(self.taken))):
            for other in range(self.taken[depth] + 1, len(self.weights[depth])):
                if self.weights[depth][other] > 1e-15:
                    return [*self.taken[:depth], other]
        return None


def branching(choices: Choices) -> type[Speculation]:
    """Speculation whose numbers are made to fall as the choices say."""

    class Branching(Speculation):
        def decide(self, index: int, answer: Answer, cells_BQ: Tensor, places_BQ: Tensor) -> tuple[Tensor, Tensor]:
            p_QV, q_QV = self.law(answer)[0], self._drafted_from(places_BQ, self.law(answer))[0]
            held_Q, places = at(self.codes_BLK, cells_BQ)[0, :, 0], places_BQ[0].tolist()
            self.numbers, behind = torch.zeros(1, len(places), 2, dtype=torch.float64), False
            for j, place in enumerate(places):
                law, kept = p_QV[j], 0.0
                if place < int(self.guessed_B[0]) and not (behind and self.rule == "sjd"):
                    chance = (p_QV[j, held_Q[j]] / q_QV[j, held_Q[j]]).clamp(max=1)
                    rejected = choices.choose(torch.stack([chance, 1 - chance]))
                    kept = float((1 + chance) / 2 if rejected else chance / 2)
                    law = (p_QV[j] - q_QV[j]).clamp(min=0) if rejected else None  # type: ignore[assignment]
                behind |= law is not None
                if law is not None:
                    cdf = torch.cat([torch.zeros(1, dtype=torch.float64), (law / law.sum()).cumsum(0)])
                    code = choices.choose(law / law.sum())
                    self.numbers[0, j, 1] = (cdf[code] + cdf[code + 1]) / 2
                self.numbers[0, j, 0] = kept
            return super().decide(index, answer, cells_BQ, places_BQ)

        def chances(self, index: int, cells_BQ: Tensor) -> Tensor:
            return self.numbers

    return Branching


def joint(V: int, cells: int, weight: Callable[[tuple[int, ...]], float]) -> Tensor:
    """The weights of all codes of some cells, V values each."""
    return torch.tensor([weight(codes) for codes in product(range(V), repeat=cells)]).double().view([V] * cells)


def coupled(codes: tuple[int, ...]) -> float:
    """A Markov field: neighbours like to be the same."""
    return 3.0 ** sum(a == b for a, b in pairwise(codes))


LATTICES = {
    "field": joint(2, 4, coupled),
    "long field": joint(2, 6, coupled),
    "parity": joint(2, 4, lambda codes: float(sum(codes) % 2 == 0)),
    "permutation": joint(3, 3, lambda codes: float(len(set(codes)) == 3)),
    "any": torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
}
DECODERS = [
    "speculative:window=3", "speculative:window=2:rule=coupling", "speculative:window=3:rule=coupling", "draft:k=3",
]  # fmt: skip
FILTERED = Sampling(temperature=0.7, top_k=2)


def singly(model: Table, plan: Plan, sampling: Sampling) -> Tensor:
    """The law of one cell at a time, from the model's own conditionals."""
    law, cells = torch.zeros_like(model.joint), plan.cells_for([0])[0].tolist()
    for codes in product(range(model.code_sizes[0]), repeat=len(cells)):
        chance = 1.0
        cache = model.start(torch.zeros(1), 0)
        for cell in cells:
            probs = filtered(model.answer(cache, torch.tensor([[cell]])).law(sampling.temperature), sampling)[0, 0]
            chance *= float(probs[codes[cell]] / probs.sum())
            model.step(cache, torch.tensor([[[codes[cell]]]]), torch.tensor([[cell]]))
        law[codes] = chance
    return law


def law_of(decoder: str, model: Table, plan: Plan, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The law of what a decoder gives, by branching over every accept, reject and draw."""
    law = torch.zeros_like(model.joint)
    taken: list[int] | None = []
    with torch.inference_mode():
        while taken is not None:
            choices = Choices(list(taken), [])
            monkeypatch.setattr(speculative, "Speculation", branching(choices))
            tile = make_tile(model, plan, [0], sampling=sampling)  # type: ignore[arg-type]
            run_tile(tile, parse_decoder(decoder))
            law[tuple(tile.codes_BLK[0, :, 0].tolist())] += choices.probability()
            taken = choices.following()
    return law


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("lattice", [name for name in LATTICES if name != "long field"])
@pytest.mark.parametrize(("order", "sampling"), [("raster", PLAIN), ("halton", PLAIN), ("halton", FILTERED)])
def test_its_law_is_that_of_one_cell_at_a_time(
    lattice: str, decoder: str, order: str, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Table(LATTICES[lattice])
    plan = make_plan(order, model.lattice)
    expected = singly(model, plan, sampling)
    if sampling == PLAIN:
        torch.testing.assert_close(expected, model.joint, atol=1e-12, rtol=0)
    found = law_of(decoder, model, plan, sampling, monkeypatch)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("decoder", ["speculative:window=2", "speculative:window=2:rule=coupling", "draft:k=2"])
def test_six_cells(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Table(LATTICES["long field"])
    found = law_of(decoder, model, make_plan("halton", model.lattice), PLAIN, monkeypatch)
    torch.testing.assert_close(found, model.joint, atol=1e-12, rtol=0)


def test_a_test_that_keeps_every_draft_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof can fail: drafts that are kept whatever the network says have another law."""
    model = Table(LATTICES["any"])
    real = Speculation._drafted_from
    monkeypatch.setattr(Speculation, "_drafted_from", lambda self, places, p: real(self, places, p) * 1e-9)
    found = law_of("speculative:window=3", model, make_plan("raster", model.lattice), PLAIN, monkeypatch)
    assert (found - model.joint).abs().max() > 0.01


MODEL = toy_model().double()
GUIDED = Sampling(guidance=Guidance(law="constant", scale=2.0), temperature=0.9, top_p=0.95)


@pytest.mark.parametrize("decoder", ["speculative", "speculative:rule=coupling", "draft"])
def test_codes_belong_to_seed_and_sample_whoever_is_decoded_beside(decoder: str) -> None:
    plan = make_plan("random", MODEL.lattice)
    chosen = parse_decoder(decoder)
    whole = decode(MODEL, plan, range(6), sampling=GUIDED, decoder=chosen, tile=6)
    alone = [decode(MODEL, plan, [i], sampling=GUIDED, decoder=chosen, tile=1).codes_NLK for i in range(6)]
    assert torch.equal(torch.cat(alone), whole.codes_NLK)
    other = decode(MODEL, plan, range(6), sampling=GUIDED, decoder=chosen, tile=6, seed=1)
    assert not torch.equal(other.codes_NLK, whole.codes_NLK)
    assert whole.counters.passes < MODEL.lattice.n_cells
    assert (whole.settled_NL >= 1).all()


@pytest.mark.parametrize(
    ("decoder", "sentence"),
    [
        (
            "speculative:window=0",
            "speculative:window=0 is not served; window is 1 or more, as in speculative:",
        ),
        ("draft:k=1", "draft:k=1 is not served; k is 2 or more, as in draft:k=10"),
    ],
)
def test_options_that_cannot_be_are_refused(decoder: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        next(decode_steps(MODEL, make_plan("raster", MODEL.lattice), [0], decoder=parse_decoder(decoder)))


@pytest.mark.parametrize("decoder", ["speculative", "draft"])
def test_several_codes_a_cell_are_refused(decoder: str) -> None:
    model: Any = chained_model()
    with pytest.raises(BenchError, match="needs that a cell holds one code, whose law can be told"):
        next(decode_steps(model, make_plan("raster", model.lattice), [0], decoder=parse_decoder(decoder)))
