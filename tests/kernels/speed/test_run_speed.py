"""Which measurements are made, in which order, at how many threads; the JSON they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from driftscope_kernels.speed import run_speed, token_logprob
from driftscope_kernels.speed.row import SpeedRow, speed_row
from driftscope_kernels.speed.token_logprob import MemoryRow


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Measurements replaced by notes of what was asked."""
    seen: list[tuple[Any, ...]] = []

    def group(name: str) -> Any:
        def measure(label: str, dtype: torch.dtype, rounds: int) -> Iterator[SpeedRow]:
            seen.append((name, label, dtype, rounds, torch.get_num_threads()))
            yield speed_row(name, label, (4, 2, 1), {"ours": [1.0], "torch": [0.5]}, 1.0)

        return measure

    for name in run_speed.GROUPS:
        monkeypatch.setitem(run_speed.GROUPS, name, group(name))
    monkeypatch.setattr(
        run_speed, "measure_memory", lambda name, dtype: MemoryRow(name, 4, 10, 100)
    )
    return seen


def test_order_threads_and_progress(seen: list[tuple[Any, ...]]) -> None:
    before = torch.get_num_threads()
    told: list[tuple[str, float]] = []
    report = run_speed.run_speed(
        ["linear", "token_logprob"],
        ["fp16", "bf16"],
        before + 1,
        5,
        lambda *step: told.append(step),
    )
    assert seen == [
        ("linear", "fp16", torch.float16, 5, before + 1),
        # torch's own fp16 product over a vocabulary is left out: it takes seconds.
        ("linear", "bf16", torch.bfloat16, 5, before + 1),
        ("token_logprob", "bf16", torch.bfloat16, 5, before + 1),
    ]
    assert torch.get_num_threads() == before
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] < 1
    assert [row.dtype for row in report.memory] == (
        ["bf16"] if token_logprob.MEMORY_AVAILABLE else []
    )


def test_threads_are_set_back_after_a_failure(
    seen: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Iterator[SpeedRow]:
        raise RuntimeError("planted")

    monkeypatch.setitem(run_speed.GROUPS, "rows", fail)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="planted"):
        run_speed.run_speed(["rows"], ["fp32"], before + 1, 1, lambda *_: None)
    assert torch.get_num_threads() == before


def test_json(seen: list[tuple[Any, ...]]) -> None:
    report = run_speed.run_speed(["token_logprob"], ["fp32"], 1, 1, lambda *_: None).to_dict()
    (row,) = report["rows"]
    named = {"op", "dtype", "k", "n", "m", "ours_s", "torch_s", "speed_ratio"}
    assert named < set(row)
    assert (row["dtype"], row["speed_ratio"], row["reached"]) == ("fp32", 0.5, False)
    if token_logprob.MEMORY_AVAILABLE:
        (grown,) = report["memory"]
        assert (grown["ratio"], grown["target"], grown["reached"]) == (10.0, 8.0, True)
