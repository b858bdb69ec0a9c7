"""An explanation in the terminal: the sentence first, every op with both ways, nothing cut."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from driftscope_probes.explain.report import Alignment, Check, ExplainReport, WeightDifference
from driftscope_service.experiments.explain.terminal import MOST_NAMED, print_report
from driftscope_service.experiments.explain.words import growth_words, layers_text, of_layers

from .example import explanation, first, growth, op

GOLDEN = Path(__file__).parent / "terminal.golden.txt"


def printed(report: ExplainReport, width: int = 80, location: str | None = None) -> str:
    console = Console(file=StringIO(), width=width, no_color=True)
    print_report(report, console, location=location)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def test_the_whole_text() -> None:
    """So that any change of a word is seen."""
    assert printed(explanation()) == GOLDEN.read_text(encoding="utf-8")


def test_the_sentence_and_where_the_report_is_are_one_line() -> None:
    path = "/a/long/path/" * 9
    text = printed(explanation(), width=60, location=path)
    assert text.startswith(f"{explanation().sentence}\n") and text.endswith(f"Report: {path}\n")


def test_what_is_not_the_same_comes_before_the_ops() -> None:
    tensors = [f"layers.{index}.weight" for index in range(MOST_NAMED + 3)]
    alignment = Alignment(
        checks=[Check(what="positions", equal=False, says="shifted by one")],
        weights=[
            WeightDifference(tensor=name, equal_fraction=0.25, max_abs=0.5, says="old")
            for name in tensors
        ],
        weights_compared=20,
        weights_unknown=[],
    )
    report = explanation(alignment=alignment, sentence="[bold]not[/bold] the same.")
    text = printed(report)
    assert text.startswith("[bold]not[/bold] the same.")
    assert "positions: shifted by one" in text and "token ids" not in text
    assert "layers.0.weight: 25.0% equal, largest difference 0.500; old" in text
    assert tensors[MOST_NAMED] not in text and "and 3 tensors more" in text
    assert text.index("Weights that differ") < text.index("1. residual + RMSNorm")


def test_an_op_outside_layers_and_a_fault() -> None:
    lone = op(
        *("linear", "linear", []),
        reason="weight",
        first=first("lm_head", None, ulp=None),
        reverse_equal_fraction=None,
        beyond_tolerance=0.5,
        swap=None,
    )
    text = printed(explanation(ops=[lone], growth=[], verified=None, full_vocabulary=None))
    assert "1. linear, outside layers: other weights" in text
    assert "first: lm_head, token 17" in text and "ULP apart" not in text
    assert "50.0% differ by more than rounding explains" in text
    assert not {"replaced alone", "Verified", "Growth", "other way round"} & set(text.split("\n"))


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([], "outside layers"),
        ([4], "layer 4"),
        ([0, 1, 2], "layers 0–2"),
        ([7, 0, 2, 3, 3, 8], "layers 0, 2–3, 7–8"),
    ],
)
def test_layers_are_said_as_ranges(layers: list[int], text: str) -> None:
    assert of_layers(layers) == text
    assert layers_text(layers) in text


def test_growth_says_where_it_begins() -> None:
    rows = list(growth())
    assert growth_words([]) is None and growth_words(rows[:1]) is None
    assert growth_words(rows[:2]) == "It begins at layer 1 with 0.00229."
