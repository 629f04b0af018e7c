"""`bench run` as a user meets it: real processes that are killed, interrupted, resumed, or two at once."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from test_cli import BENCH, bench, hears_ctrl_c
from toy_runs import flags_of, numbers

from orderbench.runs.record import Run, load_run


def killed_until_done(start: list[str], folder: Path, rng: random.Random) -> int:
    """Starts a run, sends SIGKILL a moment after it wrote one to four records, resumes it, and so on until one ends by
    itself; how many were killed."""
    trials = folder / "trials"

    def written() -> list[tuple[str, int]]:
        return sorted((file.name, file.stat().st_mtime_ns) for file in trials.glob("[!.]*.json"))  # whole ones

    for kills in range(60):
        going = ["run", "--resume", "--out", str(folder)] if (folder / "run.json").exists() else start
        process = subprocess.Popen(
            [*BENCH, *going],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        before, wanted = written(), rng.randint(1, 4)
        while process.poll() is None and wanted:
            time.sleep(0.005)
            if (now := written()) != before:
                before, wanted = now, wanted - 1
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, error
            return kills
    raise AssertionError("never done")


def test_real_sigkills_lose_nothing(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start = ["run", "--orders", "raster,radial", "--samples", "150", "--held-out", "30", "--rounds", "2",
             "--batch", "2", "--only", "quality,likelihood", "--threads", "1", "--device", "cpu",
             "--space", files["features"], *flags_of(files), "--out", str(folder)]  # fmt: skip
    assert killed_until_done(start, folder, random.Random(7)) >= 2  # noqa: S311
    done = numbers(load_run(folder))
    assert done.keys() == numbers(whole).keys()
    assert done == numbers(whole)


def test_real_sigkills_keep_every_round_that_was_timed(files: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start = ["run", "--orders", "radial", "--correction", "off", "--rounds", "5", "--batch", "2", "--only", "latency",
             "--threads", "1", "--device", "cpu", *flags_of(files), "--out", str(folder)]  # fmt: skip
    assert killed_until_done(start, folder, random.Random(3)) >= 2  # noqa: S311
    for trial in load_run(folder).done("latency"):
        assert len(trial["rounds"]) == 5
        for each in trial["rounds"]:
            names = ["A/A", "radial", "raster"] + ["uncached"] * (trial["batch"] == 1)
            assert sorted(sample["name"] for sample in each) == names


def on_two_nodes(asked: list[str], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of two launchers that meet on the loopback, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
              "--master-addr", "127.0.0.1", "--master-port", str(port)]  # fmt: skip
    nodes = [
        subprocess.Popen(
            [*launch, "--node-rank", str(rank), "-m", "orderbench.runs", *asked], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) for rank in (0, 1)
    ]  # fmt: skip
    try:
        said = [node.communicate(timeout=120) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    return [(node.returncode, *streams) for node, streams in zip(nodes, said, strict=True)]


def test_two_nodes_decode_the_same_run(whole: Run, files: dict[str, str], tmp_path: Path) -> None:
    asked = ["--orders", "raster,radial", "--samples", "150", "--held-out", "30",
             "--rounds", "2", "--batch", "2", "--only", "quality,likelihood", "--threads", "1", "--device", "cpu",
             "--space", files["features"], *flags_of(files), "--out", "run", "--json"]  # fmt: skip
    (code, out, err), (other, silent, _) = on_two_nodes(asked, tmp_path)
    assert (code, other, silent) == (0, 0, ""), err
    assert json.loads(out)["failed"] == []
    assert numbers(load_run(tmp_path / "run")) == numbers(whole)


def test_the_command_prints_one_document_and_leaves_a_run(files: dict[str, str], tmp_path: Path) -> None:
    asked = ["run", "--orders", "radial@cosine:4", "--samples", "64", "--held-out", "10", "--rounds", "1",
             "--batch", "1",
             "--threads", "1", "--device", "cpu", "--space", files["features"], *flags_of(files)]  # fmt: skip
    done = bench(*asked, "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "`bench baseline" not in done.stderr  # one document, and nothing to read beside it
    assert document["failed"] == []
    assert document["arms"][0]["figures"]["fd"]["value"] > 0
    assert document["arms"][1]["cut"] is None
    left = bench("run", "--resume", "--out", str(tmp_path / "run"), "--dry-run", "--json")
    assert json.loads(left.stdout) == {"trials": [], "done_before": 8, "estimate_s": 0}
    listed = bench(*asked, "--dry-run", "--json")
    trials = json.loads(listed.stdout)["trials"]
    kinds = ["likelihood"] * 2 + ["floor"] * 3 + ["quality"] * 2 + ["latency"]
    assert [t["kind"] for t in trials] == kinds  # of raster, the baseline, too
    assert all(t["estimate_s"] > 0 for t in trials)
    nothing = bench("run", "--resume", "--out", str(tmp_path / "nothing"))
    assert nothing.returncode == 2
    assert "holds no run to go on with; leave --resume out to start one" in nothing.stderr
    again = bench(*asked, "--out", str(tmp_path / "run"))
    assert again.returncode == 2
    assert "holds a run already" in again.stderr
    shown = bench("run", "--resume", "--out", str(tmp_path / "run"))
    assert shown.returncode == 0, shown.stderr
    assert "radial@cosine:4" in shown.stdout
    assert shown.stdout.rstrip().endswith(str(tmp_path / "run" / "report" / "report.html"))
    shutil.rmtree(tmp_path / "run" / "report")
    bare = bench("run", "--resume", "--out", str(tmp_path / "run"), "--no-report")
    assert bare.returncode == 0, bare.stderr
    assert bare.stdout.rstrip().endswith(f"records: {tmp_path / 'run'}")
    assert not (tmp_path / "run" / "report").exists()


def test_interrupted_it_says_how_to_go_on(files: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BENCH, "run", "--orders", "raster", "--samples", "640", "--seeds", "60", "--only", "quality",
         "--threads", "1", "--device", "cpu", "--space", files["features"], *flags_of(files),
         "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    tiles = tmp_path / "run" / "tiles"
    while process.poll() is None and not (tiles.is_dir() and list(tiles.rglob("*.npz"))):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted; what was measured is kept, and `bench run --resume --out" in error
    assert error.count("bench: interrupted") == 1


def test_help_has_examples() -> None:
    done = bench("run", "--help")
    assert done.returncode == 0
    assert "bench run --orders raster,radial\n" in done.stdout
