"""`bench doctor`: our own network passes, every kind of broken one fails the check that names its fault."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_cli import bench, good
from torch import Tensor
from toys import EightMembers, toy_model

from orderbench.models.contract import check_model
from orderbench.models.transformer import Cache, Transformer
from orderbench.orders import BenchError, Grid
from orderbench.runs import cli
from orderbench.runs.doctor import Thing, examine
from orderbench.runs.factory import call_factory


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose their time to threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Wrapped(EightMembers):
    """Our own network, for faults to be put in; a whole model, like a stranger's."""

    def __init__(self, model: Transformer | None = None) -> None:
        super().__init__(model or toy_model())


class Leaking(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        logits = super().logits(cache, cells)
        return logits + 0.1 * logits.mean(dim=1, keepdim=True)


class Positional(Wrapped):
    """A query knows its place among those asked."""

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, cells) * (1 + 0.01 * torch.arange(cells.shape[1])[:, None])


class Stale(Wrapped):
    def rewind(self, cache: list[Cache], slots: int) -> None:
        pass


class NotANumber(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, cells).masked_fill(cells[..., None] == 7, float("nan"))


class Half(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, cells).half()


class Misshapen(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, cells).transpose(1, 2)


class Forgetful(Wrapped):
    """It answers from the class alone."""

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits([replace(cache[0], length=1)], cells)


class ShortSighted(Wrapped):
    """It sees the group fed last alone."""

    def step(self, cache: list[Cache], tokens: Tensor, cells: Tensor, bias: Tensor | None) -> None:
        self.rewind(cache, 1)
        super().step(cache, tokens, cells, None)


class RasterOnly(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, torch.full_like(cells, cache[0].length - 1))


class Causal(Wrapped):
    def step(self, cache: list[Cache], tokens: Tensor, cells: Tensor, bias: Tensor | None) -> None:
        before, size = cache[0].length, cells.shape[1]
        seen = torch.ones(1, size, before + size, dtype=torch.bool).tril(before)
        self.network.step(cache[0], tokens[..., None], cells, seen=seen)


class Traced(Wrapped):
    """Asking feeds."""

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        logits = super().logits(cache, cells)
        if cache[0].length < cache[0].keys[0].shape[2]:
            self.step(cache, logits[:, :1].argmax(-1), cells[:, :1], None)
        return logits


class Drifting(Wrapped):
    """What was fed lives on in the model, not in the cache."""

    past = 0.0

    def step(self, cache: list[Cache], tokens: Tensor, cells: Tensor, bias: Tensor | None) -> None:
        super().step(cache, tokens, cells, bias)
        self.past = float(tokens.sum()) / 100

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return super().logits(cache, cells) + self.past * torch.arange(self.n_codes)


class Hoarding(Wrapped):
    """Its refill keeps what was there."""

    def refill(self, cache: list[Cache], labels: Tensor, tokens: Tensor, cells: Tensor) -> None:
        self.rewind(cache, 1)
        self.step(cache, tokens, cells, None)


class Dropping(Wrapped):
    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        return torch.nn.functional.dropout(super().logits(cache, cells), 0.5)


class Normalised(Wrapped):
    """Over the batch."""

    def logits(self, cache: list[Cache], cells: Tensor) -> Tensor:
        logits = super().logits(cache, cells)
        return logits - logits.mean(dim=0, keepdim=True) / 2


class Fragile(Wrapped):
    def rewind(self, cache: list[Cache], slots: int) -> None:
        raise NotImplementedError("no rewinding here")


class Unconditional(Wrapped):
    def start(self, labels_B: Tensor, slots: int) -> Any:
        if labels_B.max() >= self.n_classes:
            raise IndexError("no such class")
        return super().start(torch.zeros_like(labels_B), slots)

    def refill(self, cache: list[Cache], labels: Tensor, tokens: Tensor, cells: Tensor) -> None:
        super().refill(cache, torch.zeros_like(labels), tokens, cells)


class Unmasked(Wrapped):
    def step(self, cache: list[Cache], tokens: Tensor, cells: Tensor, bias: Tensor | None) -> None:
        super().step(cache, tokens, cells, None)


def found(model: object, verdict: str) -> dict[str, str]:
    return {v.check: v.says for v in check_model(model, "cpu") if v.verdict == verdict}


@pytest.mark.parametrize(
    "model",
    [
        *(toy_model(rows, cols) for rows, cols in [(4, 5), (2, 2), (1, 7), (9, 3)]),
        toy_model(6, 6, "rope"),
        toy_model(classes=1),
        Wrapped(),
    ],
    ids=lambda model: f"{type(model).__name__} {model.lattice}",
)
def test_our_own_network_passes(model: Any) -> None:
    verdicts = check_model(model, "cpu")
    assert [str(v) for v in verdicts if v.verdict != "pass"] == []
    assert len({v.check for v in verdicts}) == len(verdicts) == (22 if isinstance(model, Wrapped) else 30)


@pytest.mark.parametrize(
    ("kind", "fails", "says"),
    [
        (Leaking, ["cells apart"], "queries see each other"),
        (Positional, ["cells apart"], "queries see each other"),
        (Stale, ["rewind"], "the model remembers what it was told to forget"),
        (NotANumber, ["answer"], "NaN or infinity"),
        (Half, ["answer"], r"gives torch.float16 .*end it with .float\(\)"),
        (Misshapen, ["answer"], r"gives \(3, 11, 5\) before any code; \(B, Q, V\) = \(3, 5, 11\) would do"),
        (Forgetful, ["codes", "cells"], "in the first group fed move no later logit"),
        (ShortSighted, ["codes", "rewind"], "in the first group fed move no later logit"),
        (RasterOnly, ["cells"], "all cells asked get the same logits"),
        (Causal, ["groups"], "must see each other both ways"),
        (Hoarding, ["refill"], "remembers the class that start.. was given"),
        (Normalised, ["batch"], "depend on the samples decoded beside it"),
        (Fragile, ["rewind"], r"it raised NotImplementedError: no rewinding here \(test_doctor.py, line \d+\)"),
    ],
)
def test_a_broken_model_fails_the_check_that_names_its_fault(
    kind: Callable[[], Wrapped], fails: list[str], says: str
) -> None:
    failed = found(kind(), "fail")
    assert list(failed) == fails
    assert re.search(says, failed[fails[0]]), failed[fails[0]]


@pytest.mark.parametrize(
    ("kind", "among"),
    [(Traced, "asking"), (Drifting, "looking ahead"), (Dropping, "decoder off"), (Dropping, "asking")],
)
def test_a_fault_that_shows_in_many_checks_shows_in_its_own(kind: Callable[[], Wrapped], among: str) -> None:
    assert among in found(kind(), "fail")


def test_broken_logits_skip_what_compares_them() -> None:
    assert len(found(NotANumber(), "skipped")) == 20
    assert found(NotANumber(), "pass").keys() == {"protocol"}


def test_what_is_only_worth_a_note() -> None:
    notes = found(Unconditional(), "note")
    assert list(notes) == ["class", "no class"]
    assert notes["class"].startswith("the class moves no logit: the model ignores it")
    assert "label 3, no class, raised IndexError: no such class; guidance needs it" in notes["no class"]
    assert list(found(Unmasked(), "note")) == ["masks"]
    assert found(Unconditional(), "fail") == found(Unmasked(), "fail") == {}


def test_a_model_without_its_parts() -> None:
    class Bare:
        lattice, n_codes, start = Grid(2, 2), 4, None

    (verdict,) = check_model(Bare(), "cpu")
    assert (verdict.check, verdict.verdict) == ("protocol", "fail")
    assert verdict.says.startswith("a Bare has no n_classes, step, logits, refill, rewind; ")
    wrong = Wrapped()
    wrong.n_codes, wrong.lattice, wrong.rewind = 1.5, (4, 5), None  # type: ignore[assignment,method-assign]
    says = found(wrong, "fail")["protocol"]
    assert says == (
        "rewind cannot be called; lattice is a tuple, and must be an orderbench.orders.Grid or Pyramid; n_codes is "
        "1.5, and must be a whole number of 2 or more"
    )

    class Odd(Transformer):
        code_sizes, traits, answer = [11], frozenset({"mask"}), None  # type: ignore[assignment]

    assert found(Odd(toy_model().config), "fail")["protocol"] == (
        "answer cannot be called; code_sizes is [11], and must be a tuple of whole numbers of 2 or more; traits hold "
        "mask, and may hold masks, slots, joint, shifted, causal"
    )
    with pytest.raises(BenchError, match="a 1x3 grid is too small to tell models apart; the checks need 4 cells"):
        check_model(toy_model(1, 3), "cpu")


# Factories

FACTORIES = """
import sys
sys.path.insert(0, {tests!r})
from toys import toy_model

def build():
    print("building")
    return toy_model()

def leaking():
    from test_doctor import Leaking
    return Leaking()

def failing():
    return 1 / 0

def leaving():
    sys.exit("enough")

class Shelf:
    build = staticmethod(build)

number = 3
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_factories.py").write_text(FACTORIES.format(tests=str(Path(__file__).parent)))
    (tmp_path / "my_broken.py").write_text("import no_such_package_at_all\n")
    (tmp_path / "my_typo.py").write_text("def build(:\n")
    (tmp_path / "my_slip.py").write_text("import sys\nsys.no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_a_factory_in_the_current_folder(factories: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(call_factory("my_factories:build"), Transformer)
    assert isinstance(call_factory("my_factories:Shelf.build"), Transformer)
    assert capsys.readouterr() == ("", "building\nbuilding\n")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("my_factories", "'my_factories' names no factory; a factory is a function without arguments"),
        (":build", "':build' names no factory"),
        ("no_such_module.at_all:build", "there is no module 'no_such_module' here or installed"),
        ("my_factories:biuld", "the module 'my_factories' holds no 'biuld'"),
        ("my_factories:number", "'my_factories:number' is a int and cannot be called"),
        ("my_factories:failing", "'my_factories:failing()' raised ZeroDivisionError: division by zero (my_fac"),
        ("my_factories:leaving", "'my_factories:leaving()' raised SystemExit: enough"),
        ("my_broken:build", "'my_broken' needs the module 'no_such_package_at_all', which is not there"),
        ("my_typo:build", "importing 'my_typo' raised SyntaxError: "),
        ("my_slip:build", "importing 'my_slip' raised AttributeError: module 'sys' has no attribute 'no_such_thing'"),
    ],
)  # fmt: skip
def test_factories_that_cannot_be_called(factories: Path, name: str, sentence: str) -> None:
    with pytest.raises(BenchError) as refusal:
        call_factory(name)
    assert str(refusal.value).startswith(sentence)


# The command


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of `bench doctor`, in this process."""
    monkeypatch.setattr(sys, "argv", ["bench", "doctor", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0), *capsys.readouterr()


def test_a_model_at_the_command_line(
    factories: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = doctor(monkeypatch, capsys, "--model", "my_factories:build", "--device", "cpu")
    lines = out.splitlines()
    assert (code, err) == (0, "building\n")
    assert len(lines) == 32
    assert all(line.startswith("pass     ") for line in lines[:25])
    assert lines[-1] == "my_factories:build keeps the protocol on cpu"
    code, out, err = doctor(monkeypatch, capsys, "--model", "my_factories:leaking", "--device", "cpu", "--json")
    document = json.loads(out)
    assert (code, document["works"], document["device"]) == (2, False, "cpu")
    assert [c["check"] for c in document["checks"] if c["verdict"] == "fail"] == ["cells apart"]
    code, out, err = doctor(monkeypatch, capsys, "--model", "my_factories:failing")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    code, out, err = doctor(monkeypatch, capsys, "--model", "my_factories:build", "--device", "tpu-7")
    assert (code, out) == (2, "")
    assert "no device named 'tpu-7'; auto, cpu, cuda" in err


def test_the_current_folder_is_importable_for_the_command(factories: Path) -> None:
    done = bench("doctor", "--model", "my_factories:leaking", "--device", "cpu", cwd=factories, OMP_NUM_THREADS="1")
    assert (done.returncode, done.stderr) == (2, "")
    assert "\nfail     cells apart " in done.stdout
    assert done.stdout.endswith("my_factories:leaking fails 1 of 22 checks on cpu\n")


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has everything, without the time that importing it takes."""
    from orderbench.models import data, shipped
    from orderbench.orders import registry
    from orderbench.runs import fidelity

    kept = SimpleNamespace(sha256="ab" * 32, card={"kind": "model"})
    names = ("fashion-features", "fashion-model", "fashion-model-random", "fashion-tokenizer")
    monkeypatch.setattr(shipped, "shipped_names", lambda: names)
    monkeypatch.setattr(shipped, "load_shipped", lambda name: kept)
    monkeypatch.setattr(shipped, "load_shipped_arrays", lambda name, kind: kept)
    monkeypatch.setattr(fidelity, "fidelity_status", lambda: {"works": True, "version": "0.4.0", "how": "plain"})
    monkeypatch.setattr(registry, "_BROKEN", {})
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(things: list[Thing]) -> dict[str, str]:
    return {thing.what: thing.state for thing in things if thing.what != "device cuda"}


def test_a_machine_that_has_all_it_needs(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = doctor(monkeypatch, capsys)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[-1] == "`bench run` has all it needs"
    assert lines[0].startswith("works    python  ")
    assert any(line.startswith("missing  Fashion-MNIST ") and "--data download" in line for line in lines)
    code, out, _ = doctor(monkeypatch, capsys, "--json")
    document = json.loads(out)
    assert (code, document["works"]) == (0, True)
    assert {"what", "state", "says", "do", "needed"} == set(document["things"][0])
    assert list(healthy.iterdir()) == []


SHIPPED, STATUS = "orderbench.models.shipped", "orderbench.runs.fidelity.fidelity_status"
LACKS: list[tuple[str, Any, str, str, int]] = [
    (f"{SHIPPED}.shipped_names", lambda: (), "weights fashion-model", "missing", 2),
    (f"{SHIPPED}.load_shipped", lambda *_: refuse(), "weights fashion-tokenizer", "broken", 2),
    (f"{SHIPPED}.load_shipped_arrays", lambda *_: refuse(), "weights fashion-reference", "broken", 2),
    (f"{SHIPPED}.load_shipped", lambda _: SimpleNamespace(sha256="", card={}), "weights fashion-model", "broken", 2),
    (STATUS, lambda: status("0.4.0"), "torch-fidelity", "broken", 2),
    (STATUS, lambda: status(None), "torch-fidelity", "missing", 2),
    (STATUS, lambda: 1 / 0, "torch-fidelity", "broken", 2),
    ("shutil.disk_usage", lambda _: SimpleNamespace(free=5 << 20), "this folder", "broken", 2),
    ("tempfile.TemporaryFile", lambda **_: full(), "this folder", "broken", 2),
    ("orderbench.orders.registry._BROKEN", {"odd": "odd:x: no\nluck"}, "order plugin odd", "broken", 0),
]


@pytest.mark.parametrize(("place", "put", "what", "state", "code"), LACKS)
def test_what_is_lacking_is_named(
    healthy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    put: Any,
    what: str,
    state: str,
    code: int,
) -> None:
    monkeypatch.setattr(place, put)
    assert states(examine())[what] == state
    left, out, _ = doctor(monkeypatch, capsys)
    assert left == code
    assert ("`bench run` lacks: " in out) == (code == 2)
    (line,) = [line for line in out.splitlines() if line.startswith(f"{state:8} {what} ")]
    assert "; " in line


def refuse() -> None:
    raise BenchError("it is not the file that its card describes (the checksum differs); fetch it again")


def full() -> None:
    raise OSError(28, "No space left on device")


def status(version: str | None) -> dict[str, Any]:
    return {"works": False, "version": version, "how": "it cannot be imported"}


def test_data_that_was_fetched_is_found(healthy: Path) -> None:
    from orderbench.models.download import SHA256

    assert states(examine())["Fashion-MNIST"] == "missing"
    folder = healthy / "orderbench" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name in SHA256:
        (folder / name).write_bytes(b"")
    assert states(examine())["Fashion-MNIST"] == "works"


@pytest.mark.parametrize("asked", ["tpu-7", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_was_asked_for_is_needed(healthy: Path, asked: str) -> None:
    (device,) = [thing for thing in examine(asked) if thing.what == f"device {asked}"]
    assert device.needed
    assert device.state != "works"
    assert device.do == "name another, as in --device cpu"


def test_this_machine_as_it_is(tmp_path: Path) -> None:
    """The whole command, with torch-fidelity imported; whether weights travel in this package is not this test's."""
    done = bench("doctor", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0 if document["works"] else 2, "")
    state = {thing["what"]: thing["state"] for thing in document["things"]}
    assert {state[what] for what in ("python", "torch", "device cpu", "torch-fidelity", "this folder")} == {"works"}
    assert list(tmp_path.iterdir()) == []


def test_help_has_examples() -> None:
    assert re.search(r"Examples:\n +bench doctor\n", good("doctor", "--help"))
