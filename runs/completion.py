"""Completion: what a shell offers after a TAB, and the script that asks for it.

Knows names that can be had without torch: commands, flags, orders, paces, and settings of a fixed set. Refuses to know
names that take a second to import, such as decoders and spaces: nobody waits for them at a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from orderbench.orders.errors import BenchError, unknown

SHELLS = ("bash", "zsh", "fish")


def _orders() -> Sequence[str]:
    from orderbench.orders.order import order_names

    return order_names()


def _paces() -> Sequence[str]:
    from orderbench.orders.pace import pace_names

    return [name.removesuffix("T") for name in pace_names()]  # a number of steps is typed


_AFTER: dict[str, Callable[[], Sequence[str]]] = {"": _orders, ",": _orders, "@": _paces}  # by the sign before a name


def complete_arms(incomplete: str) -> list[str]:
    """Every way in which the last name of a list of arms may end: an order, or a pace behind @.

    >>> complete_arms("raster,hil")
    ['raster,hilbert']
    >>> complete_arms("radial@cos")
    ['radial@cosine:']
    """
    return _complete(incomplete, "[,@+~:]", _AFTER)


def complete_paces(incomplete: str) -> list[str]:
    """The same for a list of paces."""
    return _complete(incomplete, "[,:]", {"": _paces, ",": _paces})


def complete_words(words: Sequence[str]) -> Callable[[str], list[str]]:
    """The same for a list of some words."""
    return lambda incomplete: _complete(incomplete, ",", {"": lambda: words, ",": lambda: words})


def _complete(incomplete: str, signs: str, named: dict[str, Callable[[], Sequence[str]]]) -> list[str]:
    *before, last = re.split(f"({signs})", incomplete)
    names = named.get(before[-1] if before else "")
    if names is None:
        return []
    return ["".join(before) + name for name in names() if name.startswith(last)]


def completion_script(shell: str) -> str:
    """What a shell reads at its start, so that TAB asks `bench`; BenchError for a shell that is not known."""
    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS, "as in `bench completion bash`")
    from typer.completion import get_completion_script  # type: ignore[attr-defined] # it is imported there

    script: str = get_completion_script(prog_name="bench", complete_var="_BENCH_COMPLETE", shell=shell)
    return script


def shell_of(login: str) -> str:
    """The shell in the variable SHELL; BenchError if it says none that is known.

    >>> shell_of("/usr/bin/zsh")
    'zsh'
    """
    name = login.rpartition("/")[2]
    if name not in SHELLS:
        raise BenchError(
            f"'{login}' is no shell with completion; name {', '.join(SHELLS)}, as in bench completion bash"
        )
    return name
