"""Families of one stack: equal to the naive references at every step, strict files, and what they promise as models."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_onestack import SIZES, decoding, parameter_count, random_weights, shapes, teacher_forced
from torch import Tensor
from toys import toy_model

from orderbench.models import decode_steps, load_checkpoint, plan_answer
from orderbench.models.contract import check_model
from orderbench.models.decode import make_tile, plain_steps, run_tile
from orderbench.models.ear import Ear, EarConfig
from orderbench.models.families import FAMILIES, build_network
from orderbench.models.flops import counted, flops
from orderbench.models.graphs import Graphed, Tape
from orderbench.models.guidance import parse_guidance
from orderbench.models.llamagen import LlamaGen, LlamaGenConfig
from orderbench.models.lpd import Lpd, LpdConfig
from orderbench.models.nar import Nar, NarConfig
from orderbench.models.par import Par, ParConfig
from orderbench.models.profile import profile
from orderbench.models.randar import RandAR, RandARConfig
from orderbench.models.sampling import Sampling
from orderbench.models.stack import Stack
from orderbench.models.systems import BUDGET, PARAMETERS, SYSTEMS, Task
from orderbench.models.train import compile_parts, make_optimizers
from orderbench.orders import BenchError, Grid, make_plan
from orderbench.runs.arms import parse_arm, refused_arm
from orderbench.runs.spec import RunSpec
from orderbench.runs.subject import load_subjects
from orderbench.runs.training import TrainSpec, train

CODES, CLASSES, HEADS = 11, 3, 2
CASES = [  # family, arm
    ("llamagen", "raster"),
    ("par", "regions"),
    ("ear", "spiral@ear-sides"),
    ("ear", "spiral@ear-shells"),
    ("ear", "spiral@one"),
    ("ear-adaln", "spiral@ear-sides"),
    ("randar", "random@randar:9"),
    ("randar", "halton@one"),
    ("lpd", "locality@lpd:7"),
    ("lpd", "raster@even:5"),
    ("lpd", "random@one"),
    ("nar", "diagonal"),
]


def network(folder: Path, family: str, side: int = 6, layers: int = 2) -> tuple[Stack[Any], dict[str, Tensor]]:
    """A file in the family's layout, loaded; and its weights, for the reference."""
    weights = random_weights(
        family, codes=CODES, classes=CLASSES, side=side, width=32, heads=HEADS, layers=layers, seed=1
    )
    weights = {name: tensor.float() for name, tensor in weights.items()}
    file = folder / f"{family}.pt"
    torch.save({"model": weights}, file)
    options: dict[str, Any] = {"heads": HEADS} | ({} if family == "lpd" else {"side": side})
    model = load_checkpoint(file, family.removesuffix("-adaln"), **options)
    assert isinstance(model, Stack)
    return model, weights


@pytest.mark.parametrize(("family", "arm"), CASES)
def test_every_step_and_the_likelihood_equal_the_reference(family: str, arm: str, tmp_path: Path) -> None:
    model, weights = network(tmp_path, family)
    plan = make_plan(arm, model.lattice, seed=3)
    codes_BLK = torch.randint(CODES, (2, 36, 1), generator=torch.Generator().manual_seed(0))
    labels = [2, CLASSES]  # a class, and none
    tile = make_tile(model, plan, [0, 1], labels=labels, forced_BLK=codes_BLK)
    with torch.inference_mode():
        said_BLV = torch.empty(2, 36, CODES)
        for step in plain_steps(tile):
            said_BLV.scatter_(1, step.cells_BQ[..., None].expand(-1, -1, CODES), step.answer.law().float())
        masked = plan_answer(model, codes_BLK, torch.tensor(labels), plan).law().float()
        cells_BL = torch.from_numpy(plan.cells_for([0, 1]).copy())
        masked_BLV = torch.empty_like(masked).scatter_(1, cells_BL[..., None].expand_as(masked), masked)
    for row, label in enumerate(labels):
        cells = cells_BL[row].tolist()
        codes_L, sizes = codes_BLK[row, :, 0].tolist(), list(plan.sizes)
        wanted_LV = decoding(family, weights, codes_L, label, cells, sizes, heads=HEADS)
        torch.testing.assert_close(said_BLV[row], wanted_LV.log_softmax(-1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(masked_BLV[row], wanted_LV.log_softmax(-1), atol=1e-5, rtol=1e-5)
        trained = teacher_forced(family, weights, codes_L, label, cells, sizes, heads=HEADS)
        alike = torch.isclose(said_BLV[row], trained.log_softmax(-1), atol=1e-5).all(-1)
        assert alike.all() or family == "randar"  # whose later queries of a group see less than in training


def test_only_the_later_queries_of_randar_see_other_things_than_in_training(tmp_path: Path) -> None:
    model, weights = network(tmp_path, "randar")
    plan = make_plan("raster@even:12", model.lattice)
    codes = torch.randint(CODES, (1, 36, 1), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        law_LV = plan_answer(model, codes, torch.tensor([1]), plan).law()[0].float()
    trained = teacher_forced("randar", weights, codes[0, :, 0].tolist(), 1, list(range(36)), list(plan.sizes),
                             heads=HEADS).log_softmax(-1)  # fmt: skip
    alike = torch.isclose(law_LV, trained, atol=1e-5).all(-1)
    assert alike.tolist() == [place % 3 == 0 for place in range(36)]


TINY: dict[str, Any] = {"codes": CODES, "classes": CLASSES, "rows": 4, "cols": 4, "width": 16, "heads": 2, "blocks": 2}
CONFIGS = [
    LlamaGenConfig(**TINY), ParConfig(**TINY), EarConfig(**TINY), EarConfig(**TINY, modulation="none"),
    RandARConfig(**TINY), NarConfig(**TINY), LpdConfig(**TINY),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_the_contract_of_models(config: Any) -> None:
    """Among it: cached decoding equals one feeding and one asking, no code moves what came before it, asking leaves no
    trace, and every decoder that the family serves keeps its traits."""
    torch.manual_seed(0)
    model = build_network(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    verdicts = check_model(model, "cpu")
    assert [str(one) for one in verdicts if one.verdict != "pass"] == []
    checked = {one.check for one in verdicts}
    assert "looking ahead" in checked
    assert any(check.startswith("masks") for check in checked)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_recorded_steps_are_eager_steps_and_take_nothing_from_the_processor(config: Any) -> None:
    """As CUDA graphs need it. RandAR looks at cells on a processor alone, so its steps are recorded elsewhere."""
    torch.manual_seed(0)
    model = build_network(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plan = make_plan(model.native, Grid(4, 4))  # type: ignore[arg-type]
    guided = Sampling(guidance=parse_guidance("constant:scale=2"))
    graphed = Graphed(plain_steps, lambda _: Tape())
    for samples in (range(3), range(5, 8)) if not isinstance(model, RandAR) else ():
        eager, replayed = (make_tile(model, plan, samples, sampling=guided) for _ in range(2))  # type: ignore[arg-type]
        assert run_tile(eager, plain_steps) == run_tile(replayed, graphed)
        assert torch.equal(eager.codes_BLK, replayed.codes_BLK)
    assert graphed.refused == []
    elsewhere = build_network(config).eval().to("meta")
    tile = make_tile(elsewhere, plan, range(3), sampling=guided, device="meta")  # type: ignore[arg-type]
    graphed = Graphed(plain_steps, lambda _: Tape())
    assert len(list(graphed(tile))) == plan.n_steps
    assert graphed.refused == []


def test_a_step_is_one_pass_that_runs_what_the_papers_run() -> None:
    """Slots through the network: N for LlamaGen, PAR (with its bridges) and NAR; about twice as many for the others."""
    grid = Grid(4, 4)
    sizes = {**TINY, "width": 16}
    wanted = {
        LlamaGenConfig: ("raster", [1] * 16),
        ParConfig: ("regions", [1, 1, 1, 1, 4, 4, 4]),
        EarConfig: ("spiral@ear-sides", [2, 2, 3, 4, 5, 6, 7]),  # what is fed and what is asked
        RandARConfig: ("raster@even:4", [5, 11, 11, 11]),  # 2 g - 1 + g, after the class and g
        NarConfig: ("diagonal", [1, 1, 2, 3, 4, 3, 2]),
        LpdConfig: ("raster@even:4", [5, 8, 8, 8]),
    }
    for kind, (arm, slots) in wanted.items():
        model = build_network(kind(**sizes)).eval()
        ran: list[int] = []
        first = next(module for name, module in model.named_modules() if name.endswith(("wqkv", "attn.qkv")))
        first.register_forward_hook(lambda module, given, out, ran=ran: ran.append(given[0].shape[1]))
        steps = list(decode_steps(model, make_plan(arm, grid), [0]))  # type: ignore[arg-type]
        assert (len(steps), ran) == (len(slots), slots), kind


@pytest.mark.parametrize(
    ("config", "arm"),
    [
        (LlamaGenConfig(**TINY), "raster@even:4"), (LlamaGenConfig(**TINY), "halton@one"),
        (ParConfig(**TINY), "regions@one"), (ParConfig(**TINY), "raster"), (EarConfig(**TINY), "raster"),
        (EarConfig(**TINY), "random@one"), (NarConfig(**TINY), "diagonal@one"), (NarConfig(**TINY), "radial"),
    ],
)  # fmt: skip
def test_a_family_of_one_walk_refuses_others_and_names_its_own(config: Any, arm: str) -> None:
    model = build_network(config)
    why = model.refuses(make_plan(arm, Grid(4, 4)))  # type: ignore[operator]
    assert f"its network knows the walk of {model.native}" in why
    assert why.endswith(f"--orders {model.native} would do")
    with pytest.raises(BenchError, match="does not serve this plan"):
        make_tile(model, make_plan(arm, Grid(4, 4)), [0])  # type: ignore[arg-type]


# Files


PUBLISHED = [("llamagen", name) for name in ("B", "L", "XL", "XXL", "3B")] + [
    (family, name) for family, names in {
        "par": ("L", "XL", "XXL", "3B"), "ear": ("B", "L", "XL"), "ear-adaln": ("B", "L", "XL"),
        "randar": ("L", "XL", "XXL"), "lpd": ("L", "XL", "XXL"),
    }.items() for name in names
] + [("nar", name) for name in ("B", "M", "L", "XL", "XXL")]  # fmt: skip
KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "llamagen": (LlamaGen, LlamaGenConfig), "par": (Par, ParConfig), "ear": (Ear, EarConfig),
    "ear-adaln": (Ear, EarConfig), "randar": (RandAR, RandARConfig), "nar": (Nar, NarConfig), "lpd": (Lpd, LpdConfig),
}  # fmt: skip


@pytest.mark.parametrize(("family", "size"), PUBLISHED)
def test_published_sizes_have_the_published_numbers_of_parameters_and_names(family: str, size: str) -> None:
    layers, width, heads = SIZES[size]
    codes = 8192 if family.startswith("ear") else 16384
    kind, config = KINDS[family]
    more = {"modulation": "class" if family == "ear-adaln" else "none"} if family.startswith("ear") else {}
    made = config(codes=codes, classes=1000, rows=16, cols=16, width=width, heads=heads, blocks=layers, **more)
    model = kind.skeleton(made)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameter_count(family, size)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert own == {name: tuple(shape) for name, shape in shapes(
        family, codes=codes, classes=1000, side=16, width=width, layers=layers, m=2).items()}  # fmt: skip


def test_the_budget_of_all_systems_is_the_same_within_five_percent() -> None:
    for name in SYSTEMS.names():
        entry = SYSTEMS.get(name)
        if entry.built:
            network = build_network(entry.function(entry.task).network)
            count = sum(parameter.numel() for parameter in network.parameters())
            assert abs(count / PARAMETERS - 1) <= 0.05, (name, count)


def test_each_layout_is_recognised_and_no_other(tmp_path: Path) -> None:
    for family in ("llamagen", "par", "ear", "ear-adaln", "randar", "nar", "lpd"):
        weights = random_weights(family, codes=CODES, classes=CLASSES, side=4, width=16, heads=2, layers=2, seed=0)
        assert [name for name in FAMILIES.names() if FAMILIES.get(name).recognises(weights)] == [
            family.removesuffix("-adaln")
        ]


@pytest.mark.parametrize("family", ["llamagen", "par", "ear", "ear-adaln", "randar", "nar", "lpd"])
def test_files_are_read_strictly(family: str, tmp_path: Path) -> None:
    name = family.removesuffix("-adaln")
    weights = random_weights(family, codes=CODES, classes=CLASSES, side=4, width=16, heads=2, layers=2, seed=0)
    norm = "norm.weight"
    changed = {
        "missing": {key: value for key, value in weights.items() if key != norm},
        "unexpected": {**weights, "another.weight": torch.zeros(2)},
        "would do": {**weights, norm: torch.zeros(3, 5, 7)},
    }
    for words, state in changed.items():
        file = tmp_path / f"{words.replace(' ', '-')}.pt"
        torch.save(state, file)
        with pytest.raises(BenchError, match=words):
            load_checkpoint(file, name, heads=2, **({} if name == "lpd" else {"side": 4}))


def test_tables_that_follow_from_the_sizes_are_left_out(tmp_path: Path) -> None:
    weights = random_weights("randar", codes=CODES, classes=CLASSES, side=4, width=16, heads=2, layers=2, seed=0)
    more = {"freqs_cis": torch.zeros(3), "layers.0.attention.kv_cache.k_cache": torch.zeros(1, 2)}
    torch.save({**weights, **more}, tmp_path / "randar.pt")
    assert isinstance(load_checkpoint(tmp_path / "randar.pt", heads=2, side=4), RandAR)


def test_a_text_conditional_sibling_is_named(tmp_path: Path) -> None:
    weights = random_weights("llamagen", codes=CODES, classes=CLASSES, side=4, width=16, heads=2, layers=2, seed=0)
    del weights["cls_embedding.embedding_table.weight"]
    weights["cls_embedding.cap_proj.fc1.weight"] = torch.zeros(16, 2048)
    torch.save(weights, tmp_path / "t2i_XL.pt")
    with pytest.raises(BenchError, match="is a text-conditional network of LlamaGen's layout, which draws from capt"):
        load_checkpoint(tmp_path / "t2i_XL.pt")


def test_a_release_says_how_it_samples() -> None:
    for name in FAMILIES.names():
        sampling = FAMILIES.get(name).sampling
        assert parse_guidance(sampling["guidance"]).on, name
        assert {*sampling} <= {"guidance", "temperature", "top_k", "top_p"}


def test_gradients_reach_every_tensor_of_a_family() -> None:
    for config in CONFIGS:
        torch.manual_seed(0)
        model = build_network(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        plan = make_plan(model.native, Grid(4, 4))  # type: ignore[arg-type]
        codes = torch.randint(CODES, (2, 16, 1))
        labels = torch.tensor([1, CLASSES])
        plan_answer(model, codes, labels, plan).log_prob(codes).sum().backward()  # type: ignore[arg-type]
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == [], type(config).__name__


SMALL: dict[str, Any] = {"codes": 16, "classes": 10, "width": 16, "heads": 1, "layers": 1, "seed": 0}


def subject_of(folder: Path, family: str, options: str) -> Any:
    torch.save(random_weights(family, side=4, **SMALL), folder / f"{family}.pt")
    spec = RunSpec(model=(f"{folder}/{family}.pt{options}",), orders=("raster",), only=("latency",))
    return load_subjects(spec).own


def test_what_a_file_does_not_say_stands_behind_it(tmp_path: Path) -> None:
    own = subject_of(tmp_path, "llamagen", ":side=4:heads=1")
    assert own.model.lattice == Grid(4, 4)
    assert own.about["name"] == "llamagen.pt:side=4:heads=1"
    assert own.about["family"] == "llamagen"
    assert own.recommended == {"guidance": "constant:scale=2", "top_k": 0, "top_p": 1.0}
    assert subject_of(tmp_path, "lpd", "").model.lattice == Grid(4, 4)  # by its positions


def test_a_release_without_its_tokenizer_says_what_is_left(tmp_path: Path) -> None:
    own = subject_of(tmp_path, "ear", ":side=4")
    assert own.codec is None
    assert own.no_codec == (
        "ear's release is of the tokenizer RobustTok, 8192 codes of 32 numbers, which is not served: its latency is "
        "measured, and bits of codes that you have are orderbench.models.plan_bits"
    )


@pytest.mark.parametrize(
    ("family", "options", "says"),
    [
        ("llamagen", ":side=x", "llamagen:side=x is not served; side takes cells a side of the grid"),
        ("llamagen", ":sid=4", "no option of llamagen named 'sid'; did you mean 'side'"),
        ("llamagen", ":side=4:heads=3", "a width of 16 does not give 3 heads a multiple of 4 channels"),
        ("llamagen", ":side=0", "the model's rows is 0; give a whole number of 1 or more"),
        ("llamagen", ":side=4:classes=5", "holds 10 classes, and 5 were asked; leave classes out"),
        ("par", ":side=3", "2 x 2 regions do not divide a grid of 3 x 3"),
        ("lpd", ":side=4", "no option of lpd named 'side'; known: heads"),
        ("ear", ":schedule=rings", "ear:schedule=rings is not served"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(family: str, options: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=re.escape(says)):
        subject_of(tmp_path, family, options)


def test_operations_are_those_of_the_shared_networks_formula_whatever_the_precision() -> None:
    """Attention too, which torch does not count in its fused form on a processor; and through a wrapper."""

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()

        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(name) if name == "inner" else getattr(self.inner, name)

    model = toy_model()
    plan = make_plan("radial", model.lattice)
    found = []
    for one in (model, Wrapped(), toy_model().to(torch.bfloat16)):
        tile = make_tile(one, plan, [0])  # type: ignore[arg-type]
        found.append(counted(lambda tile=tile: run_tile(tile, plain_steps)))  # type: ignore[misc]
    assert found == [flops(model.config, tile.counters)] * 3


def test_a_decoder_that_chooses_needs_a_model_that_follows_any_walk() -> None:
    for config in CONFIGS:
        model = build_network(config)
        for arm in ("confidence@one", "confidence@cosine:4"):
            why = refused_arm(parse_arm(arm), model)  # type: ignore[arg-type]
            assert bool(why) == (type(config) not in (RandARConfig, LpdConfig)), (type(config), arm)


def test_steps_of_a_network_that_asks_nothing_cannot_be_fitted() -> None:
    model = build_network(LlamaGenConfig(**TINY)).eval()
    codes = torch.zeros(2, 16, 1, dtype=torch.int64)
    with pytest.raises(BenchError, match="tells each cell by codes that were fed before it"):
        profile(model, codes, torch.tensor([0, 1]), make_plan("raster", Grid(4, 4)), [0, 4], [0, 1])  # type: ignore[arg-type]


def test_what_takes_no_gradient_is_in_no_optimizer() -> None:
    """VAR's codebook: weight decay must not shrink it."""
    system = SYSTEMS.get("var")
    network = build_network(system.function(Task(16, 10, system.lattice)).network)
    frozen = [p for p in network.parameters() if not p.requires_grad]
    optimizers = make_optimizers(network, network.hidden_matrices(), BUDGET)  # type: ignore[operator]
    held = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    assert frozen
    assert held == {id(p) for p in network.parameters() if p.requires_grad}


def test_flags_that_would_do_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda part: part)
    with pytest.raises(BenchError, match="a model has none; leave --scales out"):
        train(TrainSpec(what="model", out=tmp_path, system="par", scales="1,2"), lambda _: None, lambda *_: None)
    assert compile_parts(build_network(CONFIGS[0])) == 2 * TINY["blocks"]
    system = SYSTEMS.get("var")
    assert compile_parts(build_network(system.function(Task(16, 10, system.lattice)).network)) == 0


def test_a_file_of_another_family_is_called_what_it_is(tmp_path: Path) -> None:
    torch.save(random_weights("llamagen", side=4, **SMALL), tmp_path / "x.pt")
    for family, name in (("par", "PAR"), ("ear", "EAR"), ("randar", "RandAR"), ("nar", "NAR")):
        with pytest.raises(BenchError, match=f"is in LlamaGen's layout, not in {name}'s; family='llamagen' would do"):
            load_checkpoint(tmp_path / "x.pt", family)
    torch.save({"a": torch.zeros(1)}, tmp_path / "y.pt")
    with pytest.raises(BenchError, match="is not in PAR's layout: it has no spe_tok_embeddings"):
        load_checkpoint(tmp_path / "y.pt", "par")


def test_randar_takes_a_sequence_of_training_for_one_only_where_every_mask_is_that_of_one() -> None:
    """Narrower masks go the long way, and say other things."""
    torch.manual_seed(0)
    model = build_network(RandARConfig(**TINY)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    codes, labels = torch.randint(CODES, (2, 16, 1)), torch.tensor([0, 1])
    cells_BL = torch.arange(16).expand(2, -1)
    before, eye = torch.ones(1, 16, 16, dtype=torch.bool).tril(), torch.eye(16, dtype=torch.bool)[None]
    ran: list[int] = []
    model.layers[0].attention.wqkv.register_forward_hook(lambda module, given, out: ran.append(given[0].shape[1]))  # type: ignore[index,union-attr]

    def said(content: Tensor) -> Tensor:
        cache = model.start(labels, 16)  # type: ignore[operator]
        model.step(cache, codes[:, :15], cells_BL[:, :15], seen=content)  # type: ignore[operator]
        law: Tensor = model.answer(cache, cells_BL, seen=torch.cat([before, eye], dim=2)).law()  # type: ignore[operator]
        return law

    with torch.inference_mode():
        whole, narrow = said(before[:, 1:]), said(torch.cat([before[:, 1:, :1], eye[:, 1:, 1:]], dim=2))
    assert ran == [32, 47]  # 2 L slots, and the class with 15 units of two slots and 16 queries
    assert not torch.allclose(whole[:, 5:], narrow[:, 5:], atol=1e-3)
