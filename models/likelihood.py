"""Likelihood: the bits of given codes, as a plan predicts them, by one feeding and one asking; and as a decoder that
chooses its cells predicts them, step by step.

Knows plans and answers. Refuses to know sampling and how a network computes. Masks come from `visibility`, and cached
decoding is tested against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orderbench.models.answer import Answer, at
from orderbench.models.decode import BoundDecoder, make_tile, plain_steps
from orderbench.models.model import Model, Rewindable, check, serves
from orderbench.models.visibility import InGroup, content_seen, query_seen, walk
from orderbench.orders import BenchError, Plan


def check_codes(model: Model, codes_BLK: Tensor, labels_B: Tensor) -> None:
    """BenchError unless shapes and ranges of codes and labels are those of the model."""
    sizes, n_cells = model.code_sizes, model.lattice.n_cells
    if codes_BLK.ndim != 3 or codes_BLK.shape[1:] != (n_cells, len(sizes)) or len(codes_BLK) != len(labels_B):
        raise BenchError(
            f"codes of shape {tuple(codes_BLK.shape)} and labels of shape {tuple(labels_B.shape)} do not fit a model "
            f"of {n_cells} cells of {len(sizes)} code{'s' * (len(sizes) > 1)}; (B, {n_cells}, {len(sizes)}) and (B,) "
            f"would do"
        )
    for k, size in enumerate(sizes):
        codes_BL = codes_BLK[..., k]
        if codes_BL.min() < 0 or codes_BL.max() >= size:
            raise BenchError(
                f"tokens reach from {int(codes_BL.min())} to {int(codes_BL.max())}; 0 to {size - 1} would do"
            )
    if labels_B.min() < 0 or labels_B.max() > model.n_classes:
        raise BenchError(
            f"labels reach from {int(labels_B.min())} to {int(labels_B.max())}; 0 to {model.n_classes - 1} are classes "
            f"and {model.n_classes} is none of them"
        )


def plan_answer(
    model: Model,
    codes_BLK: Tensor,
    labels_B: Tensor,
    plan: Plan,
    *,
    samples: Sequence[int] | None = None,
    in_group: InGroup = "block",
) -> Answer:
    """The answer to every cell of the walk, first to last; each cell sees what it sees when it is decoded.

    The model needs the trait 'masks'. codes_BLK: int64, by cell index. labels_B: int64 in [0, C], C for none. samples:
    whose walks; default 0, 1, ...
    """
    check(model, plan, ("masks",))
    check_codes(model, codes_BLK, labels_B)
    cells_BL = walk(plan, range(len(codes_BLK)) if samples is None else samples, codes_BLK.device)
    return answer_along(model, codes_BLK, labels_B, cells_BL, plan.sizes, in_group)


def answer_along(
    model: Model,
    codes_BLK: Tensor,
    labels_B: Tensor,
    cells_BL: Tensor,
    sizes: tuple[int, ...],
    in_group: InGroup = "block",
) -> Answer:
    """`plan_answer` for walks cells_BL that are made already. The last group is asked and not fed: nothing sees it."""
    device, fed = codes_BLK.device, codes_BLK.shape[1] - sizes[-1]
    joint = serves(model, "joint")
    content, query = content_seen(sizes, in_group, device), query_seen(sizes, device, joint=joint)
    cells_BM = cells_BL[:, :fed]
    cache = model.start(labels_B, 1 + fed)
    if fed:
        model.step(cache, at(codes_BLK, cells_BM), cells_BM, seen=content[:, 1 : 1 + fed, : 1 + fed])
    n_slots = content.shape[2]
    seen = query[:, :, : 1 + fed]
    return model.answer(cache, cells_BL, seen=torch.cat([seen, query[:, :, n_slots:]], dim=2) if joint else seen)


def to_bits(nats: Tensor) -> Tensor:
    """Bits that codes cost, from their log-probabilities in nats."""
    return -nats / math.log(2)


@torch.inference_mode()
def plan_bits(
    model: Model,
    codes_BLK: Tensor,
    labels_B: Tensor,
    plan: Plan,
    *,
    samples: Sequence[int] | None = None,
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L) bits of given codes, by cell index, summed over the K codes of a cell, as the plan predicts them.

    For a model without masks, decoding is followed step by step with these codes. The numbers are the same.
    """
    if not serves(model, "masks"):
        return step_bits(model, plan, codes_BLK, labels_B.tolist(), samples=samples, in_group=in_group)
    answer = plan_answer(model, codes_BLK, labels_B, plan, samples=samples, in_group=in_group)
    cells_BL = walk(plan, range(len(codes_BLK)) if samples is None else samples, codes_BLK.device)
    walked_BL = to_bits(answer.log_prob(at(codes_BLK, cells_BL)))
    return torch.empty_like(walked_BL).scatter_(1, cells_BL, walked_BL)


@torch.inference_mode()
def step_bits(
    model: Model,
    plan: Plan,
    codes_BLK: Tensor,
    labels: Sequence[int],
    *,
    samples: Sequence[int] | None = None,
    in_group: InGroup = "block",
) -> Tensor:
    """(B, L) bits of given codes, by cell index, as decoding step by step predicts them."""
    tile = make_tile(
        model, plan, range(len(codes_BLK)) if samples is None else samples, labels=labels, in_group=in_group,
        device=codes_BLK.device, forced_BLK=codes_BLK,
    )  # fmt: skip
    bits_BL = torch.empty(codes_BLK.shape[:2], device=codes_BLK.device)
    for step in plain_steps(tile):
        bits_BL.scatter_(1, step.cells_BQ, to_bits(step.answer.log_prob(step.codes_BQK)))
    return bits_BL


@dataclass(frozen=True)
class ChosenBits:
    """Bits of given codes under a decoder that chooses its cells, by cell index.

    bits_BL: as the steps that took the cells predict them. singly_BL: of the same cells one at a time, step after step,
    and within a step by falling confidence; None for a model without masks. step_BL: int64, the step of every cell.
    """

    bits_BL: Tensor
    singly_BL: Tensor | None
    step_BL: Tensor


@torch.inference_mode()
def chosen_bits(
    model: Model,
    plan: Plan,
    decoder: BoundDecoder,
    codes_BLK: Tensor,
    labels_B: Tensor,
    *,
    samples: Sequence[int] | None = None,
    seed: int = 0,
) -> ChosenBits:
    """Teacher forcing: the decoder chooses its cells by what the model says, and they take the given codes.

    What it chooses never depends on the codes that are charged, so the difference of the two kinds of bits, over an
    image, is what its parallel steps lose: the log of p(x_S | x_C) over the product of p(x_i | x_C), summed over its
    steps (Wen, Liang and Lu, theorem 1). plan: its step sizes, where the decoder takes a pace. samples, seed: of its
    noise. Softmax in float64, of fp32 logits.
    """
    check_codes(model, codes_BLK, labels_B)
    tile = make_tile(
        model, plan, range(len(codes_BLK)) if samples is None else samples, labels=labels_B.tolist(), seed=seed,
        device=codes_BLK.device, needs=decoder.entry.needs, forced_BLK=codes_BLK,
    )  # fmt: skip
    bits_BL = torch.zeros(codes_BLK.shape[:2], dtype=torch.float64, device=codes_BLK.device)
    step_BL, sure_BL = torch.zeros_like(tile.cells_BL), torch.zeros_like(bits_BL)
    for step in decoder(tile):
        own_BQ = torch.ones_like(step.cells_BQ, dtype=torch.bool) if step.own_BQ is None else step.own_BQ
        said_BQ = to_bits(step.answer.log_prob(step.codes_BQK, dtype=torch.float64))
        likeliest_BQ = step.answer.log_prob(step.answer.likeliest(), dtype=torch.float64)
        for kept_BL, new_BQ in ((bits_BL, said_BQ), (sure_BL, likeliest_BQ)):
            kept_BL.scatter_(1, step.cells_BQ, torch.where(own_BQ, new_BQ, kept_BL.gather(1, step.cells_BQ)))
        step_BL.scatter_(1, step.cells_BQ, torch.where(own_BQ, step.index, step_BL.gather(1, step.cells_BQ)))
    if not serves(model, "masks"):
        return ChosenBits(bits_BL, None, step_BL)
    walk_BL = (2 * step_BL - sure_BL.exp()).argsort(dim=1, stable=True)
    answer = answer_along(model, codes_BLK, labels_B, walk_BL, (1,) * walk_BL.shape[1])
    walked_BL = to_bits(answer.log_prob(at(codes_BLK, walk_BL), dtype=torch.float64))
    return ChosenBits(bits_BL, torch.empty_like(walked_BL).scatter_(1, walk_BL, walked_BL), step_BL)


def crop_answer(model: Rewindable, codes_BMK: Tensor, labels_B: Tensor, known_BM: Tensor, targets_BQ: Tensor) -> Answer:
    """The answer of one nested step. Known cells and the class see each other both ways. Every target sees all of them,
    so a known target also sees its own current code. No code of a target is seen that was not known; targets see each
    other's queries where the network lets cells that are asked together do so, as EAR and LPD.

    codes_BMK: the current codes of the cells known_BM. targets_BQ: cells, known or not. The model can be refilled.
    """
    cache = model.start(labels_B, 1 + known_BM.shape[1])
    model.refill(cache, labels_B, codes_BMK, known_BM)
    return model.answer(cache, targets_BQ)
