"""Which side carries the error, where a paired report is shown; older reports go without."""

from __future__ import annotations

import copy
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from driftscope_probes.paired.report import PairedReport
from driftscope_service.experiments.paired.html import render
from driftscope_service.experiments.paired.terminal import print_report

SIDE = {
    "sigma": 0.094,
    "rollout_sigma": 0.0714,
    "trainer_sigma": 0.0725,
    "covariance": 7.8e-4,
    "correlation": 0.151,
    "rollout_part": 0.49,
    "rollout_part_low": 0.44,
    "rollout_part_high": 0.53,
    "carries": "both",
    "sentence": "Both sides carry the error: <b>49%</b> of it is the rollout's.",
    "changes": [
        {
            "sides": "both",
            "engine_dtype": "fp16",
            "trainer_dtype": "fp16",
            "sigma": 0.0107,
            "closer": 8.8,
            "low": 7.9,
            "high": 9.7,
        }
    ],
    "reference": "trainer forward in fp32 over the same tokens",
}


@pytest.fixture
def told(report: dict[str, Any]) -> PairedReport:
    """The first cell, bf16 against bf16, with its sides; the other cells as of an older version."""
    made = copy.deepcopy(report)
    made["grid"][0]["which_side"] = SIDE
    made["grid"][1]["which_side"] = SIDE | {
        "correlation": None,
        "rollout_part": None,
        "rollout_part_low": None,
        "rollout_part_high": None,
        "carries": "neither",
        "sentence": "Both sides agree bit for bit: neither carries an error.",
    }
    return PairedReport.read(made)


def terminal(report: PairedReport) -> str:
    console = Console(file=StringIO(), width=80, no_color=True)
    print_report(report, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_it_is_read_and_written_as_it_was(told: PairedReport) -> None:
    side = told.grid[0].which_side
    assert side is not None and side.changes[0].closer == 8.8
    assert told.to_dict()["grid"][0]["which_side"] == SIDE


def test_the_page_and_the_terminal_say_it(told: PairedReport) -> None:
    page = render(told)
    assert "Which side carries the error" in page
    assert "Both sides carry the error: &lt;b&gt;49%" in page and "<b>49%" not in page
    assert "0.0725" in page and "neither" in page
    text = terminal(told)
    assert "Which side carries the error" in text and "bf16 × bf16: Both sides carry" in text
    # Of the cells that compute in one format: the second is bf16 against fp16.
    assert "bit for bit" not in text.split("Which side")[1].split("FP16 headroom")[0]


def test_a_report_of_an_older_version_has_no_such_part(report: dict[str, Any]) -> None:
    old = PairedReport.read(report)
    assert old.grid[0].which_side is None
    assert "Which side carries" not in render(old) and "Which side carries" not in terminal(old)
    assert "which_side" not in old.to_dict()["grid"][0]
