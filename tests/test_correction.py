"""Nested correction: equal to its uncached unrolling, blind to the edge, and never is never."""

import math
from functools import partial

import pytest
import torch
from toys import CLASS, crop_logits, naive_logits, toy_model, toy_tokens

from orderbench.models.adapter import as_model
from orderbench.models.answer import at
from orderbench.models.correction import measure_repair, nested
from orderbench.models.decode import Step, Tile, decode, decode_steps, make_tile, parse_decoder, plain_steps
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import PLAIN, Sampling
from orderbench.models.visibility import walk
from orderbench.orders import BenchError, Plan, make_plan, order_names

MODEL = toy_model(4, 4)
GRID = MODEL.lattice
VARIANTS = ["nested", "nested:margin=0", "nested:rule=sample", "nested:every=2", "nested:window=1",
            "nested:every=3:window=2",
            "nested:rule=sample:every=2:window=3"]  # fmt: skip
PLANS = ["radial", "raster@even:5", "random@cosine:4", "diagonal", "halton@cosine:6", "regions"]


def unrolled(plan: Plan, sample: int, label: int, steps: list[Step], b: int, every: int, window: int | None) -> None:
    """Walk the steps of one sample again, without a cache: every slot is computed anew from all that it may see.

    A slot keeps what it saw when it was fed, also of slots that were fed anew since.
    """
    cells = plan.cells_for([sample])[0].tolist()
    starts = [0]
    for size in plan.sizes:
        starts.append(starts[-1] + size)
    slots: list[tuple[int, int]] = []  # ever fed: cell and code, behind the class
    sees: list[list[int]] = [[0]]
    classes, shown = [0], []  # of them in the cache: which class slot, which codes
    codes: dict[int, int] = {}
    for k, step in enumerate(steps):
        corrects = k > 0 and (k % every == 0 or k == plan.n_steps - 1)
        low = (0 if window is None else starts[max(0, k - window)]) if corrects else starts[k]
        fed_from = low if corrects else starts[max(0, k - 1)]
        if k:
            new = list(range(len(sees), len(sees) + starts[k] - fed_from))
            slots += [(cell, codes[cell]) for cell in cells[fed_from : starts[k]]]
            if corrects and fed_from == 0:  # the class is fed anew, too, and sees the group
                shown, classes = new, [new[-1] + 1]
                slots.append((CLASS, 0))
                sees += [[*classes, *shown]] * (len(new) + 1)
            else:
                shown = [*shown[:fed_from], *new]
                sees += [[*classes, *shown]] * len(new)
        crop = cells[low : starts[k + 1]]
        assert step.cells_BQ[b].tolist() == crop
        assert plan.sizes[step.index] == plan.sizes[k]
        for q, cell in enumerate(crop):
            with torch.no_grad():
                naive = naive_logits(MODEL, label, slots, sees, [*classes, *shown], cell)
            torch.testing.assert_close(step.answer.logits_BQV[b, q], naive, atol=1e-5, rtol=0)
            codes[cell] = int(step.codes_BQK[..., 0][b, q])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("text", PLANS)
def test_cached_correction_equals_the_uncached_unrolling(text: str, variant: str) -> None:
    plan, correction = make_plan(text, GRID), parse_decoder(variant)
    samples, labels = [0, 1], [2, 3]
    steps = list(decode_steps(MODEL, plan, samples, labels=labels, decoder=correction))
    every, window = correction.values["every"], correction.values["window"]
    unrolled(plan, 1, labels[1], steps, 1, every, window)


def test_groups_that_are_fed_again_see_each_other_however_new_ones_are_fed() -> None:
    block, causal = (
        list(decode_steps(MODEL, make_plan("radial", GRID), [0], decoder=partial(nested, window=2), in_group=how))
        for how in ("block", "causal")
    )
    for one, two in zip(block, causal, strict=True):
        torch.testing.assert_close(one.answer.logits_BQV, two.answer.logits_BQV, atol=1e-5, rtol=0)


@pytest.mark.parametrize("text", ["radial", "raster@even:5", "random@cosine:4"])
def test_codes_are_overwritten_by_the_rule(text: str) -> None:
    plan, sampling = make_plan(text, GRID), Sampling(temperature=0.7)
    for margin in (0.0, 0.5, 2.0):
        codes = torch.zeros(3, GRID.n_cells, dtype=torch.int64)
        rewritten = 0
        decoder = partial(nested, margin=margin)
        for step in decode_steps(MODEL, plan, [0, 1, 2], sampling=sampling, decoder=decoder):
            known = step.cells_BQ.shape[1] - plan.sizes[step.index]
            old = codes.gather(1, step.cells_BQ[:, :known])
            log_probs = (step.answer.logits_BQV[:, :known] / 0.7).log_softmax(-1)
            best = log_probs.argmax(-1)
            gain = log_probs.max(-1).values - log_probs.gather(-1, old[..., None])[..., 0]
            expected = torch.where(gain > margin, best, old)
            assert torch.equal(step.codes_BQK[..., 0][:, :known], expected)
            rewritten += int((expected != old).sum())
            codes.scatter_(1, step.cells_BQ, step.codes_BQK[..., 0])
        assert rewritten > 0
        whole = decode(MODEL, plan, range(3), sampling=sampling, decoder=decoder)
        assert torch.equal(whole.tokens_NL, codes)
        assert int(whole.changed_NL.sum()) == rewritten


def test_never_is_an_infinite_margin_token_for_token() -> None:
    for text in PLANS:
        plan = make_plan(text, GRID)
        never = decode(MODEL, plan, range(4), decoder=partial(nested, rule="never"))
        infinite = decode(MODEL, plan, range(4), decoder=partial(nested, margin=math.inf))
        assert torch.equal(never.tokens_NL, infinite.tokens_NL)
        assert int(never.changed_NL.sum()) == 0


def test_off_is_plain_decoding() -> None:
    assert parse_decoder("off").entry.function is plain_steps


def leaks(step_logits: torch.Tensor, changed_logits: torch.Tensor) -> bool:
    return not torch.equal(step_logits, changed_logits)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_known_cells_move_the_edge_and_nothing_else_moves_the_crop(k: int) -> None:
    """With the true code of every cell forced, step k's logits depend on the cells of K_k alone."""
    plan = make_plan("radial", GRID)
    tokens_BL, labels_B = toy_tokens(MODEL, 1)
    known = sum(plan.sizes[:k])
    cells = plan.cells_for([0])[0].tolist()

    def logits_at(tokens: torch.Tensor, decoder: object) -> torch.Tensor:
        tile = make_tile(
            MODEL, plan, [0], labels=labels_B.tolist(), sampling=PLAIN, seed=0, in_group="block", device="cpu"
        )
        tile.forced_BLK = tokens[..., None]
        with torch.no_grad():
            return next(step for step in decoder(tile) if step.index == k).answer.logits_BQV  # type: ignore[operator]

    def changed(place: int) -> torch.Tensor:
        other = tokens_BL.clone()
        other[0, cells[place]] = (other[0, cells[place]] + 1) % MODEL.code_sizes[0]
        return other

    def edge_as_content(tile: Tile) -> object:
        """A deliberately broken mask: the edge's true codes are fed before the crop is asked."""
        for step in nested(tile, rule="never"):
            cache = tile.open()
            tile.feed(cache, at(tile.forced_BLK, step.cells_BQ), step.cells_BQ)  # type: ignore[arg-type]
            answer = tile.ask(cache, step.cells_BQ, tile.scales(0, step.index))
            yield Step(step.index, step.cells_BQ, step.codes_BQK, answer)

    here = logits_at(tokens_BL, partial(nested, rule="never"))
    for place in range(len(cells)):
        there = logits_at(changed(place), partial(nested, rule="never"))
        if place < known:
            assert leaks(here[:, known:], there[:, known:])  # a known code moves the edge
        else:
            assert not leaks(here, there)  # what is not known moves nothing
    broken = logits_at(tokens_BL, edge_as_content)
    assert any(leaks(broken, logits_at(changed(place), edge_as_content)) for place in range(known, len(cells)))


def test_crop_logits_are_one_nested_step() -> None:
    plan = make_plan("radial", GRID)
    cells_BL = walk(plan, [0, 1])
    steps = list(decode_steps(MODEL, plan, [0, 1], labels=[0, 1], decoder=partial(nested, rule="never")))
    codes_BL = torch.zeros_like(cells_BL)
    for step in steps:
        known = step.cells_BQ.shape[1] - plan.sizes[step.index]
        known_BM = cells_BL[:, :known]
        with torch.no_grad():
            crop = crop_logits(MODEL, codes_BL.gather(1, known_BM), torch.tensor([0, 1]), known_BM, step.cells_BQ)
        torch.testing.assert_close(step.answer.logits_BQV, crop, atol=1e-5, rtol=0)
        codes_BL.scatter_(1, step.cells_BQ, step.codes_BQK[..., 0])


def test_the_last_step_asks_every_known_cell_again() -> None:
    for name in order_names():
        if name == "scales":
            continue
        plan = make_plan(f"{name}@cosine:5", GRID)
        for variant in ("nested", "nested:every=3"):
            *_, last = decode_steps(MODEL, plan, [0], decoder=parse_decoder(variant))
            assert sorted(last.cells_BQ[0].tolist()) == list(range(GRID.n_cells))


def test_counters_match_the_formulas_on_16x16() -> None:
    model = toy_model(16, 16)
    plan = make_plan("radial", model.lattice)
    counters = decode(model, plan, [0], tile=1, decoder=nested).counters
    assert counters.query_tokens == 1628  # sum |C_k|
    assert counters.content_tokens == 1372 + 13  # sum |K_k|, and the class at every step
    assert counters.passes == 13
    window = decode(model, plan, [0], tile=1, decoder=partial(nested, window=2)).counters
    sizes = plan.sizes
    assert window.query_tokens == sum(sum(sizes[max(0, k - 2) : k + 1]) for k in range(13))
    every = decode(model, plan, [0], tile=1, decoder=partial(nested, every=4)).counters
    assert every.query_tokens == sum(sum(sizes[: k + 1]) if k in (4, 8, 12) else sizes[k] for k in range(13))


def test_guidance_reaches_the_whole_crop() -> None:
    plan, samples = make_plan("radial", GRID), [0, 1]
    for count in ("after", "token"):
        sampling = Sampling(guidance=Guidance(law="linear", scale=3.0, count=count))  # type: ignore[arg-type]
        codes_BL = torch.zeros(2, 16, dtype=torch.int64)
        for step in decode_steps(MODEL, plan, samples, sampling=sampling, decoder=partial(nested, rule="sample")):
            Q = step.cells_BQ.shape[1]
            known_BM = step.cells_BQ[:, : Q - plan.sizes[step.index]]
            with torch.no_grad():
                c, u = (
                    crop_logits(MODEL, codes_BL.gather(1, known_BM), torch.tensor(label), known_BM, step.cells_BQ)
                    for label in ([0, 1], [3, 3])
                )
            done = torch.arange(Q) if count == "token" else torch.full((Q,), Q)
            expected = u + (1 + 2 * done / 16)[:, None] * (c - u)
            torch.testing.assert_close(step.answer.logits_BQV, expected, atol=2e-5, rtol=0)
            codes_BL.scatter_(1, step.cells_BQ, step.codes_BQK[..., 0])


def test_codes_with_correction_are_bit_equal_however_samples_are_split() -> None:
    plan = make_plan("radial", GRID)
    whole = decode(MODEL, plan, range(70), decoder=nested)
    parts = [decode(MODEL, plan, part, decoder=nested) for part in (range(10), range(10, 70))]
    assert torch.equal(torch.cat([part.tokens_NL for part in parts]), whole.tokens_NL)
    assert torch.equal(torch.cat([part.changed_NL for part in parts]), whole.changed_NL)


class Oracle:
    """Knows the image: all mass on the clean code, whatever it is fed."""

    def __init__(self, tokens_L: torch.Tensor) -> None:
        self.tokens_L, self.lattice, self.n_codes, self.n_classes = tokens_L, GRID, 11, 3

    def start(self, labels_B: torch.Tensor, slots: int) -> list[int]:
        return [len(labels_B)]

    def refill(self, cache: object, labels_B: object, tokens_BM: object, cells_BM: object) -> None:
        return None

    def step(self, cache: object, tokens_BG: object, cells_BG: object, bias_GS: object = None) -> None:
        return None

    def rewind(self, cache: object, slots: int) -> None:
        return None

    def logits(self, cache: object, cells_BQ: torch.Tensor) -> torch.Tensor:
        return 20 * torch.nn.functional.one_hot(self.tokens_L[cells_BQ], 11).float()


def test_repair_and_damage() -> None:
    tokens_BL = toy_tokens(MODEL, 1)[0].expand(40, -1)
    codes_BLK = tokens_BL[..., None]
    plan = make_plan("radial", GRID)
    oracle = as_model(Oracle(tokens_BL[0]), "oracle:build")
    labels = [0] * 40
    known = 40 * (16 - plan.sizes[-1])
    perfect = measure_repair(oracle, plan, codes_BLK, labels, 0.2, decoder=parse_decoder("nested"))
    assert (perfect.repair_rate, perfect.damage_rate) == (1.0, 0.0)
    assert perfect.corrupted + perfect.clean == known
    assert 0.1 < perfect.corrupted / known < 0.3
    idle = measure_repair(oracle, plan, codes_BLK, labels, 0.2, decoder=parse_decoder("nested:rule=never"))
    assert (idle.repair_rate, idle.damage_rate) == (0.0, 0.0)
    harmful = measure_repair(MODEL, plan, codes_BLK, labels, 0.0, decoder=parse_decoder("nested:margin=0"))
    assert harmful.corrupted == 0
    assert harmful.damage_rate > 0.3  # random weights know nothing
    with pytest.raises(BenchError, match=r"an error rate of 1 is not served; it lies in \[0, 1\)"):
        measure_repair(oracle, plan, codes_BLK, labels, 1.0, decoder=parse_decoder("nested"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nestd", "no decoder named 'nestd'; did you mean 'nested'?"),
        ("nested:margin=-1", "margin is 0 or more"),
        ("nested:every=0", "every and window are 1 or more, as in nested:margin=1:every=2"),
        ("nested:window=0", "every and window are 1 or more"),
        ("nested:rule=always", "rule takes margin, sample, never"),
        ("off:margin=1", "off takes no option"),
    ],
)
def test_refusals(text: str, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        decode(MODEL, make_plan("radial", GRID), [0], decoder=parse_decoder(text))
    assert sentence in str(refusal.value)
