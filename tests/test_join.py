"""Several runs: what was measured alike stands together, the rest apart with its reason."""

from dataclasses import replace
from typing import Any

import pytest
from kept import changed, fewer_groups, fewer_samples, hardware, model, only, own, plan, setting, space

from orderbench.orders import BenchError
from orderbench.reports.headline import headline
from orderbench.reports.join import join
from orderbench.reports.results import results_of
from orderbench.reports.table import to_csv
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run


def test_alike_runs_become_one(record: Run) -> None:
    halves = [only(record, "quality", "floor"), changed(only(record, "likelihood", "latency", "repair"), "other")]
    (part,) = join(halves)
    assert part.notes == ()
    whole, joined = results_of(record), results_of(part.run)
    assert to_csv(tables_of(joined)[1]) == to_csv(tables_of(whole)[1])
    assert joined.row("radial").speedup == whole.row("radial").speedup


def test_seeds_of_two_runs_add_up(record: Run) -> None:
    def seed(run: Run, *seeds: int) -> Run:
        kept = {name: t for name, t in only(run, "quality").trials.items() if t["seed"] in seeds}
        return replace(run, about={**run.about, "trials": list(kept)}, trials=kept)

    one, two = seed(record, 0), changed(seed(record, 1), "other")
    (part,) = join([one, two])
    assert results_of(part.run).row("radial").seeds == 2
    (again,) = join([one, changed(one, "again")])
    assert results_of(again.run).row("radial").seeds == 1
    assert "count once" in again.notes[0]


def test_rounds_on_one_machine_are_pooled_and_other_arms_stand_by_their_own_baseline(record: Run) -> None:
    timed = only(record, "latency")
    (part,) = join([timed, changed(timed, "friday")])
    assert all(len(trial["rounds"]) == 8 for trial in part.run.done("latency"))
    assert "4 rounds of friday are pooled" in part.notes[0]

    def drop(trial: dict[str, Any]) -> None:
        trial["rounds"] = [[s for s in one if s["name"] not in ("radial", "radial+nested")] for one in trial["rounds"]]

    fewer = changed(timed, "fewer", trial=drop)
    (mixed,) = join([fewer, changed(timed, "more")])
    results = results_of(mixed.run)
    assert results.row("radial").speedup == results_of(timed).row("radial").speedup
    assert "timed other arms in turns" in mixed.notes[0]
    assert "compare ratios, not times" in str(headline(results_of(join([fewer, changed(record, "more")])[0].run)))
    assert "compare ratios" not in str(headline(results_of(join([record])[0].run)))
    assert tables_of(results)


@pytest.mark.parametrize(
    ("about", "trial", "why", "parts"),
    [
        (model, None, "Samples and likelihood and timings of other are kept apart from schema-1: the models differ", 2),
        (space, None, "the feature spaces differ (toy-features", 2),
        (plan, None, "for radial, the plans differ (0f984695, ffffffff)", 2),
        (setting, None, "the sampling settings differ (guidance none and linear:scale=3)", 2),
        (
            None,
            fewer_samples,
            "Samples of other are kept apart from schema-1: the numbers of samples differ (48, 24)",
            2,
        ),
        (
            None,
            hardware,
            "the hardware or its threads differ (a processor, 2 cores, 1 thread; NVIDIA H100, 1 thread)",
            2,
        ),
    ],
)
def test_what_may_not_be_joined_stands_apart_with_the_reason(
    record: Run, about: Any, trial: Any, why: str, parts: int
) -> None:
    other = changed(record, "other", about or (lambda _: None), trial or (lambda _: None))
    found = join([record, other])
    assert len(found) == parts
    for part in (found[0], found[-1]):
        assert any(why in note for note in part.notes), part.notes
    for part in found:
        assert tables_of(results_of(part.run))


def test_a_run_named_twice_and_a_run_of_nothing_are_refused(record: Run) -> None:
    with pytest.raises(BenchError, match="named twice"):
        join([record, record])
    with pytest.raises(BenchError, match=r"no trial of schema-1 is finished.*--resume"):
        join([replace(record, trials={})])


def test_samples_of_other_groups_do_not_join(record: Run) -> None:
    parts = join([record, changed(record, "older", trial=fewer_groups)])
    assert len(parts) == 2
    assert any("groups of samples that are left out in turn differ" in note for note in parts[0].notes)


def test_arms_that_were_tuned_to_other_settings_do_not_join(record: Run) -> None:
    def tuned(guidance: str) -> Any:
        def trial(trial: dict[str, Any]) -> None:
            if (trial["kind"], trial["arm"]) == ("quality", "radial"):
                trial |= {"setting": "tuned", "sampling": {**trial["sampling"], "guidance": guidance}}

        return trial

    one, same, other = (changed(record, n, trial=tuned(g)) for n, g in (("a", "2"), ("b", "2"), ("c", "3")))
    assert len(join([one, same])) == 1
    parts = join([one, other])
    assert len(parts) == 2
    assert any(
        "for radial at its best setting, the sampling settings differ (guidance 2 and 3)" in note
        for note in parts[0].notes
    )


def test_a_condition_parts_only_the_tables_that_it_bears_on(record: Run) -> None:
    def tokenizer(about: dict[str, Any]) -> None:
        own(about)["tokenizer"]["sha256"] = "other"

    def another_space(about: dict[str, Any]) -> None:
        about["spaces"].append({**about["spaces"][0], "space": "second"})

    for kinds, change, parts in (
        (("likelihood",), setting, 1),
        (("likelihood", "quality"), setting, 2),
        (("latency",), tokenizer, 1),
        (("latency", "quality"), tokenizer, 2),
        (("quality", "floor"), another_space, 1),
    ):
        one = only(record, *kinds)
        assert len(join([one, changed(one, "other", change)])) == parts, (kinds, change)


def test_timings_of_other_work_are_not_pooled_and_means_are(record: Run) -> None:
    def other(exact: bool) -> Any:
        def trial(trial: dict[str, Any]) -> None:
            if trial["kind"] == "latency":
                trial["counters"]["radial"]["passes"] = 9.5
                trial["counters_exact"]["radial"] = exact

        return trial

    timed = only(record, "latency")
    apart = join([timed, changed(timed, "other", trial=other(True))])
    assert len(apart) == 2
    assert "radial did other work (its counters differ)" in apart[0].notes[0]
    assert len(join([timed, changed(timed, "means", trial=other(False))])) == 1
