"""The shape of a run's records, as types; docs/record-format.md says in words what each field means.

Knows names and types of fields, of the current schema alone. Refuses to know how records are kept (`record`) and how
older ones are brought up to date (`migration`).
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

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
    reference_sha256: str


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
    environments: list[dict[str, Any]]
    trials: list[str]


class Trial(TypedDict):
    """What all records of trials hold; the rest depends on `kind`."""

    trial: str
    kind: str
    arm: str
    seed: int
    setting: str
    status: str
