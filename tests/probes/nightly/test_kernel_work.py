"""Verdicts of the checker → findings of items; and nights of real kernels, with a fault planted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.nightly.item import KernelItem
from driftscope_probes.nightly.request import parse_config
from driftscope_probes.nightly.run import run_nightly
from driftscope_probes.nightly.work import kernel_finding, kernel_work
from driftscope_probes.progress import discard


def item(axis: str | None = None, dtype: str = "fp32") -> KernelItem:
    return KernelItem("torch/mean/eager", dtype, 1, axis, True, 7, "REFUTED")


def line(verdict: str, example_axis: str | None = None, **mismatches: int) -> dict[str, Any]:
    example = {"axis": example_axis, "replay": "driftscope kernels check --replay '{}'"}
    counts = [
        {"axis": axis, "trials": 10, "mismatches": count, "refused": 2}
        for axis, count in mismatches.items()
    ]
    return {
        "verdict": {
            "verdict": verdict,
            "reason": "why",
            "detection_rate": 1.0,
            "counterexample": example if example_axis else None,
            "axes": [*counts, {"axis": "layout", "trials": 3, "mismatches": 0, "refused": 3}],
            "seconds": 2.0,
        },
        "bits": "c0ffee",
    }


@pytest.mark.parametrize(
    ("axis", "told", "verdict"),
    [
        (None, line("PROVED", batch_size=0), "PROVED"),
        (None, line("REFUTED", "batch_size", batch_size=3), "REFUTED"),
        ("batch_size", line("REFUTED", "position", batch_size=3, position=1), "REFUTED"),
        ("batch_size", line("REFUTED", "position", batch_size=0, position=1), "NOT_REFUTED"),
        # Trees differ where no value does.
        ("batch_size", line("REFUTED", "batch_size", batch_size=0), "REFUTED"),
        ("batch_size", line("PROVED", batch_size=0), "NOT_REFUTED"),
        ("layout", line("PROVED", batch_size=0), "NOT_RUN"),
        ("page_size", line("PROVED", batch_size=0), "NOT_RUN"),
        (None, {"missing": "there is no such kernel"}, "NOT_RUN"),
    ],
)
def test_a_verdict_answers_the_whole_or_an_axis(
    axis: str | None, told: dict[str, Any], verdict: str
) -> None:
    found = kernel_finding(item(axis), told)
    assert found.verdict == verdict
    assert found.detail["reason"]
    assert (found.replay is None) == (verdict == "NOT_RUN")
    assert found.detail.get("bits") == (None if verdict == "NOT_RUN" else "c0ffee")


@pytest.mark.parametrize("axis", ["run_to_run", "fresh_process"])
def test_bits_that_are_not_twice_the_same_are_left_out(axis: str) -> None:
    """Else every night would say that they changed."""
    for of in (None, "batch_size"):
        counts = {"batch_size": 0, axis: 1}
        assert kernel_finding(item(of), line("REFUTED", axis, **counts)).detail["bits"] is None


def test_one_check_answers_all_axes_of_a_kernel() -> None:
    work = kernel_work([item(), item("batch_size"), item(dtype="bf16")])
    assert [len(unit.items) for unit in work.units] == [2, 1]
    assert work.request == {"quick": True, "seed": 7}


CONFIG = """
name = "real"
budget_minutes = 5
[[kernels]]
names = ["acme/mean/fast"]
dtypes = ["fp32"]
axes = ["all", "batch_size"]
expected = "NOT_REFUTED"
[[kernels.override]]
items = "kernel/acme/mean/fast/fp32/t1"
expected = "PROVED"
"""
SOUND = """
import torch
from driftscope_kernels import ops
from driftscope_kernels.registry import Kernel
def run(inputs, params):
    return ops.mean(inputs["x"], -1)
def kernels():
    return [Kernel("acme", "mean", "fast", run, frozenset({torch.float32}))]
"""
FAULTY = """
import torch
from driftscope_kernels.registry import Kernel
from driftscope_kernels.check.planted import split_k_by_batch
def run(inputs, params):
    return split_k_by_batch("mean", inputs, params)
def kernels():
    return [Kernel("acme", "mean", "fast", run, frozenset({torch.float32}))]
"""


def install(folder: Path, source: str, version: str) -> None:
    """A package as pip leaves it, which offers a kernel by entry point."""
    info = folder / "acme_kernels.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / "acme_kernels.py").write_text(source, encoding="utf-8")
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: acme-kernels\nVersion: {version}\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        "[driftscope.kernels]\nacme = acme_kernels:kernels\n", encoding="utf-8"
    )


@pytest.mark.slow
def test_a_fault_planted_in_a_kernel_gives_1_and_names_kernel_and_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    config = parse_config(CONFIG.encode())
    install(tmp_path / "site", SOUND, "1.0")
    assert run_nightly(config, tmp_path / "history", discard).exit_code == 0
    install(tmp_path / "site", FAULTY, "1.1")
    result = run_nightly(config, tmp_path / "history", discard)
    assert result.exit_code == 1
    whole, axis, package = result.alarms
    assert whole.startswith("kernel/acme/mean/fast/fp32/t1: REFUTED, expected PROVED")
    assert axis.startswith("kernel/acme/mean/fast/fp32/t1/batch_size: REFUTED")
    assert package == "acme-kernels: 1.0 last night, 1.1 now"
    assert "--replay" in str(result.items[0].replay)


ABSENT = """
name = "absent"
budget_minutes = 5
[[kernels]]
names = ["acme/mean/fast"]
dtypes = ["fp16"]
expected = "PROVED"
"""


@pytest.mark.slow
def test_a_kernel_that_is_not_there_is_not_run(tmp_path: Path) -> None:
    result = run_nightly(parse_config(ABSENT.encode()), tmp_path / "history", discard)
    assert result.exit_code == 2
    (one,) = result.items
    assert one.verdict == "NOT_RUN"
    assert "there is no kernel acme/mean/fast" in one.detail["reason"]
