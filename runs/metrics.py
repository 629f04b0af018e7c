"""Metrics: how a set of images compares with a reference, by their features.

Knows Frechet and kernel distance, precision, recall, inception score and agreement, each with what it is when a group
of samples is left out. Refuses to know networks, arms, decoding and files of results. Nothing here is called FID, which
is the Frechet distance in Inception's space alone, of 50,000 samples.

A Frechet distance of N samples is too large by about b / N, where b belongs to the model (Chong & Forsyth,
arXiv 1911.07023): compare at equal N only. The kernel distance of independent samples has no such bias. Samples that
are spread evenly over classes, as ours are, are not quite independent: theirs comes out too small by a term in 1 / N,
and may be well below zero; again, equal N.

A bootstrap is wrong for both, since drawn duplicates shrink a covariance; groups of samples are left out instead
(delete-a-group jackknife), the reference staying as it is. With its G values t_g, the standard error is
sqrt((G - 1) / G * sum((t_g - mean(t))^2)); for two arms that share noise and labels, t_g is the difference of theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from orderbench.orders import BenchError
from orderbench.runs.fidelity import frechet_distance, gaussian_of, inception_score, precision_and_recall

GROUPS = 20  # of the jackknife, at most
NEIGHBOURS = 3  # k of precision and recall: Kynkaanniemi et al., arXiv 1904.06991, and the ADM evaluator
_CURVE = range(2, 11)  # sizes of the sub-samples, in tenths
_LINEAR = 5  # from 5 D samples on, the bias of a Frechet distance goes as 1 / N; below it grows faster


def measure(
    features_ND: np.ndarray,
    logits_NC: np.ndarray | None,
    labels_N: np.ndarray | None,
    reference_MD: np.ndarray | None,
    *,
    classes: int,
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """How N generated images compare with M reference images, ready for JSON.

    features_ND, logits_NC: of the generated, as `Space.extract` returns them. labels_N: the class asked for. That of
    sample i is i mod `classes`, so consecutive blocks are balanced. reference_MD: features of the reference, in an
    order of which every beginning is a fair sample; None where only its `statistics` are known, mean (D,) and
    covariance (D, D). Given both, the Frechet distance is to the statistics and all else to the features, as in ADM's
    evaluator; given the statistics alone, n_reference, kd, precision and recall are missing.

    n, n_reference, groups: N, M and G, at most 20, the groups of the jackknife: of size classes * ceil(N // classes /
    20), consecutive, and N // size of them. left_out[g] is the metric without samples g * size to (g + 1) * size - 1,
    None below 4 groups; a rest that fills no group is in all of them.

    fd: Frechet distance, squared; 0 to infinity, less is better.
    kd: squared MMD, unbiased for independent samples (balanced classes make it slightly too small), kernel
    (x.y / D + 1)^3 (Binkowski et al., arXiv 1801.01401), of all N and all M; about 0 (below it, too) where both are
    alike; scale and meaning belong to the space.
    precision, recall: shares of samples within the k-nearest-neighbour balls of the first n_reference reference
    samples, and the other way round (k = 3); they depend on k and both sizes. inception_score: of this space's own
    classes, 1 to C. agreement: share of samples whose likeliest class is their label, `right` saying of which, a bit a
    sample in hexadecimal digits, the first sample highest; both None without such logits.

    fd_curve: [m, mean fd over N // m disjoint balanced sub-samples of m] for m of 2, 3, ... 10 tenths of N, above D.
    fd_extrapolated: a of the least-squares fit fd = a + b / m, over sizes of 5 D and more (below, the bias is not
    linear in 1 / m, and a comes out too small); None with fewer than 5 of them, thus below N of about 8.3 D. The
    reference's own M still counts in it.

    Values are None where N is too small for them. BenchError for shapes that do not fit, and for numbers that are not
    finite.
    """
    if classes < 1:
        raise BenchError(f"{classes} classes cannot be; give 1 for images without classes")
    x = _matrix(features_ND, "features")
    N, D = x.shape
    reference = None if reference_MD is None else _matrix(reference_MD, "features of the reference")
    if reference is not None and (reference.shape[1] != D or len(reference) < 2):
        raise BenchError(
            f"features of {D} dimensions cannot be held against a reference of shape {reference.shape}; 2 rows or more "
            f"of {D} would do, from the same space"
        )
    to = gaussian_of(reference) if statistics is None and reference is not None else _given(statistics, D)
    logits = None if logits_NC is None else _matrix(logits_NC, "logits")
    labels = None if labels_N is None else np.asarray(labels_N)
    for name, given in (("logits", logits), ("labels", labels)):
        if given is not None and (len(given) != N or given.ndim != (2 if name == "logits" else 1)):
            raise BenchError(f"{name} of shape {given.shape} do not go with {N} samples; one row each would do")
    group_N, groups = _groups(N, classes)

    def scored(metric: Callable[[np.ndarray], float]) -> dict[str, Any]:
        if N < 2:
            return {"value": None, "left_out": None}
        left_out = [metric(group_N != g) for g in range(groups)] if groups >= 4 else None
        return {"value": metric(np.ones(N, bool)), "left_out": left_out}

    fd = {
        "value": _frechet(x, to) if N >= 2 else None,
        "left_out": _frechet_left_out(x, to, group_N, groups) if groups >= 4 else None,
    }
    curve = _curve(x, to, classes)
    right_N = None  # other spaces' classes are not the model's
    if logits is not None and labels is not None and logits.shape[1] == classes:
        right_N = logits.argmax(1) == labels
    against: dict[str, Any] = {}
    if reference is not None:
        against = {"kd": _kernel_scores(x, reference, group_N, groups), **_precision_and_recall(x, reference)}
    return {
        "n": N,
        **({} if reference is None else {"n_reference": len(reference)}),
        "groups": groups,
        "fd": fd,
        **against,
        "inception_score": None if logits is None else scored(lambda kept: inception_score(logits[kept])),
        "agreement": None
        if right_N is None
        else {**scored(lambda kept: float(right_N[kept].mean())), "right": np.packbits(right_N).tobytes().hex()},
        "fd_curve": curve,
        "fd_extrapolated": _extrapolated([point for point in curve if point[0] >= _LINEAR * D]),
    }


def _matrix(given: np.ndarray, what: str) -> np.ndarray:
    """A copy in float64: means summed over 10,000 rows in float32 lose the digits that a small distance is made of."""
    matrix = np.array(given, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] < 1:
        raise BenchError(f"{what} of shape {matrix.shape} are no table; one row a sample would do")
    if not np.isfinite(matrix).all():
        raise BenchError(
            f"{what} of {int((~np.isfinite(matrix).all(1)).sum())} of {len(matrix)} samples are not finite; look at "
            f"the images and the weights, as with bench doctor"
        )
    return matrix


def _given(statistics: tuple[np.ndarray, np.ndarray] | None, D: int) -> dict[str, np.ndarray]:
    if statistics is None:
        raise BenchError("there is nothing to compare with; give features of a reference, or its statistics")
    mu_D, sigma_DD = statistics
    if mu_D.shape != (D,) or sigma_DD.shape != (D, D):
        raise BenchError(
            f"features of {D} dimensions cannot be held against statistics of {len(mu_D)}; statistics belong to one "
            f"space, name a reference that was made in this one"
        )
    return {"mu": mu_D.astype(np.float64), "sigma": sigma_DD.astype(np.float64)}


def _frechet(x_ND: np.ndarray, reference: dict[str, np.ndarray]) -> float:
    return frechet_distance(gaussian_of(x_ND), reference)


def _frechet_left_out(
    x_ND: np.ndarray, reference: dict[str, np.ndarray], group_N: np.ndarray, groups: int
) -> list[float]:
    """The Frechet distance without each group in turn.

    The trace of the root of S1 S2 is that of the symmetric R S1 R, R being the root of S2. R is taken once, and a group
    leaves R S1 R as a product of its own few rows; so every group costs one set of eigenvalues (2048 dimensions: 1 s).
    """
    values, vectors = np.linalg.eigh(reference["sigma"])
    root_DD = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    centred_ND = x_ND - x_ND.mean(0)
    moved_ND = centred_ND @ root_DD
    gram_DD = moved_ND.T @ moved_ND
    squares = float((centred_ND**2).sum())
    left_out = []
    for g in range(groups):
        own = group_N == g
        n = int((~own).sum())
        shift_D = -centred_ND[own].sum(0) / n  # the mean of the rest, seen from the mean of all
        moved_shift_D = shift_D @ root_DD
        rest_DD = gram_DD - moved_ND[own].T @ moved_ND[own] - n * np.outer(moved_shift_D, moved_shift_D)
        trace = squares - float((centred_ND[own] ** 2).sum()) - n * float(shift_D @ shift_D)
        roots = np.sqrt(np.linalg.eigvalsh(rest_DD / (n - 1)).clip(0)).sum()
        apart_D = x_ND.mean(0) + shift_D - reference["mu"]
        left_out.append(float(apart_D @ apart_D + trace / (n - 1) + np.trace(reference["sigma"]) - 2 * roots))
    return left_out


def _curve(x_ND: np.ndarray, reference: dict[str, np.ndarray], classes: int) -> list[list[float]]:
    N, D = x_ND.shape
    sizes = {N if tenths == 10 else tenths * (N // classes) // 10 * classes for tenths in _CURVE}
    return [
        [m, float(np.mean([_frechet(x_ND[s * m : (s + 1) * m], reference) for s in range(N // m)]))]
        for m in sorted(sizes)
        if m > max(1, D)
    ]


def _extrapolated(curve: list[list[float]]) -> float | None:
    if len(curve) < 5:
        return None
    size, fd = np.array(curve).T
    design = np.stack([np.ones_like(size), 1 / size], axis=1)
    return float(np.linalg.lstsq(design, fd)[0][0])


def _groups(n: int, classes: int) -> tuple[np.ndarray, int]:
    """(n,) the group of each sample, and how many groups there are; the rest has the number after the last.

    All of one size, whole blocks of one sample a class: a Frechet distance's bias depends on the number of samples, and
    a jackknife over sizes that differ takes the differences in bias for noise, several times the noise there is. That
    the rest is never left out costs an interval some percent of its width instead (4 of n = 64 and 10 classes).
    """
    size = classes * max(1, -(-(n // classes) // GROUPS))
    return np.arange(n) // size, n // size


def _kernel_scores(x_ND: np.ndarray, reference_MD: np.ndarray, group_N: np.ndarray, groups: int) -> dict[str, Any]:
    if len(x_ND) < 2:
        return {"value": None, "left_out": None, "n_reference": len(reference_MD)}
    repeated = groups >= 4
    value, left_out = _kernel_distances(x_ND, reference_MD, group_N, groups if repeated else 0)
    return {"value": value, "left_out": left_out if repeated else None, "n_reference": len(reference_MD)}


def _kernel_distances(
    x_ND: np.ndarray, y_MD: np.ndarray, group_N: np.ndarray, groups: int
) -> tuple[float, list[float]]:
    """The unbiased squared MMD, torch-fidelity's where N = M, and without each group of x in turn, from row sums of the
    kernel.

    All M rows count, whatever N is: no jackknife over x sees the noise of y, and of as few as N it would be as large.
    A left-out group takes away its rows and columns, whose crossing, taken twice, is given back.
    """
    xx, xy = _row_sums(x_ND, x_ND), _row_sums(x_ND, y_MD)
    xx -= _kernel(np.einsum("nd,nd->n", x_ND, x_ND), x_ND.shape[1])
    m, reference = len(y_MD), _mean_kernel(y_MD)

    def distance(n: int, within: float, across: float) -> float:
        return float(within / (n * (n - 1)) + reference - 2 * across / (n * m))

    left_out = []
    for g in range(groups):
        own = group_N == g
        x_own = x_ND[own]
        crossing = _row_sums(x_own, x_own) - _kernel(np.einsum("nd,nd->n", x_own, x_own), x_ND.shape[1])
        within = xx.sum() - 2 * xx[own].sum() + crossing.sum()
        left_out.append(distance(int((~own).sum()), within, xy[~own].sum()))
    return distance(len(x_ND), xx.sum(), xy.sum()), left_out


_MEAN_KERNELS: dict[str, float] = {}  # by content: every trial of a run is held against the same reference


def _mean_kernel(y_MD: np.ndarray) -> float:
    """The mean kernel of two different rows."""
    key = hashlib.sha256(y_MD.tobytes()).hexdigest()
    if key not in _MEAN_KERNELS:
        m = len(y_MD)
        total = _row_sums(y_MD, y_MD).sum() - _kernel(np.einsum("md,md->m", y_MD, y_MD), y_MD.shape[1]).sum()
        _MEAN_KERNELS[key] = float(total / (m * (m - 1)))
    return _MEAN_KERNELS[key]


def _kernel(products: np.ndarray, D: int) -> np.ndarray:
    base = products / D + 1
    return base * base * base  # ** 3 is many times slower


def _row_sums(x_ND: np.ndarray, y_MD: np.ndarray, rows: int = 1000) -> np.ndarray:
    """(N,): the kernel of each x with all y, summed; never the whole matrix."""
    blocks = [_kernel(x_ND[i : i + rows] @ y_MD.T, x_ND.shape[1]).sum(1) for i in range(0, len(x_ND), rows)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _precision_and_recall(x_ND: np.ndarray, reference_MD: np.ndarray) -> dict[str, Any]:
    # As many of the reference as there are samples: balls of unequal density would tell sizes, not sets, apart.
    n_reference = min(len(reference_MD), max(len(x_ND), 100))
    values: dict[str, float | None] = {"precision": None, "recall": None}
    if min(len(x_ND), n_reference) > NEIGHBOURS:
        precision, recall = precision_and_recall(x_ND, reference_MD[:n_reference], NEIGHBOURS)
        values = {"precision": precision, "recall": recall}
    return {name: {"value": value, "k": NEIGHBOURS, "n_reference": n_reference} for name, value in values.items()}
