"""Lattices whose law is known: conditionals and taxes against formulas and loops, and what is measured of them."""

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orderbench.models.analytic import LAWS, Known, Law, markov_field, measured_tax, parity, permutation
from orderbench.models.answer import Categorical
from orderbench.models.contract import check_model
from orderbench.models.decode import DECODERS, decode, parse_decoder
from orderbench.models.likelihood import plan_answer
from orderbench.orders import BenchError, Grid, make_plan

SMALL = (markov_field, lambda: permutation(Grid(2, 2)), parity)
PLANS = ("raster@even:3", "radial", "halton@cosine:4", "random:shared=true@even:2")


def conditional(law: Law, known: dict[int, int], cell: int) -> list[float]:
    """The law of one cell given codes of others, image by image."""
    sums = [0.0] * law.n_codes
    for codes, prob in zip(law.codes_XL.tolist(), law.prob_X.tolist(), strict=True):
        if all(codes[at] == code for at, code in known.items()):
            sums[codes[cell]] += prob
    return [part / sum(sums) for part in sums]


@pytest.mark.parametrize("make", LAWS)
def test_conditionals_are_sums_over_images(make: Callable[[], Law]) -> None:
    law = make()
    plan = make_plan("halton@cosine:4", law.grid)
    codes_BL, labels_B = law.codes_XL[[3, -5]], torch.zeros(2, dtype=torch.int64)
    answer = plan_answer(Known(law), codes_BL[..., None], labels_B, plan, samples=[0, 0])
    assert isinstance(answer, Categorical)
    walk, step_of = plan.cells_for([0])[0].tolist(), plan.step_of_cell().tolist()
    for b, place in itertools.product(range(2), range(len(walk))):
        cell = walk[place]
        known = {at: int(codes_BL[b, at]) for at in walk if step_of[at] < step_of[cell]}
        said = answer.logits_BQV[b, place].double().softmax(-1)
        assert said.tolist() == pytest.approx(conditional(law, known, cell), abs=1e-6)


def test_a_known_law_keeps_the_contract_of_models() -> None:
    verdicts = check_model(Known(markov_field()), "cpu")
    assert [str(one) for one in verdicts if one.verdict not in ("pass", "note")] == []
    assert len(verdicts) > 15


@pytest.mark.parametrize("text", PLANS)
@pytest.mark.parametrize("make", SMALL)
def test_the_measured_tax_is_the_known_one(make: Callable[[], Law], text: str) -> None:
    law = make()
    plan = make_plan(text, law.grid)
    assert measured_tax(law, plan) == pytest.approx(law.tax(plan), abs=2e-7)


def test_the_documents_say_what_is_measured() -> None:
    laws = {f"{law.name}, {law.grid}": law for law in (make() for make in LAWS)}
    text = (Path(__file__).parents[1] / "docs" / "validation.md").read_text()
    rows = re.findall(r"^\| ([A-Za-z ]+, \dx\d) \| `(\S+)` \| (\S+) \| (\S+) \|", text, re.M)
    assert len(rows) == 12
    for name, plan_text, known, measured in rows:
        plan = make_plan(plan_text, laws[name].grid)
        assert float(known) == pytest.approx(laws[name].tax(plan), abs=1e-6)
        if name != "permutation, 2x3":  # it is measured above
            assert float(measured) == pytest.approx(measured_tax(laws[name], plan), abs=1e-6)


def test_taxes_that_have_a_formula() -> None:
    for sizes, last in (("even:3", 3), ("one", 1), ("cosine:4", 3), ("even:9", 1)):
        plan = make_plan(f"halton@{sizes}", Grid(3, 3))
        assert (plan.sizes[-1] > 1) == (last > 1)
        assert parity().tax(plan) == pytest.approx(0 if last == 1 else 1 / 9, abs=1e-12)
    plan, left, bits = make_plan("random@even:4", Grid(2, 3)), 6, 0.0
    for size in plan.sizes:  # a step draws as if from all codes that are left, each cell by itself
        bits += size * math.log2(left) - math.log2(math.perm(left, size))
        left -= size
    assert permutation().tax(plan) == pytest.approx(bits / 6, abs=1e-12)
    law, plan = markov_field(Grid(1, 3), 2, 1.0), make_plan("raster@even:1", Grid(1, 3))
    singles = math.prod(0.5 for _ in range(3))
    kl = sum(prob * math.log2(prob / singles) for prob in law.prob_X.tolist())
    assert law.tax(plan) == pytest.approx(kl / 3, abs=1e-12)


def test_one_cell_at_a_time_draws_from_the_law_and_parallel_steps_do_not() -> None:
    for law, obeys in (
        (parity(), lambda codes_NL: codes_NL.sum(1) % 2 == 0),
        (permutation(), lambda codes_NL: (codes_NL.sort(1).values == torch.arange(6)).all(1)),
    ):
        singly, parallel = (
            decode(Known(law), make_plan(text, law.grid), range(64)).codes_NLK[..., 0]
            for text in ("halton@one", "halton@even:2")
        )
        assert obeys(singly).all()
        assert 0 < int(obeys(parallel).sum()) < 64


@pytest.mark.parametrize("make", SMALL)
def test_exact_decoders_draw_what_one_cell_at_a_time_draws(make: Callable[[], Law]) -> None:
    model, plan = Known(make()), make_plan("halton@even:2", make().grid)
    singly = decode(model, plan.singly(), range(16)).codes_NLK
    exact = [name for name in DECODERS.names() if DECODERS.get(name).exact]
    assert "exact" in exact
    for name in exact:
        assert torch.equal(decode(model, plan, range(16), decoder=parse_decoder(name)).codes_NLK, singly), name


def test_a_law_of_too_many_images_is_refused() -> None:
    with pytest.raises(BenchError, match="a 4x4 grid of 2 codes has 65536 images, and 4096 can be listed"):
        markov_field(Grid(4, 4))
