"""The shape of a run's records, as types; docs/record-format.md says in words what each field means.

Knows names and types of fields, of the current schema alone. Refuses to know how records are kept (`record`) and how
older ones are brought up to date (`migration`). A test holds the tables of that page to these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NotRequired, TypedDict, get_origin, get_type_hints

SCHEMA = 2
KIND = "orderbench run"


class Setting(TypedDict):
    """One sampling setting."""

    guidance: str
    temperature: float
    top_k: int
    top_p: float


class TokenizerAbout(TypedDict):
    """A tokenizer: what it is called, how many values its codes take, the SHA-256 of its file."""

    name: str
    code_sizes: list[int]
    sha256: NotRequired[str | None]


class HeldOutAbout(TypedDict):
    """Images that a model never saw, as its codes."""

    images: int
    sha256: str


class ModelAbout(TypedDict):
    """One model of a run."""

    name: str  # of its file, of the package's weights, or of a factory
    lattice: str
    code_sizes: list[int]
    classes: int
    native: str
    setting: Setting  # what its arms are drawn with
    baseline: str | None  # the arm that its others are measured against
    ratio: bool  # whether the baseline is one cell at a time, so that ratios to it are shown
    sha256: NotRequired[str | None]
    factory: NotRequired[bool]
    family: NotRequired[str]
    weights: NotRequired[str]  # 'ema' or 'model', where its file holds both
    parameters: NotRequired[int]
    config: NotRequired[dict[str, Any]]
    data: NotRequired[str]
    objective: NotRequired[dict[str, Any]]
    steps_done: NotRequired[int]
    tokenizer: NotRequired[TokenizerAbout]
    held_out: NotRequired[HeldOutAbout]


class SpaceAbout(TypedDict):
    """A feature space and its reference."""

    space: str
    dimensions: int
    reference: str
    reference_sha256: str | None


class CutAbout(TypedDict):
    """Why an arm has its pace, where only a number of steps was asked for."""

    steps: int
    pace: str
    why: str
    taxes_bits: dict[str, float]  # of every pace that could have been chosen; empty where no tax decided


class ArmAbout(TypedDict):
    """One arm of a run, and the plan of seed 0."""

    name: str
    order: str
    pace: str
    decoder: str  # 'off': plain decoding
    model: str  # a key of `models`
    traits: list[str]  # of the decoder
    n_steps: int
    sizes: list[int]
    plan: dict[str, Any] | None
    plan_digest: str | None
    per_sample: bool
    training_share: float | None
    training_share_at_pace: float | None
    predicted_tax_bits: float | None
    cut: NotRequired[CutAbout]  # where --steps asked


class EnvironmentAbout(TypedDict, total=False):
    """The machine at the start of a run or at a resumption; what it does not tell is None."""

    at: str
    device: str
    argv: list[str]
    python: str
    platform: str
    versions: dict[str, str | None]
    torch: dict[str, Any]
    cpu: dict[str, Any]
    memory_bytes: int | None
    threads: dict[str, Any]
    load_average: list[float] | None
    gpu: dict[str, Any] | None
    git: dict[str, Any] | None
    clock: dict[str, Any]


class RunAbout(TypedDict):
    """run.json."""

    schema: int
    kind: str
    created: str
    config: dict[str, Any]
    models: dict[str, ModelAbout]  # the first one is the run's own
    spaces: list[SpaceAbout]
    device: str
    arms: list[ArmAbout]
    refused: dict[str, str]  # arms that were asked for and not served, with the sentence
    environments: list[EnvironmentAbout]
    trials: list[str]


class TrialHead(TypedDict):
    """What all records of trials hold; the rest depends on `kind`, and is there once `status` is 'done'."""

    trial: str
    kind: str
    arm: str
    seed: int
    setting: str
    status: str
    ended: NotRequired[str]
    wall_s: NotRequired[float]
    reason: NotRequired[str]
    traceback: NotRequired[str]


class Resampled(TypedDict):
    """A metric, and what it is without each group of samples."""

    value: float | None
    left_out: NotRequired[list[float | None] | None]
    n_reference: NotRequired[int]  # of kd, precision and recall
    k: NotRequired[int]  # of precision and recall


class QualityResult(TypedDict):
    """Metrics of some images in one feature space."""

    space: str
    reference: str
    n: int
    n_reference: NotRequired[int]
    groups: NotRequired[int]
    fd: Resampled
    kd: NotRequired[Resampled]
    precision: NotRequired[Resampled]
    recall: NotRequired[Resampled]
    inception_score: NotRequired[Resampled]
    agreement: NotRequired[Resampled]
    fd_curve: NotRequired[list[list[float]]]
    fd_extrapolated: NotRequired[float | None]


class QualityTrial(TrialHead):
    """Samples of an arm."""

    n: int
    sampling: Setting
    plan_digest: str | None
    n_steps: float
    counters: dict[str, float]
    counters_exact: bool
    flops_per_image: float | None
    tokens_digest: str
    decode_s: float
    changed_per_image: float
    changed_by_cell: list[float]
    quality: list[QualityResult]


class FloorTrial(TrialHead):
    """Images that no arm made."""

    n: int
    quality: list[QualityResult]


class LikelihoodTrial(TrialHead):
    """Bits of held-out images under an arm."""

    n: int
    plan_digest: str
    n_steps: int
    bits_per_token: float
    bits_se: float | None
    singly_bits_per_token: float | None
    tax_bits: float | None
    tax_se: float | None
    predicted_tax_bits: float | None
    field: str | None
    bits_by_step: list[float]
    singly_bits_by_step: list[float] | None
    bits_by_cell: list[float]
    singly_bits_by_cell: list[float] | None


class RepairRates(TypedDict):
    """What a decoder that rewrites does to codes that were made wrong."""

    error_rate: float
    corrupted: int
    clean: int
    repair_rate: float | None
    damage_rate: float | None


class RepairTrial(TrialHead):
    """Repair of injected errors."""

    n: int
    sampling: Setting
    rates: list[RepairRates]


class TimedSample(TypedDict):
    """One contender in one round, seconds a generation."""

    name: str
    repeats: int
    tokens_s: float
    pixels_s: float | None


class LatencyTrial(TrialHead):
    """All arms in turns at one batch."""

    batch: int
    sampling: Setting
    device: dict[str, Any]
    rounds: list[list[TimedSample]]
    setup_s: dict[str, float]
    counters: dict[str, dict[str, float]]
    counters_exact: dict[str, bool]
    flops_per_image: dict[str, float | None]
    warm_up: dict[str, dict[str, Any]]
    memory: dict[str, dict[str, Any]]
    weights_bytes: int | None
    step_s: NotRequired[dict[str, list[list[float]]]]
    clock_after: dict[str, Any] | None
    failed_arms: dict[str, str]


TRIALS: Mapping[str, type] = {
    "quality": QualityTrial,
    "tuning": QualityTrial,
    "floor": FloorTrial,
    "likelihood": LikelihoodTrial,
    "repair": RepairTrial,
    "latency": LatencyTrial,
}


@cache
def required(shape: type) -> tuple[str, ...]:
    """The fields that a record of this shape always has, in the order in which they are declared.

    >>> required(HeldOutAbout)
    ('images', 'sha256')
    """
    hints = get_type_hints(shape, include_extras=True)
    return tuple(name for name, hint in hints.items() if get_origin(hint) is not NotRequired)
