"""Speculative decoding: its law is the model's own, by branching over every draw that it makes."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import chained_model, toy_model

from orderbench.models import speculative
from orderbench.models.analytic import Known, Law, markov_field, parity, permutation
from orderbench.models.answer import Answer, at
from orderbench.models.decode import decode, decode_steps, make_tile, parse_decoder, run_tile
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import PLAIN, Sampling, filtered
from orderbench.models.speculative import Speculation
from orderbench.orders import BenchError, Grid, Plan, make_plan


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


def any_law() -> Law:
    """Three cells of three codes, with probabilities that follow no rule."""
    codes_XL = torch.tensor(list(product(range(3), repeat=3)))
    weights_X = torch.rand(27, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Law("any", Grid(1, 3), 3, codes_XL, weights_X / weights_X.sum())


LAWS = {
    "field": markov_field(Grid(2, 2)),
    "long field": markov_field(Grid(2, 3), coupling=1.1),
    "parity": parity(Grid(2, 2)),
    "permutation": permutation(Grid(1, 3)),
    "any": any_law(),
}
DECODERS = [
    "speculative:window=3", "speculative:window=2:rule=coupling", "speculative:window=3:rule=coupling", "draft:k=3",
]  # fmt: skip
FILTERED = Sampling(temperature=0.7, top_k=2)


def joint(model: Known) -> Tensor:
    """The law of a model as a table, one axis a cell."""
    table = torch.zeros([model.law.n_codes] * model.law.grid.n_cells, dtype=torch.float64)
    table[tuple(model.law.codes_XL.T)] = model.law.prob_X
    return table


def singly(model: Known, plan: Plan, sampling: Sampling) -> Tensor:
    """The law of one cell at a time, from the model's own conditionals."""
    law, cells = torch.zeros_like(joint(model)), plan.cells_for([0])[0].tolist()
    for codes in product(range(model.code_sizes[0]), repeat=len(cells)):
        chance = 1.0
        cache = model.start(torch.zeros(1), 1 + len(cells))
        for cell in cells:
            probs = filtered(model.answer(cache, torch.tensor([[cell]])).law(sampling.temperature), sampling)[0, 0]
            chance *= float(probs[codes[cell]] / probs.sum())
            model.step(cache, torch.tensor([[[codes[cell]]]]), torch.tensor([[cell]]))
        law[codes] = chance
    return law


def law_of(decoder: str, model: Known, plan: Plan, sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The law of what a decoder gives, by branching over every accept, reject and draw."""
    law = torch.zeros_like(joint(model))
    taken: list[int] | None = []
    with torch.inference_mode():
        while taken is not None:
            choices = Choices(list(taken), [])
            monkeypatch.setattr(speculative, "Speculation", branching(choices))
            tile = make_tile(model, plan, [0], sampling=sampling)
            run_tile(tile, parse_decoder(decoder))
            law[tuple(tile.codes_BLK[0, :, 0].tolist())] += choices.probability()
            taken = choices.following()
    return law


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("lattice", [name for name in LAWS if name != "long field"])
@pytest.mark.parametrize(("order", "sampling"), [("raster", PLAIN), ("halton", FILTERED)])
def test_its_law_is_that_of_one_cell_at_a_time(
    lattice: str, decoder: str, order: str, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Known(LAWS[lattice])
    plan = make_plan(order, model.lattice)
    expected = singly(model, plan, sampling)
    if sampling == PLAIN:
        torch.testing.assert_close(expected, joint(model), atol=1e-6, rtol=0)  # its conditionals are fp32
    found = law_of(decoder, model, plan, sampling, monkeypatch)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("decoder", ["speculative:window=2:rule=coupling", "draft:k=2"])
def test_six_cells(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Known(LAWS["long field"])
    found = law_of(decoder, model, make_plan("halton", model.lattice), PLAIN, monkeypatch)
    torch.testing.assert_close(found, joint(model), atol=1e-6, rtol=0)


def test_a_test_that_keeps_every_draft_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof can fail: drafts that are kept whatever the network says have another law."""
    model = Known(LAWS["any"])
    real = Speculation._drafted_from
    monkeypatch.setattr(Speculation, "_drafted_from", lambda self, places, p: real(self, places, p) * 1e-9)
    found = law_of("speculative:window=3", model, make_plan("raster", model.lattice), PLAIN, monkeypatch)
    assert (found - joint(model)).abs().max() > 0.01


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
