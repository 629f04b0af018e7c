"""The command `bench report`, and the data frame for figures of one's own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kept import ARMS, RECORD
from test_cli import bench

import orderbench.reports
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
    pdfs = sorted(path.name for path in (tmp_path / "run" / "report" / "figures").glob("*.pdf"))
    assert pdfs == ["orders-1col.pdf", "orders-2col.pdf", "repair-1col.pdf", "repair-2col.pdf"]


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


def test_help_has_examples() -> None:
    assert "bench report bench-runs/my-run --paper" in bench("report", "--help").stdout
