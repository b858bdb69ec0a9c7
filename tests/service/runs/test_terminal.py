"""An analysed step: the answer on half a screen; the tables, with presets of each sort."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from driftscope_probes.analysis import analyze_step
from driftscope_probes.push.pushed_step import pushed_step
from driftscope_service.runs.terminal import print_analysis


def test_presets_by_what_they_do() -> None:
    sides = np.full(6, -1.0, np.float32)
    tensors = {"rollout_logprobs": sides, "trainer_logprobs": sides, "cu_seqlens": np.array([0, 6])}
    step = pushed_step(tensors, {"model": "[bold]m[/bold]", "schema_version": "1"})
    analysis = analyze_step(step, resamples=0).to_dict()
    nothing = dict.fromkeys(("tokens_dropped", "tokens_clipped", "sequences_dropped"), 0.0)
    analysis["presets"] = {
        "a.drops": {**nothing, "tokens_dropped": 0.25, "sequences_touched": 1.0},
        "a.idle": {**nothing, "sequences_touched": 0.0},
        "a.untried": {"left_out": "needs the advantages"},
    }
    console = Console(width=80, record=True, file=io.StringIO())
    print_analysis("step", step, analysis, console, every_number=True)
    text = console.export_text()
    assert "step: 1 sequence, 6 tokens" in text
    assert "model [bold]m[/bold]\n" in text
    row = next(line for line in text.splitlines() if line.startswith("a.drops"))
    assert row.split() == ["a.drops", "25.0%", "0%", "0%", "100%"]
    assert "1 more preset would drop and clip nothing." in text
    assert "Not tried (no advantages or tokens): a.untried." in text


def analysed() -> tuple[Any, dict[str, Any]]:
    random = np.random.default_rng(0)
    sides = np.log(random.beta(3, 1, 64)).astype(np.float32)
    tensors = {
        "rollout_logprobs": sides,
        "trainer_logprobs": sides + random.normal(0, 0.02, 64).astype(np.float32),
        "cu_seqlens": np.array([0, 40, 64]),
    }
    step = pushed_step(tensors, {"model": "m", "temperature": "0.6"})
    return step, analyze_step(step, resamples=0).to_dict()


def printed(analysis: dict[str, Any], step: Any, *, width: int = 100, **options: bool) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_analysis("step", step, analysis, console, **options)
    return console.export_text()


@pytest.mark.parametrize(
    ("sort", "word"),
    [
        ("bug_like", "bug-like: 11.2 times"),
        ("at_floor", "at the floor: 0.930 times"),
        ("unexplained", "above the floor: 3.40 times"),
        ("not_comparable", "not comparable: nothing"),
    ],
)
def test_the_answer_comes_first_on_half_a_screen(diagnoses: Any, sort: str, word: str) -> None:
    step, analysis = analysed()
    diagnosis = getattr(diagnoses, sort)
    text = printed({**analysis, "diagnosis": diagnoses.stored(diagnosis)}, step)
    lines = text.splitlines()
    assert len(lines) <= 24
    # The verdict is the second line, the sentence the third.
    assert lines[1].startswith(word)
    assert lines[2].startswith(diagnosis.sentence[:40])
    assert "mean |Δ|" in text and "--all" in lines[-1]
    assert "Difference in log-probability" not in text


def test_what_half_a_screen_says_of_a_cause(diagnoses: Any) -> None:
    step, analysis = analysed()
    text = printed({**analysis, "diagnosis": diagnoses.stored(diagnoses.bug_like)}, step)
    assert "bug-like: 11.2 times the prior floor (bf16 × bf16, σ 0.0700" in text
    assert "trainer dtype assumed" in text
    assert "temperature_semantics  confidence 0.93" in text
    assert "temperature_semantics evidence 0: 0.612 (expected none <of this>)" in text
    assert "evidence 2: from token 512 on" in text
    assert "Set what temperature_semantics names" in text
    assert "Score the same tokens with temperature_semantics switched off." in text
    assert "docs/causes/temperature_semantics.md" in text
    assert "Also possible: rope_config 0.04, norm_eps 0.01" in text
    assert "Would tell more: entropy; rank; routed_experts; 1 more in --json" in text


def test_where_the_room_is_short_two_lines_of_evidence_stay(diagnoses: Any) -> None:
    step, analysis = analysed()
    analysis["diagnosis"] = stored = diagnoses.stored(diagnoses.bug_like)
    assert "evidence 3" in printed(analysis, step)
    stored["causes"][0]["remedy"] = "long " * 200
    text = printed(analysis, step)
    assert "evidence 1" in text and "evidence 3" not in text


def test_unexplained_is_said_with_what_stood_out(diagnoses: Any) -> None:
    step, analysis = analysed()
    text = printed({**analysis, "diagnosis": diagnoses.stored(diagnoses.unexplained)}, step)
    assert "Unexplained: no cause reaches" in text
    assert "mean of Δ over its error: 9.10 (expected within 3 of 0)" in text
    assert "Candidates: lm_head_precision 0.31" in text
    assert "Change:" not in text


def test_a_step_of_an_older_version_has_its_numbers(diagnoses: Any) -> None:
    step, analysis = analysed()
    text = printed({**analysis, "diagnosis": None}, step)
    assert "No diagnosis" in text and "mean |Δ|" in text


@pytest.mark.parametrize(("sort", "told"), [("at_floor", True), ("bug_like", False)])
def test_a_preset_that_drops_all_of_a_healthy_step_is_not_passed_over(
    diagnoses: Any, sort: str, told: bool
) -> None:
    step, analysis = analysed()
    analysis["diagnosis"] = diagnoses.stored(getattr(diagnoses, sort))
    effect = {"tokens_dropped": 0.0, "tokens_clipped": 0.0, "sequences_touched": 1.0}
    analysis["presets"] = {
        "a.all": {**effect, "sequences_dropped": 1.0},
        "a.half": {**effect, "sequences_dropped": 0.5},
    }
    text = " ".join(printed(analysis, step, every_number=True).split())
    said = "Leaves nothing of this step, whose difference is rounding alone"
    assert (said in text) is told
    assert ("protect it: a.all." in text) is told
