"""Recorded steps: a replay of other samples under another seed gives the codes of going on eagerly, bit for bit.

On a processor the recording is a tape of operations, and the device `meta`, which computes nothing, stands in for a GPU
where it matters what crosses from one to the other.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from toys import toy_model, toy_tokens

from orderbench.models.answer import Categorical
from orderbench.models.decode import (
    Decoder,
    Step,
    Tile,
    decode,
    make_tile,
    parse_decoder,
    plain_steps,
    run_tile,
    uncached_steps,
)
from orderbench.models.graphs import CudaGraphs, Graphed, NotRecorded, Recorder, Tape
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import PLAIN, Sampling
from orderbench.models.transformer import Transformer
from orderbench.orders import BenchError, Plan, make_plan

MODEL = toy_model()
NESTED, CONFIDENCE = parse_decoder("nested"), parse_decoder("confidence")
GUIDED = Sampling(guidance=Guidance(law="linear", scale=2.0), temperature=1.2, top_k=7, top_p=0.9)
BY_TOKEN = Sampling(guidance=Guidance(law="power-cosine", scale=3.0, count="token"))
Result = TypeVar("Result")


def tape(_: torch.device) -> Recorder:
    return Tape()


def plan_of(text: str) -> Plan:
    return make_plan(text, MODEL.lattice)


def logits(step: Step) -> Tensor:
    assert isinstance(step.answer, Categorical)
    return step.answer.logits_BQV


def tile_of(plan: Plan, samples: range, seed: int, sampling: Sampling = PLAIN, **more: Any) -> Tile:
    return make_tile(more.pop("model", MODEL), plan, samples, sampling=sampling, seed=seed, **more)


@pytest.mark.parametrize(
    ("arm", "decoder", "sampling"),
    [
        ("raster@even:10", plain_steps, PLAIN),
        ("radial", plain_steps, GUIDED),
        ("halton@cosine:5", plain_steps, BY_TOKEN),
        ("random@cosine:5", plain_steps, GUIDED),  # each sample has cells of its own
        ("radial", NESTED, PLAIN),
        ("radial", NESTED, BY_TOKEN),
        ("halton@cosine:5", parse_decoder("nested:every=2:window=2"), GUIDED),
        ("radial", parse_decoder("nested:every=4:margin=0.1"), GUIDED),
        ("raster@even:5", parse_decoder("nested:rule=sample:window=1"), PLAIN),
        ("radial", parse_decoder("nested:rule=never"), PLAIN),
        ("raster@even:5", uncached_steps, GUIDED),
    ],
)
def test_replayed_codes_are_eager_codes(arm: str, decoder: Decoder, sampling: Sampling) -> None:
    plan, graphed = plan_of(arm), Graphed(decoder, tape)
    seen = []
    for samples, seed in ((range(3), 0), (range(3), 1), (range(6, 9), 5)):
        eager, replayed = (tile_of(plan, samples, seed, sampling, labels=[seed % 3, 1, 3]) for _ in range(2))
        assert run_tile(eager, decoder) == run_tile(replayed, graphed)
        assert torch.equal(replayed.codes_BLK, eager.codes_BLK)
        assert torch.equal(replayed.changes_BL, eager.changes_BL)
        assert replayed.counters == eager.counters
        seen.append(eager.codes_BLK.tolist())
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("in_group", ["block", "causal"])
def test_replayed_steps_are_eager_steps(in_group: str) -> None:
    """Cells and logits too, in the steps of a tile; and codes that are given in place of drawn ones are inputs."""
    plan, graphed = plan_of("radial"), Graphed(plain_steps, tape)
    for seed in range(2):
        tile = tile_of(plan, range(2), seed, GUIDED, in_group=in_group)
        tile.forced_BLK = toy_tokens(MODEL, 2, seed)[0][..., None]
        with torch.inference_mode():
            for one, other in zip(plain_steps(tile), graphed(tile), strict=True):
                assert one.index == other.index
                assert torch.equal(one.cells_BQ, other.cells_BQ)
                assert torch.equal(one.codes_BQK, other.codes_BQK)
                assert torch.equal(logits(one), logits(other))


class Counting(Tape):
    """How often it recorded and replayed."""

    recorded, replayed = 0, 0

    def record(self, run: Callable[[], Result]) -> tuple[Result, Callable[[], object]]:
        result, replay = super().record(run)
        type(self).recorded += 1

        def counted() -> None:
            type(self).replayed += 1
            replay()

        return result, counted


def test_a_kind_of_tile_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "recorded", 0)
    monkeypatch.setattr(Counting, "replayed", 0)
    model = toy_model(seed=1)
    graphed = Graphed(plain_steps, lambda _: Counting())
    plans = [
        plan_of("raster@even:5"),
        plan_of("halton@even:5"),
    ]  # alike in step sizes: cells are inputs
    for plan in plans:
        one = decode(model, plan, range(10), decoder=graphed, tile=4, seed=2)
        assert torch.equal(one.tokens_NL, decode(model, plan, range(10), tile=4, seed=2).tokens_NL)
    assert Counting.recorded == 5
    assert Counting.replayed == 2 * 3 * 5
    for change in ({"tile": 5}, {"sampling": GUIDED}, {"in_group": "causal"}):
        before = Counting.recorded
        decode(model, plans[0], range(4), decoder=graphed, **change)  # type: ignore[arg-type]
        assert Counting.recorded == before + 5, change


def test_weights_may_change_in_place_and_a_moved_model_is_recorded_anew() -> None:
    model, plan = toy_model(seed=1), plan_of("radial")
    graphed = Graphed(plain_steps, tape)
    before = decode(model, plan, range(4), decoder=graphed, tile=4).tokens_NL
    with torch.no_grad():
        model.head.weight.mul_(-1)
    changed = decode(model, plan, range(4), decoder=graphed, tile=4).tokens_NL
    assert not torch.equal(before, changed)
    assert torch.equal(changed, decode(model, plan, range(4), tile=4).tokens_NL)
    model.double().float()
    with torch.no_grad():
        model.head.weight.mul_(-1)
    assert torch.equal(decode(model, plan, range(4), decoder=graphed, tile=4).tokens_NL, before)


def test_an_adaptive_order_goes_on_eagerly_and_says_so_once() -> None:
    """Its noise is drawn in the first step, by the tile's samples and seed."""
    plan, graphed = plan_of("raster@cosine:5"), Graphed(CONFIDENCE, tape)
    with pytest.warns(UserWarning, match="these steps are not recorded") as said:
        codes = [decode(MODEL, plan, range(3), decoder=graphed, tile=3, seed=seed).tokens_NL for seed in range(2)]
    for seed in range(2):
        assert torch.equal(codes[seed], decode(MODEL, plan, range(3), decoder=CONFIDENCE, tile=3, seed=seed).tokens_NL)
    sentence = "a step makes a tensor of Python's numbers, so these steps are not recorded; decoding goes on eagerly"
    assert [str(one.message) for one in said] == graphed.refused == [sentence]


def test_a_processor_has_no_graphs() -> None:
    plan, graphed = plan_of("radial"), Graphed(plain_steps)
    with pytest.warns(UserWarning, match="need a CUDA device, and this one is cpu, so these steps are not recorded"):
        codes_BL = decode(MODEL, plan, range(3), decoder=graphed, tile=3).tokens_NL
    assert torch.equal(codes_BL, decode(MODEL, plan, range(3), tile=3).tokens_NL)
    with pytest.raises(NotRecorded):
        CudaGraphs(torch.device("cpu"))


def looks(tile: Tile, look: Callable[[Step], object]) -> Iterator[Step]:
    """Plain decoding that does something between its steps."""
    for step in plain_steps(tile):
        look(step)
        yield step


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (lambda step: bool(step.codes_BQK[0, 0, 0] == 1), "aten::is_nonzero depends on"),
        (lambda step: step.codes_BQK[0, 0, 0].item(), "aten::item depends on"),
        (lambda step: step.codes_BQK.nonzero(), "aten::nonzero depends on"),
        (lambda step: step.codes_BQK[step.codes_BQK > 3], "aten::index.Tensor depends on"),
        (lambda step: torch.tensor([1, 2, 3]), "makes a tensor of Python's numbers"),
        (lambda step: step.codes_BQK.to("meta"), "moves numbers between cpu and meta"),
        (lambda step: 1 / 0, None),
    ],
)
def test_what_waits_for_numbers_is_refused(look: Callable[[Step], object], why: str | None) -> None:
    plan, graphed = plan_of("radial"), Graphed(partial(looks, look=look), tape)
    if why is None:  # a decoder's own fault stays what it is
        with pytest.raises(ZeroDivisionError):
            decode(MODEL, plan, range(2), decoder=graphed, tile=2)
        return
    with pytest.warns(UserWarning, match=why):
        codes_BL = decode(MODEL, plan, range(2), decoder=graphed, tile=2).tokens_NL
    assert torch.equal(codes_BL, decode(MODEL, plan, range(2), tile=2).tokens_NL)


def test_a_device_that_refuses_in_the_middle_is_no_end() -> None:
    class Tired(Tape):
        pieces = 0

        def record(self, run: Callable[[], Result]) -> tuple[Result, Callable[[], object]]:
            self.pieces += 1
            if self.pieces == 3:
                raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
            return super().record(run)

    plan, graphed = plan_of("radial"), Graphed(NESTED, lambda _: Tired())
    with pytest.warns(UserWarning, match="operation not permitted"):
        codes_BL = decode(MODEL, plan, range(3), decoder=graphed, tile=3).tokens_NL
    assert torch.equal(codes_BL, decode(MODEL, plan, range(3), decoder=NESTED, tile=3).tokens_NL)
    assert graphed.refused == [
        "the device refused to record (operation not permitted when stream is capturing), so these steps are not "
        "recorded; decoding goes on eagerly"
    ]


def test_options_out_of_range_are_refused_as_ever() -> None:
    with pytest.raises(BenchError, match="margin is 0 or more"):
        decode(MODEL, plan_of("radial"), range(2), decoder=Graphed(parse_decoder("nested:margin=-1"), tape))


META: list[tuple[str, Decoder, str]] = [
    ("raster@even:6", plain_steps, "block"),
    ("radial", plain_steps, "causal"),
    ("radial", NESTED, "block"),
    ("radial", parse_decoder("nested:every=2:window=2:rule=sample"), "block"),
    ("radial", uncached_steps, "causal"),
]


@pytest.mark.parametrize(("arm", "decoder", "in_group"), META)
@pytest.mark.parametrize("sampling", [GUIDED, BY_TOKEN])
def test_recorded_steps_take_nothing_from_the_processor(
    arm: str, decoder: Decoder, in_group: str, sampling: Sampling
) -> None:
    """What a CUDA graph may not hold: the copy of a mask or of guidance scales. They are made in the rehearsal."""
    model: Transformer = toy_model().to("meta")
    plan = make_plan(arm, model.lattice)
    tile = tile_of(plan, range(3), 0, sampling, model=model, in_group=in_group, device="meta")
    steps = list(Graphed(decoder, tape)(tile))
    assert len(steps) == plan.n_steps
    assert all(logits(step).device.type == "meta" for step in steps)


def test_what_is_made_in_every_step_would_be_seen() -> None:
    """The test above can fail: a decoder that makes its guidance scales anew is refused."""

    def forgetful(tile: Tile) -> Iterator[Step]:
        tile.scales_L = tile.sampling.guidance.along(tile.plan.sizes).to(tile.cells_BL.device)
        yield from plain_steps(tile)

    model = toy_model().to("meta")
    tile = tile_of(make_plan("radial", model.lattice), range(3), 0, GUIDED, model=model, device="meta")
    with pytest.warns(UserWarning, match="a step makes a tensor of Python's numbers"):
        list(Graphed(forgetful, tape)(tile))
