"""`bench COMMAND --help`: plain text that fits a terminal, options in groups, whole sentences."""

import re
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from orderbench.runs.cli import app
from orderbench.runs.spec import setting_flags

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]


def help_of(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "-h"], prog_name="bench", env={"COLUMNS": "200"})
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda words: "-".join(words) or "bench")
def test_help_is_plain_and_fits_a_terminal_also_its_examples(command: list[str]) -> None:
    text = help_of(*command)
    assert text.isascii()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "Examples:\n" in text
    assert text == CliRunner().invoke(app, [*command, "--help"], prog_name="bench").output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_in_a_whole_sentence(name: str) -> None:
    for param in COMMANDS[name].params:
        assert re.fullmatch(r"[A-Z\d].*[.)]", param.help), param.name
        assert param.rich_help_panel is None or f"\n{param.rich_help_panel}:\n" in help_of(name)


def test_settings_stand_in_the_groups_that_their_fields_name() -> None:
    groups = dict(re.findall(r"^(\w[\w ,]+):\n((?:  .*\n)+)", help_of("run"), re.M))
    for name, flag in setting_flags().items():
        assert re.search(rf"^  --{name.replace('_', '-')}\b", groups[flag.group], re.M), name
    assert list(groups)[-2:] == ["This run", "Output and help"]
    assert "--resume" in groups["This run"]
    assert "--json" in groups["Output and help"]


def test_a_short_command_has_one_list_of_options() -> None:
    assert re.findall(r"^\w[\w ,]+:$", help_of("baseline"), re.M) == ["Arguments:", "Options:"]
