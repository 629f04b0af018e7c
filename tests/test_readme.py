"""The README says what is so: its table is the registry's, its commands run, its order is one."""

import re
import shlex
from pathlib import Path

import pytest
from test_cli import bench, good

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_orders_is_the_registrys() -> None:
    table = README.split("<!-- bench orders --markdown -->\n")[1].split("<!-- end -->")[0]
    assert table == good("orders", "--markdown")


@pytest.mark.parametrize("document", ["README.md", "docs/adding-an-order.md"])
def test_the_order_in_ten_lines_keeps_its_contract(document: str, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / document).read_text(), re.S)
    assert code is not None
    (tmp_path / "my_order.py").write_text(code[1])
    assert good("orders", "--check", "my_order.py", cwd=tmp_path).startswith("rim-first: keeps its contract")
    assert good("show", "rim-first", "--include", "my_order.py", cwd=tmp_path)


def test_the_commands_run(tmp_path: Path) -> None:
    (tmp_path / "my_order.py").write_text(re.search(r"```python\n(.*?)```", README, re.S)[1])  # type: ignore[index]
    lines = re.search(r"```sh\n(.*?)```", README, re.S)[1].splitlines()  # type: ignore[index]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "bench"
        done = bench(*words[1:], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line


def test_the_numbers_in_the_text_are_those_of_the_ranking() -> None:
    rows = re.findall(r"^ *\d+ +(\S+) +\S+ +\d\.\d+ +(\d\.\d+)", good("orders", "--rank"), re.M)  # at equal sizes
    ranked = {name: float(tax) for name, tax in rows}
    claims = re.search(r"raster (\S+),\s+radial (\S+), random (\S+), halton (\S+), and (\S+) for \[`designed`", README)
    assert claims is not None
    for name, claim in zip(("raster", "radial", "random", "halton", "designed"), claims.groups(), strict=True):
        assert f"{ranked[name]:.{len(claim) - 2}f}" == claim, name


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
