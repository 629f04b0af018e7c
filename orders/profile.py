"""Profiles: step sizes that were fitted to what a model says, by order and number of steps.

Knows the file that `bench fit-pace` writes, and which profile this process uses for the pace `profile:T`. Refuses to
know how sizes were fitted, and the model that they were fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict

from orderbench.orders.documents import Count, Least1, Line, misfit, read_document
from orderbench.orders.errors import BenchError
from orderbench.orders.files import reason_of
from orderbench.orders.lattice import Lattice, parse_lattice

SCHEMA = 1


class ProfileFile(TypedDict, total=False):
    """What a profile's file must hold; what else it holds is for readers."""

    schema: Required[Count]
    lattice: Required[Line]
    sizes: Required[dict[Line, dict[Line, list[Least1]]]]


@dataclass(frozen=True)
class Profile:
    """Fitted sizes. sizes: by the order's canonical spelling, then by the number of steps. origin: the file."""

    lattice: Lattice
    sizes: Mapping[str, Mapping[int, tuple[int, ...]]]
    origin: str

    def sizes_for(self, order: str, lattice: Lattice, steps: int) -> tuple[int, ...]:
        """The sizes of an order in so many steps; BenchError for what was not fitted."""
        if lattice != self.lattice:
            raise BenchError(
                f"the profile '{self.origin}' was measured on {self.lattice} and the lattice is {lattice}; "
                f"optimal:{steps} would do, or a profile of this lattice, from `bench fit-pace`"
            )
        if steps not in self.sizes.get(order, {}):
            held = sorted({count for by_steps in self.sizes.values() for count in by_steps})
            raise BenchError(
                f"the profile '{self.origin}' holds no sizes of {order} in {steps} steps; it holds "
                f"{', '.join(self.sizes)} in {', '.join(map(str, held))}, and `bench fit-pace --orders {order} --steps "
                f"{steps}` fits others"
            )
        return self.sizes[order][steps]


def read_profile(file: Path) -> Profile:
    """The profile in a file. BenchError for one that cannot be read, and for sizes that do not cut its lattice."""
    try:
        document = read_document(file)
    except (OSError, ValueError) as problem:
        raise BenchError(
            f"'{file}' is no profile that can be read: {reason_of(problem)}; `bench fit-pace` writes one"
        ) from problem
    return profile_in(document, str(file))


def profile_in(document: Any, origin: str) -> Profile:
    """The profile in a document that `origin` names; BenchError as `read_profile`."""
    unlike = misfit(document, ProfileFile)
    if unlike:
        raise BenchError(f"'{origin}' is no profile: it {unlike}; `bench fit-pace` writes one")
    if document["schema"] != SCHEMA:
        raise BenchError(
            f"the profile '{origin}' has schema {document['schema']} and this version reads {SCHEMA}; write it again "
            f"with `bench fit-pace`"
        )
    lattice = parse_lattice(document["lattice"])
    sizes: dict[str, dict[int, tuple[int, ...]]] = {}
    for order, by_steps in document["sizes"].items():
        for steps, found in by_steps.items():
            if steps != str(len(found)) or sum(found) != lattice.n_cells:
                raise BenchError(
                    f"the profile '{origin}' gives {order} in {steps} steps {len(found)} sizes of {sum(found)} cells "
                    f"in all, and {lattice} has {lattice.n_cells}; write it again with `bench fit-pace`"
                )
            sizes.setdefault(order, {})[len(found)] = tuple(found)
    return Profile(lattice, sizes, origin)


_USED: list[Profile] = []


def use_profile(profile: Profile | None) -> None:
    """From now on `profile:T` means this profile, in the whole process; None for no profile."""
    _USED[:] = [] if profile is None else [profile]


def profiled(order: str, lattice: Lattice, steps: int) -> tuple[int, ...]:
    """The sizes that the profile in use has for an order; BenchError where it has none, or where none is in use."""
    if not _USED:
        raise BenchError(
            f"the pace profile:{steps} takes its sizes from a measured profile, and none was given; name one, as in "
            f"--profile FILE, or take optimal:{steps}"
        )
    return _USED[0].sizes_for(order, lattice, steps)
