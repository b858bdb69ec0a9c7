"""Diagnoses of a paired report: which one leads, and that every form of the report says them."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import pytest
import typer
from rich.console import Console

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.diagnoses import judged, leading, report_sentence
from driftscope_service.experiments.paired.grid import paired_grid
from driftscope_service.experiments.paired.html import render
from driftscope_service.experiments.paired.kind import KIND
from driftscope_service.experiments.paired.terminal import print_report
from driftscope_service.terminal.fail_on import exit_where_a_rule_holds, outcome_of, parse_rule


@pytest.fixture
def diagnosed(report: dict[str, Any], diagnoses: Any) -> PairedReport:
    """Matched cells at the floor, but for fp16, which is bug-like; the mixed ones unexplained, and
    one, which no run would use, cannot be compared."""
    made = copy.deepcopy(report)
    for cell in made["grid"]:
        dtypes = (cell["engine_dtype"], cell["trainer_dtype"])
        said = diagnoses.unexplained
        if dtypes == ("fp16", "fp16"):
            said = diagnoses.bug_like
        elif dtypes == ("fp32", "bf16"):
            said = diagnoses.not_comparable
        elif dtypes[0] == dtypes[1]:
            said = diagnoses.at_floor
        cell["diagnosis"] = diagnoses.stored(said)
    return PairedReport.read(made)


def test_the_worst_cell_that_a_run_would_use_leads(diagnosed: PairedReport) -> None:
    first = leading(paired_grid(diagnosed.grid))
    assert first is not None and first.cell.label == "fp16 × fp16"
    sentence = report_sentence(diagnosed)
    assert sentence.startswith("fp16 × fp16: The rollout sampled at temperature 0.61")
    assert sentence.endswith(diagnosed.reading.sentence)
    assert KIND.sentence(KIND.summarise(diagnosed)) == sentence


def test_a_report_without_diagnoses_says_its_reading(report: dict[str, Any]) -> None:
    read = PairedReport.read(report)
    assert report_sentence(read) == read.reading.sentence
    page = render(read)
    assert 'id="diagnoses"' not in page and 'id="diagnosis"' not in page


def test_the_terminal_says_it_first_and_every_cell(diagnosed: PairedReport) -> None:
    stream = io.StringIO()
    print_report(diagnosed, Console(file=stream, width=120))
    lines = stream.getvalue().splitlines()
    assert lines[1].startswith("fp16 × fp16: The rollout sampled at temperature 0.61")
    block = lines[lines.index("Rounding or not") + 1 :][:9]
    assert "bf16 × bf16: at the floor, 0.930 times the calibrated floor" in block[0]
    assert block[0].rstrip().endswith("bf16_rounding_tail 0.97")
    assert any("fp32 × bf16: not comparable, nothing that could be held" in line for line in lines)


def test_the_page_leads_with_it_and_opens_offline(diagnosed: PairedReport) -> None:
    page = render(diagnosed)
    first = re.search(r'<p class="sentence">(.*?)</p>', page, re.DOTALL)
    assert first is not None and "fp16 × fp16: The rollout sampled" in first[1]
    assert "docs/causes/temperature_semantics.md" in page
    assert 'href="/causes' not in page and "plots/evidence" not in page
    table = page[page.index('id="diagnoses"') :]
    assert table.count('<a href="#cell-') >= 9
    # The evidence stands with its cell as well, and its plot as a table.
    cell = page[page.index('id="cell-fp16--fp16"') :][:6000]
    assert "temperature_semantics evidence 0" in cell and "Δ by log p, as a table" in cell


def test_rules_are_held_against_every_cell(
    diagnosed: PairedReport, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_where_a_rule_holds(outcome_of([parse_rule("excess>100")], judged(diagnosed)[:1]))
    held = outcome_of([parse_rule("verdict>=bug_like")], judged(diagnosed))
    with pytest.raises(typer.Exit) as left:
        exit_where_a_rule_holds(held)
    assert left.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "fail-on fp16 × fp16: verdict>=bug_like: verdict is bug_like",
        "fail-on fp32 × bf16: verdict>=bug_like: verdict is not_comparable",
    ]
