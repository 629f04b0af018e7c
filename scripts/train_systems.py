"""Train every system at the budget that all share, and put the weights into the package.

    python scripts/train_systems.py OUT [--only NAME,...] [--steps N] [-- FLAG ...]
    python scripts/train_systems.py OUT --ship [--into FOLDER]

Trains all systems that are built, one after the other, and the two-pass network of `shared-small` on one order alone,
four times: raster-only, radial-only, halton-only and random-only, which say what sharing costs. Each is `bench train`
in OUT/NAME. What is finished is skipped and what was cut goes on from its checkpoint, so the same command may be given
again. Flags behind -- go to every `bench train`, as in `-- --device cuda` or `-- --data FOLDER --threads 2`.

A system whose tokenizer is not in the package has it trained first, in OUT/var-tokenizer.

--ship trains nothing. It writes the finished systems as bf16 to models/NAME.safetensors, each with its card. The
specialists stay in OUT: `bench run --model raster-only=OUT/raster-only/model.safetensors` measures them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from ship_weights import TARGET, write_card

from orderbench.models.checkpoint import write_atomically
from orderbench.models.shipped import load_weights, shipped_names
from orderbench.models.systems import BUDGET, SYSTEMS, built_system
from orderbench.orders import BenchError, Pyramid

MIXTURES = ("raster-only", "radial-only", "halton-only", "random-only")
TOKENIZER_STEPS = 3000  # the recipe's own
BENCH = [sys.executable, "-c", "from orderbench.runs.cli import main; main()", "train"]


@dataclass(frozen=True)
class Training:
    """One `bench train`: under which name, of what, with which flags, and how many steps it has when it is done."""

    name: str
    what: str
    flags: tuple[str, ...]
    steps: int

    def done(self, out: Path) -> bool:
        """Whether its weights are there, of all its steps."""
        card = out / self.name / f"{self.what}.card.json"
        return card.is_file() and json.loads(card.read_text())["steps_done"] >= self.steps

    def words(self, out: Path, more: list[str]) -> list[str]:
        """What `bench train` is given."""
        folder = out / self.name
        resume = ["--resume"] if (folder / "checkpoint.pt").exists() else []
        return [self.what, *self.flags, "--steps", str(self.steps), "--out", str(folder), *resume, *more]


def trainings(out: Path, names: list[str], steps: int) -> list[Training]:
    """In the order in which they are made; a tokenizer comes before the systems that need it."""
    found: dict[str, Training] = {}
    for name in names:
        system = built_system("shared-small" if name in MIXTURES else name)
        tokenizer = system.tokenizer
        if tokenizer not in shipped_names("tokenizer"):
            assert isinstance(system.lattice, Pyramid)
            scales = ",".join(str(grid.rows) for grid in system.lattice.levels)
            flags = ("--scales", scales, "--codes", str(system.codes))
            found[tokenizer] = Training(tokenizer, "tokenizer", flags, min(TOKENIZER_STEPS, 3 * steps // 2))
            tokenizer = str(out / tokenizer / "tokenizer.safetensors")
        own = ("--mixture", name) if name in MIXTURES else ()
        found[name] = Training(name, "model", ("--system", system.name, *own, "--tokenizer", tokenizer), steps)
    return list(found.values())


def train_all(out: Path, wanted: list[Training], more: list[str]) -> None:
    """Every training that is not done; the first that fails ends the script with its exit code."""
    for number, training in enumerate(wanted, 1):
        state = "is done" if training.done(out) else "begins"
        print(f"{number} of {len(wanted)}: {training.name} {state}", flush=True)
        if not training.done(out):
            code = subprocess.run([*BENCH, *training.words(out, more)], check=False).returncode  # noqa: S603
            if code:
                sys.exit(code)


def ship(out: Path, wanted: list[Training], into: Path) -> None:
    """Finished systems in bf16, each with a card that names the new file."""
    for training in wanted:
        if training.what != "model" or training.name in MIXTURES:
            continue
        if not training.done(out):
            print(f"{training.name}: not done, so not shipped")
            continue
        source, target = out / training.name / "model.safetensors", into / f"{training.name}.safetensors"
        write_bf16(source, target)
        card = json.loads(source.with_suffix(".card.json").read_text())
        command = card["command"].replace(f"{out}/", "")  # the folders of whoever trained it are nobody's business
        stored = "bf16, of averaged weights in fp32, whose figures these are"
        write_card(target, {**card, "command": command, "stored": stored})
        load_weights(target, "model")  # strictly, and against its card
        print(f"{target.stat().st_size / 1e6:8.3f} MB  {target.name}")


def write_bf16(source: Path, target: Path) -> None:
    """The same tensors and metadata, each number rounded to bf16."""
    load_weights(source, "model")
    with safe_open(source, "pt") as opened:
        metadata: dict[str, Any] = opened.metadata()
        tensors = {name: opened.get_tensor(name).contiguous() for name in opened.keys()}  # noqa: SIM118
    for name in tensors:
        if not name.startswith("quantize."):  # a codebook paints canvases, which must be those of training
            tensors[name] = tensors[name].to(torch.bfloat16)
    write_atomically(target, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    target.chmod(0o644)


def main() -> None:
    before, more = sys.argv[1:], []
    if "--" in before:
        place = before.index("--")
        before, more = before[:place], before[place + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="these systems and mixtures, by comma")
    parser.add_argument("--steps", type=int, default=BUDGET.steps, help="another budget, to try the script")
    parser.add_argument("--ship", action="store_true", help="write finished systems into the package, and train none")
    parser.add_argument("--into", type=Path, default=TARGET, help="another folder than models/, for --ship")
    given = parser.parse_args(before)
    if given.ship and given.into == TARGET and given.steps != BUDGET.steps:
        sys.exit(f"the package holds weights of {BUDGET.steps} steps alone; leave --steps out, or name --into FOLDER")
    built = [name for name in SYSTEMS.names() if SYSTEMS.get(name).built]
    try:
        wanted = trainings(given.out, given.only.split(",") if given.only else [*built, *MIXTURES], given.steps)
    except BenchError as problem:
        sys.exit(str(problem))
    if given.ship:
        ship(given.out, wanted, given.into)
    else:
        train_all(given.out, wanted, more)


if __name__ == "__main__":
    main()
