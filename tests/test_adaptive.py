"""Adaptive orders: what they keep is what they are surest of, and their steps are a plan's once they are known."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
from toys import chained_model, plan_logits, pyramid_model, toy_model

from orderbench.models.adaptive import confidence
from orderbench.models.analytic import Known, Law, Policy, markov_field, parity, permutation, policy_taxes
from orderbench.models.answer import Categorical
from orderbench.models.contract import check_decoder
from orderbench.models.counting import Nothing
from orderbench.models.decode import Step, decode, decode_steps, parse_decoder
from orderbench.models.guidance import Guidance
from orderbench.models.likelihood import ChosenBits, chosen_bits
from orderbench.models.model import Model
from orderbench.models.sampling import Sampling, uniforms
from orderbench.orders import BenchError, Grid, Plan, make_plan

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


# Rules that choose how many cells a step takes

FREE = ["entropy:gamma=2", "threshold:tau=0.3", "klass:tau=0.25"]  # so that the toy's steps take one cell or several
ONE_BY_ONE = make_plan("raster", GRID)


def ruled(text: str, n: int = 4, **how: object) -> list[Step]:
    decoder = parse_decoder(f"confidence:rule={text}")
    return list(decode_steps(MODEL, ONE_BY_ONE, range(n), decoder=decoder, **how))  # type: ignore[arg-type]


def own(steps: list[Step], sample: int) -> list[list[int]]:
    """The cells of every step of one sample."""
    taken = [step.cells_BQ[sample][step.own_BQ[sample]].tolist() for step in steps]
    return [cells for cells in taken if cells]


@pytest.mark.parametrize("model", [MODEL, pyramid_model()])
@pytest.mark.parametrize("text", [*FREE, "moment"])
def test_rules_keep_the_contract(text: str, model: Model) -> None:
    decoder = parse_decoder(f"confidence:rule={text}")
    plan = make_plan("raster" if decoder.entry.paces else "raster@cosine:6", model.lattice)
    check_decoder(decoder, model, plan)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(law="linear", scale=2.0)])
@pytest.mark.parametrize("text", FREE)
def test_samples_at_different_places_see_what_they_would_see_alone(text: str, guidance: Guidance) -> None:
    steps = ruled(text, sampling=Sampling(guidance=guidance))
    counts = {tuple(map(len, own(steps, sample))) for sample in range(4)}
    assert len(counts) > 1  # samples do go apart
    assert max(map(max, counts)) > 1
    whole = decode(MODEL, ONE_BY_ONE, range(4), sampling=Sampling(guidance=guidance), tile=4,
                   decoder=parse_decoder(f"confidence:rule={text}"))  # fmt: skip
    for sample in range(4):
        alone = list(decode_steps(MODEL, ONE_BY_ONE, [sample], sampling=Sampling(guidance=guidance),
                                  decoder=parse_decoder(f"confidence:rule={text}")))  # fmt: skip
        assert own(alone, 0) == own(steps, sample)
        codes = {cell: code for step in alone for cell, code in
                 zip(step.cells_BQ[0].tolist(), step.codes_BQK[0, :, 0].tolist(), strict=True)}  # fmt: skip
        assert [codes[cell] for cell in range(20)] == whole.tokens_NL[sample].tolist()
    assert whole.n_steps == sum(len(own(steps, sample)) for sample in range(4)) / 4 == whole.counters.passes


@pytest.mark.parametrize("in_group", ["block", "causal"])
@pytest.mark.parametrize("text", FREE)
def test_a_sample_is_decoded_as_the_plan_that_it_turned_out_to_be(text: str, in_group: str) -> None:
    steps = ruled(text, in_group=in_group)
    for sample in range(4):
        groups = own(steps, sample)
        cells = [cell for group in groups for cell in group]
        said = [step.answer.logits_BQV[sample][step.own_BQ[sample]] for step in steps]
        codes = torch.cat([step.codes_BQK[sample][step.own_BQ[sample]][:, 0] for step in steps])
        tokens = torch.empty(1, 20, dtype=torch.int64).scatter_(1, torch.tensor([cells]), codes[None])
        plan = Plan(lattice=GRID, cells=cells, sizes=tuple(map(len, groups)))
        with torch.no_grad():
            whole = plan_logits(MODEL, tokens, torch.tensor([sample % 3]), plan, in_group=in_group)
        torch.testing.assert_close(torch.cat(said), whole[0], atol=1e-5, rtol=0)


class Sure(Nothing):
    """Eight cells whose laws do not depend on anything: cell i has its first code with the probability that it is
    given."""

    def __init__(self, *sure: float) -> None:
        super().__init__(Grid(1, len(sure)))
        self.sure_L = torch.tensor(sure)

    def answer(self, cache: object, cells_BQ: torch.Tensor, *, seen: torch.Tensor | None = None) -> Categorical:
        p = self.sure_L[cells_BQ]
        return Categorical(torch.stack([p, 1 - p], -1).log())


def groups_of(rule: str, *sure: float) -> list[list[int]]:
    model = Sure(*sure)
    decoder = parse_decoder(f"confidence:rule={rule}")
    return own(list(decode_steps(model, make_plan("raster", model.lattice), [0], decoder=decoder)), 0)


def test_rules_by_hand() -> None:
    assert groups_of("threshold", 0.95, 0.6, 0.91, 0.5) == [[0, 2], [1], [3]]
    assert groups_of("threshold:tau=0.6", 0.95, 0.7, 0.91, 0.5) == [[0, 2, 1], [3]]
    assert groups_of("klass", 0.99, 0.95, 0.6, 0.93, 0.92) == [[0], [1], [3, 4], [2]]  # two steps to become steady
    # entropies 0.056, 0.199, 0.325, 0.693 nats: all but the largest of a step add up to gamma at most
    assert groups_of("entropy", 0.95, 0.9, 0.99, 0.5) == [[2, 0], [1], [3]]
    assert groups_of("entropy:gamma=0.26", 0.95, 0.9, 0.99, 0.5) == [[2, 0, 1], [3]]
    assert groups_of("entropy:gamma=0.6", 0.95, 0.9, 0.99, 0.5) == [[2, 0, 1, 3]]
    assert groups_of("entropy:gamma=0", 1.0, 1.0, 0.5, 0.5) == [[0, 1, 2], [3]]


def test_the_moment_sampler_chooses_before_it_draws() -> None:
    """Cells go by their laws alone: other noise of codes gives the same cells, and without noise the surest first."""
    model = Sure(0.6, 0.1, 0.95, 0.8)
    steps = decode_steps(
        model, make_plan("raster", model.lattice), range(3), decoder=parse_decoder("confidence:rule=moment:noise=0")
    )
    assert torch.cat([step.cells_BQ for step in steps], dim=1).tolist() == [[2, 1, 3, 0]] * 3


def test_the_moment_sampler_chooses_with_the_odds_of_maskgit() -> None:
    """The first of two cells, over many samples, is chosen as often as by MaskGIT's rule with as much noise."""
    model, plan = Sure(0.9, 0.5), make_plan("raster", Grid(1, 2))
    first = {}
    for rule in ("maskgit", "moment"):
        decoder = parse_decoder(f"confidence:rule={rule}:noise=2")  # 1 at the first of two steps
        step = next(decode_steps(model, plan, range(4000), decoder=decoder))
        first[rule] = float((step.cells_BQ == 0).double().mean())
    odds = (0.9**2 + 0.1**2) / (0.9**2 + 0.1**2 + 0.5)
    assert abs(first["moment"] - odds) < 0.03
    assert abs(first["maskgit"] - first["moment"]) < 0.06


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tau=0.5", "confidence:rule=maskgit:tau=0.5 gives an option that this rule does not read; tau belongs to"),
        ("rule=entropy:noise=1", "noise belongs to rule=maskgit and rule=moment"),
        ("rule=threshold:tau=2", "a confidence tau of 2 is not served; 0 to 1 would do, as in 0.9"),
        ("rule=entropy:gamma=-1", "a confidence gamma of -1 is not served; 0 or more would do, as in 0.1"),
        ("rule=sure", "rule takes maskgit, moment, entropy, threshold, klass, as in confidence:rule=maskgit"),
    ],
)
def test_options_are_refused_where_they_are_spelled(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        parse_decoder(f"confidence:{text}")


def test_a_cell_of_several_codes_has_no_law_to_choose_by() -> None:
    model = chained_model()
    with pytest.raises(BenchError, match="so it has no single law"):
        decode(model, make_plan("raster", model.lattice), [0], decoder=parse_decoder("confidence:rule=entropy"))


# Their tax, by teacher forcing


def chosen(law: Law, rule: str) -> ChosenBits:
    """The bits of every image of a law under a rule."""
    decoder = parse_decoder(f"confidence:rule={rule}")
    plan = make_plan("raster" if decoder.entry.paces else "raster@even:3", law.grid)
    labels = torch.zeros(len(law.prob_X), dtype=torch.int64)
    return chosen_bits(Known(law), plan, decoder, law.codes_XL[..., None], labels)


def threshold(tau: float) -> Policy:
    def choose(marginals: Mapping[int, list[float]]) -> list[int]:
        sure = {cell: max(law) for cell, law in marginals.items()}
        return [cell for cell in sure if sure[cell] >= tau - 1e-6] or [max(sure, key=lambda cell: round(sure[cell], 6))]

    return choose


@pytest.mark.parametrize("law", [markov_field(Grid(2, 3), coupling=1.5), permutation(Grid(2, 2)), parity(Grid(2, 3))])
@pytest.mark.parametrize("tau", [0.4, 0.6, 0.9])
def test_the_tax_of_a_policy_is_the_total_correlation_of_its_steps(law: Law, tau: float) -> None:
    taxes_X = policy_taxes(law, parse_decoder(f"confidence:rule=threshold:tau={tau}"))
    assert float(law.prob_X @ taxes_X) == pytest.approx(law.policy_tax(threshold(tau)), abs=1e-6)


@pytest.mark.parametrize("rule", ["entropy:gamma=0.9", "threshold:tau=0.6", "klass:tau=0.6", "moment"])
def test_forced_bits_are_a_code_and_their_tax_is_a_divergence(rule: str) -> None:
    """Over all images of a field: what a rule says of them sums to 1, since it chooses by what it knows; one at a time
    it says the law itself; so its tax is the divergence of the two, and never below 0."""
    law = markov_field(coupling=1.0)
    bits = chosen(law, rule)
    assert bits.singly_BL is not None
    if rule != "moment":  # which draws: every image has noise of its own here
        assert float((2 ** -bits.bits_BL.sum(1)).sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(-bits.singly_BL.sum(1), law.prob_X.log2(), atol=1e-5, rtol=0)
    assert float(law.prob_X @ (bits.bits_BL - bits.singly_BL).sum(1)) > 0.01
    assert bits.step_BL.amax(1).double().mean() < 8  # some steps take several cells


@pytest.mark.parametrize("rule", ["maskgit", "moment", "entropy:gamma=2"])
def test_cells_are_not_chosen_by_the_codes_that_are_charged(rule: str) -> None:
    decoder = parse_decoder(f"confidence:rule={rule}")
    plan = ONE_BY_ONE if decoder.entry.paces else PLAN
    firsts = []
    for code in (0, 3):
        codes_BLK = torch.full((2, 20, 1), code)
        bits = chosen_bits(MODEL, plan, decoder, codes_BLK, torch.tensor([0, 1]))
        firsts.append(bits.step_BL == 0)  # nothing was known yet
    assert torch.equal(*firsts)
