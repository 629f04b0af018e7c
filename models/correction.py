"""Nested correction: decoding that looks back at what it has written.

Knows one step's crop: the known cells and the new edge. Refuses to know how a network computes and which order this
is: it wraps decoding and yields the same steps.

After the abstract of RadAR (arXiv 2512.24639), whose code is not public; this is our crop variant, not a reproduction.
Step k rebuilds pass 1 from the class and the known cells, fed with their current codes and seeing each other both ways,
and pass 2 asks all cells of the crop: the edge is sampled, the known part is predicted anew, each cell seeing its own
current code, and old codes are overwritten by a rule. No edge cell influences a known one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from orderbench.models.decode import AnyOrderModel, Decoder, Step, Tile, make_tile, plain_steps, run_tile
from orderbench.models.sampling import PLAIN, Sampling
from orderbench.models.spelled import SpelledDecoder, spelled_decoder
from orderbench.orders import BenchError, Plan
from orderbench.orders.errors import unknown
from orderbench.orders.spelling import split_call
from orderbench.orders.streams import generator


def nested(
    tile: Tile,
    *,
    rule: Literal["margin", "sample", "never"] = "margin",
    margin: Annotated[float, "nats by which a new code must be likelier, 0 or more"] = 1.0,
    every: Annotated[int, "correct at steps n, 2n, ..., counted from 0, and at the last; 1 or more"] = 1,
    window: Annotated[int | None, "groups that are looked back at, 1 or more"] = None,
) -> Iterator[Step]:
    """Decode step by step; at correcting steps, never the first, the crop is asked again.

    rule 'margin': the likeliest code replaces the old one if it is likelier by more than `margin` nats; 'sample': a
    code is drawn anew with the cell's own number; 'never': asked, and left. Old and new are compared under the step's
    guided, tempered distribution, before top-k and top-p.
    window: groups (and the class) older than that keep the keys and values of their last feeding and are not asked
    again; those fed again see them and each other. Between correcting steps every group keeps its last feeding too.
    """
    if margin < 0 or every < 1 or (window is not None and window < 1):
        raise BenchError(
            f"nested:margin={margin:g}:every={every}:window={window} is not served; margin is 0 or more, every and "
            f"window are 1 or more, as in nested:margin=1:every=2"
        )
    cache = tile.open()
    codes_BL = torch.zeros_like(tile.cells_BL)
    last = tile.plan.n_steps - 1
    for index in range(last + 1):
        start, stop = tile.starts[index], tile.starts[index + 1]
        corrects = index > 0 and (index % every == 0 or index == last)
        first = start  # of the walk's places that this step asks
        if corrects:
            first = 0 if window is None else tile.starts[max(0, index - window)]
        fed = first if corrects else tile.starts[max(0, index - 1)]
        known_BM = tile.cells_BL[:, fed:start]
        if corrects and first == 0:
            tile.refill(cache, codes_BL.gather(1, known_BM), known_BM)
        elif index > 0:
            tile.rewind(cache, 1 + fed)
            size, slots = start - fed, 1 + start
            seen_GS = torch.ones(size, slots, dtype=torch.bool, device=codes_BL.device) if corrects else None
            tile.feed(cache, codes_BL.gather(1, known_BM), known_BM, seen_GS)
        cells_BQ = tile.cells_BL[:, first:stop]
        logits_BQV = tile.ask(cache, cells_BQ, tile.scales(first, index))
        known = start - first
        new_BG = tile.new_codes(logits_BQV[:, known:], cells_BQ[:, known:])
        old_BM = codes_BL.gather(1, cells_BQ[:, :known])
        kept_BM = _overwrite(tile, logits_BQV[:, :known], cells_BQ[:, :known], old_BM, rule, margin)
        tokens_BQ = torch.cat([kept_BM, new_BG], dim=1)
        codes_BL.scatter_(1, cells_BQ, tokens_BQ)
        yield Step(index, cells_BQ, tokens_BQ, stop - start, logits_BQV)


def _overwrite(tile: Tile, logits_BMV: Tensor, cells_BM: Tensor, old_BM: Tensor, rule: str, margin: float) -> Tensor:
    """(B, M): the codes of known cells after one rule."""
    if not old_BM.numel() or rule == "never":
        return old_BM
    if rule == "sample":
        return tile.draw(logits_BMV, cells_BM)
    log_probs = (logits_BMV / tile.sampling.temperature).log_softmax(-1)
    best, candidate_BM = log_probs.max(-1)
    gain = best - log_probs.gather(-1, old_BM[..., None]).squeeze(-1)
    return torch.where(gain > margin, candidate_BM, old_BM)


_CORRECTIONS: dict[str, Callable[..., Iterator[Step]]] = {"off": plain_steps, "nested": nested}


def parse_correction(text: str) -> SpelledDecoder:
    """'off', or 'nested:margin=1:every=2'; BenchError for anything else.

    >>> str(parse_correction("nested:every=2:margin=1.0"))
    'nested:every=2'
    """
    name, given = split_call(text)
    ask = "corrections are written after +, as in radial+nested:margin=1"
    if name not in _CORRECTIONS:
        raise unknown("correction", name, _CORRECTIONS, ask)
    return spelled_decoder(name, _CORRECTIONS[name], given, ask)


@dataclass(frozen=True)
class Repair:
    """What correction did to injected errors, over all known cells (those of the last edge are never known).

    repair_rate: share of corrupted cells whose final code is the clean one. damage_rate: share of clean cells changed.
    """

    error_rate: float
    corrupted: int
    clean: int
    repair_rate: float
    damage_rate: float


def measure_repair(
    model: AnyOrderModel,
    plan: Plan,
    tokens_BL: Tensor,
    labels: Sequence[int],
    error_rate: float,
    *,
    decoder: Decoder,
    sampling: Sampling = PLAIN,
    seed: int = 0,
) -> Repair:
    """Teach decoding a real image, some codes wrong, and see what is corrected.

    Every new cell takes the image's code, or with probability `error_rate` (in [0, 1)) another code, uniformly; what
    the correction rewrites stays rewritten. Errors are addressed by (seed, image, cell).
    """
    if not 0 <= error_rate < 1:
        raise BenchError(f"an error rate of {error_rate:g} is not served; it lies in [0, 1), as in 0.1")
    B, L = tokens_BL.shape
    wrong, chosen = torch.empty_like(tokens_BL), torch.empty(B, L, dtype=torch.bool)
    for image in range(B):
        rng = generator(seed, "noise", (1 << 32) + image)
        chosen[image] = torch.from_numpy(rng.random(L) < error_rate)
        shift = torch.from_numpy(rng.integers(1, max(2, model.n_codes), L))
        wrong[image] = (tokens_BL[image].cpu() + shift) % model.n_codes
    chosen = chosen.to(tokens_BL.device)
    tile = make_tile(
        model, plan, range(B), labels=labels, sampling=sampling, seed=seed, in_group="block", device=tokens_BL.device
    )
    tile.forced_BL = torch.where(chosen, wrong, tokens_BL)
    final_BL, _ = run_tile(tile, decoder)
    known = torch.ones_like(chosen).scatter_(1, tile.cells_BL[:, tile.starts[-2] :], False)
    corrupted, clean = known & chosen, known & ~chosen
    right = final_BL == tokens_BL
    return Repair(
        error_rate=error_rate,
        corrupted=int(corrupted.sum()),
        clean=int(clean.sum()),
        repair_rate=float((right & corrupted).sum() / corrupted.sum().clamp(min=1)),
        damage_rate=float((~right & clean).sum() / clean.sum().clamp(min=1)),
    )
