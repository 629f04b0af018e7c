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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kept import ARMS, Text, busy_machine, changed, model, only, own, printed

from orderbench.reports import figures, summary
from orderbench.reports import page as report_page
from orderbench.reports.canvas import Sheet
from orderbench.reports.figures import PLOTS
from orderbench.reports.looks import Look, looks_of
from orderbench.reports.page import inline_svg, write_report
from orderbench.reports.results import Results, results_of
from orderbench.reports.tables import tables_of
from orderbench.runs.record import Run


@pytest.fixture(scope="module")
def page(record: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of the kept record."""
    return write_report([record], tmp_path_factory.mktemp("report"))


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
    assert html.count('<figure class="plot"') == len(list((page.parent / "figures").glob("*.svg"))) - 2  # not samples
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
    drawn = {plot.name for plot in PLOTS} - {"fd-by-steps-tuned"}
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


def test_what_records_say_is_escaped_everywhere(record: Run, tmp_path: Path) -> None:
    def poison(about: dict[str, Any]) -> None:
        about["arms"][1] |= {"name": HOSTILE, "order": HOSTILE}
        own(about)["name"] = HOSTILE
        about["environments"][0]["argv"] = ["bench", HOSTILE]
        about["trials"].append("x")

    def rename(trial: dict[str, Any]) -> None:
        if trial["arm"] == "radial":
            trial["arm"] = HOSTILE

    run = changed(only(record, "likelihood", arms=("raster", "radial")), "<b>run</b>", poison, rename)
    failed = {"trial": "x", "kind": "quality", "arm": HOSTILE, "seed": 9, "setting": "fixed", "status": "failed",
              "reason": HOSTILE}  # fmt: skip
    run.trials["x"] = failed
    page = write_report([run], tmp_path / "out")
    html = page.read_text()
    assert "<script>alert" not in html
    assert "<b>run" not in html
    assert html.count("<script") == 2
    assert HOSTILE in "".join(Text(html).words)
    latex = (tmp_path / "out" / "tables" / "main.tex").read_text()
    assert r"\$\textbackslash{}frac\{\&\%\_\#" in latex
    markdown = (tmp_path / "out" / "tables" / "main.md").read_text()
    assert r"\<script\>" in markdown
    assert "](j" not in markdown.replace(r"\](", "")
    assert "alert" in (tmp_path / "out" / "figures" / "bits-by-steps.svg").read_text()


def test_failed_and_missing_trials_are_said(record: Run, tmp_path: Path) -> None:
    run = only(record, "likelihood")
    run.about["trials"].append("quality-lost")
    words = " ".join(Text(write_report([run], tmp_path).read_text()).words)
    assert "1 trial, such as quality-lost" in " ".join(words.split())


def test_an_order_has_a_class_in_the_page_that_hides_it() -> None:
    groups = '<g id="order:r:a=&lt;"/><g id="order:gone"/><g id="front"/><g id="a"/><use xlink:href="#a"/>'
    svg = f'<?xml?><svg a="1" viewBox="0 0 2 2" x="y"><style>*{{}}</style>{groups}</svg>'
    assert inline_svg(svg, "f1-", {"r:a=<": Look(3, "r:a=<", "#000", "o")}) == (
        '<svg viewBox="0 0 2 2" role="img"><g class="o3"/><g /><g class="front"/><g id="f1-a"/><use href="#f1-a"/>'
        "</svg>"
    )


def test_a_busy_machine_is_told_wherever_speeds_are(record: Run, results: Results, tmp_path: Path) -> None:
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
    page = write_report([only(loaded.run, "latency")], tmp_path)
    html = page.read_text()
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


def test_two_parts_are_two_sections_with_the_reason_on_the_page(record: Run, tmp_path: Path) -> None:
    one = only(record, "likelihood")
    page = write_report([one, changed(one, "other", model)], tmp_path)
    words = " ".join(" ".join(Text(page.read_text()).words).split())
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


def test_an_arm_that_could_not_be_timed_leaves_the_others(record: Run, tmp_path: Path) -> None:
    def untimed(trial: dict[str, Any]) -> None:
        if trial["kind"] == "latency":
            trial["failed_arms"] = {"A/A": "out of memory"}
            trial["rounds"] = [[s for s in one if s["name"] != "A/A"] for one in trial["rounds"]]

    results = results_of(changed(only(record, "latency"), "untimed", trial=untimed))
    assert results.noise == {}
    assert results.row("radial").speedup
    assert "failed: A/A: out of memory" in printed(summary.summary(results, 80))
    words = " ".join(Text(write_report([results.run], tmp_path).read_text()).words)
    assert "out of memory" in words


def test_captions_claim_no_more_than_they_know(page: Path, record: Run, tmp_path: Path) -> None:
    words = " ".join(" ".join(Text(page.read_text()).words).split())
    assert "not by the same amount for every arm" in words
    assert "alike for all arms" not in words
    assert "nearly unbiased" in words
    assert "distance is unbiased" not in words
    assert "Both axes come from one run." in words
    assert "come from one run" in words
    assert "in the folder that holds the run:" in words
    halves = [only(record, "quality"), changed(only(record, "latency"), "timed")]
    joined = " ".join(" ".join(Text(write_report(halves, tmp_path).read_text()).words).split())
    assert "Samples come from schema-1, times from timed." in joined
    assert "come from one run" not in joined


def test_a_tax_is_said_to_be_none_only_where_cells_come_one_at_a_time(record: Run, tmp_path: Path) -> None:
    run = changed(only(record, "likelihood"), "unpredicted", lambda about: [
        arm.update(predicted_tax_bits=None) for arm in about["arms"]
    ])  # fmt: skip
    words = " ".join(" ".join(Text(write_report([run], tmp_path).read_text()).words).split())
    assert words.count("none: one cell a step") == 1  # raster alone


def test_training_sorts_by_share() -> None:
    cells = ["9 %", "50 %*", "never", "12 %"]
    assert sorted(cells, key=lambda cell: float(report_page.sort_key(cell, "trained"))) == [
        "never", "9 %", "12 %", "50 %*",
    ]  # fmt: skip
    assert report_page.sort_key("never", "arm") == "never"


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

    browser.run(
        "const seek = document.querySelector('.seek'); seek.value = 400; seek.dispatchEvent(new Event('input'))"
    )
    counts = browser.run("return [...document.querySelectorAll('.count')].map((e) => e.textContent)")
    assert re.fullmatch(r"step \d+ of 16, \d+ of 16 cells", counts[0])
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


def test_ci_tries_the_page_in_a_browser_where_it_can() -> None:
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert "chromium-driver" in script
    assert "not browser" in script
