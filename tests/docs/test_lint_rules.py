"""The page of the rules says what the rules say."""

from __future__ import annotations

from pathlib import Path

from driftscope_probes.lint.page import page
from driftscope_probes.lint.rules.registry import ALL_RULES

PAGE = Path(__file__).parents[2] / "docs" / "lint-rules.md"


def test_the_page_is_that_of_the_rules() -> None:
    """Print anew with python -m driftscope_probes.lint.page > docs/lint-rules.md."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_rule_has_one_row_of_four_cells() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(rule.name for rule in ALL_RULES)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
