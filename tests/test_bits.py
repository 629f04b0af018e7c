"""Bits of held-out images: those of the plan, of any model, and their tax."""

import numpy as np
import pytest
import torch
from toys import EightMembers, toy_tokens

from orderbench.models.adapter import as_model
from orderbench.models.answer import at
from orderbench.models.likelihood import plan_answer, plan_bits, step_bits, to_bits
from orderbench.models.shipped import load_weights
from orderbench.models.visibility import walk
from orderbench.orders import Grid
from orderbench.runs.arms import parse_arm
from orderbench.runs.record import Run


def test_likelihood_is_that_of_the_plan_and_its_tax_is_paired(whole: Run) -> None:
    by_arm = {t["arm"]: t for t in whole.done("likelihood")}
    assert by_arm["raster"]["tax_bits"] == 0
    assert by_arm["raster@even:4"]["singly_bits_per_token"] == by_arm["raster"]["bits_per_token"]
    for arm, trial in by_arm.items():
        bits = whole.arrays(trial["trial"], "bits")
        assert np.mean(bits["bits_N"]) == pytest.approx(trial["bits_per_token"], abs=1e-6)
        assert trial["tax_bits"] == pytest.approx(np.mean(bits["bits_N"] - bits["singly_N"]), abs=1e-6)
        sizes = next(a["sizes"] for a in whole.about["arms"] if a["name"] == arm)
        assert np.average(trial["bits_by_step"], weights=sizes) == pytest.approx(trial["bits_per_token"], abs=1e-5)
        assert np.mean(trial["bits_by_cell"]) == pytest.approx(trial["bits_per_token"], abs=1e-5)


def test_a_models_own_likelihood_is_that_of_its_steps(files: dict[str, str]) -> None:
    """Any model that keeps the protocol has one; for ours it equals one feeding and one asking under masks."""
    model = load_weights(files["model"]).network
    tokens_BL, labels_B = toy_tokens(model, 5)
    codes_BLK, old = tokens_BL[..., None], as_model(EightMembers(model), "old")
    for arm in ("raster", "radial", "random@cosine:4"):
        plan = parse_arm(arm).plan(Grid(4, 4), 3)
        with torch.inference_mode():
            answer = plan_answer(model, codes_BLK, labels_B, plan)
        cells_BL = walk(plan, range(5) if plan.per_sample else [0]).expand_as(tokens_BL)
        walked_BL = to_bits(answer.log_prob(at(codes_BLK, cells_BL)))
        expected = torch.empty(5, 16).scatter_(1, cells_BL, walked_BL)
        found = step_bits(model, plan, codes_BLK, labels_B.tolist(), samples=range(5))
        assert torch.allclose(found, expected, atol=1e-4), arm
        masked = plan_bits(model, codes_BLK, labels_B, plan, samples=range(5))
        assert torch.allclose(masked, expected, atol=1e-6), arm
        assert torch.equal(plan_bits(old, codes_BLK, labels_B, plan, samples=range(5)), found), arm
