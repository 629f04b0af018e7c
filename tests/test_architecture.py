"""The docs against the code: every file in one row of docs/architecture.md; every flag that a page shows exists."""

import re
from collections import Counter
from pathlib import Path

import pytest
from typer.main import get_command

from orderbench.runs.cli import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TEXT = (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("room", ["orders", "models", "runs", "reports"])
def test_every_file_of_a_room_is_in_one_row(room: str) -> None:
    section = re.search(rf"^## {room}/, file by file\n(.*?)(?=^## )", TEXT, re.M | re.S)
    assert section is not None
    rows = re.findall(r"^\| (`.*?) \|", section[1], re.M)
    listed = Counter(name for row in rows for name in re.findall(r"`([^`]+)`", row))
    kinds = (".py", ".html", ".css", ".js", ".mplstyle")
    found = {file.name for file in (ROOT / room).iterdir() if file.suffix in kinds}
    assert (set(listed) - found, found - set(listed)) == (set(), set())  # rows without a file, files without a row
    assert max(listed.values()) == 1


def test_one_module_imports_torch_fidelity() -> None:
    """It does so late, by name, where import-linter does not look."""
    imports = re.compile(r"^\s*(import|from) torch_fidelity|import_module\(.torch_fidelity", re.M)
    modules = [file for room in ("orders", "models", "runs", "reports") for file in (ROOT / room).glob("*.py")]
    assert [file.name for file in modules if imports.search(file.read_text())] == ["fidelity.py"]


PAGES = sorted(page for page in DOCS.glob("*.md") if page.name != "log.md")  # the log tells what was


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_of_a_command_that_a_page_shows_exists(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text().replace("\\\n", " ")
    shown = re.findall(r"\bbench ([a-z]+) ([^`#\n]*)", text)
    for name, words in shown:
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", words))
        if flags:
            known = {flag for option in commands[name].params for flag in (*option.opts, *option.secondary_opts)}
            assert flags <= known | {"--help"}, f"bench {name} {words}"
