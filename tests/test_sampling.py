"""Sampling: filters and the inverse CDF against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orderbench.models import sampling as sampling_module
from orderbench.models.guidance import Guidance, parse_guidance
from orderbench.models.sampling import Sampling, as_gumbels, filtered, gumbels, inverse_cdf, make_noise, uniforms
from orderbench.orders import BenchError


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9), st.floats(0, 0.999999))
def test_inverse_cdf_is_the_first_code_past_the_number(logits: list[float], number: float) -> None:
    probs = torch.tensor(logits, dtype=torch.float64).softmax(0)
    code = int(inverse_cdf(probs[None, None], torch.tensor([[number]], dtype=torch.float64)))
    cdf = probs.cumsum(0)
    target = number * float(cdf[-1])
    assert cdf[code] > target
    assert code == 0 or cdf[code - 1] <= target


def test_a_code_without_probability_is_never_drawn() -> None:
    probs = torch.tensor([[[0.0, 0.5, 0.0, 0.5, 0.0]]], dtype=torch.float64)
    for number in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53):
        assert int(inverse_cdf(probs, torch.tensor([[number]], dtype=torch.float64))) in (1, 3)


def test_frequencies_follow_the_probabilities() -> None:
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    numbers = uniforms(0, range(200), 100)[..., 0]
    drawn = inverse_cdf(probs.expand(200, 100, 4), numbers)
    shares = torch.bincount(drawn.flatten(), minlength=4) / drawn.numel()
    assert (shares - probs).abs().max() < 0.015  # four standard errors


def test_top_k_and_top_p() -> None:
    logits = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]], dtype=torch.float64).log()
    assert filtered(logits, Sampling()).tolist()[0][0] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert (filtered(logits, Sampling(top_k=2)) > 0).tolist()[0][0] == [True, True, False, False]
    assert (filtered(logits, Sampling(top_p=0.65)) > 0).tolist()[0][0] == [True, True, False, False]
    assert (filtered(logits, Sampling(top_p=0.75)) > 0).tolist()[0][0] == [True, True, True, False]
    assert (filtered(logits, Sampling(top_p=1e-9)) > 0).sum() == 1


def test_noise_belongs_to_seed_sample_and_cell() -> None:
    a = uniforms(3, [5, 2], 30)
    assert torch.equal(a[0], uniforms(3, [5], 30)[0])
    assert torch.equal(uniforms(3, [5], 20)[0], a[0, :20])
    assert len(np.unique(torch.cat([a, uniforms(4, [5, 2], 30)]))) == 120


def test_every_code_of_a_cell_has_a_number_of_its_own_and_the_first_does_not_depend_on_how_many() -> None:
    one, three = uniforms(3, [5], 30), uniforms(3, [5], 30, 3)
    assert torch.equal(three[..., :1], one)
    assert len(np.unique(three)) == 90


def test_gumbel_noise_belongs_to_seed_sample_cell_and_code_whatever_is_asked() -> None:
    whole = make_noise("gumbel", 3, [5, 2], 30, 2)
    table = gumbels(whole.code(0).numbers_BQK[..., 0], 7)
    cells_BQ = torch.tensor([[4, 0, 29], [7, 7, 1]])
    assert torch.equal(
        gumbels(whole.at(cells_BQ).numbers_BQK[..., 0], 5), table[torch.arange(2)[:, None], cells_BQ, :5]
    )
    assert torch.equal(whole.of(torch.tensor([1])).numbers_BQK, make_noise("gumbel", 3, [2], 30, 2).numbers_BQK)
    assert torch.equal(whole.code(0).numbers_BQK, make_noise("gumbel", 3, [5, 2], 30).numbers_BQK)
    others = [make_noise("gumbel", 4, [5, 2], 30, 2), make_noise("gumbel", 3, [6, 3], 30, 2)]
    keys = torch.cat([one.numbers_BQK for one in (whole, *others)])
    assert len(keys.unique()) == keys.numel()


def test_gumbel_numbers_follow_their_law() -> None:
    numbers = gumbels(make_noise("gumbel", 0, range(40), 100).numbers_BQK[..., 0], 25).flatten().numpy()
    ordered, n = np.sort(numbers), len(numbers)
    distance = np.abs(np.exp(-np.exp(-ordered)) - (np.arange(n) + 0.5) / n).max()
    assert distance < 1.95 / np.sqrt(n)  # Kolmogorov-Smirnov at 0.1 %
    lagged = [np.corrcoef(numbers[:-lag], numbers[lag:])[0, 1] for lag in (1, 25, 2500)]
    assert np.abs(lagged).max() < 4 / np.sqrt(n)


def test_uniform_numbers_become_gumbel_numbers_also_at_the_ends() -> None:
    numbers = torch.tensor([0.0, 1e-12, 0.25, 0.5, 1 - 1e-12, 1.0], dtype=torch.float64)
    found = as_gumbels(numbers)
    assert torch.exp(-torch.exp(-found[1:5])).tolist() == pytest.approx(numbers[1:5].tolist(), rel=1e-9, abs=1e-14)
    assert (found[0], found[-1]) == (found[1], found[-2])


def test_splitmix64_is_the_published_one() -> None:
    """The first numbers of the published generator, seeded with 1234567, as Gumbel numbers."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    uniform = (np.array([word >> 11 for word in published]) + 0.5) * 2.0**-53
    found = gumbels(torch.tensor([[1234567]]), 4)[0, 0]
    assert found.tolist() == pytest.approx((-np.log(-np.log(uniform))).tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "how", [Sampling(noise="gumbel"), Sampling(noise="gumbel", temperature=0.7, top_k=3, top_p=0.9)]
)
def test_gumbel_draws_follow_the_filtered_law(how: Sampling) -> None:
    logits_BQV = torch.tensor([0.3, -1.0, 1.2, 0.9, -0.2]).expand(100, 200, 5)
    drawn = make_noise("gumbel", 1, range(100), 200).draw(logits_BQV, how)
    shares = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    law = filtered(logits_BQV[:1, :1] / how.temperature, how)[0, 0]
    assert (shares - law / law.sum()).abs().max() < 0.015  # four standard errors
    assert (shares[law == 0] == 0).all()


@pytest.mark.parametrize("kind", ["uniform", "gumbel"])
def test_drawing_in_parts_changes_no_code(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = make_noise(kind, 0, range(3), 40)  # type: ignore[arg-type]
    logits_BQV = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    how = Sampling(top_k=20, top_p=0.95)
    whole = noise.draw(logits_BQV, how)
    largest: list[int] = []
    kept = type(noise)._draw
    monkeypatch.setattr(type(noise), "_draw", lambda self, x, u, h: largest.append(x.numel()) or kept(self, x, u, h))
    monkeypatch.setattr(sampling_module, "AT_ONCE", 1000)
    assert torch.equal(noise.draw(logits_BQV, how), whole)
    assert len(largest) == 7
    assert max(largest) <= 1000


def test_a_noise_that_is_not_there_is_refused() -> None:
    with pytest.raises(BenchError, match=r"no noise named 'gumbell'; did you mean 'gumbel'\?"):
        Sampling(noise="gumbell")  # type: ignore[arg-type]
    assert "noise" not in Sampling().to_json(), "as in every record before there was a choice"
    assert Sampling(noise="gumbel").to_json()["noise"] == "gumbel"


def test_guidance_scales() -> None:
    linear = Guidance(law="linear", scale=5.0)
    assert linear.along((4, 8, 4)).tolist() == [2.0] * 4 + [4.0] * 8 + [5.0] * 4
    assert Guidance(law="linear", scale=5.0, count="before").along((4, 12)).tolist() == [1.0] * 4 + [2.0] * 12
    assert Guidance(law="linear", scale=5.0, count="token").along((4, 12))[4:6].tolist() == [2.0, 2.25]
    assert Guidance(law="linear", scale=5.0, count="step").along((1, 4, 16)).tolist() == [1.0] + [3.0] * 4 + [5.0] * 16
    assert Guidance(law="linear", scale=5.0, count="step").along((4,)).tolist() == [1.0] * 4
    assert Guidance(law="constant", scale=2.0).along((4, 2)).tolist() == [2.0] * 6
    cosine = Guidance(law="power-cosine", scale=3.0)
    assert cosine.along((8, 8))[0] == pytest.approx(2.0)
    assert cosine.along((8, 8))[8] == pytest.approx(3.0)
    assert parse_guidance("power-cosine:scale=3:power=2").along((8, 8))[0] < 1.5
    assert not Guidance(law="constant", scale=1.0).on


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("3", "linear:scale=3"), ("1", "none"), ("none", "none"), ("constant:scale=1.50", "constant:scale=1.5"),
     ("power-cosine:power=2:scale=3:count=before", "power-cosine:scale=3:count=before:power=2")],
)  # fmt: skip
def test_guidance_is_spelled_one_way(text: str, canonical: str) -> None:
    assert str(parse_guidance(text)) == canonical
    assert parse_guidance(canonical) == parse_guidance(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("linaer:scale=2", r"no guidance named 'linaer'; did you mean 'linear'\?"),
        ("none:scale=2", "scales what is switched off"),
        ("power-cosine:scale=2:power=0", "a guidance power of 0 is not served; it is above 0"),
        ("constant:power=2", "power"),
    ],
)
def test_guidance_that_cannot_be_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        parse_guidance(text)
