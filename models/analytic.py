"""Lattices whose law is known: the truth for likelihood, tax, pace and exactness.

Knows a law as a table: every image that can occur, with its probability. So each conditional is a sum, and what a plan
loses is a sum as well. Refuses to learn, and to serve lattices whose images cannot be listed.

`Known(law)` is a model like any other, for the tests and for `bench doctor`. Three laws: a Markov field, whose
neighbours resemble each other; a permutation, where a code that was drawn cannot come again; a parity code, where fewer
cells than all say nothing of each other, so that only the last step of a plan can lose anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from orderbench.models.answer import Categorical
from orderbench.models.decode import BoundDecoder
from orderbench.models.likelihood import chosen_bits, plan_bits
from orderbench.models.model import Trait
from orderbench.orders import BenchError, Grid, Plan, make_plan

_SQUARE, _OBLONG = Grid(3, 3), Grid(2, 3)
MAX_IMAGES = 1 << 12  # images of a law that are listed
_LEAST = math.exp(-60)  # the probability of what cannot occur, so that logits are finite


@dataclass(frozen=True, eq=False)
class Law:
    """A distribution of images. codes_XL: int64 in [0, n_codes), by cell index: every image that can occur, once.
    prob_X: float64, above 0, with the sum 1."""

    name: str
    grid: Grid
    n_codes: int
    codes_XL: Tensor
    prob_X: Tensor

    def entropy(self, cells: Sequence[int]) -> float:
        """Bits of the joint distribution of some cells."""
        if not cells:
            return 0.0
        _, kind_X = torch.unique(self.codes_XL[:, list(cells)], dim=0, return_inverse=True)
        prob = torch.zeros(int(kind_X.max()) + 1, dtype=torch.float64).index_add_(0, kind_X, self.prob_X)
        return float(-(prob * prob.log2()).sum())

    def tax(self, plan: Plan, sample: int = 0) -> float:
        """Bits per token that a plan loses, by definition: the total correlation of every step, given those before."""
        before: list[int] = []
        cells, bits = plan.cells_for([sample])[0].tolist(), 0.0
        for size in plan.sizes:
            known = self.entropy(before)
            step, cells = cells[:size], cells[size:]
            bits += sum(self.entropy([*before, cell]) - known for cell in step)
            before += step
            bits -= self.entropy(before) - known
        return bits / self.grid.n_cells

    def given(self, known: Mapping[int, int]) -> Law:
        """The law of images that hold these codes, by cell."""
        match_X = torch.ones_like(self.prob_X, dtype=torch.bool)
        for cell, code in known.items():
            match_X &= self.codes_XL[:, cell] == code
        return replace(self, codes_XL=self.codes_XL[match_X], prob_X=self.prob_X[match_X] / self.prob_X[match_X].sum())

    def marginal(self, cell: int) -> list[float]:
        """The probability of each code of a cell."""
        return [float(self.prob_X[self.codes_XL[:, cell] == code].sum()) for code in range(self.n_codes)]

    def policy_tax(self, choose: Policy, known: Mapping[int, int] | None = None) -> float:
        """Bits per token that a policy loses, by definition: the total correlation of what it takes, given the codes
        that it knows, weighted by how probable they are. known: codes by cell; none at first."""
        known = known or {}
        left = [cell for cell in range(self.grid.n_cells) if cell not in known]
        if not left:
            return 0.0
        law = self.given(known)
        taken = choose({cell: law.marginal(cell) for cell in left})
        bits = (sum(law.entropy([cell]) for cell in taken) - law.entropy(taken)) / self.grid.n_cells
        kinds, kind_X = torch.unique(law.codes_XL[:, taken], dim=0, return_inverse=True)
        for kind, codes in enumerate(kinds.tolist()):
            prob = float(law.prob_X[kind_X == kind].sum())
            bits += prob * self.policy_tax(choose, {**known, **dict(zip(taken, codes, strict=True))})
        return bits


Policy = Callable[[Mapping[int, list[float]]], list[int]]  # from the marginals of cells that are left to those it takes


def markov_field(grid: Grid = _SQUARE, n_codes: int = 2, coupling: float = 0.8) -> Law:
    """A Potts field: log p is, up to a constant, `coupling` for every pair of neighbours of equal codes. BenchError for
    more than 4,096 images."""
    if n_codes**grid.n_cells > MAX_IMAGES:
        raise BenchError(
            f"a {grid} grid of {n_codes} codes has {n_codes**grid.n_cells} images, and {MAX_IMAGES} can be listed; a "
            f"smaller one would do, as in Grid(3, 3) of 2 codes"
        )
    codes_XL = _every(grid, n_codes)
    codes_XRC = codes_XL.view(-1, grid.rows, grid.cols)
    alike = [codes_XRC[:, 1:] == codes_XRC[:, :-1], codes_XRC[:, :, 1:] == codes_XRC[:, :, :-1]]
    pairs_X = torch.stack([pairs.flatten(1).sum(1) for pairs in alike]).sum(0)
    return Law("Markov field", grid, n_codes, codes_XL, (coupling * pairs_X.double()).softmax(0))


def permutation(grid: Grid = _OBLONG) -> Law:
    """Every code once, in any order: as many codes as cells, and up to 6 cells."""
    codes_XL = torch.tensor(list(itertools.permutations(range(grid.n_cells))))
    return Law("permutation", grid, grid.n_cells, codes_XL, _uniform(len(codes_XL)))


def parity(grid: Grid = _SQUARE) -> Law:
    """Two codes, every image of an even sum: the last cell follows from all others, and no fewer say anything of it."""
    codes_XL = _every(grid, 2)
    codes_XL = codes_XL[codes_XL.sum(1) % 2 == 0]
    return Law("parity code", grid, 2, codes_XL, _uniform(len(codes_XL)))


LAWS = (markov_field, permutation, parity)


def _every(grid: Grid, n_codes: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(n_codes)] * grid.n_cells).view(-1, grid.n_cells)


def _uniform(n: int) -> Tensor:
    return torch.full((n,), 1 / n, dtype=torch.float64)


@dataclass
class Fed:
    """What a `Known` model was fed: a code and a cell for every slot; slot 0 is the class."""

    codes_BS: Tensor
    cells_BS: Tensor
    length: int = 1


class Known:
    """The model whose conditionals are those of a law, in fp32. Any cells may be fed and asked, in any slots, under any
    mask. The class says nothing.

    Codes that cannot occur together are answered by the images that contradict the fewest of them.
    """

    traits: frozenset[Trait] = frozenset({"masks", "slots"})
    native = "raster"
    n_classes = 1

    def __init__(self, law: Law) -> None:
        self.law, self.lattice, self.code_sizes = law, law.grid, (law.n_codes,)

    def refuses(self, plan: Plan) -> str:
        return ""

    def start(self, labels_B: Tensor, slots: int) -> Fed:
        return Fed(*torch.zeros(2, len(labels_B), slots, dtype=torch.int64, device=labels_B.device))

    def step(
        self,
        cache: Fed,
        codes_BGK: Tensor,
        cells_BG: Tensor,
        *,
        seen: Tensor | None = None,
        slots_BG: Tensor | None = None,
    ) -> None:
        behind = cache.length + cells_BG.shape[1]
        if slots_BG is None:
            slots_BG = torch.arange(cache.length, behind, device=cells_BG.device).expand_as(cells_BG)
        cache.codes_BS.scatter_(1, slots_BG, codes_BGK[..., 0])
        cache.cells_BS.scatter_(1, slots_BG, cells_BG)
        cache.length = behind if seen is None else seen.shape[2]

    def refill(self, cache: Fed, labels_B: Tensor, codes_BMK: Tensor, cells_BM: Tensor) -> None:
        self.rewind(cache, 1)
        self.step(cache, codes_BMK, cells_BM)

    def rewind(self, cache: Fed, slots: int) -> None:
        cache.length = slots

    def answer(self, cache: Fed, cells_BQ: Tensor, *, seen: Tensor | None = None) -> Categorical:
        """p(cell | the slots that are seen), by summing over images."""
        slots = cache.length if seen is None else seen.shape[2]
        images_LX, prob_X = self.law.codes_XL.T.to(cells_BQ.device), self.law.prob_X.to(cells_BQ.device)
        wrong_BSX = images_LX[cache.cells_BS[:, 1:slots]] != cache.codes_BS[:, 1:slots, None]
        shown = torch.ones(1, cells_BQ.shape[1], slots, device=cells_BQ.device) if seen is None else seen.float()
        wrong_BQX = shown[:, :, 1:] @ wrong_BSX.float()
        weight_BQX = prob_X * (wrong_BQX == wrong_BQX.amin(-1, keepdim=True))
        said_BQX = images_LX[cells_BQ]
        law_BQV = torch.stack([(weight_BQX * (said_BQX == v)).sum(-1) for v in range(self.law.n_codes)], -1)
        law_BQV = law_BQV / law_BQV.sum(-1, keepdim=True)
        return Categorical(law_BQV.clamp_min(_LEAST).log().float())


def taxes(law: Law, plan: Plan) -> Tensor:
    """(X,) bits per token that a plan loses on each image of the law, by teacher forcing, as `bench run` does it."""
    labels_X = torch.zeros(len(law.prob_X), dtype=torch.int64)
    bits, singly = (
        plan_bits(Known(law), law.codes_XL[..., None], labels_X, one, samples=[0] * len(labels_X)).double().mean(1)
        for one in (plan, plan.singly())
    )
    return bits - singly


def policy_taxes(law: Law, decoder: BoundDecoder) -> Tensor:
    """(X,) the same of a decoder that chooses its cells; where it takes a pace, with the sizes of `raster@even:3`."""
    labels_X = torch.zeros(len(law.prob_X), dtype=torch.int64)
    plan = make_plan("raster" if decoder.entry.paces else "raster@even:3", law.grid)
    found = chosen_bits(Known(law), plan, decoder, law.codes_XL[..., None], labels_X)
    assert found.singly_BL is not None  # noqa: S101 (these models serve masks)
    return (found.bits_BL - found.singly_BL).mean(1)


def measured_tax(law: Law, plan: Plan) -> float:
    """The mean of `taxes`: what `Law.tax` knows, if likelihood and masks are right."""
    return float(law.prob_X @ taxes(law, plan))
