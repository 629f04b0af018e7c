"""Whether two numbers may be set against each other: compare, check and join give one answer, with one reason."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from kept import changed, fewer_groups, fewer_samples, hardware, model, only, own, plan, setting, space

from orderbench.orders import BenchError
from orderbench.reports.check import Rules, check
from orderbench.reports.compare import compare_runs
from orderbench.reports.conditions import Conditions, What, apart, conditions_of, unlike, unsaid
from orderbench.reports.conditions import changed as changed_conditions
from orderbench.reports.join import join
from orderbench.reports.results import Results, results_of
from orderbench.reports.snapshot import conditions_in, snapshot
from orderbench.runs.record import Run

Change = Callable[[dict[str, Any]], object]
QUALITY, SPEED = ("quality", "kernel distance"), ("speed-up", "time")
ALL = (*QUALITY, "bits", "counters", *SPEED)
OTHER_WEIGHTS = "models (toy-model.safetensors 58a18584, toy-model.safetensors 00000000)"


def nothing(_: dict[str, Any]) -> None:
    """No change."""


def of_model(**values: Any) -> Change:
    return lambda about: own(about).update(values)


def of_latency(change: Change) -> Change:
    return lambda trial: change(trial) if trial["kind"] == "latency" else None


def of_quality(change: Change) -> Change:
    return lambda trial: change(trial) if trial["kind"] == "quality" else None


@dataclass(frozen=True)
class Pair:
    """The kept run, and the same after a change. parts: why its numbers may not be compared, by kind of number;
    changes: what is said to have been changed. joined: whether the two become one table."""

    name: str
    about: Change = nothing
    trial: Change = nothing
    parts: dict[tuple[str, ...], str] = field(default_factory=dict)
    changes: dict[tuple[str, ...], str] = field(default_factory=dict)
    joined: bool | None = None
    before: Change = nothing

    def expected(self, said: dict[tuple[str, ...], str], what: str) -> str:
        return next((sentence for kinds, sentence in said.items() if what in kinds), "")


def other_seeds(trial: dict[str, Any], by: int) -> None:
    if trial["kind"] == "quality":
        trial["seed"] += by


def no_groups(trial: dict[str, Any]) -> None:
    for result in trial.get("quality", []):
        for metric in ("fd", "kd"):
            result[metric]["left_out"] = None


def whole_reference(trial: dict[str, Any]) -> None:
    for result in trial.get("quality", []):
        result["kd"]["n_reference"] = 60


def in_space(trial: dict[str, Any]) -> None:
    for result in trial.get("quality", []):
        result["space"] = "inception-0000"


def held_out(digest: str, images: int = 24) -> Change:
    return of_model(held_out={"images": images, "sha256": digest})


def fewer_images(trial: dict[str, Any]) -> None:
    if trial["kind"] == "likelihood":
        trial["n"] = 12


def both(*changes: Change) -> Change:
    def change(document: dict[str, Any]) -> None:
        for one in changes:
            one(document)

    return change


def reference(**values: Any) -> Change:
    return lambda about: about["spaces"][0].update(values)


def machines(said: str) -> dict[tuple[str, ...], str]:
    sentence = f"the hardware or its threads differ ({said})"
    return {("time",): sentence, ("speed-up",): f"{sentence}, and with them what a speed-up is"}


TIMED = ", and sampling is part of what is timed"
PAIRS = [
    Pair("the same"),
    Pair("other weights", model, changes={ALL: OTHER_WEIGHTS}),
    Pair("another file, no digests", of_model(name="other", sha256=None), before=of_model(sha256=None),
         changes={ALL: "models (toy-model.safetensors, other)"}),
    Pair("a digest on one side, one name", of_model(sha256=None)),
    Pair("another name of the same weights", of_model(name="renamed.safetensors")),
    Pair("another lattice", of_model(lattice="8x8"), parts={ALL: "the lattices differ (4x4, 8x8)"}),
    Pair("another tokenizer", lambda about: own(about)["tokenizer"].update(sha256="other"),
         parts={QUALITY: "the tokenizers differ, and with them the images",
                ("bits",): "the tokenizers differ, and with them the codes"}),
    Pair("a tokenizer without a digest", lambda about: own(about)["tokenizer"].update(sha256=None, name="other"),
         parts={QUALITY: "the tokenizers differ, and with them the images",
                ("bits",): "the tokenizers differ, and with them the codes"}),
    Pair("no pixels", lambda about: own(about).pop("tokenizer"),
         parts={QUALITY: "the tokenizers differ, and with them the images",
                ("bits",): "the tokenizers differ, and with them the codes",
                SPEED: "one of the two decodes pixels within its times and the other does not"}),
    Pair("another plan", plan, parts={ALL: "the plans differ (0f984695, ffffffff)"}),
    Pair("another decoder", lambda about: about["arms"][2].update(decoder="mine"),
         parts={ALL: "the decoders differ (off, mine)"}),
    Pair("another guidance", setting,
         parts={SPEED: f"the sampling settings differ (guidance none and linear:scale=3){TIMED}"},
         changes={(*QUALITY, "counters"): "sampling settings (guidance none and linear:scale=3)"}),
    Pair("another temperature", lambda about: own(about)["setting"].update(temperature=0.5),
         parts={SPEED: f"the sampling settings differ (temperature 1.0 and 0.5){TIMED}"},
         changes={QUALITY: "sampling settings (temperature 1.0 and 0.5)"}),
    Pair("another noise", lambda about: own(about)["setting"].update(noise="gumbel"),
         parts={SPEED: f"the sampling settings differ (noise uniform and gumbel){TIMED}"},
         changes={(*QUALITY, "counters"): "sampling settings (noise uniform and gumbel)"}),
    Pair("a noise that an older record does not say", lambda about: own(about)["setting"].update(noise="uniform")),
    Pair("other filters", lambda about: own(about)["setting"].update(top_k=8, top_p=0.9),
         parts={SPEED: f"the sampling settings differ (top_k 0 and 8, top_p 1.0 and 0.9){TIMED}"},
         changes={QUALITY: "sampling settings (top_k 0 and 8, top_p 1.0 and 0.9)"}),
    Pair("another dtype", lambda about: about["config"].update(dtype="bf16"),
         changes={ALL: "weights' types (fp32, bf16)"}),
    Pair("a dtype that is not said", lambda about: about["config"].update(dtype=None)),
    Pair("another space", space, in_space,
         parts={QUALITY: "the feature spaces differ (toy-features-ca44982c, inception-0000)"}),
    Pair("another reference", reference(reference="other"),
         parts={QUALITY: "the references differ (toy.npz/train, 60 images, other)"}),
    Pair("another reference of the same name", reference(reference_sha256="b"), before=reference(reference_sha256="a"),
         parts={QUALITY: "the references differ, though not by name"}),
    Pair("a renamed reference", reference(reference="renamed", reference_sha256="a"),
         before=reference(reference_sha256="a")),
    Pair("a digest of the reference on one side", reference(reference_sha256="a")),
    Pair("fewer samples", trial=fewer_samples, parts={QUALITY: "the numbers of samples differ (48, 24)"}),
    Pair("other seeds", trial=lambda trial: other_seeds(trial, 2), joined=True,
         parts={QUALITY: "the seeds differ (0 and 1, 2 and 3)"}),
    Pair("one seed in common", trial=lambda trial: other_seeds(trial, 1)),
    Pair("other groups", trial=fewer_groups,
         parts={QUALITY: "the groups of samples that are left out in turn differ"}),
    Pair("no groups", trial=no_groups),
    Pair("another kernel reference", trial=whole_reference,
         parts={("kernel distance",): "the numbers of reference images differ (48, 60), as of an older orderbench"}),
    Pair("other data", lambda about: about["config"].update(data="other"),
         parts={("bits",): "the held-out images differ"}),
    Pair("other images of the same name", held_out("b"), before=held_out("a"),
         parts={("bits",): "the held-out images differ"}),
    Pair("renamed images", both(held_out("a"), lambda about: about["config"].update(data="renamed")),
         before=held_out("a")),
    Pair("a digest of the images on one side", held_out("a")),
    Pair("more images encoded of the same data", held_out("b", 100), before=held_out("a", 24)),
    Pair("fewer images scored", trial=fewer_images,
         parts={("bits",): "the numbers of held-out images differ (24, 12)"}),
    Pair("a GPU", trial=hardware,
         parts=machines("a processor, 2 cores, 1 thread; NVIDIA H100, 1 thread")),
    Pair("other threads", trial=of_latency(lambda trial: trial["device"]["threads"].update(torch=2)),
         parts=machines("a processor, 2 cores, 1 thread; a processor, 2 cores, 2 threads")),
    Pair("threads steered otherwise", trial=of_latency(lambda trial: trial["device"]["threads"].update(variables={})),
         parts=machines("threads variables OMP_NUM_THREADS 1 and none")),
    Pair("a quota", trial=of_latency(lambda trial: trial["device"]["cpu"].update(quota=1.5)),
         parts=machines("cpu quota none and 1.5")),
    Pair("a machine that tells less", trial=of_latency(lambda trial: trial["device"]["cpu"].pop("governor"))),
    Pair("another baseline", of_model(baseline="raster@even:4"),
         parts={("speed-up",): "the baselines differ (raster, raster@even:4)"}),
    Pair("a busy machine", trial=of_latency(lambda trial: trial.update(clock_after={"load_average": [9.5, 9, 9]}))),
    Pair("fewer rounds", trial=of_latency(lambda trial: trial.update(rounds=trial["rounds"][:3]))),
    Pair("weights and a plan", both(model, plan), parts={ALL: "the plans differ (0f984695, ffffffff)"},
         changes={ALL: OTHER_WEIGHTS}),
]  # fmt: skip
METRICS: dict[str, What] = {"fd": "quality", "kd": "kernel distance", "bits": "bits", "passes": "counters",
                            "x, batch 1": "speed-up", "latency_s": "time"}  # fmt: skip
RULES: dict[str, What] = {"max-fd-increase": "quality", "max-bits-increase": "bits", "counters": "counters",
                          "max-speedup-loss": "speed-up", "max-slowdown": "time"}  # fmt: skip
KINDS: dict[str, tuple[What, ...]] = {"samples": ("quality", "kernel distance"), "likelihood": ("bits",),
                                      "timings": ("speed-up", "time")}  # fmt: skip


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: pair.name)
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.param
    return found


@pytest.fixture(scope="module")
def short(record: Run) -> Run:
    """Three arms of the kept run; the third is radial."""
    return only(record, "quality", "likelihood", "latency", "floor", arms=("raster", "raster@even:4", "radial"))


@pytest.fixture(scope="module")
def runs(pair: Pair, short: Run) -> tuple[Run, Run]:
    return changed(short, "before", pair.before), changed(short, "after", pair.about, pair.trial)


@pytest.fixture(scope="module")
def tables(runs: tuple[Run, Run]) -> tuple[Results, Results]:
    return results_of(runs[0]), results_of(runs[1])


def radial(run: Run) -> Conditions:
    arm = next(arm for arm in run.about["arms"] if arm["name"] == "radial")
    return conditions_of(run, arm, space=run.about["spaces"][0]["space"], batch=2)


def test_the_table_of_conditions(pair: Pair, runs: tuple[Run, Run]) -> None:
    one, two = map(radial, runs)
    for what in METRICS.values():
        assert apart(one, two, what) == pair.expected(pair.parts, what), what
        words = pair.expected(pair.changes, what)
        assert changed_conditions(one, two, what) == ((words,) if words else ())
        assert bool(unlike(one, two, what)) == bool(apart(one, two, what) or words)


def test_compare_says_what_the_table_says(runs: tuple[Run, Run], tables: tuple[Results, Results]) -> None:
    one, two = map(radial, runs)
    lines = {line.metric: line for line in compare_runs(*tables) if line.arm == "radial"}
    for metric, what in METRICS.items():
        why = apart(one, two, what)
        assert (lines[metric].verdict == "not comparable", lines[metric].why if why else "") == (bool(why), why), metric


def test_check_says_what_the_table_says(runs: tuple[Run, Run], tables: tuple[Results, Results]) -> None:
    one, two = map(radial, runs)
    before, after = snapshot(tables[0]), tables[1]
    asked = {"max_fd_increase": 5.0, "max_bits_increase": 5.0, "max_slowdown": 5.0}
    another = one.model.differs(two.model)
    if another:
        with pytest.raises(BenchError, match="with another model"):
            check(after, before, Rules(**asked))
    for finding in check(after, before, Rules(**asked, any_model=another)):
        rule = finding.rule.split()[0]
        if finding.arm == "radial" and rule in RULES and "batch 2" not in finding.rule:
            what = RULES[rule]
            forgive = "model" if another and what in ("counters", "speed-up", "time") else ""
            why = unlike(one, two, what, forgive) or unsaid(one, two, what, forgive)
            assert (finding.verdict == "not comparable", finding.says if why else "") == (bool(why), why), finding.rule


def test_join_says_what_the_table_says(pair: Pair, runs: tuple[Run, Run]) -> None:
    one, two = map(radial, runs)
    parts = join(runs)
    notes = " ".join(parts[0].notes)
    alike = {kind: [why for what in asked if (why := unlike(one, two, what))] for kind, asked in KINDS.items()}
    for kind, reasons in alike.items():
        if reasons and not pair.joined:
            assert (kind, "after") not in parts[0].has
            assert any(why in notes for why in reasons), notes
    if pair.joined or not any(alike.values()):
        assert len(parts) == 1


def test_a_snapshot_says_what_the_run_says(runs: tuple[Run, Run], tables: tuple[Results, Results]) -> None:
    for run, results in zip(runs, tables, strict=True):
        of_run, stored = radial(run), conditions_in(snapshot(results), "radial")
        for what in METRICS.values():
            assert unlike(of_run, stored, what) == ""


@pytest.mark.parametrize(
    ("kind", "metrics", "rule"),
    [
        ("quality", ("fd", "kd"), Rules(max_fd_increase=5)),
        ("likelihood", ("bits",), Rules(max_bits_increase=5)),
        ("latency", ("latency_s", "x, batch 1"), Rules(max_slowdown=5)),
    ],
)
def test_a_number_of_one_side_alone_is_no_difference(
    record: Run, kind: str, metrics: tuple[str, ...], rule: Rules
) -> None:
    rest = tuple({"quality", "likelihood", "latency", "floor", "repair"} - {kind})
    less = changed(only(record, *rest), "less")
    lines = {line.metric: line for line in compare_runs(results_of(record), results_of(less)) if line.arm == "radial"}
    for metric in metrics:
        assert (lines[metric].verdict, lines[metric].why) == ("not comparable", "the second run has none")
    (found,) = (f for f in check(results_of(less), snapshot(results_of(record)), rule)
                if f.arm == "radial" and f.rule.startswith(("max-fd", "max-bits", "max-slow")))  # fmt: skip
    assert found.verdict == "not comparable"
    assert found.says.startswith("the run has no ")
    (part,) = join([record, less])
    assert part.run.done(kind)


def test_a_reason_that_was_changed_on_purpose_may_be_forgiven() -> None:
    from orderbench.reports.conditions import Identity

    one, two = Conditions(model=Identity("a"), dtype="fp32"), Conditions(model=Identity("b"), dtype="bf16")
    assert unlike(one, two, "counters") == "the models differ (a, b)"
    assert unlike(one, two, "counters", "model") == "the weights' types differ (fp32, bf16)"
    assert changed_conditions(one, two, "time") == ("models (a, b)", "weights' types (fp32, bf16)")
