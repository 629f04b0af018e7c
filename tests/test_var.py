"""VAR and its tokenizer: reproduced from random weights at every step, exact sizes and keys, and files that do not
belong."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference_var import ReferenceTokenizer, ReferenceVAR, State, var_state
from torch import Tensor

from orderbench.models import load_checkpoint, load_codec
from orderbench.models.config import TokenizerConfig
from orderbench.models.contract import check_model
from orderbench.models.decode import decode_steps
from orderbench.models.guidance import parse_guidance
from orderbench.models.likelihood import plan_answer
from orderbench.models.objective import ModelJob
from orderbench.models.residual import phi_of, square_pyramid
from orderbench.models.sampling import Sampling
from orderbench.models.shipped import load_shipped, shipped_held_out, shipped_tokenizer
from orderbench.models.systems import SYSTEMS, Task
from orderbench.models.tokenizer import PyramidTokenizer, Tokenizer, tokenizer_of
from orderbench.models.transformer import count_parameters
from orderbench.models.var import SAMPLING, VAR, VARConfig
from orderbench.models.varcodec import SCALES, VARTokenizer
from orderbench.models.vq16 import VQ16
from orderbench.orders import BenchError, Grid, Plan, Pyramid, make_plan
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.training import TrainSpec, train

TINY = (1, 2, 3, 4)
SIZES = {"V": 37, "z": 5, "C": 3, "d": 12, "heads": 3, "depth": 2, "scales": TINY}
GUIDED = Sampling(guidance=parse_guidance(str(SAMPLING["guidance"])))


def save(folder: Path, state: object, name: str) -> str:
    torch.save(state, folder / name)
    return str(folder / name)


def vae_state(V: int = 37, z: int = 5) -> State:
    torch.manual_seed(1)
    tokenizer = VARTokenizer(V, z, width=32)
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.mul_(0.3)
    return {**tokenizer.state_dict(), "quantize.ema_vocab_hit_SV": torch.zeros(4, V)}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("vae"), vae_state(), "vae.pth")


def met(folder: Path, vae: str, **changes: object) -> tuple[VAR, VARTokenizer, ReferenceVAR]:
    """A random file of VAR with its tokenizer, and the reference of both."""
    state = var_state(**{**SIZES, **changes})  # type: ignore[arg-type]
    model, codec = load_checkpoint(save(folder, state, "var_tiny.pth")), load_codec(vae)
    assert isinstance(model, VAR)
    assert isinstance(codec, VARTokenizer)
    model.meet(codec)
    scales = tuple(grid.rows for grid in model.lattice.levels)
    return model, codec, ReferenceVAR(state, ReferenceTokenizer(vae_state(), scales))


@pytest.mark.parametrize("changes", [{}, {"shared": True}, {"scales": (2, 3, 4, 5, 6), "seed": 3}], ids=str)
def test_var_is_reproduced_at_every_step(changes: dict[str, object], vae: str, tmp_path: Path) -> None:
    model, _, reference = met(tmp_path, vae, **changes)
    plan, labels = make_plan("scales", model.lattice), [2, 0]
    levels: list[list[Tensor]] = [[], []]
    steps = decode_steps(model, plan, [0, 1], labels=labels, sampling=GUIDED, seed=7)
    for k, step in enumerate(steps):
        t = 1.5 * k / (plan.n_steps - 1)
        for b, label in enumerate(labels):
            with_class, without = (reference.logits(one, levels[b]) for one in (label, 3))
            expected = (1 + t) * with_class - t * without
            torch.testing.assert_close(step.answer.logits_BQV[b], expected, atol=1e-5, rtol=1e-5)
            levels[b].append(step.codes_BQK[b, :, 0].view(reference.tokenizer.scales[k], -1))


def test_one_feeding_and_one_asking_say_the_same(vae: str, tmp_path: Path) -> None:
    model, _, reference = met(tmp_path, vae)
    codes_BLK = torch.randint(0, 37, (1, 30, 1), generator=torch.Generator().manual_seed(2))
    answer = plan_answer(model, codes_BLK, torch.tensor([1]), make_plan("scales", model.lattice))
    levels = reference.tokenizer.levels(codes_BLK[0, :, 0])
    expected = torch.cat([reference.logits(1, levels[:k]) for k in range(4)])
    torch.testing.assert_close(answer.logits_BQV[0], expected, atol=1e-5, rtol=1e-5)


def test_it_keeps_the_protocol(vae: str, tmp_path: Path) -> None:
    model, _, _ = met(tmp_path, vae)
    verdicts = check_model(model, "cpu")
    assert [str(one) for one in verdicts if one.verdict != "pass"] == []
    assert any(one.check == "masks, scales" for one in verdicts)


def shuffled(plan: Plan, seed: int = 0) -> Plan:
    """The same levels, the cells of each in another order."""
    rng = torch.Generator().manual_seed(seed)
    assert plan.cells is not None
    parts = torch.split(torch.from_numpy(plan.cells.copy()), list(plan.sizes))
    return replace(plan, cells=torch.cat([part[torch.randperm(len(part), generator=rng)] for part in parts]).numpy())


@pytest.mark.parametrize("mixed", [False, True])
def test_the_canvas_of_the_cache_is_the_codec_s(mixed: bool, vae: str, tmp_path: Path) -> None:
    model, codec, reference = met(tmp_path, vae)
    plan = make_plan("scales", model.lattice)
    plan = shuffled(plan) if mixed else plan
    codes_BL = torch.randint(0, 37, (2, 30), generator=torch.Generator().manual_seed(2))
    cells_BL = torch.from_numpy(plan.cells_for([0, 1]).copy())
    with torch.inference_mode():
        cache = model.start(torch.tensor([0, 3]), 31)
        for cells_BG in torch.split(cells_BL, list(plan.sizes), dim=1):
            model.answer(cache, cells_BG)
            model.step(cache, codes_BL.gather(1, cells_BG)[..., None], cells_BG)
    assert torch.equal(cache.canvas_Bzhw, codec.quantize.canvas(codes_BL, model.lattice))
    for b in (0, 1):
        expected = reference.tokenizer.canvas(reference.tokenizer.levels(codes_BL[b]))
        torch.testing.assert_close(cache.canvas_Bzhw[b], expected, atol=1e-5, rtol=1e-5)


def test_what_was_asked_is_not_run_again(vae: str, tmp_path: Path) -> None:
    """One pass a level, as published; unless something else was asked in between."""
    model, _, _ = met(tmp_path, vae)
    codes_BLK, cells_BL = torch.zeros(1, 30, 1, dtype=torch.int64), torch.arange(30)[None]
    ran: list[int] = []
    model.blocks[0].ffn.register_forward_hook(lambda _m, given, _o: ran.append(given[0].shape[1]))

    def said(*between: Tensor) -> Tensor:
        ran.clear()
        with torch.inference_mode():
            cache = model.start(torch.tensor([1]), 31)
            for begin, stop in ((0, 1), (1, 5), (5, 14)):
                for cells_BQ in (cells_BL[:, begin:stop], *between):
                    model.answer(cache, cells_BQ)
                model.step(cache, codes_BLK[:, begin:stop], cells_BL[:, begin:stop])
            return model.answer(cache, cells_BL[:, 14:]).logits_BQV

    alone = said()
    assert ran == [1, 4, 9, 16]
    torch.testing.assert_close(said(cells_BL[:, 20:24]), alone, atol=1e-5, rtol=1e-5)
    assert ran == [1, 4, 1, 4, 4, 4, 9, 4, 9, 16]


@pytest.mark.parametrize("arm", ["raster", "scales@even:2", "random@one", "scales@one"])
def test_other_orders_are_refused_in_one_sentence(arm: str) -> None:
    model = VAR(config())
    assert model.refuses(make_plan(arm, model.lattice)) == "it decodes whole levels from coarse to fine, as scales does"
    assert model.refuses(make_plan("scales", model.lattice)) == ""
    assert model.refuses(shuffled(make_plan("scales", model.lattice))) == ""


# The tokenizer


def test_the_tokenizer_is_reproduced(vae: str) -> None:
    codec, pyramid = load_codec(vae), square_pyramid(TINY)
    assert isinstance(codec, VARTokenizer)
    codec.follow(pyramid)
    reference = ReferenceTokenizer(vae_state(), TINY)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes_BLK = codec.encode(images)
    assert codes_BLK.shape == (2, 30, 1)
    assert len(codes_BLK.unique()) > 3
    for b in (0, 1):
        assert torch.equal(codes_BLK[b, :, 0], reference.encode(images[b]))
    rebuilt = codec.decode(codes_BLK, pyramid)
    assert rebuilt.abs().max() <= 1
    torch.testing.assert_close(rebuilt[0], reference.decode(codes_BLK[0, :, 0]), atol=1e-4, rtol=1e-4)


def test_phi_by_the_tick_table_and_its_ties() -> None:
    tables = {10: "0011122333", 5: "01223", 4: "0123", 14: "00011112222333", 1: "0"}
    for K, table in tables.items():
        assert "".join(str(phi_of(level, K)) for level in range(K)) == table


def test_the_last_level_is_not_resized_and_the_canvas_is_a_sum(vae: str) -> None:
    codec, pyramid = load_codec(vae), square_pyramid(TINY)
    assert isinstance(codec, VARTokenizer)
    codes_BL = torch.randint(0, 37, (1, 30), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        parts = torch.split(codes_BL, [1, 4, 9, 16], dim=1)
        bands = [codec.quantize.band(level, part, pyramid) for level, part in enumerate(parts)]
        whole = codec.quantize.canvas(codes_BL, pyramid)
        torch.testing.assert_close(sum(bands), whole, atol=1e-6, rtol=0)
        moved = codes_BL.clone()
        moved[0, 14 + 5] = (moved[0, 14 + 5] + 1) % 37  # row 1, column 1 of the last level
        touched = (codec.quantize.canvas(moved, pyramid) - whole).abs().amax((0, 1)) > 0
    assert touched.tolist() == [[True] * 3 + [False]] * 3 + [[False] * 4]


def test_scales_of_images() -> None:
    with torch.device("meta"):
        codec = VARTokenizer()
    assert count_parameters(codec) == 108_948_355
    assert [codec.lattice(side).n_cells for side in SCALES] == [680, 2240, 9451]
    assert [codec.side(pyramid) for pyramid in SCALES.values()] == [256, 512, 1024]
    assert codec.code_sizes == (4096,)
    with pytest.raises(BenchError, match="images of 256, 512, 1024 pixels a side, not of 128; --side 256 would do"):
        codec.lattice(128)
    with pytest.raises(BenchError, match=r"on a pyramid of squares, and the model's lattice is 16x16"):
        codec.side(Grid(16, 16))
    with pytest.raises(BenchError, match=r"takes square colour images, not \(1, 32, 32\)"):
        codec.encode(torch.zeros(1, 1, 32, 32))


# Sizes and names


def config(scales: Sequence[int] = TINY, **changes: object) -> VARConfig:
    tiny = {"codes": 37, "classes": 3, "code_size": 5, "width": 12, "heads": 3, "blocks": 2}
    return VARConfig(scales=tuple(scales), **{**tiny, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("depth", "parameters", "published", "within"),
    [(16, 310_283_520, 310e6, 0.01), (20, 600_917_136, 600e6, 0.01), (24, 1_033_399_360, 1.0e9, 0.05),
     (30, 2_010_020_356, 2.0e9, 0.01), (36, 2_353_893_904, 2.3e9, 0.05)],
)  # fmt: skip
def test_published_sizes(depth: int, parameters: int, published: float, within: float) -> None:
    """Where the published number has two digits alone, ours is told by them."""
    side = 512 if depth == 36 else 256
    scales = [grid.rows for grid in SCALES[side].levels]
    with torch.device("meta"):
        model = VAR(config(scales, codes=4096, classes=1000, code_size=32, width=64 * depth, heads=depth, blocks=depth,
                           shared_adaln=depth == 36))  # fmt: skip
    assert count_parameters(model) == parameters
    assert abs(parameters / published - 1) < within


@pytest.mark.parametrize("shared", [False, True])
def test_names_of_the_release(shared: bool) -> None:
    state = var_state(**{**SIZES, "shared": shared})  # type: ignore[arg-type]
    own = {name: tensor.shape for name, tensor in VAR(config(shared_adaln=shared)).state_dict().items()}
    kept = {name: tensor.shape for name, tensor in state.items()
            if name not in ("lvl_1L", "attn_bias_for_masking") and "zero_k_bias" not in name}  # fmt: skip
    assert own == kept


def test_where_scales_come_from(tmp_path: Path) -> None:
    state = var_state(**{**SIZES, "scales": (1, 3, 5)})  # type: ignore[arg-type]
    path = save(tmp_path, state, "a.pth")
    assert str(load_checkpoint(path).lattice) == "1/3/5"
    del state["lvl_1L"]
    path = save(tmp_path, state, "b.pth")
    with pytest.raises(
        BenchError, match="3 levels of 35 cells in all, and no published list of scales has not so many"
    ):
        load_checkpoint(path)
    assert str(load_checkpoint(path, scales="1/3/5").lattice) == "1/3/5"
    with pytest.raises(BenchError, match="the scales 1/2/4 have not so many; give them as in"):
        load_checkpoint(path, scales="1/2/4")
    released = var_state(**{**SIZES, "scales": tuple(grid.rows for grid in SCALES[256].levels)})  # type: ignore[arg-type]
    del released["lvl_1L"]
    assert load_checkpoint(save(tmp_path, released, "c.pth")).lattice == SCALES[256]


# Files that do not belong

STATE = var_state(**SIZES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (STATE | {"extra.weight": torch.zeros(1)}, "does not fit VAR: missing nothing; unexpected extra.weight"),
        ({n: t for n, t in STATE.items() if n != "head.bias"}, "missing head.bias; unexpected nothing"),
        ({n: t for n, t in STATE.items() if n != "head.weight"}, "holds no head.weight, and is not in VAR's layout"),
        (STATE | {"pos_1LC": torch.zeros(3)}, "holds a (3,) pos_1LC, and is not in VAR's layout"),
        (STATE | {"word_embed.weight": torch.zeros(12, 0)}, "holds a (12, 0) word_embed.weight"),
        (STATE | {"blocks.0.ffn.fc2.weight": torch.zeros(2, 2)}, "holds blocks.0.ffn.fc2.weight as torch.float32 of"),
        (STATE | {"blocks.999999999.q": torch.zeros(1)}, "too few for 1000000000 blocks; name another file"),
        (STATE | {"lvl_1L": torch.zeros(1, 30, dtype=torch.int64)}, "has 4 levels of 30 cells in all, and no"),
        (STATE | {"text_proj_for_sos.weight": torch.zeros(1)}, "is of a text-conditional relative of VAR, which reads"),
        (STATE | {"head.bias": torch.full((37,), float("nan"))}, "holds numbers that are not finite in head.bias"),
    ],
)  # fmt: skip
def test_files_that_are_not_whole(state: State, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=re.escape(sentence)):
        load_checkpoint(save(tmp_path, state, "var.pth"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"quant_conv.bias": None}, "missing quant_conv.bias; unexpected nothing"),
        ({"more": torch.zeros(1)}, "does not fit VARTokenizer: missing nothing; unexpected more"),
        ({"encoder.conv_in.weight": None}, "has no codebook and first convolution of VAR's tokenizer"),
        ({"quantize.quant_resi.qresi_ls.4.bias": torch.zeros(5)}, "unexpected quantize.quant_resi.qresi_ls.4.bias"),
    ],
)  # fmt: skip
def test_tokenizers_that_are_not_whole(change: dict[str, Tensor | None], sentence: str, tmp_path: Path) -> None:
    state = {name: t for name, t in {**vae_state(), **change}.items() if t is not None}
    with pytest.raises(BenchError, match=re.escape(sentence)):
        load_codec(save(tmp_path, state, "vae.pth"))


def test_tokenizers_that_do_not_belong(vae: str, tmp_path: Path) -> None:
    model = load_checkpoint(save(tmp_path, STATE, "var.pth"))
    assert isinstance(model, VAR)
    for late in (lambda: model.meet(None), lambda: model.start(torch.tensor([0]), 31)):
        with pytest.raises(BenchError, match="codebook, which its file does not hold; name that tokenizer, as in"):
            late()
    with torch.device("meta"):
        others = {"codes of 36 codes": VARTokenizer(36, 5, 32), "grid": VQ16()}
    with pytest.raises(
        BenchError, match="the tokenizer has 36 codes of 5 numbers, and VAR was trained on a pyramid of"
    ):
        model.meet(others["codes of 36 codes"])
    with pytest.raises(BenchError, match="the tokenizer has codes of a grid, and VAR was trained on a pyramid of 37"):
        model.meet(others["grid"])


def test_a_codebook_travels_where_the_weights_hold_one(vae: str) -> None:
    model = VAR(config(codebook=True)).eval()
    model.meet(None)
    assert sum(name.startswith("quantize.") for name in model.state_dict()) == 9
    codec = load_codec(vae)
    assert isinstance(codec, VARTokenizer)
    model.meet(codec)
    assert model.quantize is codec.quantize
    assert codec.lattice(64) == Pyramid.parse("1/2/3/4")


def test_guidance_of_the_release() -> None:
    """s = 1 + cfg k / (K - 1), at cfg 1.5; of one level, 1."""
    law = parse_guidance(str(SAMPLING["guidance"]))
    along = law.along((1, 4, 9, 16))[[0, 1, 5, 14]]
    torch.testing.assert_close(along, torch.tensor([1.0, 1.5, 2.0, 2.5]))
    assert law.along((7,)).tolist() == [1.0] * 7


# The small tokenizer of the same kind


def small(**changes: object) -> PyramidTokenizer:
    torch.manual_seed(0)
    sizes = {"codes": 9, "code_size": 4, "width": 8, "scales": (1, 2, 4), **changes}
    tokenizer = tokenizer_of(TokenizerConfig(**sizes))  # type: ignore[arg-type]
    assert isinstance(tokenizer, PyramidTokenizer)
    return tokenizer.eval()


def grey(n: int = 3) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_tokenizer_with_scales_makes_a_pyramid_of_codes() -> None:
    tokenizer = small()
    assert isinstance(tokenizer_of(TokenizerConfig()), Tokenizer)
    assert str(tokenizer.lattice(8)) == "1/2/4"
    assert tokenizer.side(tokenizer.pyramid) == 8
    codes_BLK = tokenizer.encode(grey())
    assert codes_BLK.shape == (3, 21, 1)
    assert tokenizer.decode(codes_BLK, tokenizer.pyramid).shape == (3, 1, 8, 8)
    with pytest.raises(BenchError, match="scales 1/2/4 are of images of 8 pixels a side, not of 16; --side 8 would do"):
        tokenizer.encode(torch.zeros(1, 1, 16, 16))
    with pytest.raises(BenchError, match="codes are on 1/2/4, not on 1/4; name the model's own"):
        tokenizer.decode(codes_BLK, Pyramid.parse("1/4"))


def test_its_loss_is_that_of_every_level_s_canvas() -> None:
    tokenizer = small()
    latent = tokenizer.latents(grey())
    latent.retain_grad()
    quantized = tokenizer.quantize(latent, commitment=0.25)
    parts = torch.split(quantized.tokens_BL, [1, 4, 16], dim=1)
    canvas, terms = torch.zeros_like(latent), []
    for level, part in enumerate(parts):
        canvas = canvas + tokenizer.quantizer.band(level, part, tokenizer.pyramid)
        terms.append(1.25 * (canvas - latent).square().mean())
    torch.testing.assert_close(quantized.loss, torch.stack(terms).mean())
    torch.testing.assert_close(quantized.latent_Bzhw, canvas)
    quantized.loss.backward(retain_graph=True)
    assert tokenizer.code_vectors.grad is not None
    assert all(phi.grad is not None for name, phi in tokenizer.named_parameters() if "qresi_ls.0" in name)
    latent.grad = tokenizer.code_vectors.grad = None
    quantized.latent_Bzhw.sum().backward()  # straight through: to the latent alone
    assert torch.equal(latent.grad, torch.ones_like(latent))  # type: ignore[arg-type]
    assert tokenizer.code_vectors.grad is None


def test_unused_codes_move_to_what_levels_sought() -> None:
    tokenizer = small()
    quantized = tokenizer.quantize(tokenizer.latents(grey()))
    used_V = torch.bincount(quantized.tokens_BL.flatten(), minlength=9)
    dead = int((used_V == 0).sum())
    assert dead
    assert tokenizer.revive(used_V, quantized.sought_BLz, torch.arange(9)) == dead
    moved = tokenizer.code_vectors[used_V == 0]
    sought = quantized.sought_BLz.flatten(0, 1)[torch.arange(9)[used_V == 0]]
    assert torch.equal(moved, sought)


@pytest.mark.parametrize("scales", ["1,2,4", "1,2,16,8", "1,x,16", "0,16", "1,2,2,16"])
def test_scales_that_cannot_be_are_one_sentence(scales: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"scales .*1,2,4,8,16"):
        train(TrainSpec(what="tokenizer", scales=scales, out=tmp_path / "out"), print, print)


def test_a_network_takes_the_codebook_of_the_tokenizer_that_it_is_trained_on() -> None:
    tokenizer, task = small(code_size=8), Task(9, 3, Pyramid.parse("1/2/4"))
    recipe = SYSTEMS.get("var").function(task)
    codes_NL = torch.randint(0, 9, (8, 21), generator=torch.Generator().manual_seed(0))
    job = ModelJob(recipe.network, recipe.objective, codes_NL, torch.arange(8) % 3, (codes_NL, torch.arange(8) % 3),
                   data="toys", codec=tokenizer, seed=0, device="cpu")  # fmt: skip
    network = job.build()
    assert isinstance(network, VAR)
    assert torch.equal(network.state_dict()["quantize.embedding.weight"], tokenizer.code_vectors)
    loss, _ = job.loss(network, torch.arange(8), slice(0, 8), 0)
    assert abs(float(loss.detach()) - math.log(9)) < 0.05  # a fresh network is nearly uniform
    loss.backward()
    assert all(
        (parameter.grad is None) == name.startswith("quantize") for name, parameter in network.named_parameters()
    )
    assert list(job.evaluate(network)) == ["scales"]
    with pytest.raises(BenchError, match="the tokenizer's scales are 1/2/4 and the model's 1/4"):
        VAR(VARConfig(codes=9, classes=3, scales=(1, 4), code_size=8, width=8, heads=2, blocks=1)).meet(tokenizer)
    with pytest.raises(BenchError, match="this system decodes a pyramid, and the tokenizer gives a grid of 4x4; a"):
        SYSTEMS.get("var").function(Task(9, 3, Grid(4, 4)))


# In a run


def test_a_file_and_its_tokenizer_meet_in_a_run(vae: str, tmp_path: Path) -> None:
    model = save(tmp_path, STATE, "var.pth")

    def spec(*tokenizer: str) -> RunSpec:
        return RunSpec(model=(model,), tokenizer=tokenizer, orders=("scales",), only=("latency",), device="cpu")

    subject = load_subjects(spec(vae)).own
    assert isinstance(subject.model, VAR)
    assert isinstance(subject.codec, VARTokenizer)
    assert subject.model.quantize is subject.codec.quantize
    assert subject.recommended == SAMPLING
    images = subject.pixels(torch.zeros(2, 30, 1, dtype=torch.int64))
    assert (images.shape, images.dtype) == ((2, 3, 64, 64), torch.uint8)
    with pytest.raises(BenchError, match="VAR makes its inputs from its tokenizer's codebook, which its file does not"):
        load_subjects(spec())
    other = save(tmp_path, vae_state(V=37, z=6), "other.pth")
    with pytest.raises(
        BenchError, match="the tokenizer has 37 codes of 6 numbers, and VAR was trained on a pyramid of"
    ):
        load_subjects(spec(other))


def test_tokenizers_of_the_package_are_found_by_the_checksum_on_a_card() -> None:
    sha256 = load_shipped("fashion-tokenizer").sha256
    assert shipped_tokenizer(sha256[:16]) == "fashion-tokenizer"
    assert shipped_held_out(sha256) == "fashion-held-out"
    assert (shipped_tokenizer("0" * 16), shipped_tokenizer(""), shipped_held_out("0" * 64)) == ("", "", "")
