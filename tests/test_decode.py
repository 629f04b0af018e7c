"""Decoding: cached equals uncached for every plan, nothing looks ahead, and codes belong to (seed, sample, cell)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from toys import EightMembers, by_group, naive_logits, plan_logits, step_of_place, toy_model, toy_tokens

from orderbench.models.adapter import as_model
from orderbench.models.correction import nested
from orderbench.models.decode import Decoder, decode, decode_steps, plain_steps, uncached_steps
from orderbench.models.flops import flops
from orderbench.models.guidance import Guidance
from orderbench.models.model import Model
from orderbench.models.sampling import Sampling, uniforms
from orderbench.models.visibility import InGroup, walk
from orderbench.orders import BenchError, Grid, Plan, get_order, make_plan, order_names

MODEL = toy_model()
GRID = MODEL.lattice
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def paces(name: str) -> list[str]:
    sized = get_order(name).sized
    return ["one", "cosine:5", "even:3", "ear-sides", *([] if sized else ["native"])]


PLANS = [f"{name}@{pace}" for name in order_names() if name != "scales" for pace in paces(name)]


def make(text: str, grid: Grid = GRID) -> Plan:
    if text.startswith("regions"):
        text = text.replace("regions", "regions:m=1")
    return make_plan(text, grid)


@pytest.mark.parametrize("in_group", ["block", "causal"])
@pytest.mark.parametrize("text", PLANS)
def test_cached_steps_equal_plan_logits(text: str, in_group: str) -> None:
    plan = make(text)
    samples, labels = [0, 1, 2], [0, 3, 1]
    steps = list(decode_steps(MODEL, plan, samples, labels=labels, in_group=in_group))  # type: ignore[arg-type]
    cells_BL = walk(plan, samples)
    tokens_BL = torch.empty_like(cells_BL).scatter_(
        1, cells_BL, torch.cat([step.codes_BQK[..., 0] for step in steps], dim=1)
    )
    with torch.no_grad():
        whole = plan_logits(MODEL, tokens_BL, torch.tensor(labels), plan, samples=samples, in_group=in_group)  # type: ignore[arg-type]
    cached = torch.cat([step.answer.logits_BQV for step in steps], dim=1)
    torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
    assert torch.equal(torch.cat([step.cells_BQ for step in steps], dim=1), cells_BL)
    assert whole.std() > 0.3  # not all alike


@pytest.mark.parametrize("device", DEVICES)
def test_devices_agree(device: str) -> None:
    """Cached decoding on every device there is equals teacher forcing on the processor."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = toy_model().to(device)
    for text in ("raster", "radial", "random@cosine:5"):
        plan = make(text)
        steps = list(decode_steps(model, plan, [0, 1, 2], device=device))
        cells_BL = walk(plan, [0, 1, 2])
        codes_BL = torch.cat([step.codes_BQK[..., 0] for step in steps], dim=1).cpu()
        tokens_BL = torch.empty_like(cells_BL).scatter_(1, cells_BL, codes_BL)
        with torch.no_grad():
            whole = plan_logits(MODEL, tokens_BL, torch.tensor([0, 1, 2]), plan)
        cached = torch.cat([step.answer.logits_BQV for step in steps], dim=1).cpu()
        torch.testing.assert_close(cached, whole, atol=2e-5, rtol=0)
        assert torch.equal(decode(model, plan, range(3), device=device, tile=3).tokens_NL, tokens_BL)


@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:4", "diagonal", "raster@even:1"])
def test_plan_logits_equal_the_description(text: str) -> None:
    plan = make(text)
    tokens_BL, labels_B = toy_tokens(MODEL, 2)
    with torch.no_grad():
        whole = plan_logits(MODEL, tokens_BL, labels_B, plan)
        step_L = step_of_place(plan).tolist()
        for b in range(2):
            cells = plan.cells_for([0, 1])[b].tolist()
            for j in (0, 1, len(cells) // 2, len(cells) - 1):
                known = [(cell, int(tokens_BL[b, cell])) for i, cell in enumerate(cells) if step_L[i] < step_L[j]]
                sees = by_group(step_L[: len(known)])
                shown = list(range(1 + len(known)))
                naive = naive_logits(MODEL, int(labels_B[b]), known, sees, shown, cells[j])
                torch.testing.assert_close(whole[b, j], naive, atol=1e-4, rtol=0)


@settings(max_examples=40)
@given(text=st.sampled_from(PLANS), place=st.integers(0, 19), seed=st.integers(0, 5))
def test_a_code_changes_no_logit_of_its_own_step_or_an_earlier_one(text: str, place: int, seed: int) -> None:
    plan = make(text)
    tokens_BL, labels_B = toy_tokens(MODEL, 1, seed)
    cell = int(plan.cells_for([0])[0, place])
    changed_BL = tokens_BL.clone()
    changed_BL[0, cell] = (tokens_BL[0, cell] + 1) % MODEL.code_sizes[0]
    with torch.no_grad():
        before = plan_logits(MODEL, tokens_BL, labels_B, plan)
        after = plan_logits(MODEL, changed_BL, labels_B, plan)
    step_L = step_of_place(plan)
    moved = (before != after).any(-1)[0]
    assert not moved[step_L <= step_L[place]].any()
    assert moved[step_L > step_L[place]].all()


def test_raster_one_by_one_is_an_uncached_causal_loop() -> None:
    seed, samples = 4, [0, 1, 2, 3]
    numbers = uniforms(seed, samples, GRID.n_cells)[..., 0]
    expected = []
    for sample in samples:
        codes: list[int] = []
        for cell in range(GRID.n_cells):
            known = list(enumerate(codes))
            with torch.no_grad():
                sees = by_group(list(range(cell)))
                logits = naive_logits(MODEL, sample % 3, known, sees, list(range(1 + cell)), cell)
            cdf = logits.double().softmax(0).cumsum(0)
            codes.append(int((cdf <= numbers[sample, cell] * cdf[-1]).sum()))
        expected.append(codes)
    got = decode(MODEL, make_plan("raster", GRID), samples, seed=seed)
    assert got.tokens_NL.tolist() == expected


@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:5", "locality@cosine:5"])
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
def test_codes_are_bit_equal_however_samples_are_split(text: str, guidance: Guidance) -> None:
    plan, sampling = make(text), Sampling(guidance=guidance)
    whole = decode(MODEL, plan, range(150), sampling=sampling).tokens_NL
    parts = [
        decode(MODEL, plan, part, sampling=sampling).tokens_NL for part in (range(70), range(70, 71), range(71, 150))
    ]
    assert torch.equal(torch.cat(parts), whole)
    backwards = decode(MODEL, plan, list(range(149, -1, -1)), sampling=sampling).tokens_NL
    assert torch.equal(backwards.flip(0), whole)


def test_at_other_batch_sizes_a_code_flips_only_at_an_edge_of_the_cdf() -> None:
    plan = make_plan("radial", GRID)
    big, small = (decode(MODEL, plan, range(64), tile=tile).tokens_NL for tile in (64, 3))
    for sample in (big != small).any(1).nonzero().flatten().tolist():
        with torch.no_grad():
            labels_B = torch.tensor([sample % 3])
            cdf = (
                plan_logits(MODEL, big[sample][None], labels_B, plan, samples=[sample]).double().softmax(-1).cumsum(-1)
            )
        cells = walk(plan, [sample])
        flipped = (big[sample] != small[sample])[cells[0]]
        first = int(flipped.nonzero()[0])
        number = uniforms(0, [sample], GRID.n_cells)[0, cells[0, first], 0]
        assert (cdf[0, first] - number).abs().min() < 1e-5


def test_seeds_samples_and_labels() -> None:
    plan = make_plan("radial", GRID)
    a = decode(MODEL, plan, range(8), seed=1).tokens_NL
    assert torch.equal(a, decode(MODEL, plan, range(8), seed=1).tokens_NL)
    assert not torch.equal(a, decode(MODEL, plan, range(8), seed=2).tokens_NL)
    assert len({tuple(row) for row in a.tolist()}) == 8
    relabelled = decode(MODEL, plan, range(8), labels=[3] * 8, seed=1).tokens_NL
    assert not torch.equal(a, relabelled)
    assert torch.equal(a, decode(MODEL, plan, range(8), labels=[i % 3 for i in range(8)], seed=1).tokens_NL)


def test_both_halves_of_guidance_see_the_same_codes() -> None:
    plan, sampling = make_plan("radial", GRID), Sampling(guidance=Guidance(law="linear", scale=3.0))
    samples = [0, 1]
    steps = list(decode_steps(MODEL, plan, samples, sampling=sampling))
    cells_BL = walk(plan, samples)
    tokens_BL = torch.empty_like(cells_BL).scatter_(
        1, cells_BL, torch.cat([step.codes_BQK[..., 0] for step in steps], dim=1)
    )
    with torch.no_grad():
        c = plan_logits(MODEL, tokens_BL, torch.tensor([0, 1]), plan)
        u = plan_logits(MODEL, tokens_BL, torch.tensor([3, 3]), plan)
    done = torch.tensor(np.repeat(np.cumsum(plan.sizes), plan.sizes)) / GRID.n_cells
    expected = u + (1 + 2 * done)[:, None].float() * (c - u)
    torch.testing.assert_close(
        torch.cat([step.answer.logits_BQV for step in steps], dim=1), expected, atol=2e-5, rtol=0
    )


def test_counters_follow_from_the_plan() -> None:
    for text in ("raster", "radial", "halton@cosine:5"):
        plan = make(text)
        counters = decode(MODEL, plan, range(2)).counters
        assert counters.passes == plan.n_steps
        assert counters.content_tokens == 1 + GRID.n_cells - plan.sizes[-1]
        assert counters.query_tokens == GRID.n_cells
        before = np.cumsum((1, *plan.sizes[:-1]))  # slots that step k's queries see
        assert counters.query_pairs == np.dot(plan.sizes, before)
        assert counters.content_pairs == 1 + np.dot(plan.sizes[:-1], before[1:])
        assert counters.cache_bytes == (2 + 1) * 2 * (1 + GRID.n_cells) * 16 * 4


@pytest.mark.parametrize("in_group", ["block", "causal"])
@pytest.mark.parametrize("decoder", [plain_steps, uncached_steps, nested, partial(nested, every=2, window=2)])
def test_a_model_whose_cache_has_no_length_is_decoded_and_counted_alike(decoder: Decoder, in_group: InGroup) -> None:
    plan = make_plan("radial", GRID)
    own, foreign = (
        decode(model, plan, range(3), tile=3, decoder=decoder, in_group=in_group)
        for model in (MODEL, as_model(EightMembers(MODEL), "mine:build"))
    )
    assert torch.equal(own.tokens_NL, foreign.tokens_NL)
    assert replace(own.counters, cache_bytes=0) == foreign.counters


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
@pytest.mark.parametrize("in_group", ["block", "causal"])
@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:5", "diagonal", "raster@even:1"])
def test_without_a_cache_the_codes_are_the_same(text: str, in_group: InGroup, guidance: Guidance) -> None:
    plan, sampling = make(text), Sampling(guidance=guidance)
    cached, uncached = (
        decode(MODEL, plan, range(6), tile=6, sampling=sampling, in_group=in_group, decoder=decoder)
        for decoder in (plain_steps, uncached_steps)
    )
    assert torch.equal(cached.tokens_NL, uncached.tokens_NL)
    known = np.cumsum((0, *plan.sizes[:-1]))  # before every step
    assert uncached.counters.passes == plan.n_steps
    assert uncached.counters.content_tokens == (1 + known).sum()
    assert uncached.counters.content_pairs == (1 + known * (1 + known)).sum()
    assert uncached.counters.query_tokens == GRID.n_cells
    assert uncached.counters.query_pairs == cached.counters.query_pairs


COUNTED = [
    ("raster", plain_steps),
    ("radial", plain_steps),
    ("radial", nested),
    ("radial", partial(nested, every=3, window=2)),
    ("random@cosine:5", plain_steps),
    ("raster", uncached_steps),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
@pytest.mark.parametrize(("text", "decoder"), COUNTED)
def test_flops_are_those_that_torch_counts(text: str, decoder: Decoder, guidance: Guidance, device: str) -> None:
    """Under the plain kernel: torch has no count for the fused one of a processor, and would say 0."""
    model = toy_model(ffn=40, cross_blocks=3).to(device)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        counters = decode(
            model,
            make(text),
            range(2),
            tile=2,
            decoder=decoder,
            sampling=Sampling(guidance=guidance),
            device=device,
        ).counters
    branches = 2 if guidance.on else 1
    assert counted.get_total_flops() == 2 * branches * flops(model.config, counters) > 0


@pytest.mark.parametrize("label", ["slot", "slot+query"])
def test_the_class_reaches_queries_as_the_configuration_says(label: str) -> None:
    """With the class's own value and key silenced, only a class on the query can still be told."""
    model = toy_model(label=label)
    with torch.inference_mode():
        model.embeddings.weight[model.config.codes + 1 :] = model.embeddings.weight[model.config.codes + 1]
        caches = [model.start(torch.tensor([each]), 2) for each in (0, 1)]
        first, second = (model.answer(cache, torch.tensor([[3]])).logits_BQV for cache in caches)
    assert torch.equal(first, second) == (label == "slot")


@pytest.mark.parametrize("position", ["rope", "rope+table"])
def test_with_rope_alone_the_network_cannot_tell_where_it_is(position: str) -> None:
    """Shift everything by one row and one column: the same logits with rope, others with a table."""
    model = toy_model(6, 6, position)
    rng = np.random.default_rng(0)
    cells = rng.choice([r * 6 + c for r in range(5) for c in range(5)], 8, replace=False)
    codes = torch.from_numpy(rng.integers(0, model.code_sizes[0], (1, 8)))

    def predict(shift: int) -> torch.Tensor:
        cache = model.start(torch.tensor([1]), 9)
        moved = torch.from_numpy(cells + shift)[None]
        model.step(cache, codes[:, :5, None], moved[:, :5])
        return model.answer(cache, moved[:, 5:]).logits_BQV

    with torch.no_grad():
        here, there = predict(0), predict(7)
    if position == "rope":
        torch.testing.assert_close(here, there, atol=1e-5, rtol=0)
        first = model.answer(model.start(torch.tensor([1]), 1), torch.arange(36)[None]).logits_BQV
        assert (first - first[:, :1]).abs().max() < 1e-5  # at the first step every cell is alike
    else:
        assert (here - there).abs().max() > 0.05


def test_whoever_walks_the_steps_keeps_their_gradients() -> None:
    steps = decode_steps(MODEL, make_plan("radial", GRID), [0])
    first = next(steps)
    assert not torch.is_inference_mode_enabled()
    assert first.answer.logits_BQV.is_inference()
    assert torch.ones(1, requires_grad=True).exp().requires_grad


def test_bf16_weights_keep_their_positions_in_fp32() -> None:
    model = toy_model().to(torch.bfloat16)
    assert model.turn_LJ.dtype == torch.complex64
    plan = make_plan("radial", GRID)
    tokens_BL, labels_B = toy_tokens(model, 2)
    with torch.no_grad():
        half = plan_logits(model, tokens_BL, labels_B, plan)
        whole = plan_logits(MODEL, tokens_BL, labels_B, plan)
    assert half.dtype == torch.float32
    assert (half - whole).abs().mean() < 0.05 * whole.abs().mean()


# Refusals


def test_mistakes_get_one_sentence() -> None:
    plan = make_plan("raster", GRID)
    tokens_BL, labels_B = toy_tokens(MODEL, 2)
    cases = [
        (lambda: decode(MODEL, make_plan("raster", Grid(5, 5)), [0]), "the plan is for a 5x5 grid and the model's"),
        (lambda: plan_logits(MODEL, tokens_BL, labels_B, make_plan("raster", Grid(5, 4))), "plan with --grid 4x5"),
        (lambda: decode(MODEL, plan, [3, 0, 3]), "sample 3 is asked more than once; each once would do"),
        (lambda: decode(MODEL, plan, [0], labels=[4]), "0 to 2, or 3 for no class, would do"),
        (lambda: decode(MODEL, plan, [0], labels=[-1]), "or 3 for no class"),
        (lambda: plan_logits(MODEL, tokens_BL, labels_B + 3, plan), "0 to 2 are classes and"),
        (lambda: plan_logits(MODEL, tokens_BL + 5, labels_B, plan), "0 to 10 would do"),
        (lambda: plan_logits(MODEL, tokens_BL[:, :5], labels_B, plan), "(B, 20, 1) and (B,) would do"),
        (lambda: Sampling(temperature=0.0), "a temperature of 0 is not served; it is above 0"),
        (lambda: Sampling(top_p=0.0), "a top-p of 0 is not served; it is above 0 and at most 1"),
        (lambda: Guidance(law="quadratic"), "no guidance named 'quadratic'"),  # type: ignore[arg-type]
        (lambda: Guidance(law="linear", scale=float("nan")), "a guidance scale of nan"),
    ]  # fmt: skip
    for call, sentence in cases:
        with pytest.raises(BenchError) as refusal:
            call()
        assert sentence in str(refusal.value)


def test_weights_that_are_not_numbers_are_named() -> None:
    broken = toy_model()
    with torch.no_grad():
        broken.head.weight[0, 0] = float("nan")
    with pytest.raises(BenchError, match="the model's logits are not finite; its weights hold NaN or infinity"):
        decode(broken, make_plan("radial", GRID), [0])


def failing(start: Callable[[], object]) -> Model:
    """A network whose cache cannot be made."""
    network = EightMembers(MODEL)
    network.start = lambda labels_B, slots: start()  # type: ignore[assignment, method-assign, return-value]
    return as_model(network, "mine:build")


def test_what_does_not_fit_in_memory_is_one_sentence() -> None:
    def on_a_gpu() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 EiB")

    sentence = "there is no memory for 64 samples at once; a smaller model, another --device or --dtype bf16 may do"
    for start in (lambda: torch.empty(1 << 60), on_a_gpu):
        with pytest.raises(BenchError, match=sentence):
            decode(failing(start), make_plan("radial", GRID), [0])


def test_a_fault_that_speaks_of_memory_keeps_its_traceback() -> None:
    def fault() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        decode(failing(fault), make_plan("radial", GRID), [0])
