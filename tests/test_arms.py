"""Arms: how what was asked becomes what is compared, what a model refuses, and what it is measured against."""

import pytest
from toys import pyramid_model, regions_model, toy_model

from orderbench.models.counting import Nothing
from orderbench.models.model import Model
from orderbench.models.objective import ObjectiveConfig, Share
from orderbench.orders import BenchError, Grid, Plan, make_plan, predicted_tax
from orderbench.orders.pace import paces_in
from orderbench.runs.arms import Lineup, baseline_of, line_up, parse_arm, refused_arm, told
from orderbench.runs.cuts import Cut, choose


class Serves(Nothing):
    """A model of 4x4 that was trained for one arm, and serves these alone; any, where none is named."""

    def __init__(self, native: str, *arms: str) -> None:
        super().__init__(Grid(4, 4))
        self.native, self.plans = native, [parse_arm(arm).plan(self.lattice) for arm in arms]

    def refuses(self, plan: Plan) -> str:
        return "" if not self.plans or plan in self.plans else "it was trained otherwise"


def names(lineup: Lineup) -> list[str]:
    return [arm.name for arm in lineup.arms]


def baselines(lineup: Lineup) -> dict[str, tuple[str, bool]]:
    return {name: (baseline.arm.name, baseline.ratio) for name, baseline in lineup.baselines.items()}


TWO: dict[str, Model] = {"": toy_model(4, 4), "par": regions_model()}


def test_an_order_gets_its_ladder_where_neither_pace_nor_decoder_is_asked_for() -> None:
    own: dict[str, Model] = {"": toy_model(4, 4)}
    assert names(line_up(["raster"], [], [], own)) == ["raster", "raster@even:4", "halton@cosine:4"]
    lineup = line_up(["radial"], [], [], own)
    assert names(lineup) == ["raster", "radial", "radial+nested", "halton@cosine:4"]
    assert lineup.added == ("raster", "radial+nested", "halton@cosine:4")
    assert names(line_up(["raster", "radial@one"], [], [], own)) == [
        "raster", "raster@even:4", "radial@one", "halton@cosine:4",
    ]  # fmt: skip
    assert names(line_up(["raster@one"], [], [], own)) == ["raster@one"]
    assert names(line_up(["raster", "radial"], [], ["off"], own)) == ["raster", "radial"]
    assert names(line_up(["raster@even:4", "raster", "raster"], [], [], own)) == [
        "raster@even:4", "raster", "halton@cosine:4",
    ]  # fmt: skip


def test_paces_and_decoders_multiply_what_names_none() -> None:
    lineup = line_up(["raster", "halton@one", "radial+nested"], ["even:4", "one"], ["off", "nested"], TWO)
    assert baselines(lineup) == {"": ("raster@one", True)}  # that very plan was asked for, under this name
    assert names(lineup) == [
        "raster@even:4", "raster@even:4+nested", "raster@one", "raster@one+nested", "halton@one", "halton@one+nested",
        "radial@even:4+nested", "radial@one+nested",
    ]  # fmt: skip


def test_an_arm_may_name_its_model_and_the_runs_own_has_a_name_too() -> None:
    lineup = line_up(["raster~shared", "regions~par", "raster"], [], ["off"], TWO, own="shared")
    assert names(lineup) == ["raster", "regions~par"]
    assert [arm.model for arm in lineup.arms] == ["", "par"]
    assert baselines(lineup) == {"": ("raster", True), "par": ("regions~par", False)}
    assert lineup.baseline(lineup.arms[1]) == lineup.baselines["par"]
    assert lineup.again == lineup.baselines[""].arm
    with pytest.raises(BenchError, match=r"no model named 'ear'; it has par; name its weights, as in --model ear=FILE"):
        line_up(["raster~ear"], [], [], TWO, own="shared")
    with pytest.raises(BenchError, match="no model named 'ear'; it has no other than its own"):
        line_up(["raster@one~ear"], [], [], {"": TWO[""]})


def test_a_ladder_is_its_models_own_and_leaves_out_what_that_refuses() -> None:
    other: dict[str, Model] = {"": toy_model(4, 4), "big": toy_model(6, 6), "par": regions_model()}
    assert names(line_up(["raster", "raster~big"], [], [], other)) == [
        "raster", "raster@even:4", "raster~big", "raster@even:6~big", "halton@cosine:4", "halton@cosine:6~big",
    ]  # fmt: skip
    lineup = line_up(["regions~par"], [], [], other)
    assert (names(lineup), dict(lineup.refused)) == (["regions~par"], {})  # nested and halton, which nobody asked for


def test_a_refused_arm_says_why_and_the_others_go_on() -> None:
    lineup = line_up(["raster~par", "regions+nested~par", "regions~par", "radial@one"], [], ["off"], TWO)
    assert names(lineup) == ["raster", "regions~par", "radial@one"]
    assert dict(lineup.refused) == {
        "raster~par": "par does not serve this plan: it was trained for regions:m=2 in its own groups",
        "regions+nested~par": "par does not serve this decoder, which needs that fed codes can be taken back (refill "
        "and rewind); plain decoding would do",
    }
    with pytest.raises(BenchError, match=r"^raster~par is left out: par does .*; radial~par is left out: par does "):
        line_up(["raster~par", "radial~par"], [], [], TWO)
    with pytest.raises(BenchError, match="the model does not serve this plan: it was trained for regions"):
        line_up(["raster"], [], [], {"": regions_model()})


def test_what_is_asked_for_by_name_is_no_ladders_extra() -> None:
    even: dict[str, Model] = {"": Serves("raster@even:4", "raster@even:4")}
    lineup = line_up(["raster", "raster@even:4"], [], [], even)
    assert (names(lineup), list(lineup.refused)) == (["raster@even:4"], ["raster"])
    singly: dict[str, Model] = {"": Serves("raster", "raster")}
    lineup = line_up(["raster", "raster@even:4"], [], [], singly)
    assert (names(lineup), list(lineup.refused)) == (["raster"], ["raster@even:4"])


def test_what_no_lattice_of_the_model_has_is_an_error_whoever_else_could_go_on() -> None:
    with pytest.raises(BenchError, match="the centre 9x9 lies outside a 4x4 grid"):
        line_up(["raster", "radial:center=9x9"], [], [], TWO)
    with pytest.raises(BenchError, match="'designed' is built for step sizes on one grid"):
        line_up(["scales", "designed@cosine:4"], [], [], {"": pyramid_model()})


@pytest.mark.parametrize(
    ("model", "arm", "ratio"),
    [
        (toy_model(4, 4), "raster", True),  # any order: raster one cell at a time, in its plain spelling
        (Serves("radial"), "radial@one", True),
        (Serves("radial@even:4", "radial@even:4", "radial@one"), "radial@one", True),
        (Serves("column@one"), "column@one", True),
        (Serves("radial@even:4", "radial@even:4"), "radial@even:4", False),
        (regions_model(), "regions", False),
        (pyramid_model(), "scales@one", True),
        (pyramid_model("1/2"), "scales@one", True),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_models_baseline(model: Model, arm: str, ratio: bool) -> None:
    found = baseline_of(model)
    assert found is not None
    assert (found.arm.name, found.ratio) == (arm, ratio)
    assert (found.arm.plan(model.lattice).n_steps == model.lattice.n_cells) == ratio
    named = baseline_of(model, "par")
    assert named is not None
    assert named.arm.name == f"{arm}~par"


def test_a_model_that_serves_no_arm_of_its_own_has_no_baseline() -> None:
    odd = Serves("raster", "radial")
    assert baseline_of(odd) is None
    lineup = line_up(["radial"], [], ["off"], {"": odd})
    assert (names(lineup), dict(lineup.baselines), lineup.again) == (["radial"], {}, None)
    assert lineup.baseline(lineup.arms[0]) is None


def test_the_baseline_can_be_left_out() -> None:
    lineup = line_up(["radial", "regions~par"], [], ["off"], TWO, with_baseline=False)
    assert (names(lineup), dict(lineup.baselines), lineup.again) == (["radial", "regions~par"], {}, None)


def test_the_baseline_is_an_arm_of_the_run_whatever_was_asked_for() -> None:
    lineup = line_up(["radial", "regions+nested~par", "regions~par", "halton"], [], ["off"], TWO)
    assert names(lineup) == ["raster", "radial", "regions~par", "halton"]  # par's own was asked for
    assert lineup.added == ("raster",)
    assert all(baseline.arm in lineup.arms for baseline in lineup.baselines.values())
    said = " ".join(told(lineup))
    assert said.startswith("4 arms: raster (baseline, added), radial, regions~par (baseline), halton")
    assert said.endswith("--no-baseline leaves out a baseline that nobody asked for")
    lineup = line_up(["radial", "raster@even:4", "raster"], [], ["off"], TWO)
    assert (names(lineup), lineup.added) == (["radial", "raster@even:4", "raster"], ())  # where it was asked for
    said = " ".join(told(line_up(["raster"], [], [], TWO)))
    assert said.startswith("3 arms: raster (baseline), raster@even:4 (added), halton@cosine:4 (added) --correction off")
    assert list(told(line_up(["raster"], [], ["off"], TWO))) == ["1 arm: raster (baseline)"]


MIXTURE = ObjectiveConfig(
    mixture=(
        Share(order="raster", paces=("one", "even:4"), share=0.4),
        Share(order="radial:center=2x2", paces=("native", "even:4", "even:4"), share=0.5),
        Share(order="random", paces=("cosine:8",), share=0.1),
    )
)


def test_steps_are_cut_as_the_model_was_trained_or_else_where_the_least_tax_is_predicted() -> None:
    orders = ["raster", "radial", "random", "hilbert", "halton@cosine:5"]
    lineup = line_up(orders, [], ["off", "nested"], TWO, steps=(4, 8), objectives={"": MIXTURE})
    assert names(lineup)[:3] == ["raster", "raster@even:4", "raster@even:4+nested"]
    assert lineup.cuts["radial@even:4"] == Cut(4, "even:4", "trained")  # half of its batches more than its own rings
    assert lineup.cuts["random@cosine:8+nested"] == Cut(8, "cosine:8", "trained")
    hilbert = next(cut for name, cut in lineup.cuts.items() if name.startswith("hilbert") and cut.steps == 8)
    lattice = TWO[""].lattice
    taxes = {str(pace): predicted_tax(make_plan("hilbert", lattice, str(pace))) for pace in paces_in(8)[4:]}
    assert hilbert.taxes_bits == pytest.approx(taxes)
    assert (hilbert.why, taxes[hilbert.pace]) == ("least predicted tax", min(taxes.values()))  # type: ignore[type-var]
    assert "halton@cosine:5" in names(lineup)
    assert "halton@cosine:5" not in lineup.cuts
    four, eight = list(told(lineup))[:2]
    assert four.startswith("--steps 4: raster@even:4 (trained), radial@even:4 (trained), random@")
    assert f"hilbert@{hilbert.pace} (least predicted tax)" in eight
    other = line_up(["raster", "raster~par"], [], [], {"": TWO[""], "par": toy_model(4, 4)}, steps=(8,),
                    objectives={"": None, "par": MIXTURE})  # fmt: skip
    assert {cut.why for cut in other.cuts.values()} == {"least predicted tax"}


def test_a_pace_that_hides_its_steps_gives_way_to_one_that_is_nearly_as_good() -> None:
    near = Serves("raster", "spiral@ear-shells", "spiral@randar:4")
    same = Serves("raster", "diagonal@ear-shells", "diagonal@randar:4")  # the least there is, by whatever name
    for order, model, chosen in (("spiral", near, "randar:4"), ("diagonal", same, "optimal:4")):
        (cut,) = choose(parse_arm(order).order, [4], model, None)
        assert min(cut.taxes_bits, key=lambda pace: cut.taxes_bits[pace]) == "ear-shells"
        assert cut.pace == chosen
    (whole,) = choose(parse_arm("spiral").order, [16], Serves("raster", "spiral"), None)
    assert whole.pace in ("native", "one")  # which hide nothing: that is the order itself


def test_steps_of_what_has_no_prediction_are_cut_by_the_cosine_law() -> None:
    pyramid: dict[str, Model] = {"": pyramid_model()}
    assert line_up(["scales"], [], [], pyramid, steps=(5,)).cuts["scales@cosine:5"].why == "no prediction"
    lineup = line_up(["confidence", "designed"], [], [], TWO, steps=(5,))
    assert lineup.cuts["confidence@cosine:5"].why == "no prediction"
    designed = next(cut for name, cut in lineup.cuts.items() if name.startswith("designed"))
    assert set(designed.taxes_bits) == {"cosine:5", "even:5", "optimal:5"}
    whole = line_up(["raster"], [], [], TWO, steps=(16,))
    assert names(whole) == ["raster"]  # as many steps as cells: its own groups, whose tax is none
    with pytest.raises(
        BenchError, match="--steps 17 asks for more steps than 4x4 has cells, 16; fewer would do, as in"
    ):
        line_up(["raster"], [], [], TWO, steps=(17,))


def test_a_model_that_refuses_plans_is_cut_where_it_serves() -> None:
    strict: dict[str, Model] = {"": Serves("raster@even:4", "raster@even:4", "raster@lpd:4")}
    lineup = line_up(["raster"], [], [], strict, steps=(4,))
    (one,) = lineup.cuts.values()
    assert set(one.taxes_bits) == {"even:4", "randar:4", "lpd:4"}  # of these two the sizes are equal on 4x4
    assert names(lineup) == ["raster@even:4", "raster@randar:4"]
    with pytest.raises(BenchError, match="is left out: the model does not serve this plan: it was trained otherwise"):
        line_up(["raster"], [], [], strict, steps=(5,))


def test_only_models_that_are_used_have_a_baseline() -> None:
    assert baselines(line_up(["radial"], [], ["off"], TWO)) == {"": ("raster", True)}
    assert baselines(line_up(["regions~par"], [], ["off"], TWO)) == {"par": ("regions~par", False)}


def test_an_arm_is_refused_for_its_own_model() -> None:
    assert refused_arm(parse_arm("radial+nested"), TWO[""]) == ""
    assert refused_arm(parse_arm("regions"), TWO["par"], "par") == ""
    assert refused_arm(parse_arm("confidence@cosine:4"), TWO["par"], "par").startswith("par does not serve this plan")


def test_a_decoder_of_drafts_decodes_one_cell_at_a_time_whatever_the_pace() -> None:
    lattice = TWO[""].lattice
    for decoder in ("exact", "speculative:rule=coupling", "draft:k=3"):
        arm = parse_arm(f"designed@cosine:5+{decoder}")
        assert arm.plan(lattice) == make_plan("designed@cosine:5", lattice).singly()
        assert arm.has_likelihood
