"""Models of other shapes than our own, from the command line to the gate.

A pyramid; three codes a cell; one order alone, whose cells are asked together; a user's network of the old form.
"""

import json
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from toys import chained_model, eight_members, pyramid_model, regions_model

from orderbench.models.codec import Weights, register_tokenizer
from orderbench.models.model import Model
from orderbench.orders import Grid, Lattice, Pyramid
from orderbench.runs.cli import main
from orderbench.runs.record import load_run


class MeanGrey:
    """The mean grey of patches, level by level: every code of a cell is a guess at it, and a picture is their mean."""

    channels, pixels = 1, 8

    def __init__(self, code_sizes: tuple[int, ...], levels: tuple[Grid, ...]) -> None:
        self.code_sizes, self.levels = code_sizes, levels

    def lattice(self, side: int) -> Lattice:
        return self.levels[0] if len(self.levels) == 1 else Pyramid(self.levels)

    def side(self, lattice: Lattice) -> int:
        return self.pixels

    def encode(self, images_Bchw: Tensor) -> Tensor:
        grey = [F.adaptive_avg_pool2d(images_Bchw, (grid.rows, grid.cols)).flatten(1) for grid in self.levels]
        share_BL = (torch.cat(grey, 1) / 2 + 0.5).clamp(0, 1)
        return torch.stack([(share_BL * (size - 1)).round().long() for size in self.code_sizes], -1)

    def decode(self, codes_BLK: Tensor, lattice: Lattice) -> Tensor:
        share_BL = (codes_BLK / (torch.tensor(self.code_sizes) - 1)).mean(-1)
        parts, first = [], 0
        for grid in lattice.levels:
            part = share_BL[:, first : first + grid.n_cells].view(-1, 1, grid.rows, grid.cols)
            parts.append(F.interpolate(part, size=(self.pixels, self.pixels)))
            first += grid.n_cells
        return torch.stack(parts).mean(0) * 2 - 1


def recognises(names: Collection[str]) -> bool:
    return set(names) == {"mean_grey_sizes", "mean_grey_levels"}


@dataclass(frozen=True)
class Shape:
    """A model, by its factory, and what a run of it must say. refused: arms, with words of their sentences. timed:
    whether it is also timed and drawn, which takes seconds."""

    build: Callable[[], Model]
    orders: str
    ran: tuple[str, ...]
    baseline: str
    ratio: bool = True
    timed: bool = True
    refused: tuple[tuple[str, str], ...] = ()


SHAPES = {
    "a pyramid": Shape(
        pyramid_model, "scales@native,radial@native,halton@cosine:5", ran=("scales", "radial", "halton@cosine:5"),
        baseline="scales@one",
    ),
    "three codes a cell": Shape(
        chained_model, "raster@native,radial@native+nested", ran=("raster", "radial+nested"), baseline="raster",
        timed=False,
    ),
    "one order alone": Shape(
        regions_model, "regions@native,radial@native,regions+nested", ran=("regions",), baseline="regions", ratio=False,
        refused=(("radial", "trained for regions:m=2"), ("regions+nested", "needs that fed codes can be taken back")),
    ),
    "the old form": Shape(
        eight_members, "raster@native,radial@native+nested", ran=("raster", "radial+nested"), baseline="raster",
        timed=False,
    ),
}  # fmt: skip


class Bench:
    """`bench` in this process: its exit code, and what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["bench", *words])
        with pytest.raises(SystemExit) as left:
            main()
        said = self.capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(capsys, monkeypatch)


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def test_from_the_command_line_to_the_gate(shape: Shape, bench: Bench, files: dict[str, str], tmp_path: Path) -> None:
    register_tokenizer("mean-grey", paper="none", idea="the mean grey of patches", recognises=recognises)(_load)
    model, folder = shape.build(), tmp_path / "run"
    sizes = getattr(model, "code_sizes", (11,))
    levels = torch.tensor([[grid.rows, grid.cols] for grid in model.lattice.levels])
    save_file({"mean_grey_sizes": torch.tensor(sizes), "mean_grey_levels": levels}, tmp_path / "grey.safetensors")
    code, out, err = bench(
        "run", "--orders", shape.orders, "--model", f"toys:{shape.build.__name__}", "--tokenizer",
        str(tmp_path / "grey.safetensors"), "--data", files["data"], "--space", files["features"], "--samples", "48",
        "--held-out", "20", "--rounds", "2", "--batch", "2", "--threads", "1", "--device", "cpu", "--out", str(folder),
        "--json", "--quick", *([] if shape.timed else ["--only", "quality,likelihood", "--no-report"]),
    )  # fmt: skip
    assert code == 0, err
    for arm, words in shape.refused:
        (sentence,) = [line for line in err.splitlines() if line.startswith(f"bench: {arm} is left out: ")]
        assert words in sentence
    told, run = json.loads(out), load_run(folder)
    assert told["baseline"] == shape.baseline
    arms = {one["arm"]: one for one in told["arms"]}
    assert set(shape.ran) <= set(arms)
    assert not set(arms) & {arm for arm, _ in shape.refused}
    assert [trial["status"] for trial in run.trials.values()] == ["done"] * len(run.trials)
    assert run.done("quality")
    assert run.done("likelihood")
    for name in shape.ran:
        figures = arms[name]["figures"]
        assert figures["kd"]["value"] is not None
        assert ("bits" in figures) == ("nested" not in name), figures.keys()
        if shape.timed:
            assert figures["latency_s"]["value"] > 0
            assert bool(arms[name]["speedup"]) == (shape.ratio and name != shape.baseline)
    if shape.timed:
        assert '<div class="map"><img' in (folder / "report" / "report.html").read_text()
    baseline = tmp_path / "baseline.json"
    assert bench("baseline", str(folder), "--out", str(baseline))[0] == 0
    code, out, err = bench("check", str(folder), "--baseline", str(baseline), "--json")
    assert code in (0, 4), err
    assert not [one for one in json.loads(out)["findings"] if one["verdict"] == "regressed"]


def _load(weights: Weights) -> MeanGrey:
    levels = tuple(Grid(rows, cols) for rows, cols in weights.tensors["mean_grey_levels"].tolist())
    return MeanGrey(tuple(weights.tensors["mean_grey_sizes"].tolist()), levels)


def test_the_doctor_finds_nothing(shape: Shape, bench: Bench) -> None:
    code, out, err = bench("doctor", "--model", f"toys:{shape.build.__name__}", "--json")
    assert code == 0, out + err
    assert json.loads(out)
