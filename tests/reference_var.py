"""VAR and its tokenizer from the description, naively: no cache, matrices for resizing, a loop over heads.

Independent of the package: it reads tensors by the names of the released files.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def area(big: int, small: int) -> Tensor:
    """(small, big): each row averages the cells that its window touches."""
    rows = torch.zeros(small, big)
    for i in range(small):
        begin, stop = math.floor(i * big / small), math.ceil((i + 1) * big / small)
        rows[i, begin:stop] = 1 / (stop - begin)
    return rows


def bicubic(small: int, big: int) -> Tensor:
    """(big, small): cubic convolution with a = -0.75 at half-pixel centres, edges repeated."""
    a, rows = -0.75, torch.zeros(big, small)

    def weight(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    for i in range(big):
        at = (i + 0.5) * small / big - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            rows[i, min(max(j, 0), small - 1)] += weight(at - j)
    return rows


TABLES = {10: (0, 0, 1, 1, 1, 2, 2, 3, 3, 3), 5: (0, 1, 2, 2, 3), 4: (0, 1, 2, 3)}


def conv(x_zhw: Tensor, state: State, name: str, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    pad = weight.shape[-1] // 2 if stride == 1 else 0
    return F.conv2d(x_zhw[None], weight, state[f"{name}.bias"], stride=stride, padding=pad)[0]


class ReferenceTokenizer:
    def __init__(self, state: State, scales: tuple[int, ...]) -> None:
        self.state, self.scales = state, scales
        self.table = state["quantize.embedding.weight"]

    def band(self, k: int, codes: Tensor) -> Tensor:
        """What level k adds to the canvas. codes: (n, n)."""
        n, last = self.scales[k], self.scales[-1]
        h = self.table[codes].permute(2, 0, 1)
        if k < len(self.scales) - 1:
            h = torch.einsum("ia,jb,zab->zij", bicubic(n, last), bicubic(n, last), h)
        phi = TABLES[len(self.scales)][k]
        return 0.5 * h + 0.5 * conv(h, self.state, f"quantize.quant_resi.qresi_ls.{phi}")

    def down(self, x_zhw: Tensor, k: int) -> Tensor:
        m = area(self.scales[-1], self.scales[k])
        return torch.einsum("ia,jb,zab->zij", m, m, x_zhw)

    def levels(self, codes_L: Tensor) -> list[Tensor]:
        parts = torch.split(codes_L, [n * n for n in self.scales])
        return [part.reshape(n, n) for part, n in zip(parts, self.scales, strict=False)]

    def canvas(self, levels: list[Tensor]) -> Tensor:
        z, last = self.table.shape[1], self.scales[-1]
        total = torch.zeros(z, last, last)
        for k, codes in enumerate(levels):
            total = total + self.band(k, codes)
        return total

    def encode(self, image_chw: Tensor) -> Tensor:
        lacks = conv(self._encoder(image_chw), self.state, "quant_conv")
        found = []
        for k, n in enumerate(self.scales):
            sought = lacks if k == len(self.scales) - 1 else self.down(lacks, k)
            codes = torch.empty(n, n, dtype=torch.int64)
            for i in range(n):
                for j in range(n):
                    codes[i, j] = (self.table - sought[:, i, j]).square().sum(1).argmin()
            found.append(codes.flatten())
            lacks = lacks - self.band(k, codes)
        return torch.cat(found)

    def decode(self, codes_L: Tensor) -> Tensor:
        x = conv(self.canvas(self.levels(codes_L)), self.state, "post_quant_conv")
        return self._decoder(x).clamp(-1, 1)

    # The convolutional networks

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x[None], 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-6)[0]

    def _res(self, x: Tensor, name: str) -> Tensor:
        y = conv(F.silu(self._norm(x, f"{name}.norm1")), self.state, f"{name}.conv1")
        y = conv(F.silu(self._norm(y, f"{name}.norm2")), self.state, f"{name}.conv2")
        return y + (conv(x, self.state, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in self.state else x)

    def _attn(self, x: Tensor, name: str) -> Tensor:
        c, h, w = x.shape
        q, k, v = conv(self._norm(x, f"{name}.norm"), self.state, f"{name}.qkv").reshape(3, c, h * w)
        weights = (q.T @ k / math.sqrt(c)).softmax(1)
        return x + conv((v @ weights.T).reshape(c, h, w), self.state, f"{name}.proj_out")

    def _middle(self, x: Tensor, side: str) -> Tensor:
        x = self._attn(self._res(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self._res(x, f"{side}.mid.block_2")

    def _stage(self, x: Tensor, name: str, blocks: int) -> Tensor:
        for b in range(blocks):
            x = self._res(x, f"{name}.block.{b}")
            if f"{name}.attn.{b}.norm.weight" in self.state:
                x = self._attn(x, f"{name}.attn.{b}")
        return x

    def _encoder(self, x: Tensor) -> Tensor:
        x = conv(x, self.state, "encoder.conv_in")
        for level in range(5):
            x = self._stage(x, f"encoder.down.{level}", 2)
            if level < 4:
                x = conv(F.pad(x, (0, 1, 0, 1)), self.state, f"encoder.down.{level}.downsample.conv", stride=2)
        x = self._middle(x, "encoder")
        return conv(F.silu(self._norm(x, "encoder.norm_out")), self.state, "encoder.conv_out")

    def _decoder(self, x: Tensor) -> Tensor:
        x = self._middle(conv(x, self.state, "decoder.conv_in"), "decoder")
        for level in (4, 3, 2, 1, 0):
            x = self._stage(x, f"decoder.up.{level}", 3)
            if level:
                x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
                x = conv(x, self.state, f"decoder.up.{level}.upsample.conv")
        return conv(F.silu(self._norm(x, "decoder.norm_out")), self.state, "decoder.conv_out")


class ReferenceVAR:
    def __init__(self, state: State, tokenizer: ReferenceTokenizer) -> None:
        self.state, self.tokenizer = state, tokenizer
        self.depth = sum(name.endswith("mat_qkv.weight") for name in state)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def logits(self, label: int, levels: list[Tensor]) -> Tensor:
        """(n*n, V) of the level behind these, all levels anew under the block-causal mask."""
        s, scales = self.state, self.tokenizer.scales
        c = s["class_emb.weight"][label]
        rows, level_of = [], []
        for k in range(len(levels) + 1):
            if k == 0:
                inputs = (c + s["pos_start"][0]).expand(scales[0] ** 2, -1)
            else:
                seen = self.tokenizer.down(self.tokenizer.canvas(levels[:k]), k)
                inputs = self._linear(seen.flatten(1).T, "word_embed")
            first = sum(n * n for n in scales[:k])
            places = s["pos_1LC"][0, first : first + scales[k] ** 2]
            rows.append(inputs + s["lvl_embed.weight"][k] + places)
            level_of += [k] * scales[k] ** 2
        x, level = torch.cat(rows), torch.tensor(level_of)
        mask = torch.where(level[None, :] <= level[:, None], 0.0, -math.inf)
        for i in range(self.depth):
            x = self._block(x, c, i, mask)
        scale, shift = self._linear(F.silu(c), "head_nm.ada_lin.1").chunk(2)
        x = self._norm(x) * (1 + scale) + shift
        return self._linear(x[level == len(levels)], "head")

    def _norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()

    def _block(self, x: Tensor, c: Tensor, i: int, mask: Tensor) -> Tensor:
        s, name = self.state, f"blocks.{i}"
        if "shared_ada_lin.1.weight" in s:
            said = self._linear(F.silu(c), "shared_ada_lin.1").reshape(6, -1) + s[f"{name}.ada_gss"][0, 0]
        else:
            said = self._linear(F.silu(c), f"{name}.ada_lin.1").reshape(6, -1)
        gate1, gate2, scale1, scale2, shift1, shift2 = said
        y = self._norm(x) * (1 + scale1) + shift1
        q, k, v = (y @ part.T for part in s[f"{name}.attn.mat_qkv.weight"].chunk(3))
        q, v = q + s[f"{name}.attn.q_bias"], v + s[f"{name}.attn.v_bias"]
        factors = s[f"{name}.attn.scale_mul_1H11"].flatten()
        heads = []
        for h, (qh, kh, vh) in enumerate(zip(*(t.chunk(len(factors), 1) for t in (q, k, v)), strict=True)):
            cosines = (qh / qh.norm(dim=1, keepdim=True)) @ (kh / kh.norm(dim=1, keepdim=True)).T
            heads.append((cosines * min(math.exp(float(factors[h])), 100.0) + mask).softmax(1) @ vh)
        x = x + gate1 * self._linear(torch.cat(heads, 1), f"{name}.attn.proj")
        y = self._linear(self._norm(x) * (1 + scale2) + shift2, f"{name}.ffn.fc1")
        y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return x + gate2 * self._linear(y, f"{name}.ffn.fc2")


def var_state(*, V: int, z: int, C: int, d: int, heads: int, depth: int, scales: tuple[int, ...], shared: bool = False,
              seed: int = 0) -> State:  # fmt: skip
    """Random weights with the names and shapes of the release, its buffers among them."""
    rng = np.random.default_rng(seed)
    L = sum(n * n for n in scales)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_start": (1, scales[0] ** 2, d), "pos_1LC": (1, L, d), "word_embed.weight": (d, z), "word_embed.bias": (d,),
        "class_emb.weight": (C + 1, d), "lvl_embed.weight": (len(scales), d), "head_nm.ada_lin.1.weight": (2 * d, d),
        "head_nm.ada_lin.1.bias": (2 * d,), "head.weight": (V, d), "head.bias": (V,),
    }  # fmt: skip
    for i in range(depth):
        for name, shape in {
            "attn.scale_mul_1H11": (1, heads, 1, 1), "attn.q_bias": (d,), "attn.v_bias": (d,),
            "attn.mat_qkv.weight": (3 * d, d), "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
            "ffn.fc1.weight": (4 * d, d), "ffn.fc1.bias": (4 * d,), "ffn.fc2.weight": (d, 4 * d), "ffn.fc2.bias": (d,),
            **({"ada_gss": (1, 1, 6, d)} if shared else {"ada_lin.1.weight": (6 * d, d), "ada_lin.1.bias": (6 * d,)}),
        }.items():  # fmt: skip
            shapes[f"blocks.{i}.{name}"] = shape
    if shared:
        shapes |= {"shared_ada_lin.1.weight": (6 * d, d), "shared_ada_lin.1.bias": (6 * d,)}
    state = {name: torch.from_numpy(rng.normal(0, 0.2, shape)).float() for name, shape in shapes.items()}
    state["blocks.0.attn.scale_mul_1H11"][0, 0] = 6.0  # above the cap
    level = torch.repeat_interleave(torch.arange(len(scales)), torch.tensor([n * n for n in scales]))
    masked = torch.where(level[:, None] >= level[None, :], 0.0, -math.inf)[None, None]
    buffers = {f"blocks.{i}.attn.zero_k_bias": torch.zeros(d) for i in range(depth)}
    return {**state, "lvl_1L": level[None], "attn_bias_for_masking": masked, **buffers}
