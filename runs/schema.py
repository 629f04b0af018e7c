"""The shape of a run's records, as types; docs/record-format.md says in words what each field means.

Knows names, types and ranges of fields, of the current schema alone, and what the fields of one document must have to
do with each other. `record` holds every document that it reads against this, so that nobody else need ask. Refuses to
know how records are kept (`record`) and how older ones are brought up to date (`migration`). A test holds the tables of
that page to these types.

A number that is not finite is null, where its type is `float | None`; elsewhere null is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NotRequired, TypedDict

from orderbench.orders import BenchError, parse_lattice
from orderbench.orders.documents import Amount, Count, Least1, Limit, Line, Number, Positive, Share

SCHEMA = 2
KIND = "orderbench run"

_SPELLED = re.compile(r"""[^\s$<>|`"'\\]{1,500}""")  # nothing of it means anything to a figure, a page or a table
_HEXADECIMAL = re.compile(r"([0-9a-f]{2})*")
_FILE = re.compile(r"[A-Za-z0-9_+@=~-][A-Za-z0-9._+@=~-]{0,199}")

Spelled = Annotated[str, Limit("the spelling of an arm or of its parts", lambda text: bool(_SPELLED.fullmatch(text)))]
Optionally = Annotated[str, Limit("a spelling, or nothing", lambda text: not text or bool(_SPELLED.fullmatch(text)))]
FileName = Annotated[str, Limit("the name of a file, without folders", lambda text: bool(_FILE.fullmatch(text)))]
Hexadecimal = Annotated[str, Limit("bytes as hexadecimal digits", lambda text: bool(_HEXADECIMAL.fullmatch(text)))]
Seed = Annotated[int, Limit("a whole number from 0 on", lambda n: 0 <= n < 2**63)]
Sizes = Annotated[list[Least1], Limit("a list of one or more", lambda sizes: len(sizes) > 0)]


class Setting(TypedDict):
    """One sampling setting."""

    guidance: Spelled
    temperature: Positive
    top_k: Count
    top_p: Share
    noise: NotRequired[Spelled]  # without it, uniform


class TokenizerAbout(TypedDict):
    """A tokenizer: what it is called, how many values its codes take, the SHA-256 of its file."""

    name: Line
    code_sizes: Sizes
    sha256: NotRequired[str | None]


class HeldOutAbout(TypedDict):
    """Images that a model never saw, as its codes; or that stand in for such."""

    images: Count
    sha256: str
    source: NotRequired[str]  # 'NAME/val', or 'a tenth of the images of NAME'
    unseen: NotRequired[bool]  # whether it is known that the weights never saw them
    pixels: NotRequired[str]  # the rule by which they became squares


class ShareAbout(TypedDict):
    """One order of a training mixture."""

    order: Line
    paces: list[str]
    share: Share


class ObjectiveAbout(TypedDict, total=False):
    """What a model was trained on; `models/objective.py` says the rest."""

    mixture: list[ShareAbout]


class ModelAbout(TypedDict):
    """One model of a run."""

    name: Line  # of its file, of the package's weights, or of a factory
    lattice: Line
    code_sizes: Sizes
    classes: Count
    class_names: NotRequired[list[Line]]  # one a class, where they are known
    native: Spelled
    setting: Setting  # what its arms are drawn with
    baseline: Spelled | None  # the arm that its others are measured against
    ratio: bool  # whether the baseline is one cell at a time, so that ratios to it are shown
    sha256: NotRequired[str | None]
    identified_by: NotRequired[str]  # 'probe': its sha256 is of its answers, since its weights cannot be read
    factory: NotRequired[bool]
    family: NotRequired[str]
    weights: NotRequired[str]  # 'ema' or 'model', where its file holds both
    parameters: NotRequired[Count]
    config: NotRequired[dict[str, Any]]
    data: NotRequired[str | None]
    objective: NotRequired[ObjectiveAbout | None]
    steps_done: NotRequired[Count | None]
    tokenizer: NotRequired[TokenizerAbout]
    held_out: NotRequired[HeldOutAbout]


class SpaceAbout(TypedDict):
    """A feature space and its reference."""

    space: FileName
    dimensions: Count
    reference: Line
    reference_sha256: str | None


class CutAbout(TypedDict):
    """Why an arm has its pace, where only a number of steps was asked for."""

    steps: Least1
    pace: Line
    why: str
    taxes_bits: dict[Line, float]  # of every pace that could have been chosen; empty where no tax decided


class ArmAbout(TypedDict):
    """One arm of a run, and the plan of seed 0."""

    name: Spelled
    order: Spelled
    pace: Spelled
    decoder: Spelled  # 'off': plain decoding
    model: str  # a key of `models`
    traits: list[str]  # of the decoder
    n_steps: Least1
    sizes: Sizes
    plan: dict[str, Any] | None
    plan_digest: str | None
    per_sample: bool
    training_share: Share | None
    training_share_at_pace: Share | None
    predicted_tax_bits: Number | None
    cut: NotRequired[CutAbout]  # where --steps asked


class CpuAbout(TypedDict, total=False):
    """A processor."""

    model: str | None
    cores_logical: Count | None
    cores_usable: Count | None


class ThreadsAbout(TypedDict, total=False):
    """How many threads compute."""

    torch: Count | None
    torch_interop: Count | None


class GpuAbout(TypedDict, total=False):
    """A graphics processor."""

    name: str | None


class GitAbout(TypedDict, total=False):
    """The source that ran."""

    commit: str | None
    dirty: bool | None


Load = Annotated[list[Amount], Limit("three numbers", lambda loads: len(loads) == 3)]


class ClockAbout(TypedDict, total=False):
    """What may disturb a clock, at one moment."""

    load_average: Load | None
    gpu: dict[str, Any] | None


class DeviceAbout(TypedDict, total=False):
    """What rounds of timings must share."""

    cpu: CpuAbout | None
    gpu: GpuAbout | None
    threads: ThreadsAbout | None
    device: str | None


class EnvironmentAbout(TypedDict, total=False):
    """The machine at the start of a run or at a resumption; what it does not tell is None."""

    at: str
    device: str
    argv: list[str]
    python: str
    platform: str
    versions: dict[str, str | None]
    torch: dict[str, Any]
    cpu: CpuAbout
    memory_bytes: Count | None
    threads: ThreadsAbout
    load_average: Load | None
    gpu: GpuAbout | None
    git: GitAbout | None
    clock: ClockAbout


class ConfigAbout(TypedDict, total=False):
    """Those settings of a run that reports show; `runs/spec.py` has all."""

    data: str | None
    dtype: str | None
    samples: Least1
    tune: dict[str, list[Any]] | None


class RunAbout(TypedDict):
    """run.json."""

    schema: int
    kind: str
    created: str
    config: ConfigAbout
    models: dict[Line, ModelAbout]  # the first one is the run's own
    spaces: list[SpaceAbout]
    device: str
    arms: list[ArmAbout]
    refused: dict[Line, str]  # arms that were asked for and not served, with the sentence
    environments: list[EnvironmentAbout]
    trials: list[FileName]


class TrialHead(TypedDict):
    """What all records of trials hold; the rest depends on `kind`, and is there once `status` is 'done'."""

    trial: FileName
    kind: str
    arm: Optionally
    seed: Seed
    setting: Line
    status: Line
    ended: NotRequired[str]
    wall_s: NotRequired[Amount | None]
    reason: NotRequired[str]
    traceback: NotRequired[str]


Point = Annotated[list[Number], Limit("two numbers", lambda point: len(point) == 2)]


class Resampled(TypedDict):
    """A metric, and what it is without each group of samples."""

    value: Number | None
    left_out: NotRequired[list[Number | None] | None]
    n_reference: NotRequired[Count]  # of kd, precision and recall
    k: NotRequired[Count]  # of precision and recall
    right: NotRequired[Hexadecimal]  # of agreement: which samples agree, a bit each


class QualityResult(TypedDict):
    """Metrics of some images in one feature space."""

    space: FileName
    reference: Line
    n: Least1
    n_reference: NotRequired[Count]
    groups: NotRequired[Count]
    fd: Resampled
    kd: NotRequired[Resampled]
    precision: NotRequired[Resampled]
    recall: NotRequired[Resampled]
    inception_score: NotRequired[Resampled | None]  # null where the space has no classes
    agreement: NotRequired[Resampled | None]  # so is this
    fd_curve: NotRequired[list[Point]]
    fd_extrapolated: NotRequired[Number | None]


class PassesAbout(TypedDict):
    """How the passes of an exact decoder went."""

    p50: Positive
    p90: Positive
    wasted_asked: Share
    wasted_fed: Share
    accepted_by_pass: list[Amount]
    accepted_by_cell: list[Amount]


class Differing(TypedDict):
    """Images that another way of decoding made otherwise."""

    images: Count
    of: Least1


class QualityTrial(TrialHead):
    """Samples of an arm."""

    n: Least1
    sampling: Setting
    plan_digest: str | None
    n_steps: Positive
    counters: dict[Line, Amount]
    counters_exact: bool
    flops_per_image: Amount | None
    tokens_digest: str
    decode_s: Amount
    changed_per_image: Amount
    changed_by_cell: list[Amount]
    passes: NotRequired[PassesAbout]  # of a decoder that says after which pass a code was final
    differing: NotRequired[Differing]  # from one cell at a time, of an exact decoder
    quality: list[QualityResult]


class FloorTrial(TrialHead):
    """Images that no arm made."""

    n: Least1
    quality: list[QualityResult]


class LikelihoodTrial(TrialHead):
    """Bits of held-out images under an arm."""

    n: Least1
    plan_digest: str | None
    n_steps: Positive
    bits_per_token: Number
    bits_se: Amount | None
    singly_bits_per_token: Number | None
    tax_bits: Number | None
    tax_se: Amount | None
    predicted_tax_bits: Number | None
    field: str | None
    bits_by_step: list[Number]
    singly_bits_by_step: list[Number] | None
    bits_by_cell: list[Number]
    singly_bits_by_cell: list[Number] | None


class RepairRates(TypedDict):
    """What a decoder that rewrites does to codes that were made wrong."""

    error_rate: Share
    corrupted: Count
    clean: Count
    repair_rate: Share | None
    damage_rate: Share | None


class RepairTrial(TrialHead):
    """Repair of injected errors."""

    n: Least1
    sampling: Setting
    rates: list[RepairRates]


class TimedSample(TypedDict):
    """One contender in one round, seconds a generation."""

    name: Spelled
    repeats: Count
    tokens_s: Positive
    pixels_s: Amount | None
    idle_s: NotRequired[Amount]


Passes = Annotated[list[list[Amount]], Limit("a list of one or more", lambda passes: len(passes) > 0)]


class WarmUpAbout(TypedDict, total=False):
    """The first generations of a contender."""

    repeats: Count
    first_s: Amount
    again_s: list[Amount]


class MemoryAbout(TypedDict, total=False):
    """What a generation of a contender took; None where it could not be measured."""

    peak_bytes: Count | None
    before_bytes: Count | None
    added_bytes: int | None
    reserved_bytes: Count | None
    how: str | None


class Interrupted(TypedDict):
    """A sample that the machine cut into."""

    round: Count
    name: Spelled
    longer_s: Amount
    again: bool  # whether its round was measured again


class Precision(TypedDict):
    """How well the ratios are known, shares of their values."""

    rounds: Line  # what was asked
    within: Amount | None  # what ends `auto`
    widest: Amount | None
    reached: bool | None
    spent_s: Amount


class LatencyTrial(TrialHead):
    """All arms in turns at one batch."""

    batch: Least1
    sampling: Setting
    device: DeviceAbout
    rounds: list[list[TimedSample]]
    precision: NotRequired[Precision]
    interrupted: NotRequired[list[Interrupted]]
    setup_s: dict[str, Amount]
    counters: dict[Spelled, dict[Line, Amount]]
    counters_exact: dict[Spelled, bool]
    flops_per_image: dict[Spelled, Amount | None]
    warm_up: dict[str, WarmUpAbout]
    memory: dict[str, MemoryAbout]
    weights_bytes: Count | None
    step_s: NotRequired[dict[Spelled, Passes]]
    clock_after: ClockAbout | None
    failed_arms: dict[Line, str]


TRIALS: Mapping[str, type] = {
    "quality": QualityTrial,
    "tuning": QualityTrial,
    "floor": FloorTrial,
    "likelihood": LikelihoodTrial,
    "repair": RepairTrial,
    "latency": LatencyTrial,
}


# What fields have to do with each other


def about_misfit(about: RunAbout) -> str:
    """What in a run.json contradicts itself, as the middle of a sentence; empty if nothing does."""
    return next(_contradictions(about), "")


def _contradictions(about: RunAbout) -> Iterator[str]:
    names = [arm["name"] for arm in about["arms"]]
    for what, listed in (("the arm", names), ("the trial", about["trials"])):
        twice = next((one for one in listed if listed.count(one) > 1), None)
        if twice is not None:
            yield f"holds {what} '{twice}' twice"
    for index, arm in enumerate(about["arms"]):
        model = about["models"].get(arm["model"])
        if model is None:
            yield f"gives arms[{index}].model as '{arm['model']}', and a name of its models would do"
            continue
        if len(arm["sizes"]) != arm["n_steps"]:
            yield f"gives arms[{index}] {arm['n_steps']} steps and {len(arm['sizes'])} sizes of them"
        try:
            cells = parse_lattice(model["lattice"]).n_cells
        except BenchError:
            continue  # of a newer orderbench, or of a plugin
        if sum(arm["sizes"]) != cells:
            yield f"gives arms[{index}].sizes of {sum(arm['sizes'])} cells on a lattice of {cells}"


def trial_misfit(trial: Any, about: RunAbout) -> str:
    """What in the record of a finished trial contradicts itself or its run, as the middle of a sentence."""
    kind, config = trial["kind"], about["config"]
    models = {arm["name"]: about["models"][arm["model"]] for arm in about["arms"]}
    plans = {arm["name"]: arm["plan_digest"] for arm in about["arms"]}
    fixed = next(iter(about["models"].values()), None) if kind == "latency" else models.get(trial["arm"])
    if fixed and trial["setting"] == "fixed" and trial.get("sampling", fixed["setting"]) != fixed["setting"]:
        return "gives another sampling setting than its run.json"
    planned = kind in ("quality", "likelihood") and trial["seed"] == 0 and trial["arm"] in plans
    if planned and trial["plan_digest"] != plans[trial["arm"]]:
        return "gives another plan_digest than its run.json"
    if kind in ("quality", "tuning") and trial["n"] != config.get("samples", trial["n"]):
        return f"gives n as {trial['n']}, and its run.json asks for {config['samples']}"
    if kind == "latency":
        for index, one in enumerate(trial["rounds"]):
            timed = [sample["name"] for sample in one]
            if len(set(timed)) < len(timed):
                return f"holds an arm twice in rounds[{index}]"
            uncounted = [name for name in timed if name in plans and name not in trial["counters"]]
            if uncounted:
                return f"times {uncounted[0]} in rounds[{index}] and has no counters of it"
    if trial["kind"] == "likelihood":
        for name in ("by_step", "by_cell"):
            singly = trial[f"singly_bits_{name}"]
            if singly is not None and len(singly) != len(trial[f"bits_{name}"]):
                return f"gives singly_bits_{name} and bits_{name} of different lengths"
    return ""


ARRAYS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "bits": {"bits_N": ("N", "f"), "singly_N": ("N", "f")},
    "tokens": {"tokens_NL": ("NL", "ui"), "codes_NLK": ("NLK", "ui"), "labels_N": ("N", "ui")},
    "pictures": {"images_Nhwc": ("Nhwc", "u"), "labels_N": ("N", "ui")},
    "features": {"features_ND": ("ND", "f"), "logits_NC": ("NC", "f")},
}  # by the kind of file, before its first hyphen: axes, and kinds of numbers, as NumPy's dtype.kind spells them
NEEDED_ARRAYS = {
    "bits": ("bits_N",),
    "tokens": ("labels_N",),
    "pictures": ("images_Nhwc",),
    "features": ("features_ND",),
}
