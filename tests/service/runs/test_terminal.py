"""The tables of an analysed step, with presets that act, that do nothing and that were left out."""

import io

import numpy as np
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
    print_analysis("step", step, analysis, console)
    text = console.export_text()
    assert "step: 1 sequences, 6 tokens" in text
    assert "model [bold]m[/bold]\n" in text
    row = next(line for line in text.splitlines() if line.startswith("a.drops"))
    assert row.split() == ["a.drops", "25.0%", "0%", "0%", "100%"]
    assert "1 more presets would drop and clip nothing." in text
    assert "Not tried (no advantages or tokens): a.untried." in text
