"""A run from Python: the page and the notebook run as they stand, and mistakes are one sentence."""

import functools
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kept import RECORD

import orderbench.runs
from orderbench.orders import BenchError
from orderbench.reports import draw, load
from orderbench.runs import latency, run, timing
from orderbench.runs.record import Run
from orderbench.runs.spec import setting_kinds

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text()
    if page.endswith(".md"):
        return re.findall(r"```python\n(.*?)```", text, re.S)
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("page", ["python.md", "first-run.ipynb"])
def test_the_examples_run_in_their_order(
    page: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency, "warm_up", functools.partial(timing.warm_up, least_s=0.001))  # shorter samples
    small = ", ".join(f"{name}={files[name]!r}" for name in ("model", "tokenizer", "data"))
    names: dict[str, Any] = {}
    for block in blocks(page):
        if page == "python.md" and "write_report" in block:
            assert block.strip().partition("= ")[2] in blocks("first-run.ipynb")[-1]  # drawn once, there
        else:
            exec(block.replace('out="first-run"', f'out="first-run", {small}'), names)  # noqa: S102 (our own page)
    done: Run = names["done"]
    assert done.failed == ()
    assert {trial["kind"] for trial in done.done()} == {"likelihood", "latency"}
    assert set(names["timed"]["arm"]) == {arm["name"] for arm in done.about["arms"]}
    assert (tmp_path / "bits.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "first-report" / "report.html").is_file() == (page != "python.md")


def test_the_notebook_is_one_and_holds_no_output() -> None:
    notebook = json.loads((DOCS / "first-run.ipynb").read_text())
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"code", "markdown"})
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook["cells"])


def test_settings_are_those_of_the_command_line() -> None:
    parameters = inspect.signature(run).parameters
    assert list(parameters) == [*setting_kinds(), "out", "resume", "fail_fast", "tell"]
    assert parameters["samples"].default == 256
    assert parameters["samples"].annotation is int


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sampels": 3}, r"no key in run\(\.\.\.\) named 'sampels'; did you mean 'samples'"),
        ({"samples": "many"}, "gives samples as 'many', and it takes a whole number"),
        ({"samples": 0}, "samples is 0; give a whole number of 1 or more"),
        ({"orders": ["radail"]}, "no order named 'radail'; did you mean 'radial'"),
        ({"resume": True}, "resume=True goes on with the run in a folder; name it"),
        ({"resume": True, "out": "nowhere"}, "there is no folder 'nowhere'"),
        ({"data": Path("nowhere"), "only": "likelihood"}, "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        run(**settings)


def test_a_run_goes_on_and_says_what_it_does(files: dict[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    asked: dict[str, Any] = {name: Path(files[name]) for name in ("model", "tokenizer", "data")}
    asked |= {"orders": "radial@cosine:4", "only": "likelihood", "held_out": 9, "no_baseline": True, "cfg_scale": 1.5}
    first = run(out=tmp_path / "run", tell=said.append, **asked)
    assert any(line.startswith("likelihood") and " took " in line for line in said)
    said.clear()
    again = run(out=tmp_path / "run", resume=True, tell=said.append)
    assert "0 trials to measure, 1 were done before" in said
    assert again.trials == first.trials
    assert load(first).equals(load(str(tmp_path / "run")))
    for same in ({"cfg_scale": 1.5}, {"guidance": "constant:scale=1.5"}):  # two spellings of one setting
        assert run(out=tmp_path / "run", resume=True, **same).trials == first.trials
    with pytest.raises(BenchError, match="guidance"):
        run(out=tmp_path / "run", resume=True, cfg_scale=2)


def test_code_that_a_record_alone_names_is_not_run(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from orderbench.orders import Ranking, register_order\nimport numpy as np\n"
        "@register_order('mine', idea='mine', paper='none')\ndef mine(grid): return Ranking(np.arange(grid.n_cells))\n"
    )
    asked = {name: files[name] for name in ("model", "tokenizer", "data")}
    code = str(tmp_path / "mine.py")
    done = run(orders="mine", include=code, only="likelihood", held_out=9, out=tmp_path / "run", **asked)
    assert done.failed == ()
    refusal = r"run\.json' asks for code, which a file alone may not; .* name it too, as in include=\['.*mine\.py'\]"
    with pytest.raises(BenchError, match=refusal):
        run(out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("setting", ["include", "model", "data"])
def test_a_strangers_record_runs_and_fetches_nothing(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark, code = tmp_path / "run", tmp_path / "mark", tmp_path / "stranger_of_python.py"
    shutil.copytree(RECORD.parent / "schema-2", folder)
    code.write_text(f"from pathlib import Path\nPath({str(mark)!r}).write_text('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    asks = {"include": [str(code)], "model": [f"{code.stem}:build"], "data": f"download:{tmp_path / 'fetched'}"}
    about = json.loads((folder / "run.json").read_text())
    about["config"].update({"model": [], setting: asks[setting]})
    (folder / "run.json").write_text(json.dumps(about))
    with pytest.raises(BenchError) as refusal:
        run(out=folder, resume=True)
    what = "a download" if setting == "data" else "code"
    assert str(refusal.value) == (
        f"'{folder / 'run.json'}' asks for {what}, which a file alone may not; if you trust what it names, name it "
        f"too, as in {setting}={asks[setting]!r}"
    )
    assert not mark.exists()
    assert not (tmp_path / "fetched").exists()
    if setting == "model":
        with pytest.raises(BenchError, match="the module 'stranger_of_python' holds no 'build'"):
            run(out=folder, resume=True, orders="raster", model=asks[setting])
        assert mark.exists()


def test_a_figure_is_drawn_by_its_name(record: Run) -> None:
    assert draw(record, "speedups", width=6.9).get_size_inches()[0] == pytest.approx(6.9)
    with pytest.raises(BenchError, match="no figure named 'speedup'; did you mean 'speedups'"):
        draw(record, "speedup")


def test_importing_the_room_is_light_and_says_its_version() -> None:
    code = (
        "import sys; from orderbench.runs import run; "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'typer', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", orderbench.runs.__version__)
    with pytest.raises(AttributeError, match="no attribute 'versoin'"):
        orderbench.runs.versoin  # noqa: B018 (it is looked up)
