"""Profiles of models: what a step of any size costs, sizes that are fitted to it, and the file that holds them."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import good
from toys import RegionsModel, filled, toy_config, toy_model, toy_tokens

from orderbench.models.analytic import Known, Law, markov_field, parity
from orderbench.models.likelihood import plan_bits
from orderbench.models.profile import begins, profile, span_bits
from orderbench.models.shipped import load_shipped, shipped_profile
from orderbench.orders import BenchError, Grid, make_plan
from orderbench.orders.field import least_tax
from orderbench.orders.plan import Plan
from orderbench.orders.profile import profile_in, read_profile, use_profile
from orderbench.runs.fitting import Fit, fit_pace, write_profile
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject, load_subjects
from orderbench.runs.trials import make_agenda


@pytest.fixture(autouse=True)
def no_profile() -> Iterator[None]:
    use_profile(None)
    yield
    use_profile(None)


def every_span(law: Law, plan: Plan) -> np.ndarray:
    """(L, L + 1) expected bits of every span of a walk, over all images of a law."""
    places, n = begins(law.grid.n_cells, 1), len(law.prob_X)
    labels_X = torch.zeros(n, dtype=torch.int64)
    bits_XEL = profile(Known(law), law.codes_XL[..., None], labels_X, plan, places, [0] * n)
    return np.einsum("x,xab->ab", law.prob_X.numpy(), span_bits(bits_XEL, places).numpy())


@pytest.mark.parametrize("law", [markov_field(Grid(2, 3)), parity(Grid(2, 3))], ids=lambda law: law.name)
def test_spans_are_total_correlations_and_the_sizes_of_least_sum_pay_the_least_known_tax(law: Law) -> None:
    walk = make_plan("halton@one", law.grid)
    spans = every_span(law, walk)
    cells = walk.cells_for([0])[0].tolist()
    for a, b in itertools.combinations(range(7), 2):
        known = law.entropy(cells[:a])
        singles = sum(law.entropy([*cells[:a], cell]) - known for cell in cells[a:b])
        assert spans[a, b] == pytest.approx(singles - (law.entropy(cells[:b]) - known), abs=1e-5)
    for steps in range(1, 7):
        cuts = [np.diff([0, *inner, 6]).tolist() for inner in itertools.combinations(range(1, 6), steps - 1)]
        taxes = [law.tax(Plan(lattice=law.grid, sizes=tuple(sizes), cells=walk.cells)) for sizes in cuts]
        fitted = Plan(lattice=law.grid, sizes=least_tax(spans, steps), cells=walk.cells)
        assert law.tax(fitted) == pytest.approx(min(taxes), abs=1e-5)


def test_a_profile_is_what_causal_likelihood_says_after_the_first_codes() -> None:
    model = toy_model(3, 4)
    tokens_BL, labels_B = toy_tokens(model, 3)
    walk = make_plan("random@one", model.lattice)
    cells_BL = torch.from_numpy(walk.cells_for(range(3)))
    places = begins(12, 2)
    assert places == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10)
    bits_BEL = profile(model, tokens_BL[..., None], labels_B, walk, places, range(3))
    for row, place in enumerate(places):
        sizes = (*(1,) * place, 12 - place)
        plan = Plan(lattice=walk.lattice, sizes=sizes, recipe=walk.recipe)
        bits_BL = plan_bits(model, tokens_BL[..., None], labels_B, plan, in_group="causal").gather(1, cells_BL)
        assert bits_BEL[:, row, :place].isnan().all()
        torch.testing.assert_close(bits_BEL[:, row, place:].float(), bits_BL[:, place:], atol=1e-4, rtol=1e-4)
    singly = plan_bits(model, tokens_BL[..., None], labels_B, walk).gather(1, cells_BL)
    torch.testing.assert_close(bits_BEL[:, -1].float(), singly, atol=1e-4, rtol=1e-4)


def test_a_model_whose_queries_see_each_other_has_no_profile() -> None:
    model = filled(RegionsModel(toy_config(4, 4)))
    codes_BLK, labels_B = toy_tokens(model, 1)
    model.refuses = lambda plan: ""
    with pytest.raises(BenchError, match="see each other, so what it says of one depends on the step"):
        profile(model, codes_BLK[..., None], labels_B, make_plan("raster@one", Grid(4, 4)), (0,), range(1))


def subject(n: int = 300) -> Subject:
    """A Markov field whose images were drawn."""
    law = markov_field(coupling=0.6)
    drawn = np.random.default_rng(0).choice(len(law.prob_X), n, p=law.prob_X.numpy())
    held_out = (law.codes_XL[drawn][..., None], torch.zeros(n, dtype=torch.int64))
    return Subject("known", Known(law), "cpu", {"sha256": "ab"}, held_out_source=lambda: held_out)


def test_sizes_are_fitted_to_some_images_and_judged_on_others() -> None:
    fit = Fit(orders=("raster", "designed", "random"), steps=(3, 4), images=64, score=200)
    document, without = fit_pace(subject(), fit)
    assert without == [
        "designed has no profile: it is built for its step sizes, so there is no walk that sizes could be fitted to"
    ]
    assert set(document["sizes"]) == {"raster", "random"}
    rows = {(row["order"], row["steps"], row["pace"], row["images"]): row for row in document["taxes"]}
    fitted = rows["raster", 4, "profile", 64]
    plan = Plan(lattice=Grid(3, 3), sizes=tuple(document["sizes"]["raster"]["4"]), cells=np.arange(9))
    law = markov_field(coupling=0.6)
    assert abs(fitted["tax_bits"] - law.tax(plan)) < 2 * fitted["half_bits"]
    few = rows["raster", 4, "profile", 4]  # four images promise what others do not keep
    assert few["seen_bits"] < fitted["seen_bits"]
    assert few["tax_bits"] >= fitted["tax_bits"] - 0.01
    cosine = rows["raster", 4, "cosine", None]
    assert cosine["above_profile_bits"] == pytest.approx(cosine["tax_bits"] - fitted["tax_bits"], abs=2e-6)
    assert fitted["above_profile_bits"] == 0
    assert document["information"]["raster"][0] > document["information"]["raster"][-1]
    again = profile_in(json.loads(json.dumps(document)), "it")
    use_profile(again)
    assert make_plan("raster@profile:4", Grid(3, 3)).sizes == plan.sizes
    assert make_plan("random@profile:3", Grid(3, 3)).n_steps == 3


@pytest.mark.parametrize(
    ("fit", "sentence"),
    [
        ({"images": 500, "score": 500}, "500 images to fit to and 500 others to judge on are more than the 300"),
        ({"steps": (10,)}, "--steps 10 cannot be fitted with 9 places"),
        ({"orders": ("designed",)}, "designed has no profile: .*; name others, as in --orders raster,halton"),
    ],
)
def test_what_cannot_be_fitted(fit: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        fit_pace(subject(), Fit(**{"orders": ("raster",), "steps": (3,), "images": 8, "score": 8, **fit}))


GOOD = {"schema": 1, "lattice": "2x2", "sizes": {"raster": {"2": [1, 3]}}}


@pytest.mark.parametrize(
    ("changed", "text", "sentence"),
    [
        ({"schema": 2}, "", "the profile 'it' has schema 2 and this version reads 1"),
        ({"sizes": {"raster": {"2": [1, 2]}}}, "", "gives raster in 2 steps 2 sizes of 3 cells in all, and 2x2 has 4"),
        ({"sizes": {"raster": {"3": [1, 3]}}}, "", "gives raster in 3 steps 2 sizes"),
        ({"sizes": {"raster": {"2": [0, 4]}}}, "", "a whole number of 1 or more would do; `bench fit-pace` writes one"),
        ({"sizes": []}, "", "'it' is no profile: it gives sizes as"),
        ({}, "raster@profile:3", "holds no sizes of raster in 3 steps; it holds raster in 2, and `bench fit-pace"),
        ({}, "halton@profile:2", "holds no sizes of halton in 2 steps"),
        ({}, "raster@profile:5", "the pace 'profile:5' asks for 5 steps on a 2x2 grid of 4 cells"),
        ({}, "raster@profile", "the pace 'profile' needs a number of steps"),
    ],
)
def test_profiles_and_paces_that_do_not_fit(changed: dict[str, Any], text: str, sentence: str) -> None:
    def asked() -> Plan:
        use_profile(profile_in({**GOOD, **changed}, "it"))
        return make_plan(text, Grid(2, 2))

    with pytest.raises(BenchError) as refusal:
        asked()
    assert sentence in str(refusal.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    with pytest.raises(BenchError, match="is no profile that can be read: No such file or directory; `bench fit-pace`"):
        read_profile(file)
    write_profile(file, GOOD)
    assert read_profile(file).sizes_for("raster", Grid(2, 2), 2) == (1, 3)


def test_a_plan_of_fitted_sizes_is_shown(tmp_path: Path) -> None:
    write_profile(tmp_path / "mine.json", GOOD)
    shown = json.loads(
        good("show", "raster@profile:2", "--grid", "2", "--profile", str(tmp_path / "mine.json"), "--json")
    )
    assert (shown["sizes"], shown["about"]["arm"]) == ([1, 3], "raster@profile:2")


def test_the_shipped_weights_carry_their_profile() -> None:
    weights = load_shipped("fashion-model")
    carried = shipped_profile(weights.sha256)
    assert carried is not None
    assert carried.lattice == weights.network.lattice
    assert len(carried.sizes) >= 8
    assert shipped_profile("0" * 64) is None
    agenda = make_agenda(RunSpec(orders=("raster@profile:13",), only=("likelihood",)), load_subjects(RunSpec()))
    lattice = weights.network.lattice
    assert agenda.lineup.arms[-1].plan(lattice).sizes == carried.sizes_for("raster", lattice, 13)


def test_the_page_says_what_the_shipped_profile_holds() -> None:
    root = Path(__file__).parents[1]
    held = json.loads((root / "models" / "fashion-model.profile.json").read_text())
    page = (root / "docs" / "tax.md").read_text()
    said = re.findall(r"^\| `(\w+)` \| (\d+) \| " + " \\| ".join([r"(\S+) ±\S+"] * 5) + r" \|$", page, re.M)
    assert len(said) == 24
    for order, steps, *numbers in said:
        rows = [row for row in held["taxes"] if (row["order"], row["steps"]) == (order, int(steps))]
        by_pace = {row["pace"]: row for row in rows if row["images"] in (None, 128)}
        bits = [by_pace[pace]["tax_bits"] for pace in ("cosine", "even", "optimal", "profile")]
        bits.append(by_pace["optimal"]["above_profile_bits"])
        assert [float(number) for number in numbers] == [float(f"{1000 * one:.1f}") for one in bits]


def test_without_a_profile_and_on_another_lattice() -> None:
    with pytest.raises(BenchError, match="none was given; name one, as in --profile FILE, or take optimal:2"):
        make_plan("raster@profile:2", Grid(2, 2))
    use_profile(profile_in(GOOD, "it"))
    with pytest.raises(BenchError, match="was measured on 2x2 and the lattice is 2x3; optimal:2 would do"):
        make_plan("raster@profile:2", Grid(2, 3))
