"""What a run will do: arms, trials, settings, and what it will take; refused before anything is measured."""

from typing import Any

import pytest
import torch
from toy_runs import spec_of

from orderbench.models.counting import Nothing, count, expect, misses
from orderbench.models.decode import Counters, parse_decoder
from orderbench.models.objective import SHIPPED
from orderbench.orders import BenchError, Grid, Pyramid, make_plan
from orderbench.runs import cost
from orderbench.runs.arms import line_up, parse_arm, training_share
from orderbench.runs.cost import Cost, Workload
from orderbench.runs.estimate import estimate_s, supposed
from orderbench.runs.kinds import kind_of
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import make_agenda


def test_orders_multiply_by_paces_and_decoders() -> None:
    own = {"": Nothing(Grid(16, 16))}

    def names(*asked: list[str]) -> list[str]:
        return [arm.name for arm in line_up(*asked, own).arms]  # type: ignore[arg-type]

    ladder = ["raster", "raster@even:13", "radial", "radial+nested", "halton@cosine:13"]
    assert names(["raster", "radial"], [], []) == ladder
    assert names(["radial", "halton@one"], ["cosine:8"], ["off", "nested:margin=1"]) == [
        "raster", "radial@cosine:8", "radial@cosine:8+nested", "halton@one", "halton@one+nested",
    ]  # fmt: skip
    assert names(["radial@cosine:8"], [], []) == ["raster", "radial@cosine:8"]
    assert parse_arm("confidence:noise=4.5@cosine:13").name == "confidence@cosine:13"
    with pytest.raises(BenchError, match="it needs a pace and takes no other decoder, as in confidence@cosine:13"):
        parse_arm("confidence")
    assert parse_arm("confidence:gamma=0.10:rule=entropy").name == "confidence:rule=entropy"
    with pytest.raises(BenchError, match="'exact:window=8' is a decoder, and stands behind an order; write raster"):
        parse_arm("exact:window=8")
    for text in ("confidence:rule=klass@cosine:13", "confidence:rule=klass@native", "confidence:rule=klass+nested"):
        with pytest.raises(BenchError, match=r"it takes no pace and no other decoder; write confidence:rule=klass$"):
            parse_arm(text)
    with pytest.raises(BenchError, match=r"takes the place of an order; write confidence:rule=threshold:tau=0\.5$"):
        parse_arm("radial+confidence:rule=threshold:tau=0.5")
    unpaced = ["confidence:rule=entropy", "halton"]
    assert names(unpaced, ["cosine:8"], []) == ["raster", "confidence:rule=entropy", "halton@cosine:8"]
    assert names(unpaced[:1], [], []) == ["raster", "confidence:rule=entropy"]
    with pytest.raises(BenchError, match="did you mean 'radial'"):
        names(["radail"], [], [])


def test_a_share_of_training_goes_by_the_walk_and_not_by_its_spelling() -> None:
    grid = Grid(16, 16)
    share = {arm: training_share(parse_arm(arm), SHIPPED, grid)[0] for arm in (
        "radial", "radial:center=8x8", "raster", "regions:m=1", "spiral", "hilbert", "confidence@cosine:13",
    )}  # fmt: skip
    assert share["radial"] == share["radial:center=8x8"] == 0.2
    assert share["raster"] == share["regions:m=1"] == 0.25
    assert share["spiral"] == 0.05
    assert share["hilbert"] == share["confidence@cosine:13"] == 0


def test_settings_to_tune_are_looked_at_before_anything_is_measured(files: dict[str, str]) -> None:
    with pytest.raises(BenchError, match=r"--tune temperature=banana is not a number; as in --tune temperature=0.9,1"):
        spec_of(files, tune={"temperature": ("banana",)})
    with pytest.raises(BenchError, match=r"--tune top_k=4.5 is not a whole number"):
        spec_of(files, tune={"top_k": (4.5,)})
    spec = spec_of(files, tune={"temperature": (0.0,)})
    with pytest.raises(BenchError, match="temperature"):
        make_agenda(spec, load_subjects(spec))


def test_what_cannot_be_measured_is_refused(files: dict[str, str]) -> None:
    spec = spec_of(files, tokenizer=None, data=None, space=(), only=("quality",))
    with pytest.raises(
        BenchError, match="nothing of quality can be measured: model: quality and repair are skipped, since"
    ):
        make_agenda(spec, load_subjects(spec))
    corrected = spec_of(files, orders=("radial+nested",), only=("likelihood",))
    with pytest.raises(BenchError, match="nothing of likelihood can be measured: arms that are corrected"):
        make_agenda(corrected, load_subjects(corrected))
    with pytest.raises(BenchError, match=r"no shipped model named 'nothing'; known: .*fashion-model"):
        load_subjects(spec_of(files, model="nothing"))
    with pytest.raises(
        BenchError, match=r"'raster~mine' names the model 'mine', and the run has model alone; name its "
    ):
        load_subjects(spec_of(files, orders=("raster", "raster~mine")))
    with pytest.raises(BenchError, match=r"--tokenizer mine=.* is for a model 'mine', and the run has model; name"):
        load_subjects(spec_of(files, tokenizer=f"mine={files['tokenizer']}"))
    twice = (files["model"], files["model"])
    with pytest.raises(BenchError, match=r"two models are called 'model'; name them apart, as in --model model-2="):
        load_subjects(spec_of(files, model=twice))
    with pytest.raises(BenchError, match=r"two models are called 'shared'; .* as in --model shared-2=shared"):
        load_subjects(spec_of(files, model=("shared", "shared")))
    with pytest.raises(BenchError, match="no feature space named 'lite'; did you mean 'lite0'"):
        load_subjects(spec_of(files, space=("lite",)))
    for wrong in ({"guidance": "abc"}, {"temperature": 0.0}, {"top_p": 2.0}):
        spec = spec_of(files, **wrong)
        with pytest.raises(BenchError):
            make_agenda(spec, load_subjects(spec))


def test_a_model_that_cannot_decode_is_no_reason_for_no_run(files: dict[str, str]) -> None:
    spec = spec_of(files)
    subjects = load_subjects(spec)
    with torch.no_grad():
        subjects.own.model.head.weight.fill_(float("nan"))  # type: ignore[attr-defined]
    assert estimate_s(make_agenda(spec, subjects)) == {}


def test_an_error_of_our_own_is_not_taken_for_the_models(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own:
        """Somebody else's model, whatever is inside."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["inner"], name)

    def slip(*given: Any, **more: Any) -> None:
        raise TypeError("nobody wrote this on purpose")

    agenda = make_agenda(spec_of(files), load_subjects(spec_of(files)))
    subject = agenda.subjects.own
    assert min(estimate_s(agenda).values()) > 0
    monkeypatch.setattr(subject.model, "answer", slip)
    with pytest.raises(TypeError, match="nobody wrote this"):
        estimate_s(agenda)
    monkeypatch.setattr(subject, "model", Own(subject.model))
    assert estimate_s(agenda) == {}
    monkeypatch.undo()
    monkeypatch.setattr(subject, "model", Own(subject.model))
    assert estimate_s(agenda).keys() == {trial.id for trial in agenda.trials}
    monkeypatch.setattr(cost, "fit", slip)
    with pytest.raises(TypeError, match="nobody wrote this"):
        estimate_s(agenda)


def test_passes_that_depend_on_what_is_drawn_are_expected_from_the_tax(files: dict[str, str]) -> None:
    """Counted without a network every guess is right; a run takes more, most for an order of much tax."""
    lattice, decoder = Grid(16, 16), parse_decoder("exact")
    plans = {order: make_plan(order, lattice).singly() for order in ("raster", "halton")}
    passes = {
        (order, noise, batch): expect(plan, decoder, batch, misses(plan, noise)).passes
        for order, plan in plans.items()
        for noise, batch in (("uniform", 1), ("uniform", 16), ("gumbel", 16))
    }
    for order, plan in plans.items():
        assert count(plan, decoder).passes < 0.7 * passes[order, "uniform", 1] < 0.7 * passes[order, "uniform", 16]
        assert passes[order, "gumbel", 16] < passes[order, "uniform", 16]
    for (order, noise, batch), measured in {
        ("raster", "uniform", 1): 42.0, ("raster", "uniform", 16): 58.1, ("raster", "gumbel", 16): 44.1,
        ("halton", "uniform", 1): 21.0, ("halton", "uniform", 16): 24.4, ("halton", "gumbel", 16): 20.9,
    }.items():  # of docs/exact.md  # fmt: skip
        assert passes[order, noise, batch] == pytest.approx(measured, rel=1 / 3)
    assert misses(make_plan("scales", Pyramid.parse("1/2/4")), "uniform") == pytest.approx(0.104)  # no prediction
    again = expect(plans["raster"], decoder, 16, misses(plans["raster"], "uniform"))
    assert again.passes == passes["raster", "uniform", 16]


def test_an_exact_arm_is_estimated_with_what_it_is_held_against(files: dict[str, str]) -> None:
    spec = spec_of(files, orders=("raster@one", "raster+exact", "halton+draft"), only=("quality",), no_baseline=True)
    agenda = make_agenda(spec, load_subjects(spec))
    assert supposed(agenda).startswith("how many passes raster+exact, halton+draft will take depends on what is drawn")
    took = {trial.arm: s for trial, s in zip(agenda.trials, estimate_s(agenda).values(), strict=True)}
    assert took.keys() >= {"raster@one", "raster+exact", "halton+draft"}
    plain = make_agenda(spec_of(files), load_subjects(spec_of(files)))
    assert supposed(plain) == ""
    name, cost_of = "raster+exact", Cost(pass_s=1.0, token_s=0.0, read_s=0.0)
    at = {passes: Counters(passes=passes, query_tokens=1) for passes in (3, 4, 9, 16)}
    work = Workload(spec, {name: at[3]}, {name: at[16]}, {name: cost_of}, expected={name: {1: at[4], 64: at[9]}},
                    held_to_one=frozenset({name}))  # fmt: skip
    (trial,) = (trial for trial in agenda.trials if trial.arm == name)
    assert [work.decode_s(name, batch) for batch in (1, 2, 40, 64)] == [4, 4, 9, 9]
    assert kind_of(trial).seconds(trial, work) == pytest.approx(3 * 9 + 16 + 150 * 0.004)  # three tiles
