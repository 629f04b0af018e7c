"""LlamaGen, PAR, EAR, RandAR, NAR and LPD from their descriptions, naively: no cache, one sample, no code of ours.

Weights are a dict of tensors under the published names. A sequence is a list of slots; each family says which slots
stand in it, how they are turned, what they see and where the logits of a cell are read. The whole sequence is computed
anew at every step.

`teacher_forced` lays out the sequence of training, with its mask. `decoding` lays out, step by step, only what is known
at that step. Both return (L, V) logits by cell, in raster order.
"""

import math

import torch
from torch import Tensor

LLAMAGEN_FAMILIES = ("llamagen", "par", "ear", "ear-adaln", "randar", "nar")
FAMILIES = (*LLAMAGEN_FAMILIES, "lpd")
SIZES = {  # layers, width, heads
    "B": (12, 768, 12),
    "M": (18, 1024, 16),
    "L": (24, 1024, 16),
    "XL": (36, 1280, 20),
    "XXL": (48, 1536, 24),
    "3B": (24, 3200, 32),
}


# ---- Orders and step sizes -------------------------------------------------------------------------------------------


def raster_plan(side: int) -> tuple[list[int], list[int]]:
    """Cells in order, and the size of every step."""
    return list(range(side * side)), [1] * (side * side)


def par_plan(side: int, m: int) -> tuple[list[int], list[int]]:
    """m by m regions: their first cells one by one, then the same inner cell of all regions together."""
    n, inner = m * m, side // m
    cells = []
    for rank in range(side * side):
        slot, region = rank // n, rank % n
        row = (region // m) * inner + slot // inner
        col = (region % m) * inner + slot % inner
        cells.append(row * side + col)
    return cells, [1] * n + [n] * (side * side // n - 1)


def spiral(side: int) -> list[int]:
    """From the (upper left) middle cell: right, down, left, up, with arms of 1, 1, 2, 2, 3, 3, ... cells."""
    row = col = (side - 1) // 2
    cells = [row * side + col]
    turn, arm = 0, 1
    while len(cells) < side * side:
        down, right = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
        for _ in range(arm):
            row, col = row + down, col + right
            if len(cells) < side * side:
                cells.append(row * side + col)
        turn += 1
        if turn % 2 == 0:
            arm += 1
    return cells


def ear_plan(side: int, kind: str) -> tuple[list[int], list[int]]:
    """Kind "shells": steps end at k * k. Kind "sides": at k * k and at k * (k + 1)."""
    ends = []
    for k in range(1, side + 1):
        ends.append(k * k)
        if kind == "sides" and k < side:
            ends.append(k * (k + 1))
    return spiral(side), [end - start for start, end in zip([0, *ends], ends, strict=False)]


def diagonal_plan(side: int) -> tuple[list[int], list[int]]:
    """Cells of one row + col together, by increasing row."""
    cells, sizes = [], []
    for distance in range(2 * side - 1):
        diagonal = [row * side + distance - row for row in range(side) if 0 <= distance - row < side]
        cells += diagonal
        sizes.append(len(diagonal))
    return cells, sizes


# ---- Shapes and numbers ----------------------------------------------------------------------------------------------


def shapes(family: str, *, codes: int, classes: int, side: int, width: int, layers: int, m: int) -> dict[str, tuple]:
    """Every tensor of the released layout; `m` (regions of a side) concerns PAR alone, `side` LPD alone."""
    d = width
    if family == "lpd":
        known: dict[str, tuple] = {
            "class_emb.weight": (classes, d),
            "token_emb.weight": (codes, d),
            "fake_latent": (1, d),
            "pos_embed": (1, side * side + 1, d),
            "mask_token": (1, 1, d),
            "z_proj_ln.weight": (d,),
            "z_proj_ln.bias": (d,),
            "norm.weight": (d,),
            "norm.bias": (d,),
            "head.weight": (codes, d),
        }
        for i in range(layers):
            p = f"blocks.{i}"
            known |= {f"{p}.{norm}.{kind}": (d,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
            known |= {f"{p}.attn.qkv.weight": (3 * d, d), f"{p}.attn.qkv.bias": (3 * d,)}
            known |= {f"{p}.attn.proj.weight": (d, d), f"{p}.attn.proj.bias": (d,)}
            known |= {f"{p}.mlp.fc1.weight": (4 * d, d), f"{p}.mlp.fc1.bias": (4 * d,)}
            known |= {f"{p}.mlp.fc2.weight": (d, 4 * d), f"{p}.mlp.fc2.bias": (d,)}
        return known
    f = math.ceil((8 * d // 3) / 256) * 256
    known = {
        "cls_embedding.embedding_table.weight": (classes + 1, d),
        "tok_embeddings.weight": (codes, d),
        "norm.weight": (d,),
        "output.weight": (codes, d),
    }
    for i in range(layers + 1 if family == "nar" else layers):
        p = f"layers.{i}"
        known |= {f"{p}.attention.wqkv.weight": (3 * d, d), f"{p}.attention.wo.weight": (d, d)}
        known |= {f"{p}.feed_forward.w1.weight": (f, d), f"{p}.feed_forward.w3.weight": (f, d)}
        known |= {f"{p}.feed_forward.w2.weight": (d, f)}
        known |= {f"{p}.attention_norm.weight": (d,), f"{p}.ffn_norm.weight": (d,)}
        if family == "ear-adaln":
            known |= {f"{p}.ada_lin.1.weight": (6 * d, d), f"{p}.ada_lin.1.bias": (6 * d,)}
    if family == "par":
        known["spe_tok_embeddings.special_embeddings.weight"] = (m * m - 1, d)
    if family in ("ear", "ear-adaln"):
        known["mask_token.weight"] = (1, d)
    if family == "randar":
        known["pos_instruct_embeddings"] = (1, d)
    if family == "nar":
        known |= {"medusa_norm.weight": (d,), "medusa_output.weight": (codes, d)}
    return known


def parameter_count(family: str, size: str, *, m: int = 2) -> int:
    """Numbers in a published model of 256 px: 1000 classes; 8192 codes for EAR, 16384 for the others."""
    layers, width, _ = SIZES[size]
    codes = 8192 if family.startswith("ear") else 16384
    layout = shapes(family, codes=codes, classes=1000, side=16, width=width, layers=layers, m=m)
    return sum(math.prod(shape) for shape in layout.values())


def random_weights(
    family: str, *, codes: int, classes: int, side: int, width: int, heads: int, layers: int, seed: int, m: int = 2
) -> dict[str, Tensor]:
    """float64 weights in the released layout: norms around 1, biases around 0, every matrix of about unit gain."""
    assert width % (4 * heads) == 0, "a head is cut into pairs, half of them for rows and half for columns"
    g = torch.Generator().manual_seed(seed)
    weights = {}
    layout = shapes(family, codes=codes, classes=classes, side=side, width=width, layers=layers, m=m)
    for name, shape in layout.items():
        noise = torch.randn(shape, generator=g, dtype=torch.float64)
        if name.endswith(".bias"):
            weights[name] = 0.3 * noise
        elif len(shape) == 1:
            weights[name] = 1 + 0.2 * noise
        else:
            weights[name] = noise / math.sqrt(shape[-1])
    return weights


# ---- LlamaGen's blocks -----------------------------------------------------------------------------------------------


def turns(cells: list[int | None], side: int, head: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (S, head / 2) of every pair of channels at each slot's cell; None has zero for both."""
    cosines, sines = [], []
    for cell in cells:
        if cell is None:
            cosines.append([0.0] * (head // 2))
            sines.append([0.0] * (head // 2))
            continue
        theta = [10000 ** (-4 * j / head) for j in range(head // 4)]
        angles = [(cell // side) * t for t in theta] + [(cell % side) * t for t in theta]
        cosines.append([math.cos(angle) for angle in angles])
        sines.append([math.sin(angle) for angle in angles])
    return torch.tensor(cosines, dtype=like.dtype), torch.tensor(sines, dtype=like.dtype)


def turned(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """x (S, d): channels 2i and 2i + 1 of each head are a pair (a, b), turned by the slot's angle."""
    pairs = x.reshape(len(x), heads, -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).reshape(len(x), -1)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * weight


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, heads: int) -> Tensor:
    """q, k, v (S, d); seen (S, S) bool: the row's query may look at the column's key."""
    h = q.shape[1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * h, (head + 1) * h)
        scores = q[:, part] @ k[:, part].T / math.sqrt(h)
        outputs.append(scores.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, part])
    return torch.cat(outputs, dim=-1)


def class_vector(w: dict[str, Tensor], label: int) -> Tensor:
    """The class's row; label C, the last row, is the dropped class."""
    return w["cls_embedding.embedding_table.weight"][label]


def block(w: dict[str, Tensor], i: int, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor, heads: int, label: int):
    """x (S, d) after layer i."""
    p, d = f"layers.{i}", x.shape[1]
    one, zero = x.new_ones(d), x.new_zeros(d)
    gate_attn, gate_ffn, scale_attn, scale_ffn, shift_attn, shift_ffn = one, one, zero, zero, zero, zero
    if f"{p}.ada_lin.1.weight" in w:
        c = w[f"{p}.ada_lin.1.weight"] @ silu(class_vector(w, label)) + w[f"{p}.ada_lin.1.bias"]
        gate_attn, gate_ffn, scale_attn, scale_ffn, shift_attn, shift_ffn = c.split(d)
    y = rms(x, w[f"{p}.attention_norm.weight"]) * (1 + scale_attn) + shift_attn
    q, k, v = (y @ w[f"{p}.attention.wqkv.weight"].T).split(d, dim=1)
    q, k = turned(q, cos, sin, heads), turned(k, cos, sin, heads)
    x = x + gate_attn * (attention(q, k, v, seen, heads) @ w[f"{p}.attention.wo.weight"].T)
    y = rms(x, w[f"{p}.ffn_norm.weight"]) * (1 + scale_ffn) + shift_ffn
    y = silu(y @ w[f"{p}.feed_forward.w1.weight"].T) * (y @ w[f"{p}.feed_forward.w3.weight"].T)
    return x + gate_ffn * (y @ w[f"{p}.feed_forward.w2.weight"].T)


def stack(
    w: dict[str, Tensor],
    vectors: list[Tensor],
    cells: list[int | None],
    seen: Tensor,
    heads: int,
    side: int,
    label: int,
) -> tuple[Tensor, Tensor | None]:
    """(S, V) logits of every slot, and those of NAR's second head; `cells` are the cells that slots are turned by."""
    x = torch.stack(vectors)
    cos, sin = turns(cells, side, x.shape[1] // heads, x)
    layers = len([name for name in w if name.endswith(".attention.wo.weight")])
    twice = "medusa_output.weight" in w
    for i in range(layers - 1 if twice else layers):
        x = block(w, i, x, cos, sin, seen, heads, label)
    first = rms(x, w["norm.weight"]) @ w["output.weight"].T
    if not twice:
        return first, None
    x = block(w, layers - 1, x, cos, sin, seen, heads, label)
    return first, rms(x, w["medusa_norm.weight"]) @ w["medusa_output.weight"].T


def causal(length: int) -> Tensor:
    return torch.tensor([[b <= a for b in range(length)] for a in range(length)])


def by_step(steps: list[int]) -> Tensor:
    """A slot sees all slots of its own step and of earlier ones."""
    return torch.tensor([[b <= a for b in steps] for a in steps])


def steps_of(sizes: list[int]) -> list[int]:
    """The step, from 1, of each place of the order; the class is step 0."""
    return [step for step, size in enumerate(sizes, 1) for _ in range(size)]


# ---- LlamaGen: the token before a cell predicts it -------------------------------------------------------------------


def llamagen(w: dict[str, Tensor], known: list[int], label: int, heads: int, side: int) -> Tensor:
    """(1 + len(known), V): known holds the first codes in raster order."""
    vectors = [class_vector(w, label), *(w["tok_embeddings.weight"][code] for code in known)]
    return stack(w, vectors, [None, *range(len(known))], causal(1 + len(known)), heads, side, label)[0]


def llamagen_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert (cells, sizes) == raster_plan(side)
    return dict(enumerate(llamagen(w, codes[:-1], label, heads, side)))


def llamagen_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert (cells, sizes) == raster_plan(side)
    return {cell: llamagen(w, codes[:cell], label, heads, side)[-1] for cell in cells}


# ---- PAR: position p predicts rank p, after bridges have shifted the input by n - 1 ----------------------------------


def par_mask(length: int, n: int) -> Tensor:
    """Causal for the first n positions, then whole blocks of n."""
    rows = []
    for p in range(length):
        keys = p + 1 if p < n else n + ((p - n) // n + 1) * n
        rows.append([key < keys for key in range(length)])
    return torch.tensor(rows)


def par_n(w: dict[str, Tensor]) -> int:
    return len(w["spe_tok_embeddings.special_embeddings.weight"]) + 1


def par_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    n = par_n(w)
    assert (cells, sizes) == par_plan(side, math.isqrt(n))
    bridges = list(w["spe_tok_embeddings.special_embeddings.weight"])
    tokens = [w["tok_embeddings.weight"][codes[cell]] for cell in cells[:-1]]
    vectors = [class_vector(w, label), *tokens[:n], *bridges, *tokens[n:]]
    places = [None, *cells[:n], *[None] * (n - 1), *cells[n:-1]]
    assert len(vectors) == len(cells) + n - 1
    logits, _ = stack(w, vectors, places, par_mask(len(vectors), n), heads, side, label)
    return {cell: logits[rank] for rank, cell in enumerate(cells)}


def par_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    n = par_n(w)
    assert (cells, sizes) == par_plan(side, math.isqrt(n))
    bridges = w["spe_tok_embeddings.special_embeddings.weight"]
    found: dict[int, Tensor] = {}
    for size in sizes:
        # A slot: its vector, the cell that turns it, the pass that feeds it.
        slots: list[tuple[Tensor, int | None, int]] = [(class_vector(w, label), None, 0)]
        for rank, cell in enumerate(cells[: len(found)]):
            fed = rank + 1 if rank < n else n + rank // n
            slots.append((w["tok_embeddings.weight"][codes[cell]], cell, fed))
            if rank == n - 1:
                slots += [(bridge, None, n) for bridge in bridges]
        vectors, places, passes = map(list, zip(*slots, strict=True))
        logits, _ = stack(w, vectors, places, by_step(passes), heads, side, label)
        targets = cells[len(found) : len(found) + size]
        found |= dict(zip(targets, logits[-size:], strict=True))
    return found


# ---- EAR: a mask vector at each target; slots are turned by their rank, not by their cell ----------------------------


def content_and_queries(content: list[int], queries: list[int]) -> Tensor:
    """Steps of both streams, content first. Content: its step and earlier. A query: earlier content, its own step's
    queries."""
    rows = [[b <= a for b in content] + [False] * len(queries) for a in content]
    rows += [[b < a for b in content] + [b == a for b in queries] for a in queries]
    return torch.tensor(rows)


def ear(
    w: dict[str, Tensor],
    content: list[tuple[int, int]],
    queries: list[tuple[int, int]],
    codes_by_rank,
    label,
    heads,
    side,
) -> Tensor:
    """(len(queries), V): content and queries are (rank, step). The second class slot of training sees and serves nobody
    and is left out."""
    vectors = [class_vector(w, label)]
    vectors += [w["tok_embeddings.weight"][codes_by_rank[rank]] for rank, _ in content]
    vectors += [w["mask_token.weight"][0] for _ in queries]
    places = [None, *(rank for rank, _ in content), *(rank for rank, _ in queries)]
    seen = content_and_queries([0, *(step for _, step in content)], [step for _, step in queries])
    return stack(w, vectors, places, seen, heads, side, label)[0][1 + len(content) :]


def ear_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert cells == spiral(side)
    ranks = list(enumerate(steps_of(sizes)))
    logits = ear(w, ranks, ranks, [codes[cell] for cell in cells], label, heads, side)
    return dict(zip(cells, logits, strict=True))


def ear_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert cells == spiral(side)
    ranks = list(enumerate(steps_of(sizes)))
    found: dict[int, Tensor] = {}
    for size in sizes:
        done = len(found)
        known = [codes[cell] for cell in cells[:done]]
        logits = ear(w, ranks[:done], ranks[done : done + size], known, label, heads, side)
        found |= dict(zip(cells[done : done + size], logits, strict=True))
    return found


# ---- RandAR: an instruction slot before every image token, strictly causal -------------------------------------------


def randar(w: dict[str, Tensor], slots: list[tuple[int, int | None]], label: int, heads: int, side: int) -> Tensor:
    """(1 + len(slots), V): a slot is (cell, code), or (cell, None) for the instruction that asks for the cell."""
    d = w["tok_embeddings.weight"].shape[1]
    vectors = [class_vector(w, label)]
    for cell, code in slots:
        if code is None:
            cos, sin = turns([cell], side, d // heads, vectors[0])
            vectors.append(turned(w["pos_instruct_embeddings"], cos, sin, heads)[0])
        else:
            vectors.append(w["tok_embeddings.weight"][code])
    places = [None, *(cell for cell, _ in slots)]
    return stack(w, vectors, places, causal(len(places)), heads, side, label)[0]


def interleaved(cells: list[int], codes: list[int]) -> list[tuple[int, int | None]]:
    return [slot for cell in cells for slot in ((cell, None), (cell, codes[cell]))]


def randar_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    logits = randar(w, interleaved(cells, codes), label, heads, side)
    return dict(zip(cells, logits[1::2], strict=True))


def randar_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    for size in sizes:
        done = len(found)
        targets = cells[done : done + size]
        slots = interleaved(cells[:done], codes) + [(cell, None) for cell in targets]
        found |= dict(zip(targets, randar(w, slots, label, heads, side)[-size:], strict=True))
    return found


# ---- NAR: one head for the cell to the right, one for the cell below -------------------------------------------------


def nar(w, known: list[int], codes, label, heads, side) -> tuple[dict, dict]:
    """Logits of the right and of the lower neighbour of every known cell; key None is the class slot."""
    vectors = [class_vector(w, label), *(w["tok_embeddings.weight"][codes[cell]] for cell in known)]
    steps = [0, *(1 + cell // side + cell % side for cell in known)]
    right, below = stack(w, vectors, [None, *known], by_step(steps), heads, side, label)
    assert below is not None
    return dict(zip([None, *known], right, strict=True)), dict(zip([None, *known], below, strict=True))


def from_neighbours(right: dict, below: dict, cell: int, side: int) -> Tensor:
    """The cell's logits: the mean of two heads, or the only one where only one neighbour is inside."""
    row, col = cell // side, cell % side
    if row == 0 and col == 0:
        return (right[None] + below[None]) / 2
    if row == 0:
        return right[cell - 1]
    if col == 0:
        return below[cell - side]
    return (right[cell - 1] + below[cell - side]) / 2


def nar_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert (cells, sizes) == diagonal_plan(side)
    right, below = nar(w, list(range(side * side)), codes, label, heads, side)
    return {cell: from_neighbours(right, below, cell, side) for cell in cells}


def nar_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    assert (cells, sizes) == diagonal_plan(side)
    found: dict[int, Tensor] = {}
    for size in sizes:
        done = len(found)
        right, below = nar(w, cells[:done], codes, label, heads, side)
        found |= {cell: from_neighbours(right, below, cell, side) for cell in cells[done : done + size]}
    return found


# ---- LPD: LayerNorm blocks with biases, learned absolute positions, a mask vector at each target ---------------------


def layer_norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def lpd(w: dict[str, Tensor], content, queries, codes, label: int, heads: int) -> Tensor:
    """(len(queries), V): content and queries are (cell, step); label C is the dropped class."""
    position = w["pos_embed"][0]
    classes, d = w["class_emb.weight"].shape
    vectors = [(w["fake_latent"][0] if label == classes else w["class_emb.weight"][label]) + position[0]]
    vectors += [w["token_emb.weight"][codes[cell]] + position[1 + cell] for cell, _ in content]
    vectors += [w["mask_token"][0, 0] + position[1 + cell] for cell, _ in queries]
    seen = content_and_queries([0, *(step for _, step in content)], [step for _, step in queries])
    x = layer_norm(torch.stack(vectors), w, "z_proj_ln")
    for i in range(len([name for name in w if name.endswith(".attn.proj.weight")])):
        p = f"blocks.{i}"
        y = layer_norm(x, w, f"{p}.norm1")
        q, k, v = (y @ w[f"{p}.attn.qkv.weight"].T + w[f"{p}.attn.qkv.bias"]).split(d, dim=1)
        x = x + attention(q, k, v, seen, heads) @ w[f"{p}.attn.proj.weight"].T + w[f"{p}.attn.proj.bias"]
        y = layer_norm(x, w, f"{p}.norm2")
        y = gelu(y @ w[f"{p}.mlp.fc1.weight"].T + w[f"{p}.mlp.fc1.bias"])
        x = x + y @ w[f"{p}.mlp.fc2.weight"].T + w[f"{p}.mlp.fc2.bias"]
    return (layer_norm(x, w, "norm") @ w["head.weight"].T)[1 + len(content) :]


def lpd_teacher_forced(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    slots = list(zip(cells, steps_of(sizes), strict=True))
    return dict(zip(cells, lpd(w, slots[: -sizes[-1]], slots, codes, label, heads), strict=True))


def lpd_decoding(w, codes, label, cells, sizes, heads, side) -> dict[int, Tensor]:
    slots = list(zip(cells, steps_of(sizes), strict=True))
    found: dict[int, Tensor] = {}
    for size in sizes:
        done = len(found)
        logits = lpd(w, slots[:done], slots[done : done + size], codes, label, heads)
        found |= dict(zip(cells[done : done + size], logits, strict=True))
    return found


# ---- The two questions -----------------------------------------------------------------------------------------------

LAID_OUT = {
    "llamagen": (llamagen_teacher_forced, llamagen_decoding),
    "par": (par_teacher_forced, par_decoding),
    "ear": (ear_teacher_forced, ear_decoding),
    "ear-adaln": (ear_teacher_forced, ear_decoding),
    "randar": (randar_teacher_forced, randar_decoding),
    "nar": (nar_teacher_forced, nar_decoding),
    "lpd": (lpd_teacher_forced, lpd_decoding),
}


def by_cell(way: int, family: str, weights, codes_L, label: int, cells_L, sizes, heads: int) -> Tensor:
    codes, cells, sizes = ([int(value) for value in values] for values in (codes_L, cells_L, sizes))
    assert sum(sizes) == len(cells) == len(codes)
    side = math.isqrt(len(codes))
    found = LAID_OUT[family][way](weights, codes, label, cells, sizes, heads, side)
    return torch.stack([found[cell] for cell in range(len(codes))])


def teacher_forced(
    family: str, weights: dict[str, Tensor], codes_L, label: int, cells_L, sizes, *, heads: int
) -> Tensor:
    """(L, V) logits by cell under the mask of training: one pass over the whole sequence.

    codes_L: one sample, in raster order. cells_L, sizes: the order and its steps; LlamaGen, PAR and NAR insist on their
    own, EAR on the spiral with any steps, LPD takes any, RandAR any order and looks at no sizes. Label C is the dropped
    class.
    """
    return by_cell(0, family, weights, codes_L, label, cells_L, sizes, heads)


def decoding(family: str, weights: dict[str, Tensor], codes_L, label: int, cells_L, sizes, *, heads: int) -> Tensor:
    """(L, V) logits by cell, each as the step that decodes it sees it: one pass a step, from nothing.

    Arguments as for `teacher_forced`. Equal to it but for RandAR, whose later queries of a step see the step's earlier
    queries and not their tokens.
    """
    return by_cell(1, family, weights, codes_L, label, cells_L, sizes, heads)
