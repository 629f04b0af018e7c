"""Remasking: as many cells known after each step as in plain decoding, forgotten ones drawn anew, none at the end."""

import itertools

import pytest
import torch
from toys import crop_logits, pyramid_model, toy_model

from orderbench.models.answer import Categorical
from orderbench.models.contract import check_decoder
from orderbench.models.counting import Nothing
from orderbench.models.decode import Step, decode, decode_steps, parse_decoder
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import Sampling
from orderbench.orders import BenchError, Grid, make_plan

MODEL = toy_model(4, 4)
VARIANTS = ["remask:eta=0.3", "remask:rule=conf"]


def expected(sizes: tuple[int, ...], eta: float | None) -> list[float]:
    """How many cells the paper's schedule forgets at each step, on average."""
    n, starts = sum(sizes), [0, *itertools.accumulate(sizes)]
    found = []
    for start, stop in itertools.pairwise(starts):
        most = min(1.0, (1 - stop / n) / (start / n)) if start else 0.0
        found.append(most if eta is None else min(eta, most) * start)  # softmax over known cells sums to 1
    return found


@pytest.mark.parametrize("text", [*VARIANTS, "remask"])
@pytest.mark.parametrize("plan", ["raster", "radial", "random@cosine:5"])
def test_it_keeps_the_contract(text: str, plan: str) -> None:
    for model in (MODEL, pyramid_model()):
        check_decoder(parse_decoder(text), model, make_plan(plan, model.lattice))


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize("order", ["raster", "halton@even:6", "radial"])
def test_steps_forget_what_the_schedule_expects(text: str, order: str) -> None:
    plan = make_plan(order, MODEL.lattice)
    steps = list(decode_steps(MODEL, plan, range(3), decoder=parse_decoder(text)))
    forgets = [step.cells_BQ.shape[1] - size for step, size in zip(steps, plan.sizes, strict=True)]
    due = expected(plan.sizes, 0.3 if "eta" in text else None)
    for done, so_far in zip(itertools.accumulate(forgets), itertools.accumulate(due), strict=True):
        assert done <= so_far + 1e-6 < done + 2
    assert sum(forgets) > 0
    assert forgets[0] == forgets[-1] == 0


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
def test_nothing_forgotten_is_plain_decoding(guidance: Guidance) -> None:
    plan, how = make_plan("radial", MODEL.lattice), Sampling(guidance=guidance)
    none = decode(MODEL, plan, range(4), sampling=how, decoder=parse_decoder("remask:eta=0"))
    assert torch.equal(none.codes_NLK, decode(MODEL, plan, range(4), sampling=how).codes_NLK)


@pytest.mark.parametrize(
    ("text", "order"), [("remask:eta=0.3", "raster@even:6"), ("remask:rule=conf", "raster@even:3")]
)
def test_a_step_sees_the_codes_that_are_known_and_no_other(text: str, order: str) -> None:
    """The last step's answer is that of a crop of all other cells, with the codes that they have in the end."""
    plan = make_plan(order, MODEL.lattice)
    done = decode(MODEL, plan, range(3), labels=[0, 1, 2], tile=3, decoder=parse_decoder(text)).tokens_NL
    steps = list(decode_steps(MODEL, plan, range(3), labels=[0, 1, 2], decoder=parse_decoder(text)))
    assert steps[-2].cells_BQ.shape[1] > plan.sizes[-2]  # so what is known was fed again
    for b in range(3):
        targets = steps[-1].cells_BQ[b : b + 1]
        known = torch.tensor([[cell for cell in range(16) if cell not in targets[0].tolist()]])
        with torch.no_grad():
            whole = crop_logits(MODEL, done[b : b + 1].gather(1, known), torch.tensor([b]), known, targets)
        torch.testing.assert_close(steps[-1].answer.logits_BQV[b : b + 1], whole, atol=1e-5, rtol=0)


class Uneven(Nothing):
    """Cells 0, 2, 4, ... are sure of their codes; the others are not."""

    def answer(self, cache: object, cells_BQ: torch.Tensor, *, seen: torch.Tensor | None = None) -> Categorical:
        p = torch.where(cells_BQ % 2 == 0, 0.999, 0.5)
        return Categorical(torch.stack([p, 1 - p], -1).log())


def forgotten(text: str) -> list[Step]:
    plan = make_plan("raster@even:3", Grid(1, 6))
    return list(decode_steps(Uneven(plan.lattice), plan, range(2000), decoder=parse_decoder(text)))


def test_unsure_cells_are_forgotten_more_often_by_confidence_alone() -> None:
    """Of cells 0 and 1 the second step forgets one, which the third asks again: by the softmax of -p, or evenly."""
    odds = torch.tensor([-0.999, -0.5]).softmax(0)[1]
    for text, share in (("remask:rule=conf", float(odds)), ("remask:eta=0.5", 0.5)):
        last = forgotten(text)[-1].cells_BQ
        assert last.shape[1] == 2
        assert abs(float((last == 1).any(1).double().mean()) - share) < 0.04


def test_a_cell_is_drawn_again_with_other_noise() -> None:
    """Nothing but noise moves these codes: half of the unsure ones change when they are drawn again."""
    steps = forgotten("remask:eta=0.5")
    first, last = steps[0], steps[-1]
    again = (last.cells_BQ == 1).any(1)
    before = first.codes_BQK[again][:, 1, 0]
    after = last.codes_BQK[again].squeeze(-1)[last.cells_BQ[again] == 1]
    assert abs(float((before != after).double().mean()) - 0.5) < 0.05


@pytest.mark.parametrize("text", ["remask:eta=-0.1", "remask:eta=1.5", "remask:rule=conf:eta=0.1"])
def test_options_that_are_not_served(text: str) -> None:
    with pytest.raises(BenchError, match=r"is not served; eta lies in \[0, 1\] and belongs to rule=cap, as in remask:"):
        parse_decoder(text)
