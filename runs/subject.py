"""The subjects of a run: which models, tokenizers and data are measured, and their digests.

Knows names of shipped weights, files and a user's own factories. Refuses to know arms and measurements.

A run has a model of its own. It may have others too, each under a name (`--model par=FILE`). An arm spelled with `~par`
is decoded by the model of that name. A run of systems has a model for each, and none of its own unless an arm needs it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from orderbench.models.adapter import EightMembers, as_model
from orderbench.models.checkpoint import Which
from orderbench.models.codec import Codec, Weights, load_codec
from orderbench.models.config import ModelConfig, to_plain
from orderbench.models.data import FASHION_NAMES, SIDE, to_uint8
from orderbench.models.families import FAMILIES, family_of, load_family
from orderbench.models.mixtures import objective_of
from orderbench.models.model import Meeting, Model
from orderbench.models.objective import ObjectiveConfig
from orderbench.models.probe import fingerprint
from orderbench.models.shipped import (
    kind_of,
    load_shipped,
    load_shipped_arrays,
    load_weights,
    shipped_held_out,
    shipped_names,
    shipped_tokenizer,
)
from orderbench.models.stack import Stack
from orderbench.models.systems import SYSTEMS, System, built_system
from orderbench.models.transformer import Transformer, count_parameters
from orderbench.models.varcodec import VARTokenizer
from orderbench.models.vq16 import VQ16
from orderbench.orders import BenchError, Lattice
from orderbench.orders.errors import printable
from orderbench.orders.files import sha256_of
from orderbench.orders.spelling import MODEL_NAME, split_arm
from orderbench.runs.device import choose_device, settle_threads
from orderbench.runs.factory import call_factory
from orderbench.runs.held_out import look_at
from orderbench.runs.spaces import Form, Judge, describe_judge, judges_of
from orderbench.runs.spec import SHARED, SHARED_FILE, RunSpec, model_name

TOKENIZER, HELD_OUT = "fashion-tokenizer", "fashion-held-out"  # in the package, like SHARED_FILE
ALL, PLAIN_SYSTEM = "all", "llamagen"  # of --systems: each of them; the one that the others are measured against
_OPTIONS = "options stand behind a file of {}'s layout, as in --model FILE:side=24; docs/systems.md lists them"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Subject:
    """One model, and what its arms are measured with. name: in the run. about: what `run.json` says of it.

    codec: between its codes and pixels; None where there is none, and with it no quality. recommended: the sampling
    setting of its card. objective: what it was trained on, where that is known. shipped: whether its codes are those
    of the package, so that what travels along judges it. no_codec, no_held_out: why there is none, and what would
    bring it, as the end of a sentence. assumed: what nobody said and was taken for granted, as a sentence. notes: what
    is said before it runs, a sentence each.
    """

    name: str
    model: Model
    device: str
    about: dict[str, Any]
    codec: Codec | None = None
    recommended: dict[str, Any] = field(default_factory=dict)
    objective: ObjectiveConfig | None = None
    held_out_source: Callable[[], tuple[Tensor, Tensor]] | None = None
    held_out_about: dict[str, Any] = field(default_factory=dict)
    shipped: bool = False
    no_codec: str = ""
    no_held_out: str = ""
    assumed: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor] | None:
        """(N, L, K) codes and (N,) labels of images that the model never saw; None where there are none."""
        return None if self.held_out_source is None else self.held_out_source()

    def describe_held_out(self) -> dict[str, Any]:
        """How many there are, the sha256 of their codes and labels, and what is known of them; nothing where there are
        none."""
        if self.held_out is None:
            return {}
        codes_NLK, labels_N = (np.ascontiguousarray(part.numpy(), "<i8") for part in self.held_out)
        digest = hashlib.sha256(codes_NLK.tobytes() + labels_N.tobytes()).hexdigest()
        return {"held_out": {"images": len(codes_NLK), "sha256": digest, **self.held_out_about}}

    @property
    def config(self) -> ModelConfig | None:
        """Sizes of our own network; None for any other."""
        return self.model.config if type(self.model) is Transformer else None

    def side(self) -> int:
        """Of its images, in pixels."""
        assert self.codec is not None  # noqa: S101 (asked by those who checked)
        return self.codec.side(self.model.lattice)

    def pixels(self, codes_NLK: Tensor) -> Tensor:
        """(N, c, h, w) uint8 images of codes, on the CPU."""
        assert self.codec is not None  # noqa: S101 (asked by those who checked)
        return to_pixels(self.codec, codes_NLK, self.model.lattice, self.device)


@dataclass(frozen=True)
class Subjects:
    """All models of a run. by_name: the run's own first. judges: of quality, for all of them. threads: how many of the
    processor compute, and why, in one sentence; empty where nothing was chosen. all_named: whether every arm names its
    model, as in a run of systems alone; then no model is the run's own, and the first one stands for all."""

    by_name: Mapping[str, Subject]
    judges: tuple[Judge, ...]
    device: str
    threads: str = ""
    all_named: bool = False

    @property
    def own(self) -> Subject:
        """The model of arms that name none."""
        return next(iter(self.by_name.values()))

    def called(self, subject: Subject) -> str:
        """How arms name a model: '' is the run's own."""
        return "" if subject is self.own and not self.all_named else subject.name

    def of(self, model: str) -> Subject:
        """The subject of an arm's model; '' is the run's own."""
        return self.by_name[model] if model else self.own

    @property
    def models(self) -> dict[str, Model]:
        """By the names that arms use: '' the run's own, and the others."""
        return {self.called(subject): subject.model for subject in self.by_name.values()}

    def describe_spaces(self) -> list[dict[str, Any]]:
        """The feature spaces and references, as records hold them."""
        return [describe_judge(judge) for judge in self.judges]


@torch.inference_mode()
def to_pixels(codec: Codec, codes_NLK: Tensor, lattice: Lattice, device: str) -> Tensor:
    """(N, c, h, w) uint8 images of codes, on the CPU."""
    parts = [
        to_uint8(codec.decode(codes_NLK[i : i + 256].to(device).long(), lattice)).cpu()
        for i in range(0, len(codes_NLK), 256)
    ]
    return torch.cat(parts)


def is_factory(source: str | None) -> bool:
    """Whether a model is a function that must be imported, and so run, to have it."""
    file, options = file_options(source or "")
    return ":" in file and not options and not Path(file).exists()


def file_options(source: str) -> tuple[str, str]:
    """The file of a model and the options of its layout behind it; none where there is a file of the whole name.

    >>> file_options("c2i_L_384.pt:side=24"), file_options("pkg.module:factory")
    (('c2i_L_384.pt', ':side=24'), ('pkg.module:factory', ''))
    """
    found = re.fullmatch(r"(.+?)((?::[a-z_]+=[^:=]*)+)", source)
    return (source, "") if found is None or Path(source).exists() else (found[1], found[2])


def has_factory(spec: RunSpec) -> bool:
    """Whether any model of a run is such a function."""
    return any(is_factory(_named(text)[1]) for text in spec.model)


def check_named(
    spec: RunSpec, given: Mapping[str, Any], file: str, spelled: Callable[[Mapping[str, str | Sequence[str]]], str]
) -> None:
    """BenchError for code that a file of settings names and nobody else, and for a download: the file may be a
    stranger's.

    spec: what the file and whoever starts the run ask for together; given: what the latter asked for, by name.
    spelled: some settings as they would be given to the run.
    """
    asks = {
        "include": bool(spec.include),
        "model": has_factory(spec),
        "data": str(spec.data).partition(":")[0] == "download",
    }
    named = {name: getattr(spec, name) for name, asked in asks.items() if asked and name not in given}
    if named:
        what = "a download" if set(named) == {"data"} else "code"
        raise BenchError(
            f"'{file}' asks for {what}, which a file alone may not; if you trust what it names, name it too, as in "
            f"{spelled(named)}"
        )


# Which models a run has


def asked_systems(spec: RunSpec) -> tuple[System, ...]:
    """The systems of a run, without doubles. `all` are those that are built and whose weights are in the package or
    were given.

    BenchError for a system that is not known, or not built, or that has no weights.
    """
    given = {_named(text)[0] for text in spec.model}
    found: dict[str, System] = {}
    for name in spec.systems:
        if name == ALL:
            known = [SYSTEMS.get(each) for each in SYSTEMS.names()]
            found |= {one.name: one for one in known if one.shipped or (one.built and one.name in given)}
            continue
        system = found[name] = built_system(name)
        if not system.shipped and name not in given:
            raise BenchError(
                f"no weights of the system '{name}' travel in this package; train them by `{system.training}`, and "
                f"then give --model {name}={name}/model.safetensors"
            )
    if spec.systems and not found:
        raise BenchError(
            "--systems all finds no weights of any system in this package; `bench systems NAME` says how to train them"
        )
    return tuple(found.values())


def names_all(spec: RunSpec) -> bool:
    """Whether every arm of a run names its model, so that no model is the run's own: only where systems are asked."""
    return bool(spec.systems) and all(split_arm(arm).model is not None for arm in spec.orders)


def plain_arm(spec: RunSpec) -> str:
    """The arm that all systems of a run are measured against: raster, one cell at a time, by the network of most of
    their papers. Empty where there are no systems, where nobody wants a baseline, and where its weights would be of
    other codes: those of the package are added to weights of the package alone."""
    systems = [system.name for system in asked_systems(spec)]
    given = {_named(text)[0] for text in spec.model}
    plain = SYSTEMS.get(PLAIN_SYSTEM)
    there = plain.name in {*systems, *given} or (plain.shipped and not given & set(systems))
    return plain.arm if systems and there and not spec.no_baseline else ""


def named_sources(spec: RunSpec) -> dict[str, str | None]:
    """The models of a run by name, the run's own first, and what each is loaded from (None: the package's own).

    `--model SOURCE` or `--model NAME=SOURCE`, the first being the run's own; a name that an arm has behind ~ and that
    was given to none is looked for among the shipped weights. What is given under the name of a system that was asked
    for is its weights, and never the run's own. BenchError for a name given twice, for one behind ~ that is not there
    either, and for a model that decodes nothing beside systems.
    """
    given: dict[str, str | None] = {}
    for text in spec.model:
        name, source = _named(text)
        if name in given:
            again = f"{name}-2={source or SHARED}"
            raise BenchError(f"two models are called '{name}'; name them apart, as in --model {again}")
        given[name] = source
    systems = [system.name for system in asked_systems(spec)]
    if plain_arm(spec) and PLAIN_SYSTEM not in systems:
        systems.append(PLAIN_SYSTEM)
    sources = {name: source for name, source in given.items() if name not in systems}
    if not sources and not names_all(spec):
        sources = {SHARED: None}
    for arm in spec.orders:
        wanted = split_arm(arm).model
        if wanted is not None and wanted not in (*sources, *systems):
            if wanted != SHARED and wanted not in shipped_names():
                raise BenchError(
                    f"'{arm}' names the model '{wanted}', and the run has {', '.join([*sources, *systems])} alone; "
                    f"name its weights too, as in {'' if spec.model else f'--model {SHARED} '}--model {wanted}=FILE"
                )
            sources[wanted] = None if wanted == SHARED else wanted
    if names_all(spec):
        used = {split_arm(arm).model for arm in spec.orders}
        idle = next((name for name in sources if name not in used), None)
        if idle is not None:
            raise BenchError(
                f"the model '{idle}' decodes nothing beside --systems {','.join(spec.systems)}; name its arms too, as "
                f"in --orders raster~{idle}, or leave it out"
            )
    return {**sources, **{name: given.get(name, name) for name in systems}}


def _named(text: str | None) -> tuple[str, str | None]:
    if text is None or text in (SHARED, SHARED_FILE):
        return SHARED, None if text in (None, SHARED) else text
    given = re.fullmatch(rf"({MODEL_NAME.pattern})=(.+)", text)
    if given is not None and not Path(text).exists():
        return given[1], None if given[2] == SHARED else given[2]
    file = file_options(text)[0]
    return model_name(file if is_factory(text) else file.replace(":", "-")), text  # a file is no module:function


def named_file(texts: tuple[str, ...], name: str, own: bool) -> str | None:
    """The file for a model, among values that may be NAME=FILE; one without a name is for the run's own model."""
    for text in texts:
        given = re.fullmatch(rf"({MODEL_NAME.pattern})=(.+)", text)
        if given is not None and not Path(text).exists():
            if given[1] == name:
                return given[2]
        elif own:
            return text
    return None


def _check_tokenizers(texts: tuple[str, ...], models: Sequence[str]) -> None:
    """BenchError for a NAME=FILE that names no model of the run: it would be ignored."""
    for text in texts:
        given = re.fullmatch(rf"({MODEL_NAME.pattern})=(.+)", text)
        if given is not None and not Path(text).exists() and given[1] not in models:
            raise BenchError(
                f"--tokenizer {text} is for a model '{given[1]}', and the run has {', '.join(models)}; name one of "
                f"these, as in --tokenizer {models[0]}={given[2]}"
            )


def load_subjects(spec: RunSpec, threads: int | None = None) -> Subjects:
    """Load what a run needs, check that its parts fit, and set threads and precision for this process.

    threads: of the run that is gone on with, for a spec that names none. BenchError, one sentence, for whatever does
    not fit.
    """
    device = choose_device(spec.device)
    said = settle_threads(spec.threads or threads, device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sources = named_sources(spec)
    _check_tokenizers(spec.tokenizer, list(sources))
    subjects: dict[str, Subject] = {}
    for name, source in sources.items():
        subjects[name] = _subject(name, source, spec, device, tuple(subjects.values()))
    judges: tuple[Judge, ...] = ()
    drawn = next((subject for subject in subjects.values() if subject.codec is not None), None)
    if "quality" in spec.only and drawn is not None and drawn.codec is not None:
        readable = drawn.shipped or any(subject.held_out_source is not None for subject in subjects.values())
        judges = judges_of(
            spec.space, device, spec.reference, spec.data, shipped=drawn.shipped, readable=readable,
            samples=Form(drawn.codec.channels, drawn.side),
        )  # fmt: skip
    return Subjects(subjects, judges, device, said, names_all(spec))


def _is_shipped(source: str | None) -> bool:
    return source is None or source in shipped_names()


def _subject(name: str, source: str | None, spec: RunSpec, device: str, earlier: tuple[Subject, ...]) -> Subject:
    """One model with its tokenizer and held-out codes, which have met. earlier: those that were loaded before."""
    found = _with_codes(name, source, spec, device, earlier)
    if isinstance(found.model, Meeting):
        found.model.meet(found.codec)
    return found


def _with_codes(name: str, source: str | None, spec: RunSpec, device: str, earlier: tuple[Subject, ...]) -> Subject:
    """One model with its tokenizer and held-out codes: those of the first model, or of another whose tokenizer its card
    names, else its own."""
    model, about, card = _model(source, device, spec.dtype, cast(Which | None, spec.weights))
    objective = objective_of(about["objective"], "the weights' metadata") if "objective" in about else None
    alone = Subject(
        name, model, device, about, recommended=card.get("setting", {}), objective=objective,
        notes=_of_weights(about),
    )  # fmt: skip
    alone = _with_class_names(alone, card.get("class_names", ()))
    file, shipped = named_file(spec.tokenizer, name, not earlier), _is_shipped(source)
    asked_of = earlier if _trained_on(about) else earlier[:1]
    twin = next((one for one in asked_of if _shares_codes(alone, one)), None) if file is None else None
    if twin is not None:
        found = replace(alone, about={**about, "tokenizer": twin.about["tokenizer"]}, codec=twin.codec)
        if twin.shipped:
            return _with_shipped_codes(found, known=True)
        shared = None if twin.held_out_source is None else partial(_held_out_of, twin)
        return replace(found, held_out_source=shared, held_out_about=twin.held_out_about, no_held_out=twin.no_held_out)
    default = shipped_tokenizer(_trained_on(about)) or TOKENIZER
    codec, said = load_tokenizer(file or default, device)
    misfit = _misfit(model, codec, name) if file in (None, default) else ""
    if file is None and not shipped:
        no_codec = _tokenizer_differs(about, said) or (
            f"the shipped tokenizer has {misfit}; name the model's own, as in --tokenizer "
            f"{name + '=' if earlier else ''}FILE --data FOLDER"
            if misfit
            else ""
        )
        if misfit and (unserved := _unserved(about)):
            no_codec = unserved
        if no_codec:
            asked = [f"--{flag}" for flag in ("data", "reference", "space") if getattr(spec, flag)]
            if asked and not earlier:
                raise BenchError(f"{' and '.join(asked)} need{'s' * (len(asked) == 1)} a tokenizer: {no_codec}")
            return replace(alone, no_codec=no_codec)
    if codec.code_sizes != model.code_sizes:
        raise BenchError(
            f"the tokenizer {said['name']} has {_sizes(codec.code_sizes)} codes and the model {name} "
            f"{_sizes(model.code_sizes)}; name the tokenizer that the model was trained on, as in --tokenizer "
            f"{name + '=' if earlier else ''}FILE"
        )
    differs = _tokenizer_differs(about, said)
    if differs:
        raise BenchError(differs)
    found = replace(alone, about={**about, "tokenizer": said}, codec=codec)
    travels = file in (None, default) and bool(shipped_held_out(said["sha256"]))
    if spec.data is None and travels and (shipped or not misfit):
        return _with_shipped_codes(found, known=shipped or file is not None or bool(_trained_on(about)))
    if spec.data is None and isinstance(codec, VQ16 | VARTokenizer):  # Fashion-MNIST is no default for ImageNet's codes
        return replace(found, no_held_out="there are no images to encode; name some, as in --data FOLDER")
    if spec.data is None and not {"quality", "likelihood"} & set(spec.only):
        return found
    held_out = look_at(spec.data, model, codec, card, name)
    encode = partial(held_out.encode, model, codec, max(spec.held_out, spec.samples), device)
    found = _with_class_names(found, held_out.source.class_names)
    notes = (*found.notes, held_out.note) if held_out.note else found.notes
    return replace(found, held_out_source=encode, held_out_about=held_out.about(), notes=notes)


def _unserved(about: Mapping[str, Any]) -> str:
    """Why images of a published model cannot be had, where its release's tokenizer is not served; empty if it is."""
    family = FAMILIES.get(about["family"]) if "family" in about else None
    if family is None or not family.unserved:
        return ""
    return (
        f"{family.name}'s release is of the tokenizer {family.unserved}: its latency is measured, and bits of codes "
        f"that you have are orderbench.models.plan_bits"
    )


def _misfit(model: Model, codec: Codec, name: str) -> str:
    """How a model's codes differ from those of the package, in their number or their places; empty if they fit."""
    lattice = codec.lattice(SIDE)
    if (codec.code_sizes, lattice) == (model.code_sizes, model.lattice):
        return ""
    return f"{_sizes(codec.code_sizes)} codes on {lattice} and {name} {_sizes(model.code_sizes)} on {model.lattice}"


def _with_shipped_codes(subject: Subject, *, known: bool) -> Subject:
    """A subject that the package's own codes and reference judge. known: whether somebody said that its codes are
    those of the shipped tokenizer; else they only fit.

    A model of one class takes every held-out image for one of that class.
    """
    classes, made_by = subject.model.n_classes, subject.about["tokenizer"]["sha256"]
    _, labels_N = _shipped_held_out(made_by)
    had = int(labels_N.max()) + 1
    sizes = f"{_sizes(subject.model.code_sizes)} codes on {subject.model.lattice}"
    assumed = (
        f"{subject.name}: no tokenizer was named, and the shipped one fits ({sizes}), so it is taken; if these codes "
        f"mean something else, give --tokenizer FILE --data FOLDER"
    )
    found = replace(subject, shipped=True, assumed="" if known else assumed)
    if classes == had or (known and classes > had):
        found = _with_class_names(found, FASHION_NAMES)
        return replace(found, held_out_source=partial(_shipped_held_out, made_by))
    if classes == 1:
        return replace(found, held_out_source=partial(_shipped_held_out_of_one_class, made_by))
    return replace(
        found,
        no_held_out=f"the shipped held-out images are of {had} classes and {subject.name} knows {classes}; name images "
        f"of its own classes, as in --data FOLDER",
    )


def _with_class_names(subject: Subject, names: Sequence[str]) -> Subject:
    """A subject whose record says what its classes are called, where each has a name and nobody named them before."""
    if "class_names" in subject.about or len(names) != subject.model.n_classes:
        return subject
    shown = [" ".join(printable(name).split()) for name in names]
    return replace(subject, about={**subject.about, "class_names": shown})


def _held_out_of(subject: Subject) -> tuple[Tensor, Tensor]:
    """The held-out codes of a subject that has some; encoded once, whoever asks first."""
    return cast(tuple[Tensor, Tensor], subject.held_out)


def _shares_codes(subject: Subject, other: Subject) -> bool:
    """Whether a model's codes are those of another's tokenizer, as far as sizes, lattice and cards tell."""
    if other.codec is None or other.codec.code_sizes != subject.model.code_sizes:
        return False
    alike = other.model.lattice == subject.model.lattice
    return alike and not _tokenizer_differs(subject.about, other.about["tokenizer"])


def _tokenizer_differs(about: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> str:
    """Why a model's codes are not those of a tokenizer, where its card says which it was trained on."""
    trained, sha = _trained_on(about), (tokenizer.get("sha256") or "")[:16]
    if trained and sha != trained:
        return (
            f"the model was trained on another tokenizer ({about['data']}) than this one ({sha}); name that one, as in "
            f"--tokenizer FILE"
        )
    return ""


def _trained_on(about: Mapping[str, Any]) -> str:
    """The first digits of the checksum of the tokenizer that a model was trained on, where its card says; else ''."""
    named = re.search(r"(?:^|, )tokenizer ([0-9a-f]+)$", about.get("data", ""))
    return named[1] if named else ""


def _sizes(code_sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, code_sizes))


def _model(
    source: str | None, device: str, dtype: str, which: Which | None
) -> tuple[Model, dict[str, Any], dict[str, Any]]:
    """The model, what is to be recorded about it, and its card. which: of two sets of weights in a file."""
    source, options = (None, "") if source is None else file_options(source)
    published = _is_published(source)
    if options and not published:
        name = source or SHARED
        if name not in (SHARED, *shipped_names()) and not Path(name).exists():
            raise BenchError(f"there is no file '{name}'; name one of a published layout, as in --model FILE{options}")
        raise BenchError(
            f"'{name}' says its own sizes, and {options[1:]} is for files of published layouts; leave it out"
        )
    if which == "ema" and not published:
        raise BenchError(
            f"--weights ema asks for an average, and '{source or SHARED}' holds one set of weights; leave --weights out"
        )
    if source is not None and is_factory(source):
        model = _own_model(source, device, dtype)
        return model, {"name": source, "factory": True, **_identity(model, device), **_about(model)}, {}
    if source is None and SHARED_FILE not in shipped_names():
        raise BenchError("no weights travel in this package; name a file, as in --model model.safetensors")
    card: dict[str, Any] = {}
    if published:
        weights = Weights.read(str(source), which)
        family = family_of(weights)
        model = load_family(weights, family, **FAMILIES.read(f"{family}{options}", _OPTIONS.format(family))[1])
        card = {"setting": dict(FAMILIES.get(family).sampling)}
        about: dict[str, Any] = {
            "name": f"{Path(str(source)).name}{options}",
            "family": family,
            "sha256": _sha256(str(source), weights.taken),
            **({"weights": weights.taken} if weights.taken else {}),
        }
    else:
        if source is None or source in shipped_names():
            loaded = load_shipped(source or SHARED_FILE, "model")
        else:
            if not Path(source).exists() and Path(source).suffix == "":
                load_shipped(source, "model")  # raises, with the nearest name
            loaded = load_weights(source, "model")
        model, card = cast(Model, loaded.network), loaded.card
        about = {
            "name": source if source in shipped_names() else SHARED_FILE if source is None else Path(source).name,
            "family": loaded.about.get("family"),
            "sha256": loaded.sha256,
            "data": loaded.about.get("data", ""),
            "objective": loaded.about.get("objective"),
            "steps_done": card.get("steps_done"),
        }
        about = {key: value for key, value in about.items() if value is not None}
    if isinstance(model, torch.nn.Module):
        model = cast(Model, model.to(device=device, dtype=_DTYPES[dtype]))
        about["parameters"] = count_parameters(cast(torch.nn.Module, model))
    if isinstance(model, Transformer | Stack):
        about["config"] = to_plain(model.config)
    return model, {**about, **_about(model)}, card


def _sha256(file: str, taken: str) -> str:
    """Of a file; where it holds two sets of weights, of that and of which was taken: they are two models."""
    whole = sha256_of(Path(file))
    return hashlib.sha256(f"{whole} {taken}".encode()).hexdigest() if taken else whole


def _of_weights(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of two sets of weights was taken, where a file holds both."""
    if "weights" not in about:
        return ()
    words = {"ema": "the average of its weights (ema)", "model": "the weights as trained (model)"}
    other = "model" if about["weights"] == "ema" else "ema"
    return (f"{about['name']}: {words[about['weights']]} is taken; --weights {other} takes {words[other]}",)


def _is_published(source: str | None) -> bool:
    """Whether a file holds published weights, by its content; not what `bench train` wrote or what travels along."""
    if source is None or source in shipped_names() or not Path(source).exists():
        return False
    return kind_of(source) is None


def _about(model: Model) -> dict[str, Any]:
    return {
        "lattice": str(model.lattice),
        "code_sizes": list(model.code_sizes),
        "classes": model.n_classes,
        "native": model.native,
    }


def _identity(model: Model, device: str) -> dict[str, str]:
    """What tells a user's model from another under the same name: the SHA-256 of a torch module's weights, their names
    and bytes; of what is no module, or has none, that of its answers to a fixed probe; nothing where it cannot be
    probed, which its trials will say."""
    network = model.network if isinstance(model, EightMembers) else model
    state = network.state_dict() if isinstance(network, torch.nn.Module) else {}
    if not state:
        with suppress(Exception):  # a stranger's code; what it raises is told by the arm that calls it
            return {"sha256": fingerprint(model, device), "identified_by": "probe"}
        return {}
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"sha256": digest.hexdigest()}


def _own_model(name: str, device: str, dtype: str) -> Model:
    """What a user's factory returns; if it is a torch module, on the device, in eval mode, and of the type asked."""
    thing = call_factory(name)
    model = as_model(thing, name)
    if isinstance(thing, torch.nn.Module):
        moved = thing.to(device=device, dtype=_DTYPES[dtype]).eval()
        return EightMembers(moved) if isinstance(model, EightMembers) else cast(Model, moved)
    if dtype != "fp32":
        raise BenchError(
            f"what '{name}' returned is no torch module, so its weights cannot be cast to {dtype}; leave --dtype out "
            f"and let the factory choose"
        )
    return model


def load_tokenizer(name: str, device: str) -> tuple[Codec, dict[str, Any]]:
    """A tokenizer of the package, of `bench train tokenizer`, or of a published layout, and what a record says of
    it."""
    if name not in shipped_names() and Path(name).exists() and kind_of(name) is None:
        codec = load_codec(name)
        sha256 = sha256_of(Path(name))
    else:
        loaded = load_shipped(name, "tokenizer") if name in shipped_names() else load_weights(name, "tokenizer")
        codec, sha256 = cast(Codec, loaded.network), loaded.sha256
    if isinstance(codec, torch.nn.Module):
        codec = cast(Codec, codec.to(device))
    return codec, {"name": Path(name).name, "code_sizes": list(codec.code_sizes), "sha256": sha256}


def _shipped_held_out(made_by: str) -> tuple[Tensor, Tensor]:
    """Codes and labels that travel in the package, of the tokenizer with this checksum."""
    arrays = load_shipped_arrays(shipped_held_out(made_by), "held-out")
    return arrays.tensors["tokens_NL"].long()[..., None], arrays.tensors["labels_N"].long()


def _shipped_held_out_of_one_class(made_by: str) -> tuple[Tensor, Tensor]:
    codes_NLK, labels_N = _shipped_held_out(made_by)
    return codes_NLK, torch.zeros_like(labels_N)
