"""ARPG from its description, naively: no cache, one sample at a time, published tensor names, no code of ours.

Everything is computed anew at every step, over the whole sequence, with an explicit block-causal mask.
"""

import math

import torch
from torch import Tensor


def step_sizes(n: int, steps: int, law: str) -> list[int]:
    """The clamped laws: how many tokens each evaluation decodes."""
    sizes: list[int] = []
    done = 0
    for t in range(1, steps + 1):
        ratio = (2 / math.pi) * math.acos(t / steps) if law == "arccos" else math.cos(math.pi * t / (2 * steps))
        masked = math.floor(n * ratio)
        masked = min(masked, n - done - 1)
        masked = max(masked, 1)
        size = n - done if t == steps else n - done - masked
        sizes.append(size)
        done += size
    return sizes


def rope_rows(side: int, head: int) -> Tensor:
    """(side * side, head / 2) complex: the turn of every pair of channels at every cell."""
    quarter = head // 4
    rows = []
    for cell in range(side * side):
        angles = [(cell // side) / 10000 ** (2 * j / (head // 2)) for j in range(quarter)]
        angles += [(cell % side) / 10000 ** (2 * j / (head // 2)) for j in range(quarter)]
        rows.append(torch.polar(torch.ones(head // 2), torch.tensor(angles)))
    return torch.stack(rows)


class ReferenceARPG:
    """Holds a state dict in the released layout."""

    def __init__(self, state: dict[str, Tensor], heads: int, side: int) -> None:
        self.w, self.heads, self.side = state, heads, side
        self.V = state["head.weight"].shape[0]
        self.C = state["embeddings.weight"].shape[0] - self.V - 3
        self.d = state["head.weight"].shape[1]
        self.turns = rope_rows(side, self.d // heads)
        self.depth = {
            kind: len({k.split(".")[2] for k in state if f".{kind}." in k}) for kind in ("self_dec", "cross_dec")
        }

    def norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.w[name]

    def ffn(self, x: Tensor, prefix: str) -> Tensor:
        y = self.norm(x, f"{prefix}.ffn_norm.weight")
        gate = y @ self.w[f"{prefix}.ffn.w1.weight"].T
        return (gate * torch.sigmoid(gate) * (y @ self.w[f"{prefix}.ffn.w3.weight"].T)) @ self.w[
            f"{prefix}.ffn.w2.weight"
        ].T

    def turn(self, x: Tensor, turns: Tensor) -> Tensor:
        """x (S, d) by heads; turns (S, head / 2)."""
        parts = torch.view_as_complex(x.reshape(len(x), self.heads, -1, 2).contiguous())
        return torch.view_as_real(parts * turns[:, None]).reshape(len(x), -1)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        h = self.d // self.heads
        outputs = []
        for head in range(self.heads):
            part = slice(head * h, (head + 1) * h)
            logits = q[:, part] @ k[:, part].T / math.sqrt(h)
            outputs.append(logits.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, part])
        return torch.cat(outputs, dim=-1)

    def logits(self, row: int, known: list[tuple[int, int]], groups: list[int], targets: list[int]) -> Tensor:
        """(len(targets), V): known holds (cell, code) and groups its step; row is the class row of the token table."""
        table = self.w["embeddings.weight"]
        x = torch.stack([table[row], *(table[code] for _, code in known)])
        zero = torch.zeros(1, self.turns.shape[1], dtype=torch.complex64)
        turns = torch.cat([zero, *(self.turns[cell][None] for cell, _ in known)])
        step = torch.tensor([-1, *groups])
        seen = step[None, :] <= step[:, None]
        for i in range(self.depth["self_dec"]):
            p = f"layers.self_dec.{i}"
            y = self.norm(x, f"{p}.attn_norm.weight")
            q, k, v = (y @ self.w[f"{p}.attn.to_{n}.weight"].T for n in "qkv")
            x = (
                x
                + self.attention(self.turn(q, turns), self.turn(k, turns), v, seen) @ self.w[f"{p}.attn.proj.weight"].T
            )
            x = x + self.ffn(x, p)
        y = self.norm(x, "layers.norm.weight")
        k, v = self.turn(y @ self.w["layers.to_k.weight"].T, turns), y @ self.w["layers.to_v.weight"].T
        z = table[self.V].expand(len(targets), -1)
        own = torch.stack([self.turns[cell] for cell in targets])
        everything = torch.ones(len(targets), len(k), dtype=torch.bool)
        for i in range(self.depth["cross_dec"]):
            p = f"layers.cross_dec.{i}"
            q = self.turn(self.norm(z, f"{p}.attn_norm.weight") @ self.w[f"{p}.attn.to_q.weight"].T, own)
            z = z + self.attention(q, k, v, everything) @ self.w[f"{p}.attn.proj.weight"].T
            z = z + self.ffn(z, p)
        return self.norm(z, "norm.weight") @ self.w["head.weight"].T

    def generate(self, label: int, order: list[int], sizes: list[int], scale: float, numbers: Tensor) -> list[Tensor]:
        """The guided logits of every step; codes by inverse CDF of each cell's number. Linear guidance, counted
        after."""
        known: list[tuple[int, int]] = []
        groups: list[int] = []
        steps = []
        for t, size in enumerate(sizes):
            targets = order[len(known) : len(known) + size]
            done = len(known) + size
            c = self.logits(self.V + 1 + label, known, groups, targets)
            u = self.logits(self.V + self.C + 1, known, groups, targets)
            guided = u + (1 + (scale - 1) * done / len(order)) * (c - u)
            steps.append(guided)
            cdf = guided.double().softmax(-1).cumsum(-1)
            for cell, row in zip(targets, cdf, strict=True):
                known.append((cell, int((row <= numbers[cell] * row[-1]).sum())))
                groups.append(t)
        return steps


def random_state(V: int, C: int, d: int, f: int, half: int, seed: int) -> dict[str, Tensor]:
    """Random weights in the released layout."""
    g = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"embeddings.weight": (V + C + 3, d)}
    for kind, names in (("self_dec", ("to_q", "to_k", "to_v", "proj")), ("cross_dec", ("to_q", "proj"))):
        for i in range(half):
            p = f"layers.{kind}.{i}"
            shapes |= {f"{p}.attn.{n}.weight": (d, d) for n in names}
            shapes |= {f"{p}.ffn.w1.weight": (f, d), f"{p}.ffn.w3.weight": (f, d), f"{p}.ffn.w2.weight": (d, f)}
            shapes |= {f"{p}.attn_norm.weight": (d,), f"{p}.ffn_norm.weight": (d,)}
    shapes |= {"layers.norm.weight": (d,), "layers.to_k.weight": (d, d), "layers.to_v.weight": (d, d)}
    shapes |= {"norm.weight": (d,), "head.weight": (V, d)}
    return {
        name: torch.randn(shape, generator=g) * 0.13 + (1.0 if len(shape) == 1 else 0.0)
        for name, shape in shapes.items()
    }
