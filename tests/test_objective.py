"""The objective: terms that listen and have helpers, corruptions by name, gradients through the cache."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import chained_model, crop_logits, naive_logits, plan_logits, toy_config, toy_model, toy_tokens

from orderbench.models.answer import Categorical, at
from orderbench.models.checkpoint import read_pickle
from orderbench.models.config import ModelConfig
from orderbench.models.likelihood import answer_along, crop_answer
from orderbench.models.mixtures import objective_of
from orderbench.models.model import Model
from orderbench.models.objective import (
    CORRUPTIONS,
    RANDOM_ONLY,
    SHIPPED,
    Draws,
    Lesson,
    ModelJob,
    ObjectiveConfig,
    Scene,
    Share,
    objective_to_plain,
    register_corruption,
    register_term,
)
from orderbench.models.shipped import load_weights
from orderbench.models.train import TrainConfig, fit
from orderbench.models.transformer import Transformer
from orderbench.models.visibility import walk
from orderbench.orders import BenchError, make_plan
from orderbench.runs import cli

MIXTURE = (
    Share(order="raster", paces=("one", "even:4"), share=0.5),
    Share(order="radial", paces=("native",), share=0.25),
    Share(order="random", paces=("cosine:4",), share=0.25),
)
STEPS = 24


def job(objective: ObjectiveConfig | None = None, model: ModelConfig | None = None, **more: Any) -> ModelJob:
    """Sixteen images whose codes follow from their class and their cell."""
    labels_N = torch.arange(16) % 3
    tokens_NL = ((torch.arange(16)[None] * (1 + labels_N[:, None])) % 11).to(torch.uint8)
    chosen = ObjectiveConfig(mixture=MIXTURE) if objective is None else objective
    return ModelJob(
        toy_config(4, 4) if model is None else model, chosen, tokens_NL, labels_N, (tokens_NL, labels_N),
        data="sums", seed=0, device="cpu", steps=STEPS, **more,
    )  # fmt: skip


CONFIG = TrainConfig(steps=STEPS, batch=8, warmup=2, learning_rate=1e-2, ema=0.5)


def first_loss(of: ModelJob, step: int = 0) -> float:
    torch.manual_seed(0)
    network = of.build()
    return float(of.loss(network, torch.arange(8), slice(0, 8), step)[0].detach())


# Gradients through the cache


def gradients(network: Transformer, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", [toy_model, chained_model], ids=["one code a cell", "three codes a cell"])
@pytest.mark.parametrize("text", ["raster", "radial", "random@cosine:4"])
def test_an_answer_is_the_same_whether_gradients_are_wanted_or_not(make: Callable[[], Transformer], text: str) -> None:
    """The cache that grows, for gradients, and the one with room from the start say the same."""
    model = make()
    plan = make_plan(text, model.lattice)
    rng = np.random.default_rng(0)
    cells = model.lattice.n_cells
    codes_BLK = torch.from_numpy(np.stack([rng.integers(0, size, (3, cells)) for size in model.code_sizes], -1))
    labels_B, cells_BL = torch.arange(3), walk(plan, range(3))
    walked_BLK = at(codes_BLK, cells_BL)
    grown = answer_along(model, codes_BLK, labels_B, cells_BL, plan.sizes).log_prob(walked_BLK)
    assert grown.requires_grad
    with torch.no_grad():
        there = answer_along(model, codes_BLK, labels_B, cells_BL, plan.sizes).log_prob(walked_BLK)
    torch.testing.assert_close(grown.detach(), there, atol=1e-6, rtol=0)
    known_BM, crop_BQ = cells_BL[:, :5], cells_BL[:, :9]
    crop = crop_answer(model, at(codes_BLK, known_BM), labels_B, known_BM, crop_BQ).log_prob(at(codes_BLK, crop_BQ))
    with torch.no_grad():
        kept = crop_answer(model, at(codes_BLK, known_BM), labels_B, known_BM, crop_BQ).log_prob(at(codes_BLK, crop_BQ))
    torch.testing.assert_close(crop.detach(), kept, atol=1e-6, rtol=0)


@pytest.mark.parametrize("nested", [False, True])
def test_gradients_are_those_of_the_formula(nested: bool) -> None:
    """The reference keeps nothing: every prediction of its own from the paper's description, slot by slot."""
    model = toy_model(2, 3)
    (tokens_BL, labels_B), plan = toy_tokens(model, 2), make_plan("radial", model.lattice)
    cells_L = walk(plan, [0])[0].tolist()
    group_L = np.repeat(np.arange(plan.n_steps), plan.sizes).tolist()
    known = sum(plan.sizes[:2])

    def reference() -> Tensor:
        rows = []
        for tokens_L, label in zip(tokens_BL.tolist(), labels_B.tolist(), strict=True):
            for place, cell in enumerate(cells_L[: known + plan.sizes[2]] if nested else cells_L):
                fed = known if nested else sum(group < group_L[place] for group in group_L)
                slots = [(c, tokens_L[c]) for c in cells_L[:fed]]
                groups = [0] * fed if nested else group_L[:fed]
                sees = [[0, *(1 + j for j, other in enumerate(groups) if nested or other <= own)] for own in groups]
                first = list(range(1 + fed)) if nested else [0]
                logits = naive_logits(model, label, slots, [first, *sees], list(range(1 + fed)), cell)
                rows.append(-logits.log_softmax(0)[tokens_L[cell]])
        return torch.stack(rows).mean()

    expected = gradients(model, reference())
    if nested:
        crop_BQ = torch.tensor([cells_L[: known + plan.sizes[2]]]).expand(2, -1)
        logits = crop_logits(model, tokens_BL.gather(1, crop_BQ[:, :known]), labels_B, crop_BQ[:, :known], crop_BQ)
        asked_BQ = crop_BQ
    else:
        logits, asked_BQ = plan_logits(model, tokens_BL, labels_B, plan), walk(plan, range(2))
    nats = -logits.log_softmax(-1).gather(-1, tokens_BL.gather(1, asked_BQ)[..., None])
    found = gradients(model, nats.mean())
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(
            found[name], expected[name], atol=1e-6, rtol=1e-4, msg=lambda says, n=name: f"{n}: {says}"
        )


def test_training_lowers_the_loss_and_the_bits_of_every_order(tmp_path: Path) -> None:
    state = fit(job(), CONFIG, tmp_path, every=STEPS // 2)
    first, last = state["history"]
    uniform = float(np.log2(11))
    orders = set(first) - {"step", "loss"}
    assert orders == {"raster", "raster@even:13", "radial", "radial@one", "random@cosine:13", "halton@cosine:13"}
    assert all(last[order] < first[order] < uniform for order in orders), (first, last)


# Terms


def test_the_loss_is_the_sum_of_its_terms() -> None:
    plain = first_loss(job())
    assert plain == pytest.approx(np.log(11), abs=1e-6)  # a fresh network is uniform
    assert first_loss(job(ObjectiveConfig(mixture=MIXTURE, terms=("ce:weight=0.5", "ce:weight=2")))) == pytest.approx(
        2.5 * plain
    )
    register_term("constant", paper="none", idea="a toy")(_constant)
    assert first_loss(job(ObjectiveConfig(mixture=MIXTURE, terms=("ce", "constant:value=3")))) == pytest.approx(
        plain + 3
    )


def _constant(lesson: Lesson, *, value: Annotated[float, "of the loss"] = 1.0) -> Tensor:
    return torch.tensor(value)


def test_a_term_gets_the_lesson_and_hears_what_it_named() -> None:
    lessons: list[Lesson] = []

    def listen(lesson: Lesson) -> Tensor:
        lessons.append(lesson)
        return lesson.hidden["norm"].square().mean() + lesson.hidden["self_blocks.1.ffn"].mean()

    register_term("listen", paper="none", idea="a toy", hears=("norm", "self_blocks.1.ffn"))(listen)
    terms = ("ce", "listen")
    taught = job(ObjectiveConfig(mixture=(replace(MIXTURE[0], share=1.0),), nested=0.5, terms=terms))
    network = taught.build()
    assert type(network) is Transformer  # nobody helps
    for step in range(STEPS):
        loss, _ = taught.loss(network, torch.arange(8), slice(2, 8), step)
    loss.backward()
    nested = [lesson for lesson in lessons if lesson.cells_BQ.shape[1] < 16 or lesson.fed_BMK.shape[1] != 15]
    assert 0 < len(nested) < STEPS
    for step, lesson in enumerate(lessons):
        Q = lesson.cells_BQ.shape[1]
        assert lesson.done == step / STEPS
        assert lesson.cells_BQ.shape == (6, Q)
        assert lesson.clean_BQK.shape == (6, Q, 1)
        assert torch.equal(lesson.clean_BQK, at(taught.tokens_NL[2:8, :, None].long(), lesson.cells_BQ))
        assert lesson.hidden["norm"].shape == (6, Q, 16)
        assert lesson.hidden["self_blocks.1.ffn"].shape[0] == 6
        assert isinstance(lesson.answer, Categorical)
        logits = network.head(lesson.hidden["norm"]).float()
        torch.testing.assert_close(lesson.answer.logits_BQV, logits)
    before = len(network.norm._forward_hooks)
    assert before == 0  # it listens no longer than the step lasts


def test_a_term_that_hears_what_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    register_term("deaf", paper="none", idea="a toy", hears=("norm", "self_blocks.9"))(_constant)
    deaf = job(ObjectiveConfig(mixture=MIXTURE, terms=("ce", "deaf")))
    with pytest.raises(
        BenchError, match=r"no module of Transformer named 'self_blocks\.9'; did you mean 'self_blocks\.\d'"
    ):
        fit(deaf, CONFIG, tmp_path)
    assert list(tmp_path.iterdir()) == []


def guess(config: ModelConfig) -> nn.Module:
    return nn.Linear(config.width, config.classes)


def test_a_helper_is_trained_and_checkpointed_and_not_shipped(tmp_path: Path) -> None:
    @register_term("helped", paper="none", idea="a toy", hears=("norm",), helper=guess)
    def helped(lesson: Lesson, *, helper: nn.Module, weight: Annotated[float, "of the term"] = 1.0) -> Tensor:
        return weight * (helper(lesson.hidden["norm"]) - 1).square().mean()

    taught = job(ObjectiveConfig(mixture=MIXTURE, terms=("ce", "helped:weight=0.5")))
    network = taught.build()
    plain = job().build()
    assert isinstance(plain, Transformer)
    assert len(taught.hidden_matrices(network)) == len(plain.hidden_matrices())
    state = fit(taught, CONFIG, tmp_path / "whole", every=STEPS)
    kept = read_pickle(tmp_path / "whole" / "checkpoint.pt")
    for part in ("network", "averaged"):
        helpers = {name for name in kept[part] if name.startswith("helpers.")}
        assert helpers == {"helpers.1.weight", "helpers.1.bias"}
    fresh = fit(taught, replace(CONFIG, steps=1), tmp_path / "fresh")["network"]
    moved = (state["network"]["helpers.1.bias"] - fresh["helpers.1.bias"]).abs()
    assert moved.min() > 0.02  # towards the ones that it was asked for
    shipped = taught.ships(state["averaged"])
    assert shipped.keys() == plain.state_dict().keys()
    plain.load_state_dict(shipped)
    assert torch.equal(plain.head.weight, state["averaged"]["network.head.weight"])
    assert taught.evaluate(network).keys() == job().evaluate(plain).keys()
    assert taught.describe()["objective"]["terms"] == ("ce", "helped:weight=0.5")

    class Cut(Exception):
        pass

    def stop_at_10(step: int, _steps: int) -> None:
        if step == 10:
            raise Cut

    with pytest.raises(Cut):
        fit(taught, CONFIG, tmp_path / "cut", every=5, tick=stop_at_10)
    again = fit(taught, CONFIG, tmp_path / "cut", every=5, resume=True)
    assert all(torch.equal(tensor, state["network"][name]) for name, tensor in again["network"].items())
    begun = fit(taught, replace(CONFIG, steps=1, learning_rate=1e-12), tmp_path / "begun", start=shipped)
    network_of = taught.ships(begun["network"])
    assert all((network_of[name] - shipped[name]).abs().max() < 1e-6 for name in shipped)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"terms": ("cce",)}, r"no objective term named 'cce'; .*ce.*\(terms are written as in ce or ce:weight=0\.5\)"),
        ({"terms": ("ce:wait=1",)}, "no option of ce named 'wait'"),
        ({"terms": ("ce:weight=x",)}, "ce:weight=x is not served; weight takes of the term"),
        ({"terms": ()}, "an objective has one corruption and one term or more, as in uniform and ce"),
        ({"corruptions": ()}, "an objective has one corruption and one term or more, as in uniform and ce"),
        ({"corruptions": ("uniform", "imge")}, "no corruption named 'imge'; did you mean 'image'"),
    ],
)
def test_what_no_objective_can_be_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        job(ObjectiveConfig(mixture=MIXTURE, **changes))


def test_a_card_is_read_without_the_plugins_of_its_training() -> None:
    """Weights trained with a term of one's own can be measured by anyone."""
    value = {**objective_to_plain(SHIPPED), "terms": ["ce", "entropy:weight=0.05"], "corruptions": ["mine"]}
    read = objective_of(json.loads(json.dumps(value)), "the card")
    assert (read.terms, read.corruptions) == (("ce", "entropy:weight=0.05"), ("mine",))
    assert "terms" not in objective_to_plain(SHIPPED)
    assert objective_of(json.loads(json.dumps(objective_to_plain(SHIPPED))), "the card") == SHIPPED


# Corruptions


def scene(model: Model, share: slice = slice(0, 400), seed: int = 0) -> Scene:
    """Images whose codes are those of their cells, the first seven of which are known."""
    rng = np.random.default_rng(seed)
    cells = model.lattice.n_cells
    sizes = torch.tensor(model.code_sizes)
    codes_BLK = (torch.arange(cells)[None, :, None] % sizes).expand(400, -1, -1)[share]
    known_BM = torch.arange(7).expand(len(codes_BLK), -1)
    labels_B = torch.zeros(len(codes_BLK), dtype=torch.int64)
    return Scene(
        codes_BLK, known_BM, model.code_sizes, lambda: model.answer(model.start(labels_B, 1), known_BM),
        Draws(rng, 400, share, torch.device("cpu")),
    )  # fmt: skip


@pytest.mark.parametrize("make", [lambda: toy_model(4, 4), chained_model], ids=["one code", "three codes"])
@pytest.mark.parametrize("name", CORRUPTIONS.names())
@torch.no_grad()
def test_every_corruption_gives_codes_of_its_kind_whatever_its_share(name: str, make: Callable[[], Model]) -> None:
    model = make()
    whole = CORRUPTIONS.get(name).function(scene(model))
    K = len(model.code_sizes)
    assert (whole.shape, whole.dtype) == ((400, 7, K), torch.int64)
    assert all(0 <= whole[..., k].min() <= whole[..., k].max() == size - 1 for k, size in enumerate(model.code_sizes))
    halves = [CORRUPTIONS.get(name).function(scene(model, part)) for part in (slice(0, 150), slice(150, 400))]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(CORRUPTIONS.get(name).function(scene(model, seed=1)), whole)


@torch.no_grad()
def test_corruptions_are_what_they_are_called() -> None:
    model = toy_model(3, 3)
    wrong = {name: CORRUPTIONS.get(name).function(scene(model)) for name in CORRUPTIONS.names()}
    assert list(wrong) == ["uniform", "image", "model"]
    counts = torch.bincount(wrong["uniform"].flatten(), minlength=11) / 2800
    assert (counts - 1 / 11).abs().max() < 0.02
    assert set(wrong["image"].flatten().tolist()) == set(range(9))  # codes that its image holds
    answer = scene(model).answer()
    said = answer.law().exp()[0]
    found = torch.stack([torch.bincount(column, minlength=11) for column in wrong["model"][..., 0].T]) / 400
    assert (found - said).abs().max() < 0.1
    assert (found - 1 / 11).abs().max() > 0.1


def test_a_corruption_of_ones_own_is_fed() -> None:
    fed: list[Tensor] = []

    @register_corruption("nines", paper="none", idea="a toy")
    def nines(scene: Scene) -> Tensor:
        return torch.full((*scene.known_BM.shape, len(scene.code_sizes)), 9)

    def look(lesson: Lesson) -> Tensor:
        fed.append(lesson.fed_BMK)
        return torch.zeros(())

    register_term("look", paper="none", idea="a toy")(look)
    own = ObjectiveConfig(mixture=MIXTURE, nested=1.0, noise=1.0, corruptions=("nines",), terms=("ce", "look"))
    taught = job(own)
    network = taught.build()
    for step in range(8):
        taught.loss(network, torch.arange(8), slice(0, 8), step)
    shares = [float((codes == 9).float().mean()) for codes in fed]
    assert max(shares) > 0.5
    assert len(fed) == 8


# The command


TERM = """
import torch
from orderbench.models import register_term

def make(config):
    return torch.nn.Linear(config.width, 1)

@register_term("steep", paper="none", idea="a toy", hears=("norm",), helper=make)
def steep(lesson, *, helper: torch.nn.Module, weight: float = 0.1) -> torch.Tensor:
    return weight * helper(lesson.hidden["norm"]).square().mean()
"""


def test_a_model_is_trained_on_a_term_of_ones_own(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_term.py").write_text(TERM)
    mixture = {
        "mixture": [{"order": "raster", "paces": ["one"], "share": 1.0}],
        "terms": ["ce", "steep:weight=0.2"],
    }
    (tmp_path / "mixture.json").write_text(json.dumps(mixture))
    monkeypatch.chdir(tmp_path)

    def trained(*more: str) -> tuple[int, str, str]:
        asked = ["--mixture", "mixture.json", "--tokenizer", files["tokenizer"], "--data", files["data"],
                 "--steps", "2", "--batch", "4", "--side", "8", "--no-bf16", "--device", "cpu", "--out", "run",
                 "--json"]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["bench", "train", "model", *asked, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), *capsys.readouterr()

    code, out, err = trained()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "no objective term named 'steep'" in err
    sentence = "bench: there is no file 'no.py' to include; give a Python file that registers something\n"
    assert trained("--include", "no.py", "--data", "nowhere") == (2, "", sentence)  # before anything else
    code, out, err = trained("--include", "my_term.py")
    assert code == 0, err
    card = json.loads(out)
    assert card["about"]["objective"]["terms"] == ["ce", "steep:weight=0.2"]
    assert card["command"].endswith("--include my_term.py")
    weights = load_file(tmp_path / "run" / "model.safetensors")
    monkeypatch.undo()  # registries too: from here on as whoever has not the term
    loaded = load_weights(tmp_path / "run" / "model.safetensors", "model")
    assert weights.keys() == loaded.network.state_dict().keys()
    assert objective_of(loaded.about["objective"], "it").terms == ("ce", "steep:weight=0.2")
    assert {name for name in read_pickle(tmp_path / "run" / "checkpoint.pt")["network"] if "helper" in name} == {
        "helpers.1.weight", "helpers.1.bias",
    }  # fmt: skip


# What is refused

RASTER = {"order": "raster", "paces": ["one"]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mixture": [{**RASTER, "share": 1.5}, {**RASTER, "share": -0.5}]}, "raster with the share -0.5 and 1 paces"),
        ({"mixture": [{**RASTER, "share": 1.0, "paces": []}]}, "raster with the share 1 and 0 paces"),
        ({"mixture": [{**RASTER, "share": 0.5}]}, "the mixture's shares sum to 0.5; they must sum to 1"),
        ({"nested": 1.5}, "the objective's nested is 1.5; it is a share, from 0 to 1"),
        ({"noise": -0.1}, "the objective's noise is -0.1"),
        ({"label_drop": float("nan")}, "the objective's label_drop is nan"),
        ({"terms": []}, "an objective has one corruption and one term or more"),
    ],
)
def test_a_mixture_that_cannot_be_trained_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        objective_of({**objective_to_plain(RANDOM_ONLY), **change}, "mixture.json")
