"""What a run will do: arms, trials, settings, and what it will take; refused before anything is measured."""

from typing import Any

import pytest
import torch
from toy_runs import spec_of

from orderbench.models.counting import Nothing
from orderbench.models.objective import SHIPPED
from orderbench.orders import BenchError, Grid
from orderbench.runs import cost
from orderbench.runs.arms import line_up, parse_arm, training_share
from orderbench.runs.estimate import estimate_s
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
    with pytest.raises(BenchError, match="it needs a pace and takes no correction, as in confidence@cosine:13"):
        parse_arm("confidence")
    assert parse_arm("confidence:gamma=0.10:rule=entropy").name == "confidence:rule=entropy"
    for text in ("confidence:rule=klass@cosine:13", "confidence:rule=klass@native", "confidence:rule=klass+nested"):
        with pytest.raises(BenchError, match=r"it takes no pace and no correction; write confidence:rule=klass$"):
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
    with pytest.raises(BenchError, match="no shipped model named 'nothing'; known: fashion-model"):
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
