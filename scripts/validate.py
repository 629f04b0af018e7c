"""Does the suite measure the truth? Experiments whose answers are known, printed as Markdown for docs/validation.md.

    python scripts/validate.py SECTION [--samples N] [--trials N] [--device cpu] [--control FILE]

Sections: noise (the A/A arm's false alarms), sanity (sets of images that must rank last), errors (wrong codes must
worsen every number), tax (measured against predicted parallel tax), known (the tax of lattices whose law is known),
cache (with and without), nested (what correction does at equal steps and equal time), control (weights trained on
random orders only).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orderbench.models.analytic import LAWS, measured_tax, policy_taxes, taxes
from orderbench.models.decode import Decoder, make_tile, parse_decoder, run_tile, uncached_steps
from orderbench.orders import make_plan
from orderbench.orders.streams import generator
from orderbench.reports.results import Results, results_of
from orderbench.reports.statistics import Interval, paired_ratio, rank_correlation
from orderbench.reports.words import bounds, plus_minus
from orderbench.runs.arms import parse_arm
from orderbench.runs.execute import execute
from orderbench.runs.record import load_run
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import Subject, Subjects, load_subjects
from orderbench.runs.timing import Contender, rounds, warm_up
from orderbench.runs.trials import Trial, make_agenda, sampling_of

PLANS = (
    "raster@even:13", "raster@even:32", "raster@even:64", "raster@cosine:13", "spiral@ear-shells", "spiral@ear-sides",
    "radial", "radial@cosine:13", "radial@cosine:32", "diagonal", "regions", "random@cosine:8", "random@cosine:13",
    "random@cosine:32", "halton@cosine:8", "halton@cosine:13", "halton@cosine:32", "designed@cosine:8",
    "designed@cosine:13", "dither@cosine:13", "locality@cosine:13", "hilbert@even:13",
)  # fmt: skip
METRICS = ("fd", "kd", "precision", "recall", "inception_score", "agreement")


class Quiet:
    """A watcher that says nothing."""

    def planned(self, trials: Sequence[Trial], done: Sequence[str]) -> None: ...
    def progress(self, trial: Trial, done: int, total: int) -> None: ...
    def ended(self, trial: Trial, record: dict[str, Any]) -> None:
        assert record["status"] == "done", record


def measured(spec: RunSpec) -> Results:
    """The results of a run in a folder that does not stay."""
    with tempfile.TemporaryDirectory() as folder:
        execute(make_agenda(spec, load_subjects(spec)), Path(folder) / "run", Quiet())
        return results_of(load_run(Path(folder) / "run"))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def contender(name: str, subject: Subject, arm: str, decoder: Decoder | None = None) -> Contender:
    """Four samples of an arm, laid out before the clock starts; decoded by its own decoder or by another."""
    bound = parse_arm(arm)
    tile = make_tile(subject.model, bound.plan(subject.model.lattice), range(4), sampling=sampling_of(RunSpec(), {}),
                     device=subject.device)  # fmt: skip

    def generate() -> torch.Tensor:
        run_tile(tile, decoder or bound.decoder)
        return tile.codes_BLK

    return Contender(name, generate)


def noise(given: argparse.Namespace) -> None:
    """The same arm twice: how often does the interval of its ratio exclude 1?"""
    subject = load_subjects(RunSpec(device=given.device, only=("latency",))).own
    contenders = [contender(name, subject, "radial") for name in ("A", "A again")]
    warm = warm_up(contenders, device=subject.device)
    ratios: list[Interval] = []
    for trial in range(given.trials):
        finished = list(rounds(contenders, rounds=9, seed=trial, device=subject.device, warm=warm))
        times = [[s.total_s for one in finished for s in one if s.name == c.name] for c in contenders]
        ratios.append(paired_ratio(*times))
    alarms = sum(r.low is not None and r.high is not None and not r.low <= 1 <= r.high for r in ratios)
    values = np.array([r.value for r in ratios])
    print(f"{alarms} false alarms in {len(ratios)} trials of 9 rounds; ratios from {values.min():.3f} to "
          f"{values.max():.3f}, half of them within {np.median(np.abs(values - 1)):.3f} of 1.\n")  # fmt: skip


def judged(subjects: Subjects, codes_NLK: torch.Tensor, labels_N: np.ndarray) -> dict[str, Any]:
    judge, subject = subjects.judges[0], subjects.own
    features, logits = judge.space.extract(subject.pixels(codes_NLK))
    return judge.judge(features, logits, labels_N, subject.model.n_classes)


def shown(result: dict[str, Any]) -> list[str]:
    return [f"{result[metric]['value']:.3f}" for metric in METRICS]


def held_out(given: argparse.Namespace) -> tuple[Subjects, torch.Tensor, np.ndarray]:
    subjects = load_subjects(RunSpec(device=given.device, only=("quality",)))
    assert subjects.own.held_out is not None
    codes_NLK, labels_N = (part[: given.samples] for part in subjects.own.held_out)
    return subjects, codes_NLK, labels_N.numpy()


def sanity(given: argparse.Namespace) -> None:
    """Sets of images that no honest metric may like."""
    subjects, codes_NLK, labels_N = held_out(given)
    n, cells, _ = codes_NLK.shape
    shuffled = torch.stack([row[torch.from_numpy(generator(1, "noise", i).permutation(cells))]
                            for i, row in enumerate(codes_NLK)])  # fmt: skip
    uniform = torch.from_numpy(generator(2, "noise").integers(0, subjects.own.model.code_sizes[0], (n, cells, 1)))
    sets = {
        "reconstructed images": codes_NLK,
        "one image, copied": codes_NLK[:1].expand(n, -1, -1),
        "codes shuffled within each image": shuffled,
        "uniform codes": uniform,
    }
    table(["set", *METRICS], [[name, *shown(judged(subjects, codes, labels_N))] for name, codes in sets.items()])


def errors(given: argparse.Namespace) -> None:
    """Codes of real images replaced by others: every number must worsen with their share."""
    subjects, codes_NLK, labels_N = held_out(given)
    n, cells, _ = codes_NLK.shape
    draw, size = generator(3, "noise"), subjects.own.model.code_sizes[0]
    order = torch.from_numpy(draw.random((n, cells, 1)))
    other = (codes_NLK + torch.from_numpy(draw.integers(1, size, (n, cells, 1)))) % size
    rows = []
    for rate in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5):
        wrong = torch.where(order < rate, other, codes_NLK)
        rows.append([f"{100 * rate:g} %", *shown(judged(subjects, wrong, labels_N))])
    table(["wrong codes", *METRICS], rows)


def tax(given: argparse.Namespace) -> None:
    """Bits per token that a plan loses by deciding cells in parallel, measured and on a Gaussian field."""
    results = measured(
        RunSpec(orders=PLANS, correction=("off",), only=("likelihood",), held_out=given.samples, device=given.device)
    )
    rows, pairs = [], []
    for row in sorted(results.arms, key=lambda row: -row.figures["tax"].value):
        predicted = row.about["predicted_tax_bits"]
        pairs.append((row.figures["tax"].value, predicted))
        rows.append([f"`{row.arm}`", row.about["n_steps"], f"{100 * row.about['training_share']:.0f} %",
                     plus_minus(row.figures["bits"]), plus_minus(row.figures["tax"]), f"{predicted:.4f}"])  # fmt: skip
    table(["plan", "steps", "in training", "bits per token", "measured tax", "predicted tax"], rows)
    x, y = np.array(pairs).T
    print(f"{len(pairs)} plans, {given.samples} held-out images: correlation {np.corrcoef(x, y)[0, 1]:.3f}, of ranks "
          f"{rank_correlation(x, y):.3f}.\n")  # fmt: skip


def known(given: argparse.Namespace) -> None:
    """Lattices whose law is known: is the tax that likelihood measures the one that entropies say?"""
    rng, rows = np.random.default_rng(0), []
    for make in LAWS:
        law = make()
        for text in ("raster@even:3", "radial", "halton@even:3", "halton@one"):
            plan = make_plan(text, law.grid)
            drawn_N = taxes(law, plan).numpy()[rng.choice(len(law.prob_X), given.samples, p=law.prob_X.numpy())]
            error = 1.96 * drawn_N.std(ddof=1) / given.samples**0.5
            shown = f"{drawn_N.mean():.4f} ±{error:.4f}" if error > 1e-6 else "the same in each"
            numbers = (law.tax(plan), measured_tax(law, plan))
            rows.append([f"{law.name}, {law.grid}", f"`{text}`", *(f"{tax:.6f}" for tax in np.abs(numbers)), shown])
    table(("lattice", "plan", "known", "measured, every image", f"measured, {given.samples} drawn"), rows)


def policies(given: argparse.Namespace) -> None:
    """Decoders that choose their cells, on the same lattices: is the tax by teacher forcing that of the definition?"""
    rows = []
    for make in LAWS:
        law = make()
        for tau in (0.9, 0.6, 0.4):
            known_bits = law.policy_tax(lambda marginals, tau=tau: surest(marginals, tau))  # type: ignore[misc]
            forced = float(law.prob_X @ policy_taxes(law, parse_decoder(f"confidence:rule=threshold:tau={tau}")))
            rows.append([f"{law.name}, {law.grid}", f"{tau:g}", f"{abs(known_bits):.6f}", f"{abs(forced):.6f}"])
    table(("lattice", "tau", "known", "measured, every image"), rows)


def surest(marginals: Mapping[int, list[float]], tau: float) -> list[int]:
    """What the threshold rule takes, from marginals that were summed over images."""
    sure = {cell: max(law) for cell, law in marginals.items()}
    return [cell for cell in sure if sure[cell] >= tau - 1e-6] or [max(sure, key=lambda cell: round(sure[cell], 6))]


def cache(given: argparse.Namespace) -> None:
    """With a cache and without: the same codes, other times; all in turns, as speed is measured in a run."""
    subject = load_subjects(RunSpec(device=given.device, only=("latency",))).own
    plans = ("raster", "raster@even:64", "radial", "halton@cosine:13")
    decoders = {"with": None, "without": uncached_steps}
    contenders = {f"{name} {d}": contender(f"{name} {d}", subject, name, decoder)
                  for name in plans for d, decoder in decoders.items()}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for finished in rounds(list(contenders.values()), rounds=5, device=subject.device):
        for sample in finished:
            times[sample.name].append(sample.total_s)
    rows = []
    for name in plans:
        one, two = (times[f"{name} {d}"] for d in decoders)
        differ = int((contenders[f"{name} with"].generate() != contenders[f"{name} without"].generate()).sum())
        over = (paired_ratio(times[f"raster {d}"], times[f"{name} {d}"]) for d in decoders)
        rows.append([f"`{name}`", f"{differ} of {4 * subject.model.lattice.n_cells}",
                     *(f"{1000 * float(np.median(t)):.0f} ms" for t in (one, two)), bounds(paired_ratio(two, one)),
                     *map(bounds, over)])  # fmt: skip
    table(["plan", "codes that differ", "with a cache", "without", "faster by the cache", "over raster, both with",
           "both without"], rows)  # fmt: skip


def nested(given: argparse.Namespace) -> None:
    """What correction does: at equal steps, at equal time, to errors that were put in."""
    rules = ("every=3:window=3", "every=12", "every=12:margin=0.3", "window=2", "rule=sample", "rule=never")
    arms = ("raster", "radial", "radial@cosine:32", "radial+nested", *(f"radial+nested:{rule}" for rule in rules))
    spec = RunSpec(orders=arms, only=("quality", "latency"), samples=given.samples, rounds=5, device=given.device)
    results = measured(spec)
    repairs = {t["arm"]: t["rates"] for t in results.run.done("repair")}
    rows = []
    for row in results.arms:
        rates = repairs.get(row.arm)
        at10 = (
            "-" if rates is None else f"{100 * rates[1]['repair_rate']:.0f} % / {100 * rates[1]['damage_rate']:.1f} %"
        )
        rows.append([f"`{row.arm}`", row.about["n_steps"], plus_minus(row.figures["fd"]),
                     plus_minus(row.figures["agreement"]), plus_minus(row.against.get("fd")),
                     f"{1000 * row.figures['latency_s'].value:.0f} ms",
                     f"{row.figures['images_per_s'].value:.1f}", at10])  # fmt: skip
    table(["arm", "steps", "FD", "class agreement", "FD minus raster's", "latency", "images/s, batch 16",
           "repaired / damaged at 10 %"], rows)  # fmt: skip


def control(given: argparse.Namespace) -> None:
    """The same budget spent on uniform random orders only: do plans rank the same?"""
    plans = [plan for plan in PLANS if not plan.startswith(("locality", "hilbert", "dither"))]
    sides = []
    for model in ("fashion-model", given.control):  # both with a tokenizer named, so that both see the same images
        both = ("likelihood", "quality")
        sides.append(measured(RunSpec(orders=("raster", *plans), correction=("off",), only=both,
                                      samples=given.samples, model=(model,),
                                      tokenizer=("fashion-tokenizer",), held_out=given.samples,
                                      device=given.device)))  # fmt: skip
    rows = []
    for one, two in zip(sides[0].arms, sides[1].arms, strict=True):
        rows.append([f"`{one.arm}`", f"{100 * one.about['training_share']:.0f} %",
                     *(plus_minus(side.figures[m]) for m in ("bits", "fd") for side in (one, two))])  # fmt: skip
    table(["plan", "in the shipped mixture", "bits, shipped", "bits, control", "FD, shipped", "FD, control"], rows)
    for metric in ("bits", "fd"):
        values = [np.array([row.figures[metric].value for row in side.arms]) for side in sides]
        print(f"Rank correlation of {metric} over {len(values[0])} plans: {rank_correlation(*values):.3f}.\n")


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "noise": noise, "sanity": sanity, "errors": errors, "tax": tax, "known": known, "policies": policies,
    "cache": cache, "nested": nested, "control": control,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--control", help="weights trained with --mixture random")
    SECTIONS[parser.parse_args().section](parser.parse_args())


if __name__ == "__main__":
    main()
