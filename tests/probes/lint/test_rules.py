"""Every rule has files that trip it and files that do not, read as a user's are."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.lint.base import SEVERITIES, Finding, Rule, lint
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers.registry import read_paths
from driftscope_probes.lint.rules.registry import ALL_RULES

from .rule_files.row import Row

MODULES = sorted(
    path.stem for path in (Path(__file__).parent / "rule_files").glob("*.py") if path.stem != "row"
)
ROWS: tuple[Row, ...] = tuple(
    row
    for module in MODULES
    for row in importlib.import_module(f".rule_files.{module}", __package__).ROWS
)


def findings(files: Mapping[str, str], folder: Path) -> tuple[Finding, ...]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    # Of "model/config.json" the folder "model" is given.
    known = read_paths(dict.fromkeys(folder / Path(name).parts[0] for name in files))
    assert {one.name for one in known} <= NAMES.keys()
    return lint(known, ALL_RULES)


def test_every_rule_has_a_row_and_a_name_of_its_own() -> None:
    assert Counter(row.rule for row in ROWS) == Counter({rule.name for rule in ALL_RULES})
    assert len({rule.name for rule in ALL_RULES}) == len(ALL_RULES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_a_rule_is_tripped(row: Row, tmp_path: Path) -> None:
    found = [one for one in findings(row.trips, tmp_path) if one.rule == row.rule]
    assert len(found) == 1
    assert any(found[0].where.startswith(str(tmp_path / name)) for name in row.trips), found[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_a_rule_is_not_tripped_by_what_is_right(row: Row, tmp_path: Path) -> None:
    assert row.rule not in {one.rule for one in findings(row.clean, tmp_path)}


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_a_rule_says_all_it_has_to(rule: Rule) -> None:
    assert rule.name == rule.name.lower() and " " not in rule.name and "_" not in rule.name
    assert rule.severity in SEVERITIES
    assert rule.cause is None or rule.cause in BY_NAME
    assert rule.source
    for sentence in (rule.why, rule.remedy):
        assert sentence.endswith(".") and len(sentence) > len("Unset it."), sentence
