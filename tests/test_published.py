"""Published layouts: ARPG reproduced from random weights, exact sizes and keys, and files that are not to be
trusted."""

import pickle
from pathlib import Path

import pytest
import torch
from reference_arpg import ReferenceARPG, random_state, step_sizes
from safetensors.torch import save_file

from orderbench.models import load_checkpoint, load_codec
from orderbench.models.arpg import our_name
from orderbench.models.config import ModelConfig
from orderbench.models.decode import decode_steps
from orderbench.models.guidance import Guidance
from orderbench.models.sampling import Sampling, uniforms
from orderbench.models.transformer import Transformer, count_parameters
from orderbench.models.vq16 import VQ16
from orderbench.orders import BenchError, Grid, Pace, make_plan

STATE = random_state(V=37, C=5, d=32, f=48, half=2, seed=0)


def save(folder: Path, state: object, name: str = "tiny.pt") -> str:
    torch.save(state, folder / name)
    return str(folder / name)


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 16])
@pytest.mark.parametrize("law", ["arccos", "cosine"])
def test_arpg_is_reproduced_at_every_step(law: str, steps: int, tmp_path: Path) -> None:
    model = load_checkpoint(save(tmp_path, {"model": STATE}), "arpg", heads=2, side=4)
    reference = ReferenceARPG(STATE, heads=2, side=4)
    plan = make_plan(f"random:shared=true@{law}:{steps}", Grid(4, 4), seed=3)
    assert list(plan.sizes) == step_sizes(16, steps, law)
    samples, labels, scale = [0, 1], [4, 0], 3.0
    sampling = Sampling(guidance=Guidance(law="linear", scale=scale))
    ours = list(decode_steps(model, plan, samples, labels=labels, sampling=sampling, seed=7))
    for b, sample in enumerate(samples):
        numbers = uniforms(7, [sample], 16)[0]
        order = plan.cells_for([sample])[0].tolist()
        theirs = reference.generate(labels[b], order, list(plan.sizes), scale, numbers)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine.answer.logits_BQV[b], other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrapper", ["model", "module", "state_dict", None, "safetensors"])
def test_every_wrapping_of_a_state_dict_loads(wrapper: str | None, tmp_path: Path) -> None:
    if wrapper == "safetensors":
        path = str(tmp_path / "tiny.safetensors")
        save_file(STATE, path)
    else:
        path = save(tmp_path, STATE if wrapper is None else {wrapper: STATE})
    model = load_checkpoint(path, "arpg", heads=2, side=4)
    assert model.config == ModelConfig(codes=37, classes=5, rows=4, cols=4, width=32, heads=2, self_blocks=2,
                                       cross_blocks=2, position="rope", ffn=48)  # fmt: skip
    assert torch.equal(model.head.weight, STATE["head.weight"])
    assert not model.training


PUBLISHED = {"L": (1024, 16, 12, 319_845_376), "XL": (1280, 20, 18, 718_997_760), "XXL": (1536, 24, 24, 1_302_449_664)}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_and_keys(size: str) -> None:
    width, heads, half, parameters = PUBLISHED[size]
    config = ModelConfig(codes=16384, classes=1000, rows=16, cols=16, width=width, heads=heads, self_blocks=half,
                         cross_blocks=half, position="rope")  # fmt: skip
    model = Transformer.skeleton(config)
    assert count_parameters(model) == parameters
    keys = random_state(V=2, C=1, d=4, f=2, half=half, seed=0)
    assert {our_name(key) for key in keys} == set(model.state_dict())
    assert config.ffn_width == {1024: 2816, 1280: 3584, 1536: 4096}[width]
    assert config.head_size == 64


# VQ-16


def test_vq16_has_the_published_layout() -> None:
    with torch.device("meta"):
        tokenizer = VQ16()
    state = {name: tuple(t.shape) for name, t in tokenizer.state_dict().items()}
    assert len(state) == 343
    assert count_parameters(tokenizer) == 71_883_403
    parts = {part: sum(p.numel() for n, p in tokenizer.named_parameters() if n.startswith(part)) for part in
             ("encoder", "decoder", "quantize", "quant_conv", "post_quant_conv")}  # fmt: skip
    assert parts == {"encoder": 29_298_176, "decoder": 42_449_795, "quantize": 131_072, "quant_conv": 2_056,
                     "post_quant_conv": 2_304}  # fmt: skip
    for key, shape in {
        "quantize.embedding.weight": (16384, 8),
        "decoder.conv_in.weight": (512, 256, 3, 3),
        "decoder.mid.1.proj_out.weight": (512, 512, 1, 1),
        "decoder.conv_blocks.0.attn.2.q.weight": (512, 512, 1, 1),
        "decoder.conv_blocks.1.res.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.conv_blocks.3.res.0.nin_shortcut.weight": (128, 256, 1, 1),
        "decoder.conv_blocks.3.upsample.conv.weight": (128, 128, 3, 3),
        "decoder.norm_out.weight": (128,),
        "encoder.conv_blocks.2.res.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.conv_blocks.4.res.0.nin_shortcut.weight": (512, 256, 1, 1),
        "encoder.conv_blocks.4.attn.1.norm.weight": (512,),
        "encoder.conv_blocks.2.downsample.conv.weight": (256, 256, 3, 3),
        "encoder.conv_out.weight": (256, 512, 3, 3),
    }.items():
        assert state[key] == shape, key


@pytest.fixture(scope="module")
def vq16_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    state = VQ16().state_dict() | {"quantize.codebook_used": torch.zeros(65536)}
    return save(tmp_path_factory.mktemp("vq16"), {"model": state})


@pytest.mark.parametrize("side", [16, 24, 32])
def test_vq16_turns_codes_into_images_and_back(vq16_file: str, side: int) -> None:
    tokenizer = load_codec(vq16_file)
    codes_BLK = torch.randint(0, 16384, (1, side * side, 1), generator=torch.Generator().manual_seed(1))
    images = tokenizer.decode(codes_BLK, Grid(side, side))
    assert images.shape == (1, 3, 16 * side, 16 * side)
    assert images.abs().max() <= 1
    again = tokenizer.encode(images)
    assert again.shape == codes_BLK.shape
    assert 0 <= int(again.min()) <= int(again.max()) < 16384


def test_vq16_looks_codes_up_on_the_unit_sphere(vq16_file: str) -> None:
    tokenizer = load_codec(vq16_file)
    codes_BLK = torch.arange(16)[None, :, None]
    before = tokenizer.decode(codes_BLK, Grid(4, 4))
    with torch.no_grad():
        tokenizer.quantize["embedding"].weight.mul_(3.0)
    torch.testing.assert_close(
        tokenizer.decode(codes_BLK, Grid(4, 4)), before, atol=1e-4, rtol=1e-3
    )  # normalising rounds
    with pytest.raises(BenchError, match="sides of multiples of 16, not"):
        tokenizer.encode(torch.zeros(1, 3, 20, 16))


# Files are not to be trusted


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("the file ran code",))


def without(key: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in STATE.items() if name != key}


def test_a_pickle_that_carries_code_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps({"model": Bomb()}))
    with pytest.raises(BenchError, match="is not a whole torch file"):
        load_checkpoint(tmp_path / "bomb.pt", "arpg")
    path = save(tmp_path, {"model": STATE, "args": Bomb()})
    with pytest.raises(BenchError, match="is not opened: it could run code"):
        load_checkpoint(path, "arpg")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = Path(save(tmp_path, {"model": STATE}))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BenchError, match=r"tiny\.pt' (is not a whole torch file|holds more than tensors)"):
        load_checkpoint(path, "arpg")
    broken = tmp_path / "tiny.safetensors"
    save_file(STATE, broken)
    broken.write_bytes(broken.read_bytes()[:keep])
    with pytest.raises(BenchError, match="is not a whole safetensors file"):
        load_checkpoint(broken, "arpg")


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"model": {"tok_embeddings.weight": torch.zeros(4, 4)}}, "is not in ARPG's layout: unexpected tok_embeddings"),
        ({"model": STATE | {"extra.weight": torch.zeros(1)}}, "unexpected extra.weight"),
        ({"model": without("norm.weight")}, "missing norm.weight; unexpected nothing"),
        ({"model": without("head.weight")}, "no token table and head"),
        ({"model": STATE | {"layers.to_k.weight": torch.zeros(32, 31)}}, "holds to_k.weight as torch.float32 of"),
        ({"model": STATE | {"norm.weight": torch.zeros(32, dtype=torch.int64)}}, "holds norm.weight as torch.int64"),
        ({"model": STATE | {"head.weight": torch.zeros(3)}}, "that is no matrix"),
        ({"model": {"steps": 4}}, "does not hold weights alone: steps is no named tensor"),
        ({"model": {7: torch.zeros(1)}}, "does not hold weights alone: 7 is no named tensor"),
        ({"model": STATE | {"layers.self_dec.999999999.ffn.w1.weight": torch.zeros(1)}}, "for 1000000000 blocks; name"),
        ({"model": STATE | {"layers.self_dec.0.ffn.w1.weight": torch.tensor(0.0)}}, "holds self_blocks.0.ffn.w1"),
        ([1, 2], "holds a list, not a dictionary of tensors"),
    ],
)  # fmt: skip
def test_other_files_are_named(state: object, sentence: str, tmp_path: Path) -> None:
    path = save(tmp_path, state)
    with pytest.raises(BenchError) as refusal:
        load_checkpoint(path, "arpg", heads=2, side=4)
    assert sentence in str(refusal.value)


def test_families_by_name(tmp_path: Path) -> None:
    path = save(tmp_path, {"model": STATE})
    assert load_checkpoint(path, family="arpg", heads=2, side=4).config.heads == 2
    with pytest.raises(BenchError, match="no family of published weights named 'arp'; did you mean 'arpg'"):
        load_checkpoint(path, family="arp")


def test_no_such_file() -> None:
    with pytest.raises(BenchError, match=r"there is no file 'nowhere\.pt'"):
        load_checkpoint("nowhere.pt", "arpg")


def test_arccos_law_is_the_pace() -> None:
    for n, side in ((16, 4), (256, 16)):
        for T in (1, 2, 7, 16):
            for law in ("arccos", "cosine"):
                assert list(Pace(law, T).sizes(Grid(side, side))) == step_sizes(n, T, law)
