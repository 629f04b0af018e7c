"""scripts/gpu_checks.py on a processor: its pieces at toy size, what it keeps, and how it goes on."""

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from orderbench.models.config import ModelConfig
from orderbench.models.counting import Nothing
from orderbench.orders import BenchError, Grid
from orderbench.reports.results import results_of, to_json
from orderbench.runs.arms import line_up
from orderbench.runs.cli import app
from orderbench.runs.record import load_run

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "tests" / "records" / "schema-1"


@pytest.fixture(scope="module")
def kit() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_checks", ROOT / "scripts" / "gpu_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_checks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "work").mkdir()
    return tmp_path / "out", tmp_path / "work"


def fake(kit: Any, name: str, run: Callable[..., dict[str, Any]]) -> Any:
    return kit.Piece(name, "Fakes", 60.0, lambda scale, work, seconds: run())


def kept(out: Path) -> dict[str, bytes]:
    content = b"".join(file.read_bytes() for file in sorted(out.glob("kept.tar.*")))
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        return {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]


def test_pieces_at_toy_size(kit: Any, folders: tuple[Path, Path]) -> None:
    """Some of the rehearsal, in this process; the words of its `bench run` are tested below."""
    out, work = folders
    scale = replace(kit.TOY, masked=("radial",), arms=("radial@even:2+nested",), compared=2, tile=2, batches=(1,))
    names = ("parity", "graphs", "fashion-model-beginning", "fashion-tokenizer")
    chosen = [piece for piece in kit.PIECES if piece.name in names]
    kit.TOY, usual = scale, kit.TOY  # which has images of its own
    try:
        summary = kit.walk_pieces(out, work, scale, chosen, kit.run_here)
    finally:
        kit.TOY = usual
    states = {name: (one["status"], one.get("reason")) for name, one in summary["pieces"].items()}
    assert set(states.values()) == {("done", None)}, states
    assert json.loads((out / "summary.json").read_text())["pieces"] == json.loads(json.dumps(summary["pieces"]))
    results = {name: one["result"] for name, one in summary["pieces"].items()}
    assert results["parity"]["holds"]
    assert all(row["codes_that_differ"] == 0 for row in results["graphs"]["rows"])
    assert results["fashion-model-beginning"]["step"] == 1
    files = kept(out)
    assert {f"training/fashion-{what}/checkpoint.pt" for what in ("model", "tokenizer")} <= set(files)
    assert json.loads(files["rows/graphs.json"]) == results["graphs"]["rows"]
    text = (out / "summary.md").read_text()
    for told in ("A rehearsal at toy size on a processor", "All checks hold", "### CUDA graphs", "eager / graphs",
                 "`fashion-tokenizer`: 2 of 3,000 steps", "| `parity` |"):  # fmt: skip
        assert told in text
    assert len(list(out.iterdir())) <= 8
    assert all(file.stat().st_size <= 16 * 2**20 for file in out.iterdir())


def test_a_piece_that_fails_stops_nobody_and_is_tried_again(
    kit: Any, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = folders
    ran: list[str] = []

    def works() -> dict[str, Any]:
        ran.append("works")
        (work / "bench").mkdir(exist_ok=True)
        (work / "bench" / "run.json").write_text("{}")
        return {"rows": []}

    def breaks() -> dict[str, Any]:
        ran.append("breaks")
        raise RuntimeError("no such kernel\nand more")

    def skips() -> dict[str, Any]:
        raise kit.Skipped("there are no images")

    def halves() -> dict[str, Any]:
        ran.append("halves")
        return {"rows": [], "finished": ran.count("halves") == 2}

    pieces = [fake(kit, name, run) for name, run in
              (("a-breaks", breaks), ("graphs", works), ("skips", skips), ("large", halves))]  # fmt: skip
    summary = kit.walk_pieces(out, work, kit.TOY, pieces, kit.run_here)
    states = {name: (one["status"], one.get("reason")) for name, one in summary["pieces"].items()}
    assert states == {
        "a-breaks": ("failed", "RuntimeError: no such kernel"), "graphs": ("done", None),
        "skips": ("skipped", "there are no images"), "large": ("unfinished", None),
    }  # fmt: skip
    assert "failed: RuntimeError: no such kernel" in (out / "summary.md").read_text()
    assert "no such kernel\nand more" in capsys.readouterr().err
    assert kept(out) == {"bench/run.json": b"{}"}
    elsewhere = work.with_name("another")
    elsewhere.mkdir()
    again = kit.walk_pieces(out, elsewhere, kit.TOY, pieces, kit.run_here)
    assert ran == [
        "breaks" if name == "a-breaks" else name for name in ("a-breaks", "works", "halves", "a-breaks", "halves")
    ]
    assert again["pieces"]["graphs"] == summary["pieces"]["graphs"]
    assert again["pieces"]["large"]["status"] == "done"
    assert (elsewhere / "bench" / "run.json").read_text() == "{}"  # what was kept is there for who goes on


def test_time_that_is_over_leaves_pieces_for_another_call(kit: Any, folders: tuple[Path, Path]) -> None:
    out, work = folders
    pieces = [fake(kit, "graphs", lambda: {"rows": []})]
    assert kit.walk_pieces(out, work, kit.TOY, pieces, kit.run_here, minutes=0)["pieces"]["graphs"]["status"] == "left"
    assert kit.walk_pieces(out, work, kit.TOY, pieces, kit.run_here)["pieces"]["graphs"]["status"] == "done"
    with pytest.raises(BenchError, match="at toy size on a processor, and now they would be at full size"):
        kit.walk_pieces(out, work, replace(kit.FULL, device="cpu"), pieces, kit.run_here)


def test_a_piece_that_hangs_is_cut_off(kit: Any, folders: tuple[Path, Path]) -> None:
    out, work = folders
    out.mkdir()
    record = kit.run_apart(kit.PIECES[0], kit.TOY, work, 0.2, out / "log.txt")
    assert (record["status"], record["reason"]) == ("failed", "it was cut off after 0 s")
    assert 0.2 <= record["seconds"] < 10


def test_the_command_runs_a_piece_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The whole way through: shell, carried packages, a process, and what comes home."""
    (tmp_path / "carried").mkdir()
    done = subprocess.run(
        [ROOT / "scripts" / "gpu_checks.sh", "out", "--dry-run", "--only", "large"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "CARRIED": "carried", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "large: done" in done.stdout
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "Command: `scripts/gpu_checks.sh out --dry-run --only large`." in text
    assert "of the roofline" in text
    assert str(tmp_path) not in text


def test_without_a_gpu_one_sentence_says_so(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_checks.py"])
    with pytest.raises(SystemExit, match="needs a GPU that torch sees; --dry-run walks all pieces"):
        kit.main()


def test_what_is_asked_of_bench_run_is_understood(kit: Any) -> None:
    words = kit.bench_words(kit.FULL, "bf16", ["--only", "quality", "--samples", "5000", "--threads", "8"])
    asked: Any = get_command(app).commands["run"].make_context("run", words)  # type: ignore[attr-defined]
    assert (asked.params["dtype"], asked.params["samples"], asked.params["device"]) == ("bf16", 5000, "cuda")
    lineup = line_up(asked.params["orders"].split(","), [], [], {"": Nothing(Grid(16, 16))})
    arms = [arm.name for arm in lineup.arms]
    assert arms == ["raster", "raster@even:13", "radial", "radial+nested", "radial+nested:every=12", "halton@cosine:13"]


def test_the_document_gives_the_limits_of_pieces(kit: Any) -> None:
    table = [
        line.split(" | ") for line in (ROOT / "docs" / "gpu.md").read_text().splitlines() if line.startswith("| `")
    ]
    told = {name: cells[1] for cells in table for name in re.findall(r"`([\w-]+)`", cells[0])}
    for piece in kit.PIECES:
        limit = "what is left" if piece.limit_s == 540 else f"{piece.limit_s:.0f} s"
        assert told[piece.name].removesuffix(" each") == limit


def test_records_become_tables(kit: Any) -> None:
    table = to_json(results_of(load_run(RECORDED))) | {"failed": []}
    (raster,) = (one for one in table["arms"] if one["arm"] == "raster")
    told = "\n".join(kit._told_quality("fp32", table) + kit._told_speed("fp32", {"2": table}))
    assert f"| `raster` | {raster['n']} | {raster['figures']['fd']['value']:.4g}" in told
    assert f"| {1e3 * raster['figures']['latency_s']['value']:.4g}" in told
    assert "the same arm twice, batch 1: " in told


def test_bytes_that_must_move_are_counted_by_hand(kit: Any) -> None:
    config = ModelConfig(codes=5, classes=2, rows=2, cols=2, width=8, heads=1, self_blocks=3, cross_blocks=2, ffn=16)
    one_feed = 3 * (4 * 8 * 8 + 3 * 8 * 16) + 2 * 8 * 8
    one_asking = 2 * (2 * 8 * 8 + 3 * 8 * 16) + 8 * 5
    weights = 4 * one_feed + 4 * one_asking  # the class and three of four cells are fed, and four are asked
    read = 3 * (1 + 2 + 3 + 4) + 2 * (1 + 2 + 3 + 4)
    assert kit.moved_bytes(config, "raster", 2) == 2 * (weights + 2 * 8 * (read + 4 * 4))
    at_once = one_feed + one_asking + 2 * 8 * (3 + 2 + 4)
    assert kit.moved_bytes(config, "raster@even:1", 2) == 2 * at_once


def test_without_images_the_model_learns_from_shipped_codes(kit: Any) -> None:
    job = kit._job_of_codes(0, "cpu")
    assert len(job) == 9000
    assert len(job.held_codes_BLK) == 128
    figures = {"step": 1, "data": kit.HELD_OUT, "recipe_steps": 6000, "batch": 64, "precision": "bf16", "curve": [],
               "card_curve": [], "steps_per_s": None, "median_step_s": None}  # fmt: skip
    assert "No training images were on this machine" in "\n".join(kit._told_training("fashion-model", figures))


def test_what_does_not_fit_stays_behind_and_is_named(
    kit: Any, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = folders
    out.mkdir()
    monkeypatch.setattr(kit, "PIECE_BYTES", 2**16)
    (work / "bench").mkdir()
    for name, size in (("a.npz", 2**17), ("b.npz", 2**17), ("run.json", 10), ("checkpoint.pt", 2**16)):
        (work / "bench" / name).write_bytes(bytes(size))
    packed = kit.pack(out, work)
    assert packed["left_behind"] == ["bench/b.npz"]
    assert sorted(kept(out)) == ["bench/a.npz", "bench/checkpoint.pt", "bench/run.json"]
    assert len(packed["files"]) == 4
    (out / "kept.tar.1").write_bytes(b"broken")
    kit.unpack(out, work / "new", {"kept": packed})
    assert not (work / "new").exists()
