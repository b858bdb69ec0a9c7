"""docs/gates.md: every row of the commands that need no rule names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> dict[str, list[tuple[str, str]]]:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    table = page.partition("## Commands that are gates by themselves")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return {line.split("`")[1]: TEST.findall(line) for line in lines}


def test_every_row_is_held_by_tests_that_exist() -> None:
    assert {name.split()[0] for name in rows()} == {
        *("probe", "kernels", "diagnose", "lint", "nightly"),
    }
    for name, tests in rows().items():
        assert tests, name
        for file, function in tests:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert function in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
