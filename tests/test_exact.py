"""Exact decoding: the codes of one cell at a time, whatever the window, the first guess, the noise and the batch."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import chained_model, pyramid_model, regions_model, toy_model

from orderbench.models.decode import Decoded, decode, decode_steps, make_tile, parse_decoder, run_tile
from orderbench.models.guidance import Guidance
from orderbench.models.model import Model
from orderbench.models.sampling import Sampling
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Plan, get_order, make_plan, order_names

MODEL = toy_model().double()
SAMPLES = range(5)
GUIDED = Guidance(law="linear", scale=2.5, count="token")
SAMPLINGS = {
    "plain": Sampling(),
    "gumbel": Sampling(noise="gumbel"),
    "guided": Sampling(guidance=GUIDED, temperature=0.8),
    "guided, gumbel": Sampling(guidance=GUIDED, temperature=0.8, noise="gumbel"),
    "filtered": Sampling(temperature=1.3, top_k=6, top_p=0.9),
    "filtered, gumbel": Sampling(temperature=1.3, top_k=6, top_p=0.9, noise="gumbel"),
}


def plan_of(order: str) -> Plan:
    paced = f"{order}@cosine:5" if get_order(order).sized else order
    return make_plan("regions:m=1" if order == "regions" else paced, MODEL.lattice)


@cache
def singly(order: str, sampling: str) -> Decoded:
    return decode(MODEL, plan_of(order).singly(), SAMPLES, sampling=SAMPLINGS[sampling], tile=len(SAMPLES))


GRID_ORDERS = [name for name in order_names() if name != "scales"]


@pytest.mark.parametrize("order", GRID_ORDERS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_its_codes_are_those_of_one_cell_at_a_time(order: str, sampling: str) -> None:
    exact = decode(MODEL, plan_of(order), SAMPLES, sampling=SAMPLINGS[sampling], tile=len(SAMPLES),
                   decoder=parse_decoder("exact"))  # fmt: skip
    assert torch.equal(exact.codes_NLK, singly(order, sampling).codes_NLK)
    assert exact.counters.passes < MODEL.lattice.n_cells


@settings(deadline=None, max_examples=40)
@given(
    order=st.sampled_from(["raster", "halton", "radial", "random"]),
    sampling=st.sampled_from(sorted(SAMPLINGS)),
    window=st.integers(1, 25),
    start=st.sampled_from(["marginal", "random", "copy"]),
    tile=st.integers(1, 5),
)
def test_no_window_first_guess_or_batch_changes_a_code(
    order: str, sampling: str, window: int, start: str, tile: int
) -> None:
    decoder = parse_decoder(f"exact:window={window}:start={start}")
    exact = decode(MODEL, plan_of(order), SAMPLES, sampling=SAMPLINGS[sampling], tile=tile, decoder=decoder)
    assert torch.equal(exact.codes_NLK, singly(order, sampling).codes_NLK)


@pytest.mark.parametrize("noise", ["uniform", "gumbel"])
@pytest.mark.parametrize("start", ["marginal", "random", "copy"])
def test_several_codes_a_cell_and_pyramids_are_decoded_exactly(noise: str, start: str) -> None:
    models: list[tuple[Any, str]] = [(chained_model(), "halton"), (pyramid_model("1/2/4"), "scales")]
    for model, order in models:
        model, plan, sampling = model.double(), make_plan(order, model.lattice), Sampling(noise=noise)  # type: ignore[arg-type]
        one = decode(model, plan.singly(), SAMPLES, sampling=sampling, tile=5)
        exact = decode(model, plan, SAMPLES, sampling=sampling, tile=5, decoder=parse_decoder(f"exact:start={start}"))
        assert torch.equal(exact.codes_NLK, one.codes_NLK)


def test_what_it_says_of_its_passes_adds_up() -> None:
    """settled_NL, counters and steps tell one story; samples advance on their own, and leave."""
    plan, L = plan_of("halton"), MODEL.lattice.n_cells
    tile = make_tile(MODEL, plan, range(12))
    rows = []
    with torch.inference_mode():
        for step in parse_decoder("exact:window=6")(tile):
            assert step.rows_B is not None
            rows.append(step.rows_B.tolist())
            assert step.cells_BQ.shape[1] <= 6
            held_BQK = tile.codes_BLK[step.rows_B].gather(1, step.cells_BQ[..., None])
            assert len(rows[-1]) < 12 or torch.equal(held_BQK, step.codes_BQK)
    passes_B = tile.settled_BL.amax(1)
    assert len(rows) == int(passes_B.max()) > int(passes_B.min())
    assert len(rows[-1]) < 12
    for sample, passes in enumerate(passes_B.tolist()):
        assert all(sample in at_work for at_work in rows[:passes])
    walked_BL = tile.settled_BL.gather(1, tile.cells_BL)
    assert (walked_BL.diff(dim=1) >= 0).all(), "codes are final in the order of the walk"
    assert (walked_BL[:, 0] == 1).all(), "every pass makes at least one code final, the first one too"
    assert tile.counters.passes == float(passes_B.double().mean())
    assert L <= tile.counters.query_tokens <= 6 * len(rows)
    assert tile.counters.query_tokens == pytest.approx(sum(map(len, rows)) * 6 / 12, rel=0.2)


def test_a_model_whose_samples_cannot_leave_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transformer, "keep", None)
    sampling = SAMPLINGS["guided"]
    exact = decode(MODEL, plan_of("raster"), SAMPLES, sampling=sampling, tile=5, decoder=parse_decoder("exact"))
    assert torch.equal(exact.codes_NLK, singly("raster", "guided").codes_NLK)


def test_codes_that_are_given_are_accepted_as_fast_as_they_are_guessed() -> None:
    codes_BLK = torch.from_numpy(np.random.default_rng(0).integers(0, 11, (2, MODEL.lattice.n_cells, 1)))
    tile = make_tile(MODEL, plan_of("raster"), range(2), forced_BLK=codes_BLK)
    steps = run_tile(tile, parse_decoder("exact:window=20"))
    assert torch.equal(tile.codes_BLK, codes_BLK)
    assert steps < 6, "the guesses of given codes are those codes"


def test_more_noise_numbers_need_fewer_passes() -> None:
    """Gumbel noise gives the same code more often where a law changes a little."""
    passes = {
        noise: decode(MODEL, plan_of("raster"), range(24), sampling=Sampling(noise=noise), tile=24,  # type: ignore[arg-type]
                      decoder=parse_decoder("exact:window=20")).counters.passes
        for noise in ("uniform", "gumbel")
    }  # fmt: skip
    assert passes["gumbel"] < passes["uniform"] < MODEL.lattice.n_cells


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(BenchError, match=r"exact:window=0 is not served; window is 1 or more, as in exact:window=32"):
        next(decode_steps(MODEL, plan_of("raster"), SAMPLES, decoder=parse_decoder("exact:window=0")))
    model: Model = regions_model()
    with pytest.raises(BenchError, match="does not serve this decoder"):
        next(decode_steps(model, make_plan("regions", model.lattice), SAMPLES, decoder=parse_decoder("exact")))
