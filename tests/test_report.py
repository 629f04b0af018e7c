"""The command `bench report`, and the data frame for figures of one's own."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kept import ARMS, RECORD, only
from test_cli import bench

import orderbench.reports
from orderbench.orders import BenchError
from orderbench.reports.page import write_report
from orderbench.reports.results import results_of
from orderbench.runs.record import Run


def test_load_gives_one_tidy_frame(record: Run) -> None:
    table = orderbench.reports.load(RECORD)
    medians = table.query("metric == 'tokens_s' and batch == 1").groupby("arm")["value"].median()
    assert set(ARMS) < set(medians.index)
    fd = table.query("metric == 'fd' and arm == 'radial'")
    assert fd["seed"].tolist() == [0, 1]
    assert (fd["low"] < fd["value"]).all()
    assert set(fd["n"]) == {48}
    assert set(fd["order"]) == {"radial"}
    assert set(zip(fd["guidance"], fd["temperature"], fd["top_k"], fd["top_p"], strict=True)) == {("none", 1, 0, 1)}
    assert table.query("kind == 'floor'")["guidance"].isna().all()
    bits = table.query("metric == 'bits' and arm == 'radial'").iloc[0]
    assert bits["value"] == pytest.approx(results_of(record).row("radial").figures["bits"].value)
    assert not table["metric"].isna().any()
    assert not table["unit"].isna().any()
    assert set(table["kind"]) == {"likelihood", "floor", "quality", "repair", "latency"}


def test_importing_reports_stays_light() -> None:
    program = "import orderbench.reports, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "matplotlib", "jinja2", "seaborn"} & set(loaded)


def test_the_command_writes_a_page_without_torch(tmp_path: Path) -> None:
    shutil.copytree(RECORD, tmp_path / "run")
    for file in (tmp_path / "run" / "trials").glob("[qfl]*"):  # less to draw
        file.unlink()
    program = (
        "import sys\nfrom orderbench.runs.cli import main\n"
        "sys.argv = ['bench', 'report', 'run', '--paper', '--json']\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr.split()
    document = json.loads(done.stdout)
    assert document["page"] == "run/report/report.html"
    assert (tmp_path / document["page"]).is_file()
    paper = tmp_path / "run" / "report" / "paper"
    names = [f"{name}-{columns}.{kind}" for name in ("orders", "repair") for columns in ("1col", "2col")
             for kind in ("pdf", "png", "svg")]  # fmt: skip
    names += [f"{name}.{kind}" for name in ("orders", "repair") for kind in ("tex", "txt")]
    assert sorted(path.name for path in paper.iterdir()) == sorted(names)
    for columns, inches in (("1col", 3.3), ("2col", 6.9)):
        pdf = (paper / f"repair-{columns}.pdf").read_bytes()
        assert b"/FontFile2" in pdf  # TrueType, so type 42
        assert b"/Type3" not in pdf
        assert f"/MediaBox [ 0 0 {72 * inches:g}".encode() in pdf


def test_several_runs_get_a_page_beside_each_ones_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(RECORD, tmp_path / name)
        for file in (tmp_path / name / "trials").glob("[qfl]*"):  # less to draw
            file.unlink()
    done = bench("report", "one", "two", cwd=tmp_path)
    assert done.stdout == "wrote one/report-with-two/report.html\n", done.stderr
    assert (tmp_path / "one" / "report-with-two" / "report.html").is_file()
    assert not (tmp_path / "one" / "report").exists()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shutil.copytree(RECORD, tmp_path / "run")
    for folder, said in ((tmp_path / "none", "there is no folder"), (tmp_path / "file", "there is no folder"),
                         (tmp_path, "there is no '")):  # fmt: skip
        done = bench("report", str(folder))
        assert done.returncode == 2
        assert done.stderr.startswith(f"bench: {said}")
        assert done.stderr.count("\n") == 1
    done = bench("report", str(tmp_path / "run"), "--out", str(tmp_path / "file" / "x"))
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert done.stderr.count("\n") == 1


def test_figures_for_a_paper_say_their_words_beside_them(record: Run, tmp_path: Path) -> None:
    write_report([only(record, "quality", arms=("radial",))], tmp_path, paper=True, font="serif")
    svg = (tmp_path / "paper" / "fd-by-steps-1col.svg").read_text()
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"FD", "steps", "radial"} <= set(drawn)
    assert not any(word in text for text in drawn for word in ("against", "first look", "space", "better"))
    assert re.search(r"font-family: '(Times New Roman|Nimbus Roman|Liberation Serif|STIXGeneral)'", svg)
    told = (tmp_path / "paper" / "fd-by-steps.txt").read_text()
    said = ("FD against steps\n\n", "n = 48 x 2 seeds: a first look.", "Each line is one order", "lower is better",
            f"Space {record.about['spaces'][0]['space']}")  # fmt: skip
    assert all(one in told for one in said), told
    latex = (tmp_path / "paper" / "fd-by-steps.tex").read_text()
    assert r"\includegraphics[width=\columnwidth]{fd-by-steps-1col}" in latex
    assert r"95 \% jackknife" in latex
    plain = re.sub(r"\\[%{}&_#$]", "", "\n".join(line for line in latex.splitlines() if not line.startswith("%")))
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"[%&#]", plain)
    page = (tmp_path / "figures" / "fd-by-steps.svg").read_text()
    assert "FD against steps" in page  # where there is no caption, the figure says it


def test_fonts_that_are_not_there_are_named_before_anything_is_drawn(tmp_path: Path) -> None:
    shutil.copytree(RECORD, tmp_path / "run")
    done = bench("report", "run", "--paper", "--font", "Comic Papyrus", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: the font 'Comic Papyrus' is not installed; serif and sans would do")
    assert "--font serif" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "report").exists()
    done = bench("report", "run", "--font", "serif", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "bench: --font serif is for --paper; give both, as in --paper --font serif\n"


def test_a_figure_is_drawn_again_in_three_lines(record: Run, tmp_path: Path) -> None:
    figure = orderbench.reports.draw(record, "bits-by-steps", width=6.9, font="stixgeneral", clean=True)
    figure.savefig(tmp_path / "bits.pdf")
    pdf = (tmp_path / "bits.pdf").read_bytes()
    assert b"STIXGeneral" in pdf
    assert b"/FontFile2" in pdf
    assert figure.get_figwidth() == 6.9
    assert not any(text.get_visible() for text in figure.texts)
    with pytest.raises(BenchError, match=r"no figure named 'bits-by-step'; did you mean 'bits-by-steps'"):
        orderbench.reports.draw(record, "bits-by-step")


def test_medians_of_arms_are_of_arms_alone() -> None:
    """The example of docs/reading-a-report.md, as it stands there."""
    text = (Path(__file__).parent.parent / "docs" / "reading-a-report.md").read_text()
    (code,) = re.findall(r"    import orderbench.reports\n\n((?:    .*\n)+)", text)
    lines = [line.strip().replace("bench-runs/my-run", str(RECORD)) for line in code.splitlines()]
    scope: dict[str, object] = {"orderbench": orderbench}
    exec("\n".join(lines[:2]), scope)  # noqa: S102 (our own page)
    medians = eval(lines[2], scope)  # noqa: S307 (our own page)
    assert set(medians.index) == set(ARMS)
    assert {"arm", "n", "low"} <= set(eval(lines[3], scope).columns)  # noqa: S307 (our own page)


def test_help_has_examples() -> None:
    assert "bench report bench-runs/my-run --paper" in bench("report", "--help").stdout
