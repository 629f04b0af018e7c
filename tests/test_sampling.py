"""Sampling: filters and the inverse CDF against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orderbench.models.sampling import Guidance, Sampling, filtered, inverse_cdf, uniforms


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
    numbers = uniforms(0, range(200), 100)
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


def test_guidance_scales() -> None:
    linear = Guidance(kind="linear", scale=5.0)
    assert linear.scales(0, 4, 16).tolist() == [2.0] * 4
    assert linear.scales(12, 4, 16).tolist() == [5.0] * 4
    assert Guidance(kind="linear", scale=5.0, count="before").scales(4, 2, 16).tolist() == [2.0, 2.0]
    assert Guidance(kind="linear", scale=5.0, count="token").scales(4, 2, 16).tolist() == [2.0, 2.25]
    assert Guidance(kind="constant", scale=2.0).scales(4, 2, 16).tolist() == [2.0, 2.0]
    cosine = Guidance(kind="power-cosine", scale=3.0)
    assert cosine.scales(0, 8, 16)[0] == pytest.approx(2.0)
    assert cosine.scales(8, 8, 16)[0] == pytest.approx(3.0)
    assert Guidance(kind="power-cosine", scale=3.0, power=2.0).scales(0, 8, 16)[0] < 1.5
    assert not Guidance(kind="constant", scale=1.0).on
