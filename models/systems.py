"""Systems: every published system as a recipe that is trained here, on the same codes, at the same budget.

Knows for each system its network, what it learns from, its native arm, and how it relates to its paper. Refuses to know
how networks compute and how training runs.

The budget is 2,000 steps of 64 images and 0.8 M parameters, within 5 %, of the generator alone. The optimizer is the
same for all. So what differs is the system.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, TypeVar

from orderbench.models.checkpoint import unfilled
from orderbench.models.config import ModelConfig
from orderbench.models.ear import EarConfig
from orderbench.models.families import build_network
from orderbench.models.llamagen import LlamaGenConfig
from orderbench.models.lpd import LpdConfig
from orderbench.models.nar import NarConfig
from orderbench.models.objective import SHIPPED, ObjectiveConfig, Share
from orderbench.models.par import ParConfig
from orderbench.models.randar import RandARConfig
from orderbench.models.shipped import shipped_names
from orderbench.models.train import TrainConfig
from orderbench.models.transformer import count_parameters
from orderbench.models.var import VARConfig
from orderbench.orders import BenchError, Grid, Lattice, Pyramid
from orderbench.orders.errors import listed
from orderbench.orders.registry import Entry, Registry

BUDGET = TrainConfig(steps=2000, batch=64, learning_rate=3e-3, warmup=100, weight_decay=0.05, muon=2.0, ema=0.998)
PARAMETERS = 800_000  # within 5 %
CODES, LATTICE, TOKENIZER = 16, Grid(16, 16), "fashion-tokenizer"  # what a system learns, unless it says otherwise

Relation = Literal["own", "released layout", "port", "adaptation", "reconstruction", "not built yet"]
RELATIONS: dict[str, str] = {
    "own": "this project's own network",
    "released layout": "the authors' network; their files are read, and the one trained here has the same form",
    "port": "the paper's idea on this project's network",
    "adaptation": "the paper's idea, with a part changed that is named",
    "reconstruction": "built from the paper alone, whose code is not public",
    "not built yet": "known from its paper, and no network of it is here yet",
}


@dataclass(frozen=True)
class Task:
    """What a system is trained on: how many values the one code of a cell takes, how many classes there are, and where
    the cells are."""

    codes: int
    classes: int
    lattice: Lattice

    @property
    def square(self) -> dict[str, Any]:
        """codes, classes, rows and cols, for a network on a grid; BenchError for a pyramid."""
        if not isinstance(self.lattice, Grid):
            raise BenchError(f"this system decodes a grid, and the tokenizer gives a pyramid of {self.lattice}")
        return {"codes": self.codes, "classes": self.classes, "rows": self.lattice.rows, "cols": self.lattice.cols}


@dataclass(frozen=True)
class Recipe:
    """A network by its configuration, and what it learns from."""

    network: Any
    objective: ObjectiveConfig


@dataclass(frozen=True, kw_only=True)
class System(Entry):
    """A registered system. relation: to its paper, see `RELATIONS`. native: the arm that it is compared by, without its
    model's name; empty for one that is not built. note: what was changed, or what it would need; empty for nothing.
    codes, lattice: how many codes there are and where, for the shipped images of 32 pixels. tokenizer: whose they are,
    a name in the package."""

    relation: Relation
    native: str = ""
    note: str = ""
    codes: int = CODES
    lattice: Lattice = LATTICE
    tokenizer: str = TOKENIZER

    @property
    def built(self) -> bool:
        """Whether it can be trained here."""
        return self.relation != "not built yet"

    @property
    def shipped(self) -> bool:
        """Whether weights of its budget travel in the package, under its own name."""
        return self.built and self.name in shipped_names("model")

    @property
    def arm(self) -> str:
        """How a run spells it; empty for one that is not built.

        >>> SYSTEMS.get("par").arm
        'regions~par'
        """
        return f"{self.native}~{self.name}" if self.built else ""

    @property
    def training(self) -> str:
        """The command that trains it.

        >>> SYSTEMS.get("par").training
        'bench train model --system par --out par'
        """
        return f"bench train model --system {self.name} --out {self.name}"

    @property
    def task(self) -> Task:
        """What its weights of the budget are trained on: the shipped codes."""
        return Task(self.codes, 10, self.lattice)

    def parameters(self) -> int:
        """Of the network that is trained on the shipped codes; BenchError for one that is not built."""
        with unfilled():
            return count_parameters(build_network(self.function(self.task).network))


SYSTEMS: Registry[System] = Registry("a system", "`bench systems` lists them")
MakeRecipe = TypeVar("MakeRecipe", bound=Callable[[Task], Recipe])


def register_system(
    name: str, *, paper: str, idea: str, relation: Relation, native: str, note: str = "",
    codes: int = CODES, lattice: Lattice = LATTICE, tokenizer: str = TOKENIZER,
) -> Callable[[MakeRecipe], MakeRecipe]:  # fmt: skip
    """Decorator: put `recipe(task) -> Recipe` under the name of a system, with what `System` says of it."""

    def decorate(function: MakeRecipe) -> MakeRecipe:
        SYSTEMS.add(System(name=name, paper=paper, idea=idea, function=function, origin=function.__module__,
                           relation=relation, native=native, note=note, codes=codes, lattice=lattice,
                           tokenizer=tokenizer))  # fmt: skip
        return function

    return decorate


def announce_system(name: str, *, paper: str, idea: str, note: str) -> None:
    """List a system that is not built yet. note: what it would need."""

    def refuse(task: Task) -> NoReturn:
        raise _not_built(name)

    SYSTEMS.add(System(name=name, paper=paper, idea=idea, function=refuse, origin=__name__,
                       relation="not built yet", note=note))  # fmt: skip


def built_system(name: str) -> System:
    """The system of that name; BenchError for one that is not known, and for one that is not built yet."""
    system = SYSTEMS.get(name)
    if not system.built:
        raise _not_built(name)
    return system


def _not_built(name: str) -> BenchError:
    built = [other for other in SYSTEMS.names() if SYSTEMS.get(other).built]
    return BenchError(
        f"the system '{name}' is not built yet; {listed(built, 'or')} would do (`bench systems` lists all)"
    )


def follows(order: str, *paces: str) -> ObjectiveConfig:
    """An objective that follows one order at these paces, each as often, and corrects nothing."""
    return ObjectiveConfig(mixture=(Share(order=order, paces=paces, share=1.0),), nested=0.0)


_TWO_PASS: dict[str, Any] = {"width": 128, "heads": 2, "self_blocks": 2, "cross_blocks": 2}
_STACK: dict[str, Any] = {"width": 128, "heads": 2, "blocks": 4}


@register_system(
    "shared-small", paper="this project, after ARPG, arXiv 2503.10568", relation="own", native="raster",
    idea="one two-pass network for all orders, taught the shipped mixture and nested correction",
)  # fmt: skip
def _shared_small(task: Task) -> Recipe:
    return Recipe(ModelConfig(**task.square, **_TWO_PASS, position="rope+table", label="slot+query"), SHIPPED)


@register_system(
    "llamagen", paper="LlamaGen, arXiv 2406.06525", relation="released layout", native="raster",
    idea="raster, one cell a step; the output of a code predicts the next cell",
)  # fmt: skip
def _llamagen(task: Task) -> Recipe:
    return Recipe(LlamaGenConfig(**task.square, **_STACK), follows("raster", "one"))


@register_system(
    "randar", paper="RandAR, arXiv 2412.01827", relation="released layout", native="random@randar:88",
    idea="any order, by an instruction token before every code",
)  # fmt: skip
def _randar(task: Task) -> Recipe:
    return Recipe(RandARConfig(**task.square, **_STACK), follows("random", "one"))


@register_system(
    "par", paper="PAR, arXiv 2412.15119", relation="released layout", native="regions",
    idea="the same cell of 2x2 regions together, after the first cells singly",
)  # fmt: skip
def _par(task: Task) -> Recipe:
    return Recipe(ParConfig(**task.square, **_STACK), follows("regions", "native"))


@register_system(
    "ear", paper="EAR, arXiv 2511.15499", relation="released layout", native="spiral@ear-sides",
    idea="a spiral from the centre, a whole side a step, asked by mask tokens; adaptive layer norm",
)  # fmt: skip
def _ear(task: Task) -> Recipe:
    return Recipe(EarConfig(**task.square, **{**_STACK, "width": 104}), follows("spiral", "ear-sides"))


@register_system(
    "lpd", paper="LPD, arXiv 2507.01957", relation="released layout", native="locality@lpd:20",
    idea="any order in groups that see each other; decoded near what is known, and apart from each other",
)  # fmt: skip
def _lpd(task: Task) -> Recipe:
    paces = [f"lpd:{steps}" for steps in (8, 12, 16, 20, 24, 32, 64, 128) if steps < task.lattice.n_cells]
    return Recipe(LpdConfig(**task.square, **_STACK), follows("random", *paces, "one"))


@register_system(
    "nar", paper="NAR, arXiv 2503.10696", relation="released layout", native="diagonal",
    idea="anti-diagonals; a cell is told by its left and its upper neighbour, through two heads",
)  # fmt: skip
def _nar(task: Task) -> Recipe:
    return Recipe(NarConfig(**task.square, **{**_STACK, "blocks": 3}), follows("diagonal", "native"))


@register_system(
    "arpg", paper="ARPG, arXiv 2503.10568", relation="released layout", native="random@arccos:32",
    idea="any order by two passes; queries share one key and value, and see no other query",
)  # fmt: skip
def _arpg(task: Task) -> Recipe:
    return Recipe(ModelConfig(**task.square, **_TWO_PASS, position="rope", label="slot"), follows("random", "one"))


@register_system(
    "radar", paper="RadAR, arXiv 2512.24639", relation="reconstruction", native="radial+nested",
    idea="rings around the centre, a ring a step, and earlier rings corrected by nested attention",
    note="on this project's two-pass network, taught rings and nested correction alone",
)  # fmt: skip
def _radar(task: Task) -> Recipe:
    objective = replace(follows("radial", "native"), nested=SHIPPED.nested)
    return Recipe(ModelConfig(**task.square, **_TWO_PASS, position="rope+table", label="slot+query"), objective)


@register_system(
    "var", paper="VAR, arXiv 2404.02905", relation="released layout", native="scales",
    idea="a pyramid of codes from coarse to fine, a whole level at a time",
    note="on codes of its own tokenizer, so its bits are of other tokens",
    codes=64, lattice=Pyramid.parse("1/2/4/8/16"), tokenizer="var-tokenizer",
)  # fmt: skip
def _var(task: Task) -> Recipe:
    if not isinstance(task.lattice, Pyramid):
        raise BenchError(
            f"this system decodes a pyramid, and the tokenizer gives a grid of {task.lattice}; a tokenizer that was "
            f"trained with --scales 1,2,4,8,16 would do"
        )
    network = VARConfig(
        codes=task.codes, classes=task.classes, scales=tuple(grid.rows for grid in task.lattice.levels), code_size=8,
        width=100, heads=2, blocks=4, codebook=True,
    )  # fmt: skip
    return Recipe(network, follows("scales", "native"))


# Known from their papers

announce_system(
    "iar", paper="IAR, arXiv 2501.00880",
    idea="raster; codes in clusters of alike ones, and a loss that asks for the right cluster too",
    note="needs the codebook sorted into clusters, and a loss term for them",
)  # fmt: skip
announce_system(
    "iar2", paper="IAR2, arXiv 2510.06928",
    idea="raster; two codes a cell, one for what it is and one for its detail, drawn one after the other",
    note="needs a tokenizer of two codebooks",
)  # fmt: skip
announce_system(
    "rear", paper="reAR, arXiv 2510.04450",
    idea="raster, trained on noisy contexts and to agree with the features of the tokenizer",
    note="needs a loss term that reads the embeddings of the tokenizer",
)  # fmt: skip
announce_system(
    "laplacian", paper="Hong and Belkadi, arXiv 2510.02826",
    idea="scales read as the bands of a Laplacian pyramid, refined from coarse to fine",
    note="needs a network of scales that sees the scale before it alone",
)  # fmt: skip
announce_system(
    "tokenbridge", paper="TokenBridge, arXiv 2503.16430",
    idea="a continuous latent, cut into codes channel by channel; a small head draws those of a cell one by one",
    note="needs a continuous tokenizer, and a head of several codes a cell",
)  # fmt: skip
announce_system(
    "coral", paper="COrAL, arXiv 2410.09675",
    idea="one network predicts several places forward and backward, and what it says of a place is pooled",
    note="needs answers that are pooled from several predictions",
)  # fmt: skip
announce_system(
    "narvl", paper="NARVL, arXiv 2403.02249",
    idea="all cells in one pass, by learned queries that are trained by a loss over alignments",
    note="needs a loss over alignments of queries and codes",
)  # fmt: skip
