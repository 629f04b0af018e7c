"""docs/architecture.md against the folders: every file in one row, and no row without its file."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("room", ["orders", "models", "runs", "reports"])
def test_every_file_of_a_room_is_in_one_row(room: str) -> None:
    section = re.search(rf"^## {room}/, file by file\n(.*?)(?=^## )", TEXT, re.M | re.S)
    assert section is not None
    rows = re.findall(r"^\| (`.*?) \|", section[1], re.M)
    listed = Counter(name for row in rows for name in re.findall(r"`([^`]+)`", row))
    kinds = (".py", ".html", ".mplstyle")
    found = {file.name for file in (ROOT / room).iterdir() if file.suffix in kinds}
    assert (set(listed) - found, found - set(listed)) == (set(), set())  # rows without a file, files without a row
    assert max(listed.values()) == 1


def test_one_module_imports_torch_fidelity() -> None:
    """It does so late, by name, where import-linter does not look."""
    imports = re.compile(r"^\s*(import|from) torch_fidelity|import_module\(.torch_fidelity", re.M)
    modules = [file for room in ("orders", "models", "runs", "reports") for file in (ROOT / room).glob("*.py")]
    assert [file.name for file in modules if imports.search(file.read_text())] == ["fidelity.py"]
