"""The page: a pure function of the records, honest about what it shows, and at work in a browser."""

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from kept import ARMS, Text, busy_machine, changed, model, only, own, printed

from orderbench.reports import figures, summary
from orderbench.reports import page as report_page
from orderbench.reports.again import commands
from orderbench.reports.canvas import Sheet
from orderbench.reports.dark import PAPER, contrast, on_dark
from orderbench.reports.figures import PLOTS
from orderbench.reports.headline import headline
from orderbench.reports.looks import COLORS, Look, looks_of
from orderbench.reports.page import inline_svg, write_report
from orderbench.reports.results import Results, results_of
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run


@pytest.fixture(scope="module")
def page(record: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of the kept record."""
    return write_report([record], tmp_path_factory.mktemp("report"))


Write = Callable[..., str]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the page of some runs and returns its markup, with those figures alone that a test is about: to draw them
    all is most of the work, and one test does."""

    def write(*runs: Run, plots: tuple[str, ...] = ()) -> str:
        assert set(plots) <= {plot.name for plot in PLOTS}
        monkeypatch.setattr(report_page, "PLOTS", tuple(plot for plot in PLOTS if plot.name in plots))
        return write_report(runs, tmp_path).read_text()

    return write


def test_the_page_holds_everything_and_loads_nothing(page: Path) -> None:
    html = page.read_text()
    read = Text(html)
    words = " ".join(" ".join(read.words).split())
    for arm in ARMS:
        assert arm in words
    for said in ("n = 48: a first look", "n = 48 x 2 seeds", "toy-features-", "(not FID)", "never trained", "A/A",
                 "50 % of batches", "bench run --orders raster,radial", "with a cache", "real images",
                 "noise codes"):  # fmt: skip
        assert said in words, said
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)
    assert "default-src 'none'" in html
    assert html.count('<figure class="plot') == len(list((page.parent / "figures").glob("*.svg"))) - 2  # not samples
    assert "prefers" not in words
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', html):
        assert used in ids


def test_the_same_records_give_the_same_bytes(page: Path, record: Run, tmp_path: Path) -> None:
    small = only(record, "repair")
    one, two = (write_report([small], tmp_path / name) for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    files = sorted(path.relative_to(one.parent) for path in one.parent.rglob("*.*"))
    assert files
    for file in files:
        assert (one.parent / file).read_bytes() == (two.parent / file).read_bytes(), file


def test_every_figure_comes_as_png_and_svg_and_every_table_in_three_forms(page: Path) -> None:
    drawn = {plot.name for plot in PLOTS} - {"fd-by-steps-tuned", "passes-by-tax"}  # nothing was tuned, no arm drafts
    for kind in ("png", "svg"):
        assert {path.stem for path in (page.parent / "figures").glob(f"*.{kind}")} == drawn
    for kind in ("csv", "md", "tex"):
        assert {path.stem for path in (page.parent / "tables").glob(f"*.{kind}")} == {
            "main", "quality", "speed", "correction",
        }  # fmt: skip
    document = json.loads((page.parent / "tables.json").read_text())
    assert [table["name"] for table in document["parts"][0]["tables"]] == ["main", "quality", "speed", "correction"]
    assert not list(page.parent.rglob(".part-*"))


HOSTILE = "</script><script>alert(1)</script>$\\frac{&%_#](javascript:x)|*"


def test_what_records_say_is_escaped_everywhere(record: Run, written: Write, tmp_path: Path) -> None:
    def poison(about: dict[str, Any]) -> None:
        about["arms"][1] |= {"name": HOSTILE, "order": HOSTILE}
        own(about)["name"] = HOSTILE
        about["environments"][0]["argv"] = ["bench", "run", HOSTILE]
        about["environments"][0]["platform"] = "Linux\x1b[31m\x07\x00 x86"
        about["trials"].append("x")

    def rename(trial: dict[str, Any]) -> None:
        if trial["arm"] == "radial":
            trial["arm"] = HOSTILE

    run = changed(only(record, "likelihood", arms=("raster", "radial")), "<b>run</b>", poison, rename)
    failed = {"trial": "x", "kind": "quality", "arm": HOSTILE, "seed": 9, "setting": "fixed", "status": "failed",
              "reason": HOSTILE}  # fmt: skip
    run.trials["x"] = failed
    html = written(run, plots=("bits-by-steps", "bits-by-image", "orders"))
    assert "<script>alert" not in html
    assert "<b>run" not in html
    assert html.count("<script") == 3  # the theme, the arms, the page
    assert HOSTILE in "".join(Text(html).words)
    assert "Linux x86" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", html)
    latex = (tmp_path / "tables" / "main.tex").read_text()
    assert r"\$\textbackslash{}frac\{\&\%\_\#" in latex
    markdown = (tmp_path / "tables" / "main.md").read_text()
    assert r"\<script\>" in markdown
    assert "](j" not in markdown.replace(r"\](", "")
    assert "alert" in (tmp_path / "figures" / "bits-by-steps.svg").read_text()


def test_failed_and_missing_trials_are_said(record: Run, written: Write) -> None:
    run = only(record, "likelihood")
    run.about["trials"].append("quality-lost")
    words = " ".join(Text(written(run)).words)
    assert "1 trial, such as quality-lost" in " ".join(words.split())


def test_an_order_has_a_class_in_the_page_that_hides_it() -> None:
    groups = '<g id="order:r:a=&lt;"/><g id="order:gone"/><g id="front"/><g id="a"/><use xlink:href="#a"/>'
    svg = f'<?xml?><svg a="1" viewBox="0 0 2 2" x="y"><style>*{{}}</style>{groups}</svg>'
    assert inline_svg(svg, "f1-", {"r:a=<": Look(3, "r:a=<", "#000", "o")}) == (
        '<svg viewBox="0 0 2 2" role="img"><g class="o3"/><g /><g class="front"/><g id="f1-a"/><use href="#f1-a"/>'
        "</svg>"
    )


def test_a_busy_machine_is_told_wherever_speeds_are(record: Run, results: Results, written: Write) -> None:
    said = "other programs were running (load 9.5 on 2 cores)"
    loaded = results_of(changed(record, "loaded", trial=busy_machine))
    captions = {table.name: table.caption for table in tables_of(loaded)}
    assert {name for name, caption in captions.items() if said in caption} == {"main", "speed", "correction"}
    assert any(said in note for note in summary.notes(loaded))
    assert not any("others computed" in text for text in (*(t.caption for t in tables_of(results)),
                                                          *summary.notes(results)))  # fmt: skip
    for draw in (figures.speedups, figures.quality_by_speed("latency_s")):
        figure = draw(loaded, Sheet())
        assert figure is not None
        assert any("other programs ran during the timing" in text.get_text() for text in figure.texts)
    html = written(only(loaded.run, "latency"), plots=("speedups",))
    assert re.search(rf'<p class="note">[^<]*{re.escape(said)}', html)
    assert re.search(rf'id="f-speedups">.*?<figcaption>[^<]*{re.escape(said)}', html, re.S)


def test_no_verdict_is_given_on_a_distance_of_too_few_samples(record: Run, results: Results) -> None:
    def verdicts(results: Results) -> dict[str, str]:
        answer = report_page.answer_of(results, results.row("radial"), looks_of([results]))
        return {line["name"]: line["verdict"] for line in answer["lines"]}

    few = verdicts(results)
    assert few["FD"].startswith("not judged: ")
    assert few["KD"] in ("better", "worse", "no difference shown")
    enough = verdicts(results_of(changed(record, "other", lambda about: about["spaces"][0].update(
        dimensions=4))))  # fmt: skip
    assert enough["FD"] in ("better", "worse", "no difference shown")
    assert "KD" not in enough


def test_two_parts_are_two_sections_with_the_reason_on_the_page(record: Run, written: Write, tmp_path: Path) -> None:
    one = only(record, "likelihood")
    html = written(one, changed(one, "other", model), plots=("tax",))
    words = " ".join(" ".join(Text(html).words).split())
    assert "Part 2: other" in words
    assert words.count("the models differ (toy-model") == 2
    assert (tmp_path / "tables" / "part2-main.csv").exists()
    assert (tmp_path / "figures" / "part1-tax.svg").exists()


def test_captions_say_where_seeds_are_missing(one_seed_less: Run) -> None:
    results = results_of(one_seed_less)
    assert "n = 48 x 1 to 2 seeds an arm" in tables_of(results)[0].caption
    assert any("n = 48 x 1 to 2 seeds;" in note for note in summary.notes(results))
    figure = figures.quality_by_steps("fd")(results, Sheet())
    assert figure is not None
    assert "n = 48 x 1 to 2 seeds: a first look" in [text.get_text() for text in figure.texts]
    assert ("samples", "n = 48 an arm and seed, 1 to 2 seeds") in list(report_page.facts_of(results))


def test_an_arm_that_could_not_be_timed_leaves_the_others(record: Run, written: Write) -> None:
    def untimed(trial: dict[str, Any]) -> None:
        if trial["kind"] == "latency":
            trial["failed_arms"] = {"A/A": "out of memory"}
            trial["rounds"] = [[s for s in one if s["name"] != "A/A"] for one in trial["rounds"]]

    results = results_of(changed(only(record, "latency"), "untimed", trial=untimed))
    assert results.noise == {}
    assert results.row("radial").speedup
    assert "failed: A/A: out of memory" in printed(summary.summary(results, 80))
    assert "out of memory" in " ".join(Text(written(results.run)).words)


def test_captions_claim_no_more_than_they_know(page: Path, record: Run, written: Write) -> None:
    words = " ".join(" ".join(Text(page.read_text()).words).split())
    assert "not by the same amount for every arm" in words
    assert "alike for all arms" not in words
    assert "nearly unbiased" in words
    assert "distance is unbiased" not in words
    assert "Both axes come from one run." in words
    assert "come from one run" in words
    assert "in the folder that holds the run:" in words
    halves = [only(record, "quality"), changed(only(record, "latency"), "timed")]
    joined = " ".join(" ".join(Text(written(*halves, plots=("fd-by-latency",))).words).split())
    assert "Samples come from schema-1, times from timed." in joined
    assert "come from one run" not in joined


def test_a_tax_is_said_to_be_none_only_where_cells_come_one_at_a_time(record: Run, written: Write) -> None:
    run = changed(only(record, "likelihood"), "unpredicted", lambda about: [
        arm.update(predicted_tax_bits=None) for arm in about["arms"]
    ])  # fmt: skip
    words = " ".join(" ".join(Text(written(run)).words).split())
    assert words.count("none: one cell a step") == 1  # raster alone


def test_training_sorts_by_share() -> None:
    cells = ["9 %", "50 %*", "never", "12 %"]
    assert sorted(cells, key=lambda cell: float(report_page.sort_key(cell, "trained"))) == [
        "never", "9 %", "12 %", "50 %*",
    ]  # fmt: skip
    assert report_page.sort_key("never", "arm") == "never"


class Outline(HTMLParser):
    """The elements of a page, each with its attributes and its own text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def of(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """The attributes of all elements of a tag, or of those with a class."""
        return [attrs for name, attrs in self.elements if name == tag and (
            not kind or kind in attrs.get("class", "").split())]  # fmt: skip


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    return Outline(page.read_text())


def test_the_menu_leads_to_every_section(outline: Outline) -> None:
    ids = [attrs["id"] for tag, attrs in outline.elements if tag in ("h2", "main") and "id" in attrs]
    links = [attrs["href"].removeprefix("#") for attrs in outline.of("a") if attrs["href"].startswith("#")]
    assert links == ids  # the first of both is the way past the header
    assert links[0] == "main"
    assert {"p0-main", "p0-orders", "p0-quality", "p0-samples", "traps"} <= set(links)
    assert len(outline.of("h2")) == len(ids) - 1


def test_a_page_opens_with_its_result_in_one_sentence(page: Path, results: Results) -> None:
    said = headline(results)
    assert said is not None
    words = " ".join("".join(Text(page.read_text()).words).split())
    assert str(said) in words
    assert words.index(str(said)) < words.index("Main results as")
    assert str(said) == (
        "23 November 2026, a processor, 2 cores, 1 thread: of 6 arms of raster, radial, hilbert and halton, none beats "
        "halton@cosine:4 (FD 1.13e-05 ±1.5e-06, 4.82 ms/image, 3.81 [3.36, 4.84] times faster than raster, one cell at "
        "a time) at FD or at latency; n = 48 x 2 seeds: a first look."
    )


def test_a_headline_names_the_front_and_says_whether_its_ends_differ(record: Run) -> None:
    def slow(trial: dict[str, Any]) -> None:
        for one in trial.get("rounds", []):
            for sample in one:
                sample["tokens_s"] *= 40 if sample["name"] == "halton@cosine:4" else 1

    few = str(headline(results_of(changed(record, "other", trial=slow))))
    assert re.search(
        r"none beats \S+ \(FD .*\) or halton@cosine:4 \(FD [^)]*\), nor the \d+ between them, at both", few
    ) or (re.search(r"none beats \S+ \(FD .*\) or halton@cosine:4 \(FD [^)]*\) at both FD and latency", few))
    assert re.search(r"whether halton@cosine:4 has a lower FD than \S+ is not judged \(too small n\)", few)
    enough = str(headline(results_of(changed(
        record, "other", lambda about: about["spaces"][0].update(dimensions=4), slow
    ))))  # fmt: skip
    assert "not judged" not in enough
    assert re.search(r"halton@cosine:4 has the lower FD, by|no difference in FD is shown", enough)
    assert enough.endswith("n = 48 x 2 seeds samples an arm.")


@pytest.mark.parametrize(("kinds", "said"), [
    (("latency",), r"took the least time for one image \([\d.]+ ms/image, [\d.]+ \[.*\] times faster than raster"),
    (("quality",), r"has the least FD, .* \(against raster .*: not judged: too small n\); n = 48"),
    (("likelihood",), r"has the fewest bits per token, .* \(against raster .*: (better|worse|no difference shown)\)"),
])  # fmt: skip
def test_a_headline_says_what_was_measured_and_no_more(record: Run, kinds: tuple[str, ...], said: str) -> None:
    sentence = str(headline(results_of(only(record, *kinds))))
    assert re.search(said, sentence)
    assert ("ms/image" in sentence) == (kinds == ("latency",))
    assert ("first look" in sentence) == (kinds == ("quality",))


def test_a_headline_repeats_no_date_that_is_none_and_tells_of_a_busy_machine(record: Run) -> None:
    def spoil(about: dict[str, Any]) -> None:
        about["environments"][0]["at"] = "<b>yesterday</b>"

    sentence = str(headline(results_of(changed(record, "other", spoil, busy_machine))))
    assert sentence.startswith("a processor, 2 cores")
    assert sentence.endswith("read no speed from this: other programs were running (load 9.5 on 2 cores).")
    assert headline(results_of(only(record, "memory"))) is None


def test_tables_show_first_what_fits_and_offer_the_rest(page: Path, outline: Outline, results: Results) -> None:
    heads = {}
    for table in re.findall(
        r'<table id="t-([a-z]+)" class="sortable">\s*<thead><tr>(.*?)</tr>', page.read_text(), re.S
    ):
        heads[table[0]] = Outline(table[1]).of("th")
    assert heads.keys() == {"main", "quality", "speed", "correction"}
    keys = {table.name: [column.key for column in table.columns] for table in tables_of(results)}
    kinds = {
        name: dict(zip(keys[name], (head.get("class", "") for head in heads[name]), strict=True)) for name in heads
    }
    assert set(kinds["main"].values()) == {"", "late"}  # whole on a desk
    assert [key for key, kind in kinds["main"].items() if not kind] == [
        "arm", "n_steps", "fd", "latency_ms", "speedup_batch_1"
    ]  # fmt: skip
    for told in ("fd_difference", "kd_difference", "bits_difference", "fd", "kd"):  # docs say to read them
        assert kinds["quality"][told] != "extra"
    assert all(sum(kind != "extra" for kind in one.values()) <= 11 for one in kinds.values())
    assert all(1 < sum(not kind for kind in one.values()) <= 5 for one in kinds.values())
    assert len([box for box in outline.of("input") if box["type"] == "checkbox"]) == sum(map(len, heads.values()))


def test_exact_arms_have_a_section_of_their_own_and_no_other_run_has_it(record: Run, written: Write) -> None:
    def about(about: dict[str, Any]) -> None:
        for arm in about["arms"][:3]:
            arm.update(decoder="exact", traits=["exact", "varies", "drafts"])

    def trial(trial: dict[str, Any]) -> None:
        if trial["kind"] == "quality" and trial["arm"] in [arm["name"] for arm in record.about["arms"][:3]]:
            cells = len(trial["changed_by_cell"])
            went = {"accepted_by_pass": [1.0, 3.0], "accepted_by_cell": [2.0] * cells, "wasted_asked": 0.5,
                    "wasted_fed": 0.25, "p50": 7, "p90": 9}  # fmt: skip
            trial.update(passes=went, differing={"images": 3, "of": 48})

    page = written(changed(record, "exact", about, trial), plots=("passes-by-tax",))
    assert ('id="p0-exact"' in page, 'id="f-passes-by-tax"' in page, 'id="t-exact"' in page) == (True, True, True)
    assert "6 of 96" in " ".join(Text(page).words)  # of two seeds
    page = written(record, plots=("passes-by-tax",))
    assert ('id="p0-exact"' in page, "passes-by-tax" in page, 'id="t-exact"' in page) == (False, False, False)


def test_a_phone_shows_what_there_is(record: Run, written: Write) -> None:
    html = written(only(record, "likelihood"))
    main = re.search(r'<table id="t-main".*?</thead>', html, re.S)
    assert main is not None
    heads = [head for head in Outline(main[0]).of("th") if not head.get("class")]
    assert len(heads) == 3
    assert [cell.split("<")[0] for cell in re.findall(r"<button[^>]*>(.*?)</button>", main[0])][:2] == ["arm", "steps"]
    assert re.search(r'<th scope="col" title="lower is better"><button type="button">bits/', main[0])


def test_no_row_of_figures_is_half_empty(outline: Outline) -> None:
    columns, alone = outline.of("div", "column"), outline.of("figure", "alone")
    assert {one["id"] for one in alone} >= {"f-memory"}  # the only one of its section
    assert len(columns) % 2 == 0
    assert len(alone) <= 6


def test_a_columns_head_points_where_it_is_better(page: Path) -> None:
    main = re.search(r'<table id="t-main".*?</thead>', page.read_text(), re.S)
    assert main is not None
    ways = re.findall(
        r"<button[^>]*>([^<]*?)(?: <span class=\"way\"[^>]*>(.)</span><span[^>]*>, (\w+) is better)?[<]", main[0]
    )
    told = {head.strip(): (arrow, word) for head, arrow, word in ways}
    assert told["FD"] == ("\N{DOWNWARDS ARROW}", "lower")
    assert told["steps"] == ("", "")
    assert any(arrow == "\N{UPWARDS ARROW}" and word == "higher" for arrow, word in told.values())


def test_every_arm_has_its_card_and_its_answer_however_many(record: Run, written: Write) -> None:
    def more(about: dict[str, Any]) -> None:
        first = about["arms"][2]
        about["arms"] += [{**first, "name": f"{first['name']}@even:{n}"} for n in range(20)]

    many = changed(only(record, "likelihood"), "many", more)
    for n in range(20):
        copied = json.loads(json.dumps(many.trials[next(t for t in many.trials if many.trials[t]["arm"] == "radial")]))
        many.trials[f"copy{n}"] = {**copied, "arm": f"radial@even:{n}"}
        many.about["trials"].append(f"copy{n}")
    html = written(many)
    seen = Outline(html)
    assert len(seen.of("article", "card")) == 26
    assert len(seen.of("article", "answer")) == 24  # corrected arms have no likelihood
    assert re.findall(r'<details class="folded"><summary>(.*?)</summary>', html) == ["16 more", "17 more"]


def test_samples_say_whose_they_are_and_can_be_enlarged(page: Path, outline: Outline, record: Run) -> None:
    sheets = [one for one in outline.of("button", "enlarge") if one.get("id")]
    assert [one["data-name"] for one in sheets][: len(ARMS)] == ARMS
    trial = next(t for t in record.done("quality") if t["arm"] == "raster" and t["seed"] == 0)
    labels = record.arrays(trial["trial"], "pictures")["labels_N"].tolist()
    assert json.loads(sheets[0]["data-labels"]) == [f"class {label}" for label in labels[: int(sheets[0]["data-n"])]]
    assert sheets[0]["data-seed"] == "0"
    assert (sheets[0]["data-w"], sheets[0]["data-h"], sheets[0]["data-columns"]) == ("8", "8", "10")
    ids = {one["id"] for one in sheets}
    assert all(one["data-sheet"] in ids for one in outline.of("button", "enlarge"))
    assert len(outline.of("dialog")) == 1
    assert "image-rendering: pixelated" in page.read_text()


def test_samples_say_the_names_of_their_classes(record: Run, written: Write) -> None:
    def name(about: dict[str, Any]) -> None:
        own(about)["class_names"] = ["ant", "<b>bee</b>"]  # fewer than there are: the others keep their numbers

    html = written(changed(only(record, "quality"), "named", name))
    labels = json.loads(next(one for one in Outline(html).of("button", "enlarge") if one.get("id"))["data-labels"])
    assert labels[:3] == ["class 0, ant", "class 1, <b>bee</b>", "class 2"]
    assert "<b>bee" not in html


def test_a_hidden_orders_points_leave_the_front(page: Path) -> None:
    html = page.read_text()
    numbers = {int(n) for n in re.findall(r'data-order="(\d+)"', html)}
    fronts = [json.loads(one["data-front"]) for one in Outline(html).of("g") if "data-front" in one]
    assert len(fronts) == 2
    for front in fronts:
        assert {point["order"] for point in front["points"]} == numbers
    assert html.count('class="front-label"') == len(fronts)


@pytest.mark.parametrize(("argv", "config", "shown"), [
    (["/usr/bin/bench", "run", "--orders", "raster; rm -rf x"], {}, "bench run --orders 'raster; rm -rf x'"),
    (["bench", "run", "--include", "mine.py"], {}, ""),
    (["bench", "run", "--include=mine.py"], {}, ""),
    (["bench", "run", "--model", "pkg.mod:build"], {}, ""),
    (["bench", "run", "--model=par=pkg:build"], {}, ""),
    (["bench", "run"], {"model": ["pkg:build"]}, ""),
    (["bench", "run"], {"include": ["mine.py"]}, ""),
    (["bench", "run", "--model", "par=weights.safetensors"], {}, "bench run --model par=weights.safetensors"),
    (["bench", "run", "--orders", "a\x1b[201~\nrm x"], {}, None),
    (["bench", "run", "--orders", "\u202egpj"], {}, None),
])  # fmt: skip
def test_a_command_is_shown_if_it_is_safe_to_type(argv: list[str], config: dict[str, Any], shown: str | None) -> None:
    about: Any = {"environments": [{"argv": argv}], "config": config}
    lines, why = commands("my run", about)
    if shown:
        assert lines == [shown, "bench run --config 'my run/run.json' --out 'my run-again'"]
        assert not why
    elif shown is None:
        assert lines == ["bench run --config 'my run/run.json' --out 'my run-again'"]
        assert "characters that cannot be seen" in why
    else:
        assert lines == []
        assert "runs code that the record names" in why


@pytest.mark.parametrize(
    "argv", [None, "bench run", [], ["bench"], ["rm", "run", "x"], ["bench", "check"], ["bench", "run", 3]]
)
def test_what_is_no_run_of_ours_is_no_command(argv: Any) -> None:
    about: Any = {"environments": [{"argv": argv}], "config": {}}
    assert commands("run", about) == (["bench run --config run/run.json --out run-again"], "")


def test_a_withheld_command_is_told_on_the_page(record: Run, written: Write) -> None:
    def foreign(about: dict[str, Any]) -> None:
        about["config"]["include"] = ["evil.py"]

    html = written(changed(only(record, "likelihood"), "foreign", foreign))
    assert "The command of foreign is not shown" in html
    assert "--config" not in html
    assert "To measure this again" not in html


def test_every_colour_of_a_figure_is_seen_on_dark_paper(page: Path) -> None:
    for color in COLORS:
        assert contrast(on_dark(color), PAPER) >= 4.5, color
    assert on_dark("#ffffff") == PAPER
    assert contrast(on_dark("#000000"), PAPER) >= 7
    html = page.read_text()
    used = set(re.findall(r"var\(--(c-[0-9a-f]{6})\)", html))
    light, dark = (
        set(re.findall(r"--(c-[0-9a-f]{6}):", part)) for part in html.split("@media (prefers-color-scheme: dark)", 1)
    )
    assert used
    assert used <= light
    assert used <= dark
    assert not re.search(r"(?:fill|stroke): #", html[html.index("<main") :])


def test_style_and_script_stay_small_and_plain() -> None:
    for name, most in (("page.css", 20_000), ("page.js", 22_000)):
        text = (Path(__file__).parent.parent / "reports" / name).read_text()
        assert len(text) < most
        assert not re.search(r"[{][{%#]", text)  # a template would read it
        assert "innerHTML" not in text
        assert max(map(len, text.splitlines())) <= 150


class Browser:
    """Headless Chromium, driven over the WebDriver protocol."""

    def __init__(self, driver: str, chromium: str, width: int, height: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([driver, f"--port={self.port}"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)  # fmt: skip
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        metrics = {"width": width, "height": height, "pixelRatio": 1, "mobile": width < 600}
        options = {"binary": chromium, "args": arguments, "mobileEmulation": {"deviceMetrics": metrics}}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self.session = self._when_up({"capabilities": wanted})["sessionId"]

    def _when_up(self, body: dict[str, Any]) -> Any:
        for attempt in range(100):
            with contextlib.suppress(ConnectionError, urllib.error.URLError):
                return self._post("session", body)
            time.sleep(0.1 + 0.01 * attempt)
        raise AssertionError("chromedriver did not come up")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())["value"]

    def open(self, page: Path) -> None:
        self._post(f"session/{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        return self._post(f"session/{self.session}/execute/sync", {"script": script, "args": []})

    def log(self) -> list[dict[str, Any]]:
        return self._post(f"session/{self.session}/se/log", {"type": "browser"})  # type: ignore[no-any-return]

    def pdf(self) -> bytes:
        return base64.b64decode(self._post(f"session/{self.session}/print", {}))

    def close(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/session/{self.session}", method="DELETE")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
        self.process.terminate()
        self.process.wait(timeout=30)


DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(params=[1200, 400])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if DRIVER is None or CHROMIUM is None:
        pytest.skip("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    one = Browser(DRIVER, CHROMIUM, request.param, 900)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.browser
def test_the_page_works_in_a_browser(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    seen = "[...document.querySelectorAll('.o1')].filter((e) => e.getClientRects().length).length"
    before = browser.run(f"return {seen}")
    assert before > 20
    assert browser.run(f"document.querySelector('.chip[data-order=\"1\"]').click(); return {seen}") == 0
    assert browser.run("return document.querySelector('.chip[data-order=\"1\"]').ariaPressed") == "false"
    assert browser.run(f"document.querySelector('.chip[data-order=\"1\"]').click(); return {seen}") == before

    column = "[...document.querySelectorAll('#t-main tbody tr')].map((row) => row.cells[3].dataset.v)"
    head = "document.querySelectorAll('#t-main th button')[3].click();"
    for down in (False, True):
        values = [float(v) for v in browser.run(f"{head} return {column}")]
        assert values[:6] == sorted(values[:6], reverse=down)

    browser.run("const seek = document.querySelector('.seek'); seek.value = 6; seek.dispatchEvent(new Event('input'))")
    counts = browser.run("return [...document.querySelectorAll('.count')].map((e) => e.textContent)")
    assert counts[0] == "step 6 of 16, 6 of 16 cells"  # every arm has made six steps, or has as many as it makes
    assert counts[1] == "done in 4 steps"
    browser.run("document.querySelector('.later').click()")
    assert browser.run("return document.querySelector('.count').textContent") == "step 7 of 16, 7 of 16 cells"
    assert browser.run("return !document.querySelector('canvas').hidden")
    browser.run("document.querySelector('.play').click()")
    time.sleep(0.4)
    assert browser.run("return document.querySelector('.play').textContent") == "Pause"
    later = browser.run("return document.querySelector('.count').textContent")
    assert later != counts[0]
    browser.run(
        "const pace = document.querySelector('.pace'); pace.value = 'time'; pace.dispatchEvent(new Event('change'))"
    )
    assert re.fullmatch(
        r"\d+ ms, [1-9][\d.]* times slowed", browser.run("return document.querySelector('.clock').textContent")
    )
    assert browser.pdf().startswith(b"%PDF")
    assert browser.log() == []


@pytest.mark.browser
def test_a_reader_chooses_theme_columns_orders_and_samples(page: Path, browser: Browser) -> None:
    browser.open(page)
    phone = browser.run("return innerWidth < 600")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = browser.run(f"return {ground}")
    browser.run("document.querySelector('.theme').click()")
    assert browser.run(f"return {ground}") != before
    browser.open(page)
    assert browser.run(f"return {ground}") != before  # it is kept
    browser.run("document.querySelector('.theme').click(); localStorage.clear()")
    assert browser.run(f"return {ground}") == before

    assert browser.run("return document.querySelector('.menu').getClientRects().length > 0") == phone
    shown = "[...document.querySelectorAll('.sections a')].filter((a) => a.getClientRects().length).length"
    if phone:
        assert browser.run(f"return {shown}") == 0
        browser.run("document.querySelector('.menu').click()")
    assert browser.run(f"return {shown}") > 6

    heads = ("[...document.querySelectorAll('#t-quality th')].filter((h) => h.getClientRects().length)"
             ".map((h) => h.title ? h.innerText.trim() : h.textContent)")  # fmt: skip
    first = browser.run(f"return {heads}")
    box = "document.querySelector('#t-quality').closest('.tabled').querySelectorAll('.choices input')"
    every = browser.run(f"for (const one of {box}) if (!one.checked) one.click(); return {heads}")
    assert len(every) > len(first) >= 4
    assert len(every) == browser.run(f"return {box}.length")
    frame = "document.querySelector('#t-quality').closest('.tabled')"
    told = browser.run(f"return {frame}.querySelector('.cue').textContent")
    assert re.fullmatch(r"\d+ more columns? \u2192", told)
    assert browser.run(f"return {frame}.querySelector('.frame').classList.contains('cut')")
    assert not browser.run("return document.querySelector('#t-main').closest('.frame').classList.contains('cut')")

    drawn = "document.querySelector('[data-front] path').getAttribute('d')"
    best = browser.run("return JSON.parse(document.querySelector('[data-front]').dataset.front)")
    whole = browser.run(f"return {drawn}")
    top = min(best["points"], key=lambda point: -point["y"])["order"]  # the least FD
    browser.run(f"document.querySelector('.chip[data-order=\"{top}\"]').click()")
    left = [point for point in best["points"] if point["order"] != top]
    fastest = min(left, key=lambda point: (point["x"], -point["y"]))
    assert browser.run(f"return {drawn}").startswith(f"M {fastest['x']} {best['worst'][1]} V {fastest['y']}")
    browser.run("document.querySelector('.show-all').click()")
    assert browser.run("return document.querySelector('.show-all').hidden")
    assert browser.run(f"return {drawn}") != whole  # the same line, in fewer words
    assert browser.run("return document.querySelectorAll('.chip[aria-pressed=false]').length") == 0

    browser.run("document.querySelector('.sheets .enlarge').click()")
    said = "document.querySelector('dialog').innerText"
    assert re.match(r"raster\s+sample 1 of \d+, seed 0, class 0", browser.run(f"return {said}"))
    press = "document.querySelector('dialog').dispatchEvent(new KeyboardEvent('keydown', {key: '%s'}));"
    assert "sample 2 of" in browser.run(f"{press % 'ArrowRight'} return {said}")
    assert browser.run(f"{press % 'ArrowDown'} return {said}").startswith("raster@even:4")
    assert browser.run("return document.querySelector('dialog canvas.pixels').width") == 8
    browser.run("document.querySelector('dialog .close').click()")
    assert not browser.run("return document.querySelector('dialog').open")
    assert browser.log() == []


def test_ci_tries_the_page_in_a_browser_where_it_can() -> None:
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert "chromium-driver" in script
    assert "not browser" in script
