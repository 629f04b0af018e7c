"""How the records in tests/records were made: tiny real runs of random weights, with what is not needed taken away.

    OMP_NUM_THREADS=1 python tests/make_records.py tests/records/schema-2

Each is made once and kept: the tests read it so that old records stay readable. A new schema gets a folder of its own.
The run of schema 1 had one model and seeds 0 and 1, over the arms of `raster,radial,hilbert@cosine:4`; the one of
schema 2 has two models, of which the second refuses an arm.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from toy_runs import write_files

from orderbench.models.config import to_plain
from orderbench.models.objective import ObjectiveConfig, Share
from orderbench.runs.execute import execute
from orderbench.runs.live import watching
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.trials import make_agenda

MIXTURE = (
    Share(order="raster", paces=("one", "even:4"), share=0.5),
    Share(order="radial", paces=("native",), share=0.5),
)


def main(out: Path) -> None:
    """Run, then scrub."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = write_files(folder, "toy-", objective=to_plain(ObjectiveConfig(mixture=MIXTURE)))
        spec = RunSpec(
            orders=("raster@native", "radial@native+nested", "regions~one", "radial@native~one"), samples=32,
            held_out=16, rounds=3, batch=2, threads=1, device="cpu", model=(files["model"], "one=toys:regions_model"),
            tokenizer=(files["tokenizer"],), data=files["data"], space=(files["features"],),
        )  # fmt: skip
        with watching({}) as watcher:
            execute(make_agenda(spec, load_subjects(spec)), folder / "run", watcher)
        scrub(folder / "run", folder)
        shutil.copytree(folder / "run", out)


def scrub(run: Path, folder: Path) -> None:
    """No folder and no machine of ours, and no arrays that a report does not read."""
    for file in run.rglob("*.json"):
        text = file.read_text().replace(f"{folder}/", "")
        document = json.loads(text)
        for environment in document.get("environments", []):
            environment |= {"platform": "Linux", "git": None, "argv": ["bench", "run", "--orders", "raster,radial"]}
            environment["cpu"]["model"] = "a processor"
        if document.get("kind") == "latency":
            document["device"]["cpu"]["model"] = "a processor"
        file.write_text(json.dumps(document, indent=1) + "\n")
    for file in (run / "data").iterdir():
        if not file.name.endswith((".bits.npz", ".pictures.npz")):
            file.unlink()
    (run / ".lock").unlink(missing_ok=True)
    shutil.rmtree(run / "tiles", ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
