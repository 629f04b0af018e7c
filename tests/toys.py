"""Small things that tests share: networks with random weights, tokens, and an independent reference."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.config import ModelConfig
from orderbench.models.likelihood import crop_answer, plan_answer
from orderbench.models.transformer import Cache, Transformer
from orderbench.models.visibility import InGroup
from orderbench.orders import Plan


def toy_model(
    rows: int = 4,
    cols: int = 5,
    position: str = "rope+table",
    seed: int = 0,
    label: str = "slot+query",
    **changes: int,
) -> Transformer:
    """Two layers a pass, sixteen wide, random weights large enough that everything matters."""
    sizes = {"codes": 11, "classes": 3, "width": 16, "heads": 2, "self_blocks": 2, "cross_blocks": 2, **changes}
    torch.manual_seed(seed)
    config = ModelConfig(rows=rows, cols=cols, position=position, label=label, **sizes)  # type: ignore[arg-type]
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3 if "table" in name or "embeddings" in name else 0.2)
            if parameter.ndim == 1:
                parameter.add_(1.0)
    return model.eval()


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
