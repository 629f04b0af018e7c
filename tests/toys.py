"""Small things that tests share: networks with random weights, tokens, and an independent reference."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orderbench.models.answer import Categorical, Chained
from orderbench.models.config import ModelConfig
from orderbench.models.likelihood import crop_answer, plan_answer
from orderbench.models.transformer import Cache, Transformer, attend, join_heads
from orderbench.models.visibility import InGroup, as_bias
from orderbench.orders import Plan, Pyramid, make_plan


def toy_model(
    rows: int = 4,
    cols: int = 5,
    position: str = "rope+table",
    seed: int = 0,
    label: str = "slot+query",
    **changes: int,
) -> Transformer:
    """Two layers a pass, sixteen wide, random weights large enough that everything matters."""
    config = toy_config(rows, cols, **changes)
    return filled(Transformer(replace(config, position=position, label=label)), seed)  # type: ignore[arg-type]


def toy_tokens(model: Transformer, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens (n, L) and labels (n,), the null class among them."""
    rng = np.random.default_rng(seed)
    tokens_BL = torch.from_numpy(rng.integers(0, model.code_sizes[0], (n, model.lattice.n_cells)))
    return tokens_BL, torch.arange(n) % (model.n_classes + 1)


def plan_logits(
    model: Transformer,
    tokens_BL: Tensor,
    labels_B: Tensor,
    plan: Plan,
    samples: Sequence[int] | None = None,
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L, V) by teacher forcing, place by place of the walk."""
    answer = plan_answer(model, tokens_BL[..., None], labels_B, plan, samples=samples, in_group=in_group)
    assert isinstance(answer, Categorical)
    return answer.logits_BQV


def crop_logits(model: Transformer, codes_BM: Tensor, labels_B: Tensor, known_BM: Tensor, targets_BQ: Tensor) -> Tensor:
    """(B, Q, V) of one nested step."""
    answer = crop_answer(model, codes_BM[..., None], labels_B, known_BM, targets_BQ)
    assert isinstance(answer, Categorical)
    return answer.logits_BQV


class EightMembers:
    """A user's network of the old form around one of ours: its cache is a list, and says nothing of its length."""

    def __init__(self, network: Transformer) -> None:
        self.network, self.lattice = network, network.lattice
        self.n_codes, self.n_classes = network.config.codes, network.config.classes

    def start(self, labels_B: Tensor, slots: int) -> list[Cache]:
        return [self.network.start(labels_B, slots)]

    def step(self, cache: list[Cache], tokens: Tensor, cells: Tensor, bias: Tensor | None) -> None:
        seen = None if bias is None else (bias == 0)[None]
        self.network.step(cache[0], tokens[..., None], cells, seen=seen)

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return self.network.answer(cache[0], cells).logits_BQV

    def refill(self, cache: list[Cache], labels: Tensor, tokens: Tensor, cells: Tensor) -> None:
        self.network.refill(cache[0], labels, tokens[..., None], cells)

    def rewind(self, cache: list[Cache], slots: int) -> None:
        self.network.rewind(cache[0], slots)


def step_of_place(plan: Plan) -> Tensor:
    """(L,): the step of every place of the walk."""
    return torch.repeat_interleave(torch.arange(plan.n_steps), torch.tensor(plan.sizes))


def naive_rope(x: Tensor, row: int, col: int) -> Tensor:
    """One head's vector turned pair by pair, from the formula."""
    K = len(x)
    out = x.clone()
    for pair in range(K // 2):
        half, j = divmod(pair, K // 4)
        angle = (row if half == 0 else col) * 10000 ** (-4 * j / K)
        a, b = x[2 * pair], x[2 * pair + 1]
        cos, sin = np.cos(angle), np.sin(angle)
        out[2 * pair], out[2 * pair + 1] = a * cos - b * sin, b * cos + a * sin
    return out


CLASS = -1  # the cell of a class slot


def by_group(groups: list[int]) -> list[list[int]]:
    """What the class and then content of these groups see: the class itself alone, content up to its own group."""
    return [[0], *([0, *(1 + j for j, other in enumerate(groups) if other <= own)] for own in groups)]


def naive_logits(
    model: Transformer, label: int, slots: list[tuple[int, int]], sees: list[list[int]], shown: list[int], target: int
) -> Tensor:
    """(V,): the prediction of one cell, slot by slot, from the paper's description.

    slots: (cell, code) behind the class, which is slot 0; a cell CLASS is another class slot. sees: which slots each
    slot sees. shown: which slots the target sees.
    """
    c, w = model.config, dict(model.named_parameters())
    cols, H, K = c.cols, c.heads, c.head_size

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean() + 1e-5).sqrt() * weight

    def ffn(x: Tensor, prefix: str) -> Tensor:
        y = norm(x, w[f"{prefix}.ffn_norm.weight"])
        gate, up = w[f"{prefix}.ffn.w1.weight"] @ y, w[f"{prefix}.ffn.w3.weight"] @ y
        return x + w[f"{prefix}.ffn.w2.weight"] @ (F.silu(gate) * up)

    def turned(x: Tensor, cell: int) -> Tensor:
        if cell == CLASS:  # the zero vector
            return torch.zeros_like(x)
        return torch.cat([naive_rope(head, cell // cols, cell % cols) for head in x.split(K)])

    def look(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        heads = []
        for h in range(H):
            part = slice(h * K, (h + 1) * K)
            logits = torch.stack([q[part] @ k[part] for k in keys]) / K**0.5
            heads.append(sum(p * v[part] for p, v in zip(logits.softmax(0), values, strict=True)))
        return torch.cat(heads)

    cells = [CLASS, *(cell for cell, _ in slots)]
    table = model.table_LD
    x = [w["embeddings.weight"][c.codes + 1 + label]]
    for cell, code in slots:
        content = w["embeddings.weight"][code] + (table[cell] if table is not None else 0)
        x.append(x[0] if cell == CLASS else content)
    for layer in range(c.self_blocks):
        p = f"self_blocks.{layer}"
        y = [norm(v, w[f"{p}.attn_norm.weight"]) for v in x]
        q, k = ([turned(w[f"{p}.to_{n}.weight"] @ v, s) for v, s in zip(y, cells, strict=True)] for n in "qk")
        values = [w[f"{p}.to_v.weight"] @ v for v in y]
        for i, seen in enumerate(sees):
            attended = look(q[i], [k[j] for j in seen], [values[j] for j in seen])
            x[i] = ffn(x[i] + w[f"{p}.proj.weight"] @ attended, p)
    y = [norm(x[i], w["shared_norm.weight"]) for i in shown]
    keys = [turned(w["to_k.weight"] @ v, cells[i]) for v, i in zip(y, shown, strict=True)]
    values = [w["to_v.weight"] @ v for v in y]
    z = w["embeddings.weight"][c.codes] + (table[target] if table is not None else 0)
    if c.label == "slot+query":
        z = z + w["query_labels.weight"][label]
    for layer in range(c.cross_blocks):
        p = f"cross_blocks.{layer}"
        q_target = turned(w[f"{p}.to_q.weight"] @ norm(z, w[f"{p}.attn_norm.weight"]), target)
        z = ffn(z + w[f"{p}.proj.weight"] @ look(q_target, keys, values), p)
    return w["head.weight"] @ norm(z, w["norm.weight"])


# Models of other shapes, to prove that the contracts hold for them


class PyramidModel(Transformer):
    """Our network over the cells of a pyramid: a cell is told by the table alone."""

    def __init__(self, config: ModelConfig, pyramid: Pyramid) -> None:
        super().__init__(config)
        self.pyramid = pyramid

    @property
    def lattice(self) -> Pyramid:  # type: ignore[override]
        return self.pyramid

    native = "scales"


class ChainedModel(Transformer):
    """Three codes a cell. Content is the sum of their embeddings; a small head draws them one after another."""

    sizes = (5, 4, 3)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.width
        self.codes = nn.ModuleList(nn.Embedding(size, D) for size in self.sizes)
        self.heads = nn.ModuleList(nn.Linear(D, size, bias=False) for size in self.sizes)

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return self.sizes

    def _sum(self, codes_BQk: Tensor) -> Tensor:
        parts = [table(codes_BQk[..., k]) for k, table in enumerate(self.codes) if k < codes_BQk.shape[2]]
        return torch.stack(parts).sum(0)

    def step(
        self, cache: Cache, codes_BGK: Tensor, cells_BG: Tensor, *, seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:  # fmt: skip
        x_BGD = self._sum(codes_BGK) + self.table_LD[cells_BG]
        self._feed(cache, x_BGD, self.turn_LJ[cells_BG], seen, slots_BG)

    def refill(self, cache: Cache, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        cache.length, cache.labels_B = 0, labels_B
        turn = torch.cat([self._no_turn(labels_B), self.turn_LJ[cells_BM]], 1)
        x_BMD = self._sum(codes_BMK) + self.table_LD[cells_BM]
        self._feed(cache, torch.cat([self.label(labels_B), x_BMD], dim=1), turn, None, None)

    def answer(self, cache: Cache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Chained:  # type: ignore[override]
        return Chained(self.said(cache, cells_BQ, seen), self.head_of, len(self.sizes))

    def head_of(self, hidden_BQD: Tensor, codes_BQk: Tensor) -> Tensor:
        k = codes_BQk.shape[2]
        return self.heads[k](hidden_BQD if k == 0 else hidden_BQD + self._sum(codes_BQk))


class RegionsModel(Transformer):
    """One order alone, in whole groups; cells that are asked together see each other; nothing can be taken back."""

    native = "regions"
    traits = frozenset({"masks", "joint"})
    refill = rewind = None  # type: ignore[assignment]

    def refuses(self, plan: Plan) -> str:
        return "" if plan == make_plan("regions", self.lattice) else "it was trained for regions:m=2 in its own groups"

    def answer(self, cache: Cache, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        slots = cache.length if seen is None else seen.shape[2] - cells_BQ.shape[1]
        x_BQD = self.said(cache, cells_BQ, None if seen is None else seen[:, :, :slots])
        among = None if seen is None else as_bias(seen[:, :, slots:], x_BQD.dtype)
        q, k, v = self.self_blocks[0].qkv(x_BQD, self.turn_LJ[cells_BQ])
        return Categorical(self.head(x_BQD + join_heads(attend(q, k, v, among))).float())


def filled(model: Transformer, seed: int = 0) -> Any:
    """Random weights large enough that everything matters; in eval mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3 if "table" in name or "embeddings" in name or "codes" in name else 0.2)
            if parameter.ndim == 1:
                parameter.add_(1.0)
    return model.eval()


def toy_config(rows: int, cols: int, **changes: int) -> ModelConfig:
    """Two layers a pass, sixteen wide."""
    sizes = {"codes": 11, "classes": 3, "width": 16, "heads": 2, "self_blocks": 2, "cross_blocks": 2, **changes}
    return ModelConfig(rows=rows, cols=cols, position="rope+table", label="slot+query", **sizes)  # type: ignore[arg-type]


def pyramid_model(text: str = "1/2/4", **changes: int) -> PyramidModel:
    """A model of a pyramid."""
    pyramid = Pyramid.parse(text)
    return filled(PyramidModel(toy_config(1, pyramid.n_cells, **changes), pyramid))


def chained_model() -> ChainedModel:
    """A model of three codes a cell, on 4x4."""
    return filled(ChainedModel(toy_config(4, 4)))


def regions_model() -> RegionsModel:
    """A model of one order, on 4x4."""
    return filled(RegionsModel(toy_config(4, 4)))


def eight_members() -> EightMembers:
    """A user's network of the old form."""
    return EightMembers(toy_model(4, 4))
