"""Again: the commands that would make records once more, as a person may type them, or why they are not shown.

Knows what a record says of its own making. Refuses to trust it: a page is read by people who did not make the record,
and what they copy from it into a shell must run nothing that they have not seen. Every word is quoted, words with
characters that a terminal would obey or not show are withheld, and so is a command that names code.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orderbench.orders.errors import printable
from orderbench.runs.schema import RunAbout

_FACTORY = re.compile(r"(?:[^=]*=)?[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")  # [NAME=]pkg.module:factory, as --model takes it


def typed(words: Sequence[str]) -> str:
    """A command for a POSIX shell, quoted where it must be; empty where a word has characters that cannot be seen.

    >>> typed(["bench", "report", "my run; ls"]), typed(["bench", "report", "a\\x1b[201~b"])
    ("bench report 'my run; ls'", '')
    """
    return shlex.join(words) if all(word.isprintable() for word in words) else ""


def commands(name: str, about: RunAbout) -> tuple[list[str], str]:
    """What to type to measure a run again, in the folder that holds it; and in a sentence, what is withheld and why.

    name: the run's folder.
    """
    argv = next((words for one in about["environments"] if (words := _bench_run(one.get("argv")))), [])
    if _names_code(argv, about["config"]):
        return [], (
            f"The command of {printable(name)} is not shown, since it runs code that the record names. Read its "
            f"run.json, under config and argv, and that code, before you run it."
        )
    own = typed(argv)
    found = [own, typed(["bench", "run", "--config", f"{name}/run.json", "--out", f"{name}-again"])]
    hides = f"The command of {printable(name)} is not shown: it holds characters that cannot be seen."
    return [command for command in found if command], hides if argv and not own else ""


def _bench_run(words: Any) -> list[str]:
    """A recorded command, whatever folder `bench` lay in; empty where it was no `bench run`."""
    if not isinstance(words, list) or len(words) < 2 or not all(isinstance(word, str) for word in words):
        return []
    program = re.split(r"[/\\]", words[0])[-1]
    known = program.startswith(("bench", "cli", "-c", "__main__"))
    return ["bench", *words[1:]] if known and words[1] == "run" else []


def _names_code(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a run takes code beside this package's: a file with `--include`, or a factory with `--model`."""
    names = [word.partition("=")[0] for word in argv]
    values = [word.removeprefix("--model=") for word in argv if word.startswith("--model=")]
    values += [argv[place + 1] for place, word in enumerate(argv[:-1]) if word == "--model"]
    models = config.get("model") or []
    values += [str(value) for value in (models if isinstance(models, list) else [models])]
    return "--include" in names or bool(config.get("include")) or any(map(_FACTORY.fullmatch, values))
