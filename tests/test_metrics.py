"""Metrics equal their formulas and torch-fidelity's, and left-outs tell the spread."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from orderbench.orders import BenchError
from orderbench.reports.statistics import jackknife, jackknife_difference
from orderbench.runs.fidelity import import_torch_fidelity
from orderbench.runs.metrics import measure


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from more, and wait for them where others compute as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def fidelity() -> Any:
    return import_torch_fidelity()


def gaussian(n: int, d: int = 8, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(n, d)).astype(np.float32)


def scores(x: np.ndarray, reference: np.ndarray, classes: int = 10, logits: np.ndarray | None = None) -> dict[str, Any]:
    found = measure(x, logits, np.arange(len(x)) % classes, reference, classes=classes)
    json.dumps(found, allow_nan=False)
    return found


def formula(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance of two Gaussians, by symmetric roots."""
    (mu_x, sigma_x), (mu_y, sigma_y) = (
        (z.mean(0), np.cov(z, rowvar=False)) for z in (x.astype(float), y.astype(float))
    )
    values, vectors = np.linalg.eigh(sigma_x)
    root = vectors * np.sqrt(values) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ sigma_y @ root)).sum()
    return float(((mu_x - mu_y) ** 2).sum() + np.trace(sigma_x) + np.trace(sigma_y) - 2 * cross)


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate from whole kernel matrices, for sets of any sizes."""
    x, y = x.astype(float), y.astype(float)
    xx, yy, xy = ((a @ b.T / a.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = xy.shape
    inner = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(sum(inner) - 2 * xy.sum() / (n * m))


def without(n: int, classes: int, groups: int, g: int) -> np.ndarray:
    size = n // classes // groups * classes
    return np.arange(n) // size != g


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = gaussian(300)
    found = scores(x, x)
    assert abs(found["fd"]["value"]) < 1e-9
    assert found["precision"] == {"value": 1.0, "k": 3, "n_reference": 300}
    assert found["recall"]["value"] == 1.0


def test_frechet_distance_is_the_closed_formula() -> None:
    x, y = gaussian(200, seed=1, scale=1.3), gaussian(500, seed=2) + 0.2
    assert scores(x, y)["fd"]["value"] == pytest.approx(formula(x, y), rel=1e-9)
    mu, sigma = y.mean(0, dtype=float), np.cov(y, rowvar=False)
    alone = measure(x, None, None, None, classes=10, statistics=(mu, sigma))
    assert alone["fd"]["value"] == pytest.approx(formula(x, y), rel=1e-6)
    assert not alone.keys() & {"n_reference", "kd", "precision", "recall"}
    assert measure(x[:1], None, None, None, classes=1, statistics=(mu, sigma))["fd"]["value"] is None
    both = measure(x, None, None, gaussian(90, seed=3), classes=10, statistics=(mu, sigma))
    assert both["fd"] == alone["fd"]
    assert both["kd"] == scores(x, gaussian(90, seed=3))["kd"]


def test_kernel_distance_is_the_unbiased_statistic_of_torch_fidelity(fidelity: Any) -> None:
    x, y = gaussian(120, seed=1, scale=1.2), gaussian(150, seed=2)
    theirs = fidelity.metric_kid.kid_features_to_metric(
        torch.from_numpy(x.astype(float)), torch.from_numpy(y[:120].astype(float)), kid_subsets=1, kid_subset_size=120
    )["kernel_inception_distance_mean"]
    assert scores(x, y[:120])["kd"]["value"] == pytest.approx(theirs, abs=1e-10)
    assert squared_mmd(x, y[:120]) == pytest.approx(theirs, abs=1e-10)
    whole = scores(x, y)["kd"]  # of another number of reference images torch-fidelity has none
    assert whole["value"] == pytest.approx(squared_mmd(x, y), abs=1e-10)
    assert whole["n_reference"] == 150


def test_the_kernel_distances_interval_holds_whatever_reference_is_drawn() -> None:
    """Of as many reference images as samples it held 0.8: their noise is no smaller, and left out by no jackknife."""
    held = []
    for trial in range(120):
        reference, one, two = (gaussian(n, 8, seed=1000 * k + trial) for k, n in ((1, 1000), (2, 60), (3, 60)))
        sides = [scores(x, reference, classes=1)["kd"] for x in (one + 0.1, two - 0.1)]  # at one distance
        found = jackknife_difference(*[[(side["value"], side["left_out"])] for side in sides])
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) > 0.88


def test_left_out_values_are_the_metrics_of_what_is_left() -> None:
    n, classes = 70, 10
    x, y, logits = gaussian(n, seed=1), gaussian(90, seed=2), gaussian(n, classes, seed=3)
    found = scores(x, y, classes, logits)
    assert found["groups"] == 7
    for g in range(7):
        kept = without(n, classes, 7, g)
        again = measure(x[kept], logits[kept], np.arange(n)[kept] % classes, y, classes=classes)
        for name in ("fd", "inception_score", "agreement"):
            assert found[name]["left_out"][g] == pytest.approx(again[name]["value"], abs=1e-10), name
        assert found["kd"]["left_out"][g] == pytest.approx(squared_mmd(x[kept], y), abs=1e-10)


def test_kernel_distance_of_more_samples_than_the_reference_has() -> None:
    x, y = gaussian(100, seed=1), gaussian(60, seed=2)
    found = scores(x, y, classes=1)["kd"]
    assert found["value"] == pytest.approx(squared_mmd(x, y), abs=1e-10)
    assert len(found["left_out"]) == 20
    assert found["left_out"][3] == pytest.approx(squared_mmd(x[without(100, 1, 20, 3)], y), abs=1e-10)
    assert scores(x[:15], y, classes=5)["kd"]["left_out"] is None  # 15 samples do not fill 4 groups


def test_the_jackknife_tells_the_spread_over_draws() -> None:
    reference = gaussian(4000, seed=100)
    values: dict[str, list[float]] = {"fd": [], "kd": []}
    errors: dict[str, list[float]] = {"fd": [], "kd": []}
    for seed in range(30):
        found = scores(gaussian(200, seed=seed, scale=1.2), reference)
        for name in values:
            left_out = np.array(found[name]["left_out"])
            values[name].append(found[name]["value"])
            errors[name].append(float(np.sqrt((1 - 1 / len(left_out)) * ((left_out - left_out.mean()) ** 2).sum())))
    for name in values:
        assert 0.5 < np.mean(errors[name]) / np.std(values[name], ddof=1) < 2, name


@pytest.mark.parametrize(("n", "groups"), [(64, 6), (256, 12)])
def test_groups_have_one_size_so_that_bias_is_not_taken_for_noise(n: int, groups: int) -> None:
    """Where the distance is mostly bias: in many dimensions, at the sizes of --quick and of a first look."""
    reference = gaussian(1000, 64, seed=100)
    found = [
        measure(gaussian(n, 64, seed, scale=1.1), None, None, reference, classes=10)["fd"]
        for seed in range(24)
    ]  # fmt: skip
    errors = [jackknife([(one["value"], one["left_out"])]).error for one in found]
    assert {len(one["left_out"]) for one in found} == {groups}
    rms = np.sqrt(np.mean(np.square(np.array(errors, float))))
    assert 0.7 < rms / np.std([one["value"] for one in found], ddof=1) < 2


def test_extrapolation_takes_the_bias_away() -> None:
    reference = gaussian(20000, seed=100)
    found = [scores(gaussian(300, seed=seed, scale=1.1), reference) for seed in range(12)]
    true = 8 * 0.1**2
    bias = np.mean([one["fd"]["value"] for one in found]) - true
    left = np.mean([one["fd_extrapolated"] for one in found]) - true
    assert bias > 0.1
    assert abs(left) < bias / 5
    sizes = [m for m, _ in found[0]["fd_curve"]]
    assert sizes == [60, 90, 120, 150, 180, 210, 240, 270, 300]
    assert found[0]["fd_curve"][-1][1] == found[0]["fd"]["value"]
    assert scores(gaussian(60), reference)["fd_extrapolated"] is None  # 5 D = 40 leaves too few sizes
    assert [m for m, _ in scores(gaussian(25, 20), gaussian(50, 20))["fd_curve"]] == [25]


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    reference = gaussian(400, seed=1)
    found = scores(reference[7] + gaussian(200, seed=2, scale=1e-3), reference)
    assert found["precision"]["value"] == 1.0
    assert found["recall"]["value"] < 0.05
    assert found["precision"]["n_reference"] == found["recall"]["n_reference"] == 200
    assert scores(gaussian(20), reference)["recall"]["n_reference"] == 100


def test_agreement_and_inception_score() -> None:
    labels = np.arange(40) % 10
    logits = 50 * np.eye(10, dtype=np.float32)[labels]
    x = gaussian(40)
    found = scores(x, x, logits=logits)
    assert found["agreement"] == {"value": 1.0, "left_out": [1.0] * 4, "right": "ff" * 5}
    half = scores(x, x, logits=np.where(np.arange(40)[:, None] % 2, logits, logits[:, ::-1]))["agreement"]
    assert (half["value"], half["right"]) == (0.5, "55" * 5)  # the first sample is the highest bit
    assert found["inception_score"]["value"] == pytest.approx(10)
    assert scores(x, x, logits=np.roll(logits, 1, axis=1))["agreement"]["value"] == 0
    foreign = measure(x, gaussian(40, 12), labels, x, classes=10)  # classes of another set of labels
    assert foreign["agreement"] is None
    assert foreign["inception_score"]["value"] >= 1
    bare = scores(x, x)
    assert bare["agreement"] is None
    assert bare["inception_score"] is None


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 11])
def test_few_samples_leave_gaps_and_no_errors(n: int) -> None:
    found = scores(gaussian(n), gaussian(50, seed=1), logits=gaussian(n, 10))
    assert (found["fd"]["value"] is None) == (found["kd"]["value"] is None) == (n < 2)
    assert (found["precision"]["value"] is None) == (found["recall"]["value"] is None) == (n <= 3)
    assert found["fd"]["left_out"] is found["kd"]["left_out"] is found["fd_extrapolated"] is None


def test_an_interval_where_dimensions_outnumber_the_samples() -> None:
    x, y = gaussian(60, 80, seed=1), gaussian(500, 80, seed=2)
    left_out = scores(x, y)["fd"]["left_out"]
    for g in range(6):
        kept = without(60, 10, 6, g)
        assert left_out[g] == pytest.approx(measure(x[kept], None, None, y, classes=10)["fd"]["value"], rel=1e-6)


X, NOT_FINITE = gaussian(20), gaussian(20)


NOT_FINITE[3, 2] = np.nan


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: measure(NOT_FINITE, None, None, X, classes=1), "features of 1 of 20 samples are not finite"),
        (lambda: measure(X, NOT_FINITE, None, X, classes=1), "logits of 1 of 20 samples are not finite"),
        (lambda: measure(X, None, None, X[:, :5], classes=1), r"features of 8 .* reference of shape \(20, 5\)"),
        (lambda: measure(X, None, None, X[:1], classes=1), r"reference of shape \(1, 8\); 2 rows or more"),
        (lambda: measure(X[0], None, None, X, classes=1), r"features of shape \(8,\) are no table"),
        (lambda: measure(X, X[:7], None, X, classes=1), r"logits of shape \(7, 8\) do not go with 20 samples"),
        (lambda: measure(X, None, np.arange(7), X, classes=1), r"labels of shape \(7,\) do not go with 20"),
        (lambda: measure(X, None, None, X, classes=0), "0 classes cannot be"),
        (
            lambda: measure(X, None, None, None, classes=1, statistics=(np.zeros(5), np.eye(5))),
            "8 dimensions .* statistics of 5",
        ),
        (lambda: measure(X, None, None, None, classes=1), "nothing to compare with"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        call()
