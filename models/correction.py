"""Correction: decoding that looks back at what it has written.

Knows one step's crop: the known cells and the edge, which is the new cells; and how known cells are decoded anew.
Refuses to know how a network computes and which order this is: a correction is a decoder like any other.

*Nested correction* is after the abstract of RadAR (arXiv 2512.24639), whose code is not public. This is our crop
variant, not a reproduction. A correcting step feeds the class and the known cells again, with their current codes; they
see each other both ways. Then it asks all cells of the crop. The codes of the edge are drawn. Known cells are predicted
again, each seeing its own current code, and a rule decides which codes are overwritten. No code of the edge influences
a known cell. Cells that are asked together see each other's queries in EAR and LPD, and these hold no codes.

*Remasking* is ReMDM's (arXiv 2503.00307): some known cells are forgotten at every step, and decoded again later, when
more is known around them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from orderbench.models.answer import Answer
from orderbench.models.decode import BoundDecoder, Step, Tile, make_tile, register_decoder, run_tile
from orderbench.models.model import Model
from orderbench.models.sampling import PLAIN, Sampling, as_gumbels, uniforms
from orderbench.orders import BenchError, Plan
from orderbench.orders.streams import generator


@register_decoder(
    "nested",
    paper="RadAR (reconstructed), arXiv 2512.24639",
    idea="looks back: known cells are fed and asked again, and a rule decides which codes are overwritten",
    rewrites=True,
    needs=("rewind",),
)
def nested(
    tile: Tile,
    *,
    rule: Literal["margin", "sample", "never"] = "margin",
    margin: Annotated[float, "nats by which a new code must be likelier, 0 or more"] = 1.0,
    every: Annotated[int, "n: correct at steps n, 2n, ... (the first step is 0) and at the last; 1 or more"] = 1,
    window: Annotated[int | None, "how many groups to look back at, 1 or more; default all"] = None,
) -> Iterator[Step]:
    """Decode step by step. At correcting steps, which the first step never is, the crop is asked again.

    rule 'margin': the likeliest code replaces the old one if it is likelier by more than `margin` nats. 'sample': a
    code is drawn again with the cell's own noise. 'never': cells are asked, and their codes stay. Old and new codes are
    compared under the guided distribution with temperature, before top-k and top-p.

    window: how many groups are fed and asked again. Older groups, and the class, keep the keys and values of their last
    feeding. Groups that are fed again see them and each other. Between correcting steps nothing is fed again.
    """
    if margin < 0 or every < 1 or (window is not None and window < 1):
        raise BenchError(
            f"nested:margin={margin:g}:every={every}:window={window} is not served; margin is 0 or more, every and "
            f"window are 1 or more, as in nested:margin=1:every=2"
        )
    cache = tile.open()
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
            tile.refill(cache, tile.held(known_BM), known_BM)
        elif index > 0:
            tile.rewind(cache, 1 + fed)
            tile.feed(cache, tile.held(known_BM), known_BM, together=corrects)
        cells_BQ = tile.cells_BL[:, first:stop]
        answer = tile.ask(cache, cells_BQ, tile.scales(first, index))
        known = start - first
        edge_BG = cells_BQ[:, known:]
        new_BGK = tile.new_codes(answer.take(slice(known, None)), edge_BG)
        codes_BQK = new_BGK
        if known:
            kept_BMK = _overwritten(tile, answer.take(slice(known)), cells_BQ[:, :known], rule, margin)
            tile.rewrite(cells_BQ[:, :known], kept_BMK)
            codes_BQK = torch.cat([kept_BMK, new_BGK], dim=1)
        tile.write(edge_BG, new_BGK)
        yield Step(index, cells_BQ, codes_BQK, answer)


def _overwritten(tile: Tile, answer: Answer, cells_BM: Tensor, rule: str, margin: float) -> Tensor:
    """(B, M, K): the codes of known cells after a rule was applied."""
    old_BMK = tile.held(cells_BM)
    if rule == "never":
        return old_BMK
    if rule == "sample":
        return answer.draw(tile.noise.at(cells_BM), tile.sampling)
    candidate_BMK, temperature = answer.likeliest(), tile.sampling.temperature
    gain_BM = answer.log_prob(candidate_BMK, temperature) - answer.log_prob(old_BMK, temperature)
    return torch.where((gain_BM > margin)[..., None], candidate_BMK, old_BMK)


Schedule = Literal["cap", "conf"]
_ETA = 0.008


def _check_remask(rule: Schedule, eta: float) -> dict[str, object]:
    if not 0 <= eta <= 1 or (rule == "conf" and eta != _ETA):
        words = "eta lies in [0, 1] and belongs to rule=cap"
        raise BenchError(f"remask:rule={rule}:eta={eta:g} is not served; {words}, as in remask:eta={_ETA:g}")
    return {}


@register_decoder(
    "remask",
    paper="ReMDM, arXiv 2503.00307",
    idea="forgets some known cells at every step, and decodes them again when more is known around them",
    rewrites=True,
    needs=("rewind",),
    by_options=_check_remask,
)
def remask(
    tile: Tile,
    *,
    rule: Schedule = "cap",
    eta: Annotated[float, "cap: the share of known cells that a step forgets at most, 0 to 1"] = _ETA,
) -> Iterator[Step]:
    """Decode step by step. A step takes the next cells of the walk that are not known, its own number and as many as it
    forgets. So after each step as many cells are known as in plain decoding, and after the last one all are.

    With the share a of cells known before a step and b after it, a known cell is forgotten with a probability of at
    most s = min(1, (1 - b) / a), which is 0 at the last step. rule 'cap': min(eta, s) for every cell. 'conf': s times
    the softmax of -p over the known cells, p the probability that each cell's code had when it was drawn; that is one
    cell a step at most. The paper forgets each cell by a draw of its own. Here a step forgets the expected number of
    cells, rounded so that the sum over steps is right, and draws which; so samples stay together.

    Where a step forgets cells, what is known is fed again as one group. A cell is drawn again with other noise.
    """
    _check_remask(rule, eta)
    cache, L = tile.open(), tile.cells_BL.shape[1]
    known_BL = torch.zeros_like(tile.cells_BL, dtype=torch.bool)  # these three by the places of the walk
    seen_before_BL = torch.zeros_like(known_BL)
    sure_BL = torch.zeros(known_BL.shape, dtype=torch.float64, device=known_BL.device)
    forgotten = 0
    for index, count in enumerate(_forgets(tile.starts, None if rule == "conf" else eta)):
        start, stop = tile.starts[index], tile.starts[index + 1]
        places_BL = known_BL.long().argsort(dim=1, stable=True)  # the unknown ones first
        places_BG = places_BL[:, : stop - start + count]
        cells_BG = tile.cells_BL.gather(1, places_BG)
        answer = tile.ask(cache, cells_BG, tile.scales(start, index)[-1:].expand(cells_BG.shape[1]))
        codes_BGK = tile.new_codes(answer, cells_BG)
        if forgotten:
            again_BG = seen_before_BL.gather(1, places_BG)
            drawn_BGK = answer.draw(tile.noise_of(index).at(cells_BG), tile.sampling)
            codes_BGK = torch.where(again_BG[..., None], drawn_BGK, codes_BGK)
            changed_BG = again_BG & (codes_BGK != tile.held(cells_BG)).any(-1)
            tile.changes_BL.scatter_add_(1, cells_BG, changed_BG.long())
        tile.write(cells_BG, codes_BGK)
        known_BL.scatter_(1, places_BG, True)
        seen_before_BL |= known_BL
        if rule == "conf":
            sure_BL.scatter_(1, places_BG, answer.log_prob(codes_BGK, tile.sampling.temperature, torch.float64).exp())
        if count:
            old_BM = places_BL[:, L - start :]
            scores_BM = _gumbel_numbers(tile, index).gather(1, old_BM) - sure_BL.gather(1, old_BM)
            known_BL.scatter_(1, old_BM.gather(1, scores_BM.topk(count, dim=1).indices), False)
            forgotten += count
        yield Step(index, cells_BG, codes_BGK, answer)
        if stop < L and not count:
            tile.feed(cache, codes_BGK, cells_BG)
        elif stop < L:
            cells_BM = tile.cells_BL.gather(1, (~known_BL).long().argsort(dim=1, stable=True)[:, :stop])
            tile.refill(cache, tile.held(cells_BM), cells_BM)


def _forgets(starts: Sequence[int], eta: float | None) -> Iterator[int]:
    """How many known cells each step forgets; eta None is the schedule 'conf'."""
    due, done, L = 0.0, 0, starts[-1]
    for start, stop in itertools.pairwise(starts):
        most = min(1.0, (L - stop) / start) if start else 0.0
        due += most if eta is None else min(eta, most) * start
        count = min(int(due + 1e-9) - done, start, L - stop)
        done += count
        yield count


def _gumbel_numbers(tile: Tile, index: int) -> Tensor:
    """(B, L) Gumbel numbers of a step, with addresses of their own; the largest sums with log weights are a draw
    without replacement."""
    addresses = [_FORGETTING + (index << 44) + sample for sample in tile.samples]
    numbers_BL = uniforms(tile.seed, addresses, tile.cells_BL.shape[1])[..., 0].to(tile.cells_BL.device)
    return as_gumbels(numbers_BL)


_FORGETTING = 1 << 42  # sample numbers from here on address noise that no code is drawn with


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
    model: Model,
    plan: Plan,
    codes_BLK: Tensor,
    labels: Sequence[int],
    error_rate: float,
    *,
    decoder: BoundDecoder,
    sampling: Sampling = PLAIN,
    seed: int = 0,
) -> Repair:
    """Force the codes of real images on a decoder, some of them wrong, and count what it corrects.

    codes_BLK, labels: of the images. Every new cell takes the code of its image or, with probability `error_rate` (in
    [0, 1)), another one, drawn uniformly. What the decoder rewrites stays rewritten. Errors are addressed by (seed,
    image, cell). plan: one for all images, or of the samples 0, 1, ... where each sample has cells of its own.
    """
    if not 0 <= error_rate < 1:
        raise BenchError(f"an error rate of {error_rate:g} is not served; it lies in [0, 1), as in 0.1")
    B, L = codes_BLK.shape[:2]
    wrong_BLK, chosen_BL = torch.empty_like(codes_BLK), torch.empty(B, L, dtype=torch.bool)
    for image in range(B):
        rng = generator(seed, "noise", (1 << 32) + image)
        chosen_BL[image] = torch.from_numpy(rng.random(L) < error_rate)
        for k, size in enumerate(model.code_sizes):
            shift_L = torch.from_numpy(rng.integers(1, max(2, size), L))
            wrong_BLK[image, :, k] = ((codes_BLK[image, :, k].cpu() + shift_L) % size).to(codes_BLK.device)
    chosen_BL = chosen_BL.to(codes_BLK.device)
    tile = make_tile(
        model, plan, range(B), labels=labels, sampling=sampling, seed=seed, device=codes_BLK.device,
        needs=decoder.entry.needs, forced_BLK=torch.where(chosen_BL[..., None], wrong_BLK, codes_BLK),
    )  # fmt: skip
    run_tile(tile, decoder)
    known_BL = torch.ones_like(chosen_BL).scatter_(1, tile.cells_BL[:, tile.starts[-2] :], False)
    corrupted_BL, clean_BL = known_BL & chosen_BL, known_BL & ~chosen_BL
    right_BL = (tile.codes_BLK == codes_BLK).all(-1)
    return Repair(
        error_rate=error_rate,
        corrupted=int(corrupted_BL.sum()),
        clean=int(clean_BL.sum()),
        repair_rate=float((right_BL & corrupted_BL).sum() / corrupted_BL.sum().clamp(min=1)),
        damage_rate=float((~right_BL & clean_BL).sum() / clean_BL.sum().clamp(min=1)),
    )
