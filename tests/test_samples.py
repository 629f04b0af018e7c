"""Samples: whose noise is whose, which seeds are reported, and which setting tuning chooses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import changed
from PIL import Image
from test_cli import bench
from toy_runs import numbers, run, spec_of

from orderbench.models.decode import Counters
from orderbench.reports.results import results_of
from orderbench.reports.summary import notes
from orderbench.reports.tables import exact_table
from orderbench.runs import samples
from orderbench.runs.export import export_run
from orderbench.runs.passes import differing, passes_of
from orderbench.runs.record import Run, load_run


def test_replicates_begin_where_they_are_told_to(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("radial",), correction=("off",), only=("quality",), samples=64, no_baseline=True)
    _, three = run(replace(spec, seeds=3), tmp_path / "three")
    _, later = run(replace(spec, seeds=2, first_seed=1), tmp_path / "later")
    assert [trial["seed"] for trial in later.done("quality")] == [1, 2]
    assert [t["tokens_digest"] for t in later.done("quality")] == [t["tokens_digest"] for t in three.done("quality")][
        1:
    ]


def test_arms_of_one_seed_share_noise_and_another_seed_has_its_own(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(
        files, orders=("radial+nested:margin=1e6", "radial+nested:rule=never"), seeds=2, samples=64, only=("quality",)
    )
    _, one = run(spec, tmp_path / "run")
    digests = {(t["arm"], t["seed"]): t["tokens_digest"] for t in one.done("quality")}
    assert digests["radial+nested:rule=never", 0] == digests["radial+nested:margin=1000000", 0]
    assert digests["radial+nested:rule=never", 0] != digests["radial+nested:rule=never", 1]


def test_tuning_tries_other_seeds_and_keeps_the_best(files: dict[str, str], tmp_path: Path) -> None:
    spec = spec_of(files, orders=("radial",), correction=("off",), only=("quality",), samples=64, no_baseline=True,
                   tune={"guidance": (1.0, 3.0), "temperature": (0.5, 1.0)})  # fmt: skip
    _, one = run(spec, tmp_path / "run")
    tried = one.done("tuning")
    assert len(tried) == 4
    assert {t["seed"] for t in tried} == {1_000_000}
    best = min(tried, key=lambda t: t["quality"][0]["fd"]["value"])
    fixed, tuned = one.done("quality")
    assert (fixed["setting"], tuned["setting"], tuned["seed"]) == ("fixed", "tuned", 0)
    assert tuned["sampling"] == best["sampling"]


def test_a_setting_is_chosen_when_all_were_tried(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(
        files, orders=("radial@cosine:4",), only=("quality",), samples=64, no_baseline=True,
        tune={"temperature": (0.5, 2.0)},
    )  # fmt: skip
    real = samples.decode

    def decode(*given: Any, **how: Any) -> Any:
        if how["sampling"].temperature == 2.0:
            raise RuntimeError("no room today")
        return real(*given, **how)

    monkeypatch.setattr(samples, "decode", decode)
    ended, one = run(spec, tmp_path / "run")
    assert len(ended.failed) == 2
    reasons = {t["reason"] for t in one.trials.values() if t["status"] == "failed"}
    assert "the setting temperature=2.0 could not be tried, so none is chosen for radial@cosine:4" in reasons
    monkeypatch.undo()
    run(spec, tmp_path / "run", resume=True)
    _, never_failed = run(spec, tmp_path / "other")
    assert numbers(load_run(tmp_path / "run")) == numbers(never_failed)


def test_samples_are_exported_for_other_tools(whole: Run, tmp_path: Path) -> None:
    written = export_run(whole, tmp_path / "new", npz=True, png=True)
    assert len(written) == 2 * len(whole.done("quality"))
    for trial, array, folder in zip(whole.done("quality"), written[::2], written[1::2], strict=True):
        with np.load(array) as found:
            images, labels = found["arr_0"], found["arr_1"]
        assert (images.shape, images.dtype, labels.dtype) == ((150, 8, 8, 3), np.uint8, np.int64)
        assert (labels == np.arange(150) % 3).all()
        pictures = whole.arrays(trial["trial"], "pictures")["images_Nhwc"]
        assert (images[:40, ..., :1] == pictures).all()
        files = sorted(folder.iterdir())
        assert [files[0].name, files[-1].name, len(files)] == ["000000-0.png", "000149-2.png", 150]
        assert (np.asarray(Image.open(files[7])) == images[7, ..., 0]).all()
    assert bench("export", str(whole.folder)).returncode == 2


def test_an_exact_arm_has_the_codes_of_one_cell_at_a_time_and_says_how_its_passes_went(
    files: dict[str, str], tmp_path: Path
) -> None:
    spec = spec_of(files, orders=("radial@one", "radial+exact:window=6"), only=("quality",), samples=64, noise="gumbel",
                   no_baseline=True)  # fmt: skip
    _, ran = run(spec, tmp_path / "run")
    one, exact = (trial for trial in ran.done("quality"))
    assert exact["tokens_digest"] == one["tokens_digest"]
    assert {trial["sampling"]["noise"] for trial in (one, exact)} == {"gumbel"}
    assert ("passes" in one, "differing" in one, exact["differing"]) == (False, False, {"images": 0, "of": 64})
    went, counters, cells = exact["passes"], exact["counters"], len(exact["changed_by_cell"])
    assert went["accepted_by_pass"][0] == 1  # nothing was guessed before the first pass
    assert went["p50"] <= went["p90"] <= len(went["accepted_by_pass"]) < cells
    assert went["wasted_asked"] == pytest.approx(1 - cells / counters["query_tokens"])
    assert all(1 <= together <= 6 for together in went["accepted_by_cell"])
    results = results_of(ran)
    (line,) = exact_table(results).rows  # type: ignore[union-attr]
    assert (line.cells["differing"], line.cells["same_codes"]) == ("0 of 64", "radial@one")
    assert any(note.startswith("radial+exact:window=6: ") and note.endswith("one cell at a time: 0 of 64.")
               for note in notes(results))  # fmt: skip
    rounded = changed(ran, "rounded", trial=lambda trial: trial.update(tokens_digest=trial["trial"], differing={
        "images": 2, "of": 64}) if "differing" in trial else None)  # fmt: skip
    (line,) = exact_table(results_of(rounded)).rows  # type: ignore[union-attr]
    assert (line.cells["differing"], line.cells["same_codes"]) == ("2 of 64", None)
    assert any(note.endswith("one cell at a time: 2 of 64.") for note in notes(results_of(rounded)))


def test_what_passes_accepted_is_counted_by_pass_and_by_cell() -> None:
    settled_NL = np.array([[1, 2, 2, 2], [1, 2, 3, 3]])
    went = passes_of(settled_NL, Counters(query_tokens=8, content_tokens=5))
    assert went["accepted_by_pass"] == [1, 2, 2]  # by the third pass one image is done
    assert went["accepted_by_cell"] == [1, 2, 2.5, 2.5]
    assert (went["p50"], went["wasted_asked"], went["wasted_fed"]) == (2.5, 0.5, pytest.approx(0.2))
    assert differing(settled_NL[..., None], settled_NL[::-1, :, None]) == {"images": 2, "of": 2}
