"""Fitting paces: the step sizes that suit a model, from its information profile, and what they are worth elsewhere.

Knows which held-out images sizes are fitted to and on which others they are judged, beside the laws that need no
measurement. Refuses to draw a sample, and to say anything of the images that it fitted to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orderbench.models.likelihood import plan_bits
from orderbench.models.profile import begins, profile, span_bits
from orderbench.models.shipped import shipped_profile
from orderbench.orders import BenchError, Plan
from orderbench.orders.field import least_tax
from orderbench.orders.files import write_whole
from orderbench.orders.order import BoundOrder, parse_order
from orderbench.orders.pace import Pace
from orderbench.orders.plan import cut
from orderbench.orders.profile import SCHEMA, Profile, read_profile
from orderbench.runs.subject import Subject

LAWS = ("cosine", "even", "optimal")
_CHUNK = 16  # images a pass: 256 askings of up to 256 cells each
_Z = 1.96


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is fitted. steps: for each of these numbers. images: how many held-out images sizes are fitted to. score: on
    how many others they are judged. every: a step may begin at each of the first 4 * every places, then at each
    `every`-th."""

    orders: tuple[str, ...]
    steps: tuple[int, ...]
    images: int = 128
    score: int = 128
    every: int = 1


def fit_pace(
    subject: Subject, fit: Fit, each: Callable[[Sequence[str]], Iterable[str]] = iter
) -> tuple[dict[str, Any], list[str]]:
    """The document of a profile, and a sentence for every order that has none.

    Sizes are fitted to the first `images` held-out images and judged on the next `score`, as bench run measures a tax:
    bits as the plan decodes less bits one cell at a time. For one number of steps, the middle one, sizes are also
    fitted to fewer images, to show how far they are fitted to chance.

    BenchError for a model without held-out images or with too few, and for steps that no order takes.
    """
    model = subject.model
    if subject.held_out is None:
        raise BenchError(
            f"there are no held-out images to fit to: {subject.no_held_out or subject.no_codec}; name some, as in "
            f"--data FOLDER"
        )
    have, places = len(subject.held_out[0]), begins(model.lattice.n_cells, fit.every)
    if fit.images + fit.score > have:
        raise BenchError(
            f"{fit.images} images to fit to and {fit.score} others to judge on are more than the {have} that are held "
            f"out; --images {max(1, have // 2)} --score {max(1, have // 2)} would do"
        )
    for steps in fit.steps:
        if steps > len(places):
            raise BenchError(
                f"--steps {steps} cannot be fitted with {len(places)} places where a step may begin; at most "
                f"{len(places)} would do, or --every 1"
            )
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "lattice": str(model.lattice),
        "model": {key: subject.about[key] for key in ("source", "sha256") if key in subject.about},
        **subject.describe_held_out(),
        "fitted_to": fit.images,
        "judged_on": fit.score,
        "places": list(places),
        "sizes": {},
        "information": {},
        "taxes": [],
    }
    without = []
    for text in each(fit.orders):
        order = parse_order(text)
        try:
            walk = cut(order, Pace("one"), model.lattice)
            if order.order.sized:
                raise BenchError("it is built for its step sizes, so there is no walk that sizes could be fitted to")
        except BenchError as refused:
            without.append(f"{order} has no profile: {refused}")
            continue
        _fit_order(subject, fit, order, walk, places, document)
    if not document["sizes"]:
        raise BenchError("; ".join(without) + "; name others, as in --orders raster,halton")
    return document, without


def _fit_order(
    subject: Subject, fit: Fit, order: BoundOrder, walk: Plan, places: Sequence[int], document: dict[str, Any]
) -> None:
    name, edges = str(order), np.array([*places, walk.lattice.n_cells])
    spans_NEE, known_E = _measured(subject, walk, places, fit.images)
    document["information"][name] = [round(bits, 4) for bits in known_E.tolist()]

    def fitted(steps: int, images: int) -> tuple[tuple[int, ...], float]:
        mean_EE = spans_NEE[:images].mean(0)
        chosen = np.cumsum([0, *least_tax(mean_EE, steps)])
        seen = float(mean_EE[chosen[:-1], chosen[1:]].sum()) / walk.lattice.n_cells
        return tuple(np.diff(edges[chosen]).tolist()), seen

    samples = range(fit.images, fit.images + fit.score)
    singly_N = _bits(subject, walk, samples)
    judged: dict[tuple[int, ...], np.ndarray] = {}

    def taxes(sizes: tuple[int, ...]) -> np.ndarray:
        if sizes not in judged:
            judged[sizes] = _bits(subject, replace(walk, sizes=sizes), samples) - singly_N
        return judged[sizes]

    fewer = [n for n in (4, 16, 64, 256, 1024) if n < fit.images]
    for steps in fit.steps:
        rows: list[tuple[str, int | None, tuple[int, ...], float | None]] = [
            (law, None, cut(order, Pace(law, steps), walk.lattice).sizes, None) for law in LAWS
        ]
        counts = [*(fewer if steps == fit.steps[len(fit.steps) // 2] else []), fit.images]
        for images in counts:
            sizes, seen = fitted(steps, images)
            rows.append(("profile", images, sizes, seen))
        document["sizes"].setdefault(name, {})[str(steps)] = list(rows[-1][2])
        against = taxes(rows[-1][2])
        for pace, count, sizes, seen_bits in rows:
            tax_N = taxes(sizes)
            row: dict[str, Any] = {"order": name, "steps": steps, "pace": pace, "images": count, "seen_bits": seen_bits}
            row["tax_bits"], row["half_bits"] = _interval(tax_N)
            row["above_profile_bits"], row["above_half_bits"] = _interval(tax_N - against)
            document["taxes"].append(row)


def _measured(subject: Subject, walk: Plan, places: Sequence[int], images: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, E, E + 1) bits of every span, image by image, and (E,) the mean bits of the cells that are not known yet."""
    spans, known = [], []
    for codes_BLK, labels_B, samples in _chunks(subject, range(images)):
        bits_BEL = profile(subject.model, codes_BLK, labels_B, walk, places, samples)
        if not bits_BEL.nan_to_num(0.0).isfinite().all():
            raise BenchError("the model's logits are not finite; its weights hold NaN or infinity")
        spans.append(span_bits(bits_BEL, places).numpy())
        known.append(bits_BEL[:, :-1].nanmean(-1).numpy())
    return np.concatenate(spans), np.concatenate(known).mean(0)


def _bits(subject: Subject, plan: Plan, samples: range) -> np.ndarray:
    """(N,) bits per token of some held-out images, as a plan decodes them."""
    return np.concatenate([
        plan_bits(subject.model, codes_BLK, labels_B, plan, samples=chunk).double().mean(1).cpu().numpy()
        for codes_BLK, labels_B, chunk in _chunks(subject, samples)
    ])  # fmt: skip


def _chunks(subject: Subject, samples: range) -> Iterable[tuple[torch.Tensor, torch.Tensor, range]]:
    assert subject.held_out is not None  # noqa: S101 (asked by those who checked)
    codes_NLK, labels_N = subject.held_out
    for start in range(samples.start, samples.stop, _CHUNK):
        chunk = range(start, min(samples.stop, start + _CHUNK))
        here = slice(chunk.start, chunk.stop)
        yield codes_NLK[here].to(subject.device), labels_N[here].to(subject.device), chunk


def _interval(values_N: np.ndarray) -> tuple[float, float | None]:
    """The mean, and half of its 95 % interval; None for one image."""
    half = _Z * float(values_N.std(ddof=1)) / math.sqrt(len(values_N)) if len(values_N) > 1 else None
    return round(float(values_N.mean()), 6), None if half is None else round(half, 6)


def profile_of(file: str | None, subject: Subject) -> Profile | None:
    """The profile in a file; without one, that which the package has for these very weights; None if it has none."""
    if file is not None:
        return read_profile(Path(file))
    return shipped_profile(subject.about.get("sha256"))


def write_profile(file: Path, document: dict[str, Any]) -> None:
    """Write the document; BenchError where that cannot be done."""
    text = json.dumps(document)
    write_whole(
        file,
        lambda path: path.write_text(text + "\n"),
        error=lambda why: BenchError(f"the profile could not be written to '{file}': {why}; name another file"),
    )
