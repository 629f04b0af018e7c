"""The packaging's own promises: the list of packages, one registry, rooms that import what they may."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "orders", "reports", "runs")


def test_packages_are_the_folders_that_hold_an_init() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "orderbench." + ".".join(init.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert listed == found


def test_every_data_file_of_a_room_is_packaged() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for room in ROOMS:
        patterns = data["*"] + data.get(f"orderbench.{room}", [])
        for file in (ROOT / room).iterdir():
            if file.is_file() and file.suffix != ".py" and not file.name.startswith("."):
                assert any(file.match(pattern) for pattern in patterns), f"{file.name} would be missing from the wheel"


def test_the_rooms_are_not_imported_a_second_time_under_bare_names() -> None:
    assert not {"orders", "models", "runs", "reports"} & set(sys.modules)


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


COMMAND = """
import contextlib, sys
from orderbench.runs.cli import main
sys.argv = ["bench", *{!r}]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    main()
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import orderbench.orders",
        "import orderbench.reports.maps",
        *(COMMAND.format(words) for words in (["--help"], ["orders"], ["orders", "--json"], ["show", "radial"])),
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    heavy = {"torch", "pandas", "seaborn", "matplotlib", "torch_fidelity", "torchvision"}
    assert not heavy & modules_after(statement)
