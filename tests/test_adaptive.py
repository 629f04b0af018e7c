"""Adaptive orders: what they keep is what they are surest of, and their steps are a plan's once they are known."""

from functools import partial

import pytest
import torch
from toys import plan_logits, toy_model

from orderbench.models.adaptive import confidence
from orderbench.models.decode import decode, decode_steps
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import Sampling, uniforms
from orderbench.orders import BenchError, Plan, make_plan

MODEL = toy_model()
GRID = MODEL.lattice
PLAN = make_plan("raster@cosine:6", GRID)  # its step sizes alone count


def confident(noise: float = 0.0) -> partial:  # type: ignore[type-arg]
    return partial(confidence, noise=noise)


@pytest.mark.parametrize("noise", [0.0, 4.5])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
def test_every_cell_once_in_the_asked_sizes(noise: float, guidance: Guidance) -> None:
    steps = list(decode_steps(MODEL, PLAN, range(4), sampling=Sampling(guidance=guidance), decoder=confident(noise)))
    assert tuple(step.cells_BQ.shape[1] for step in steps) == PLAN.sizes
    walks = torch.cat([step.cells_BQ for step in steps], dim=1)
    assert (walks.sort(1).values == torch.arange(20)).all()
    assert len({tuple(walk) for walk in walks.tolist()}) == 4  # each sample its own


def test_logits_are_those_of_the_plan_that_it_turned_out_to_be() -> None:
    steps = list(decode_steps(MODEL, PLAN, [0], labels=[1], decoder=confident()))
    cells = torch.cat([step.cells_BQ for step in steps], dim=1)
    tokens = torch.empty_like(cells).scatter_(1, cells, torch.cat([step.codes_BQK[..., 0] for step in steps], dim=1))
    plan = Plan(lattice=GRID, cells=cells[0].numpy(), sizes=PLAN.sizes)
    with torch.no_grad():
        whole = plan_logits(MODEL, tokens, torch.tensor([1]), plan)
    torch.testing.assert_close(torch.cat([step.answer.logits_BQV for step in steps], dim=1), whole, atol=1e-5, rtol=0)


def test_the_surest_codes_are_kept() -> None:
    """One step by hand: every cell's code from its number, and the likeliest of them first."""
    first = next(decode_steps(MODEL, PLAN, [0], labels=[1], decoder=confident()))
    with torch.no_grad():
        log_probs = MODEL.answer(MODEL.start(torch.tensor([1]), 21), torch.arange(20)[None]).law()[0]
    cdf = log_probs.exp().cumsum(-1)
    numbers = uniforms(0, [0], 20)[0, :, 0]
    codes = (cdf <= numbers[:, None] * cdf[:, -1:]).sum(-1)
    sure = log_probs[torch.arange(20), codes]
    kept = sure.topk(PLAN.sizes[0]).indices
    assert first.cells_BQ[0].tolist() == kept.tolist()
    assert first.codes_BQK[0, :, 0].tolist() == codes[kept].tolist()


def test_codes_are_bit_equal_however_samples_are_split() -> None:
    whole = decode(MODEL, PLAN, range(70), decoder=confident(4.5)).tokens_NL
    parts = [decode(MODEL, PLAN, part, decoder=confident(4.5)).tokens_NL for part in (range(10), range(10, 70))]
    assert torch.equal(torch.cat(parts), whole)


def test_counters_count_every_cell_that_was_asked() -> None:
    counters = decode(MODEL, PLAN, [0], tile=1, decoder=confident()).counters
    left = [20 - sum(PLAN.sizes[:k]) for k in range(PLAN.n_steps)]
    assert counters.query_tokens == sum(left)
    assert counters.content_tokens == 1 + 20 - PLAN.sizes[-1]


def test_noise_is_0_or_more() -> None:
    with pytest.raises(BenchError, match="a confidence noise of -1 is not served"):
        decode(MODEL, PLAN, [0], decoder=confident(-1.0))
