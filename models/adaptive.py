"""Adaptive orders: the next cells are chosen by what the network says of all cells that are left.

Knows laws, confidences and step sizes. Refuses to know a plan's cells: which cells a step takes is decided at that
step. An adaptive order is a decoder with the trait `chooses`. Of its plan it uses the step sizes alone; one with the
trait `paces` not even these: how many cells a step takes, it decides for every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from orderbench.models.answer import Answer
from orderbench.models.decode import Step, Tile, register_decoder
from orderbench.models.model import check, serves
from orderbench.models.sampling import as_gumbels, uniforms
from orderbench.orders import BenchError

_SECOND_TABLE = 1 << 40  # sample numbers from here on address noise that no code is drawn with

# With the step sizes of a plan

Scores = Callable[[Answer, Tensor, Tensor, float], Tensor]


def adaptive_steps(tile: Tile, scores: Scores) -> Iterator[Step]:
    """Ask every cell that is left, keep as many as the step takes, feed them, and ask again.

    scores: from (answer, codes_BUK, noise_BU, done) to (B, U); cells of the highest scores are kept. answer: of the U
    cells left. codes_BUK: drawn for them. noise_BU: one uniform number a cell. done: the share of steps that is over
    after this one, in (0, 1]. Cells that are not kept are asked again at the next step, with the same noise.
    """
    cache = tile.open()
    left_BL = torch.ones_like(tile.cells_BL, dtype=torch.bool)
    samples = [_SECOND_TABLE + sample for sample in tile.samples]
    noise_BL = uniforms(tile.seed, samples, left_BL.shape[1])[..., 0].to(left_BL.device)
    every_BL = torch.arange(left_BL.shape[1], device=left_BL.device).expand_as(tile.cells_BL)
    for index, size in enumerate(tile.plan.sizes):
        cells_BU = every_BL[left_BL].view(len(left_BL), -1)
        answer = tile.ask(cache, cells_BU, tile.scales(tile.starts[index], index)[-1:].expand(cells_BU.shape[1]))
        codes_BUK = answer.draw(tile.noise.at(cells_BU), tile.sampling)
        scores_BU = scores(answer, codes_BUK, noise_BL.gather(1, cells_BU), (index + 1) / tile.plan.n_steps)
        kept_BG = scores_BU.sort(dim=1, descending=True, stable=True).indices[:, :size]
        cells_BG = cells_BU.gather(1, kept_BG)
        codes_BGK = _taken(tile, codes_BUK, kept_BG, cells_BG)
        left_BL.scatter_(1, cells_BG, False)
        tile.write(cells_BG, codes_BGK)
        yield Step(index, cells_BG, codes_BGK, answer.take(kept_BG))
        if index + 1 < tile.plan.n_steps:
            tile.feed(cache, codes_BGK, cells_BG)


def _taken(tile: Tile, codes_BUK: Tensor, kept_BG: Tensor, cells_BG: Tensor) -> Tensor:
    """(B, G, K): the codes that the kept cells take: those that were drawn, or forced ones. Cells are always chosen by
    what was drawn, so that teacher forcing does not choose by the codes that it charges."""
    codes_BXK, places_BG = (codes_BUK, kept_BG) if tile.forced_BLK is None else (tile.forced_BLK, cells_BG)
    return codes_BXK.gather(1, places_BG[..., None].expand(-1, -1, codes_BXK.shape[2]))


def _drawn(tile: Tile, weight: float) -> Scores:
    """MaskGIT's: the log-probability of the drawn code, with Gumbel noise of a weight that fades."""

    def scores(answer: Answer, codes_BUK: Tensor, noise_BU: Tensor, done: float) -> Tensor:
        nats_BU = answer.log_prob(codes_BUK, tile.sampling.temperature, torch.float64)
        return nats_BU + weight * (1 - done) * as_gumbels(noise_BU)

    return scores


def _moment(tile: Tile, weight: float) -> Scores:
    """The moment sampler's: cells are chosen with the odds with which MaskGIT's rule would, averaged over what might be
    drawn: the mean of p**(1/a) over codes is the sum of p**(1 + 1/a), a the weight of the noise at this step."""

    def scores(answer: Answer, codes_BUK: Tensor, noise_BU: Tensor, done: float) -> Tensor:
        law_BUV, now = answer.law(tile.sampling.temperature), weight * (1 - done)
        if now < _NO_NOISE:
            return law_BUV.amax(-1)
        return now * (((1 + 1 / now) * law_BUV).logsumexp(-1) + as_gumbels(noise_BU))

    return scores


_NO_NOISE = 1e-6  # a weight of noise below which the sum of powers is its largest term


# Without step sizes

Choice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
_NEEDS = ("masks", "slots")


def free_steps(tile: Tile, choose: Choice) -> Iterator[Step]:
    """Ask every cell that is left, and keep those that a rule chooses, as many as it likes, for every sample.

    choose: from (law_BUV, cells_BU, open_BU) to (scores_BU, counts_B). law_BUV: log-probabilities of the U cells asked,
    float64 nats, with temperature. open_BU: which of them are left; a sample that has fewer left than another holds
    other cells there. A sample keeps its counts_B cells of the highest scores, 1 or more.

    A sample sees its own slots alone, so what it decodes does not depend on the others of its tile. Its cells, its
    passes and what they see are counted as if it were alone. Needs 'masks' and 'slots'.
    """
    check(tile.model, tile.plan, _NEEDS)
    B, L = tile.cells_BL.shape
    device, temperature = tile.cells_BL.device, tile.sampling.temperature
    scales_L = tile.sampling.guidance.along((1,) * L).to(device)
    cache, free = tile.open(), _Free(tile)
    done_B, left_BL = torch.zeros(B, dtype=torch.int64, device=device), torch.ones_like(tile.cells_BL, dtype=torch.bool)
    index = 0
    while (U := L - int(done_B.min())) > 0:
        cells_BU = (~left_BL).long().argsort(dim=1, stable=True)[:, :U]  # those left come first, by cell index
        open_BU = left_BL.gather(1, cells_BU)
        answer = free.ask(cache, cells_BU, open_BU, done_B)
        if tile.sampling.guidance.on:
            answer = answer.guided(scales_L[done_B.clamp(max=L - 1)][:, None].expand(B, U))
        scores_BU, counts_B = choose(answer.law(temperature), cells_BU, open_BU)
        counts_B = torch.minimum(counts_B.clamp(min=1), open_BU.sum(1))
        ranked_BU = scores_BU.masked_fill(~open_BU, -torch.inf).sort(dim=1, descending=True, stable=True).indices
        kept_BG = ranked_BU[:, : int(counts_B.max())]
        cells_BG, answer = cells_BU.gather(1, kept_BG), answer.take(kept_BG)
        own_BG = torch.arange(kept_BG.shape[1], device=device) < counts_B[:, None]
        codes_BGK = torch.where(own_BG[..., None], tile.new_codes(answer, cells_BG), tile.held(cells_BG))
        tile.write(cells_BG, codes_BGK)
        left_BL.scatter_(1, cells_BG, left_BL.gather(1, cells_BG) & ~own_BG)
        yield Step(index, cells_BG, codes_BGK, answer, own_BG)
        if int((done_B + counts_B).min()) < L:
            free.feed(cache, codes_BGK, cells_BG, done_B, counts_B)
        done_B, index = done_B + counts_B, index + 1


class _Free:
    """Feeding and asking where every sample of a tile has its own number of codes. A sample's codes lie in its first
    slots. Where a sample has fewer cells than the call, what fills the rest up is written behind them, and is seen by
    nobody: it is written over, or hidden by the mask."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self.slots_S = torch.arange(1 + tile.cells_BL.shape[1], device=tile.cells_BL.device)

    def ask(self, cache: Any, cells_BU: Tensor, open_BU: Tensor, done_B: Tensor) -> Answer:
        seen_BUS = self._up_to(done_B, 1 + int(done_B.max())).expand(-1, cells_BU.shape[1], -1)
        if serves(self.tile.model, "joint"):
            seen_BUS = torch.cat([seen_BUS, open_BU[:, None].expand(-1, cells_BU.shape[1], -1)], dim=2)
        both, counters = self.tile.both, self.tile.counters
        answer = self.tile.model.answer(cache, both(cells_BU), seen=both(seen_BUS))
        asked_B = open_BU.sum(1)
        counters.passes += _mean(asked_B > 0)
        counters.query_tokens += _mean(asked_B)
        counters.query_pairs += _mean(asked_B * (1 + done_B))
        return answer

    def feed(self, cache: Any, codes_BGK: Tensor, cells_BG: Tensor, done_B: Tensor, counts_B: Tensor) -> None:
        L, G = len(self.slots_S) - 1, cells_BG.shape[1]
        slots_BG = (done_B[:, None] + 1 + self.slots_S[:G]).clamp_(max=L)
        n_slots = 1 + int(slots_BG.max())
        if self.tile.in_group == "causal":
            seen_BGS = self.slots_S[:n_slots] <= slots_BG[..., None]
        else:
            seen_BGS = self._up_to(done_B + counts_B, n_slots).expand(-1, G, -1)
        both, counters = self.tile.both, self.tile.counters
        self.tile.model.step(cache, both(codes_BGK), both(cells_BG), seen=both(seen_BGS), slots_BG=both(slots_BG))
        fed_B = torch.where(done_B + counts_B < L, counts_B, 0)  # a sample's last cells are never fed
        counters.content_tokens += _mean(fed_B)
        counters.content_pairs += _mean(fed_B * (1 + done_B + counts_B))

    def _up_to(self, count_B: Tensor, n_slots: int) -> Tensor:
        """(B, 1, n_slots): the class and so many codes of each sample."""
        return self.slots_S[None, None, :n_slots] <= count_B[:, None, None]


def _mean(values_B: Tensor) -> float:
    return float(values_B.double().mean())


def _entropy(gamma: float) -> Choice:
    """EB-Sampler's: the most cells of lowest entropies h for which sum h - max h is at most gamma. That sum bounds how
    much the cells' true codes can depend on each other."""

    def choose(law_BUV: Tensor, cells_BU: Tensor, open_BU: Tensor) -> tuple[Tensor, Tensor]:
        entropy_BU = -(law_BUV.exp() * law_BUV.clamp(min=_LEAST_NATS)).sum(-1)
        rising_BU = entropy_BU.masked_fill(~open_BU, torch.inf).sort(dim=1).values
        before_BU = rising_BU.cumsum(1).roll(1, dims=1)  # the largest is the last, so this is the sum without it
        before_BU[:, 0] = 0
        return -entropy_BU, ((before_BU <= gamma) & rising_BU.isfinite()).sum(1)

    return choose


def _threshold(tau: float) -> Choice:
    """Fast-dLLM's: every cell whose likeliest code has a probability of tau or more."""

    def choose(law_BUV: Tensor, cells_BU: Tensor, open_BU: Tensor) -> tuple[Tensor, Tensor]:
        sure_BU = law_BUV.amax(-1).exp()
        return sure_BU, ((sure_BU >= tau) & open_BU).sum(1)

    return choose


class _Klass:
    """KLASS: every cell whose likeliest code has a probability above tau, and whose law has hardly moved, by KL
    divergence, at the last two steps. Where there is none, the surest cell.

    It keeps the last law of every cell: B * L * V numbers in fp32, a gigabyte for 64 samples of 256 cells and 16,384
    codes.
    """

    STEADY_NATS, STEPS = 0.01, 2

    def __init__(self, tau: float, tile: Tile) -> None:
        self.tau = tau
        self.steady_BL = torch.zeros_like(tile.cells_BL)  # for how many steps in a row
        self.last_BLV: Tensor | None = None

    def __call__(self, law_BUV: Tensor, cells_BU: Tensor, open_BU: Tensor) -> tuple[Tensor, Tensor]:
        at_BUV = cells_BU[..., None].expand_as(law_BUV)
        if self.last_BLV is None:
            B, L, V = *self.steady_BL.shape, law_BUV.shape[2]
            self.last_BLV = torch.zeros(B, L, V, device=law_BUV.device)
        else:
            moved_BUV = law_BUV.clamp(min=_LEAST_NATS) - self.last_BLV.gather(1, at_BUV)
            steady_BU = (law_BUV.exp() * moved_BUV).sum(-1) < self.STEADY_NATS
            so_far_BU = torch.where(steady_BU, self.steady_BL.gather(1, cells_BU) + 1, 0)
            self.steady_BL.scatter_(1, cells_BU, so_far_BU)
        self.last_BLV.scatter_(1, at_BUV, law_BUV.clamp(min=_LEAST_NATS).float())
        sure_BU = law_BUV.amax(-1).exp()
        ready_BU = (sure_BU > self.tau) & (self.steady_BL.gather(1, cells_BU) >= self.STEPS) & open_BU
        return sure_BU + ready_BU.double(), ready_BU.sum(1)


_LEAST_NATS = -700.0  # log-probabilities below count as this, so that 0 log 0 is 0


# The decoder

Rule = Literal["maskgit", "moment", "entropy", "threshold", "klass"]
_OF = {"noise": ("maskgit", "moment"), "gamma": ("entropy",), "tau": ("threshold", "klass")}  # whose options these are
_DEFAULTS = {"noise": 4.5, "gamma": 0.1, "tau": 0.9}
_LIMITS = {"noise": (0.0, float("inf")), "gamma": (0.0, float("inf")), "tau": (0.0, 1.0)}


def _nature(rule: Rule, **options: float) -> dict[str, Any]:
    """Which traits a rule has besides. BenchError for options that are not served."""
    for name, value in options.items():
        low, high = _LIMITS[name]
        if not low <= value <= high or value == float("inf"):
            upper = "or more" if high > 1 else f"to {high:g}"
            raise BenchError(
                f"a confidence {name} of {value:g} is not served; {low:g} {upper} would do, as in {_DEFAULTS[name]:g}"
            )
        if value != _DEFAULTS[name] and rule not in _OF[name]:
            raise BenchError(
                f"confidence:rule={rule}:{name}={value:g} gives an option that this rule does not read; {name} belongs "
                f"to rule={' and rule='.join(_OF[name])}"
            )
    return {} if rule in _OF["noise"] else {"paces": True, "varies": True, "needs": _NEEDS}


@register_decoder(
    "confidence",
    paper="MaskGIT, arXiv 2202.04200; rules of arXiv 2510.04525, 2505.24857, 2505.22618, 2511.05664",
    idea="likeliest codes first, with noise that fades, or as many as a rule calls sure enough",
    chooses=True,
    by_options=_nature,
)
def confidence(
    tile: Tile,
    *,
    rule: Rule = "maskgit",
    noise: Annotated[float, "maskgit, moment: weight of the Gumbel noise, which fades to none; 0 or more"] = 4.5,
    gamma: Annotated[float, "entropy: nats that cells kept together may share, 0 or more"] = 0.1,
    tau: Annotated[float, "threshold, klass: probability from which a code is sure, 0 to 1"] = 0.9,
) -> Iterator[Step]:
    """Cells in the order of how sure the network is of them.

    rule 'maskgit' (section 3.2 of that paper): the cells whose drawn codes are likeliest, with Gumbel noise that fades.
    The noise is weighted by `noise` times the share of steps that is left after this one. 4.5 is the weight in the
    releases of MaskGIT and Halton-MaskGIT; the latter fades it from its whole weight at the first step. Since cells are
    kept for what was drawn, codes come out as if drawn at a lower temperature.

    'moment' (moment sampler, arXiv 2510.04525): cells are chosen with the same odds and before their codes are drawn.
    So codes follow the run's own temperature, where the paper lowers it as MaskGIT's rule does.

    The other rules choose how many cells a step takes, for every sample, so they take no pace. 'entropy' (EB-Sampler,
    arXiv 2505.24857), 'threshold' (Fast-dLLM, arXiv 2505.22618) and 'klass' (KLASS, arXiv 2511.05664) are described at
    their functions. All take one cell at least. They ask for the laws of single codes, which models of several codes a
    cell refuse; so does 'moment'.
    """
    _nature(rule, noise=noise, gamma=gamma, tau=tau)
    if rule == "maskgit":
        return adaptive_steps(tile, _drawn(tile, noise))
    if rule == "moment":
        return adaptive_steps(tile, _moment(tile, noise))
    return free_steps(
        tile,
        _entropy(gamma) if rule == "entropy" else _threshold(tau) if rule == "threshold" else _Klass(tau, tile),
    )
