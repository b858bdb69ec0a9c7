"""The table of verdicts in Markdown: one line per kernel, and where it came from."""

from __future__ import annotations

from datetime import date
from typing import Any

from driftscope_probes.kernels.report import AxisCount, Counterexample, KernelsCheck
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_service.experiments.kernels.markdown import markdown

REQUEST = KernelsRequest(ops=["sum"], quick=True, seed=3)


def _verdict(target: str, dtype: str, threads: int, verdict: str, **more: Any) -> dict[str, Any]:
    return {
        **{"target": target, "op": "sum", "implementation": "eager", "dtype": dtype},
        **{"threads": threads, "verdict": verdict, "reason": "why|so", "detection_rate": None},
        **{"counterexample": None, "axes": []},
        **more,
    }


LAYOUT: dict[str, Any] = {"cause": "layout"}
RESULT = KernelsCheck.read(
    {
        "verdicts": [
            _verdict("driftscope", "fp32", 1, "PROVED", detection_rate=1.0),
            _verdict("driftscope", "fp32", 2, "NOT_REFUTED", detection_rate=0.975),
            _verdict("driftscope", "bf16", 1, "PROVED", detection_rate=1.0),
            _verdict("driftscope", "bf16", 2, "PROVED", detection_rate=0.95),
            _verdict(
                *("torch", "fp32", 1, "REFUTED"),
                counterexample=Counterexample.model_construct(**LAYOUT),
                axes=[
                    AxisCount(axis=axis, trials=2, mismatches=mismatches, refused=0)
                    for axis, mismatches in (("layout", 2), ("split", 0))
                ],
            ),
            _verdict("triton", "fp32", 1, "INCONCLUSIVE"),
            _verdict("triton", "fp32", 1, "STATIC", implementation="compiled"),
        ],
        "planted": {"caught": 7, "total": 8, "missed": ["sum/late fp32"]},
        "environment": {
            "python": "3.11.7",
            "platform": "Linux",
            "packages": {"torch": "2.13.0", "tokenizers": "1"},
            "hardware": {"cpu": "Fast", "cores": 2, "cpu_features": ["avx2"]},
        },
        "skipped": [{"target": "vllm", "reason": "not installed"}],
    }
)


def test_a_line_per_kernel_and_a_column_per_dtype() -> None:
    lines = markdown(RESULT, REQUEST, date(2030, 1, 2)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table == [
        "| op | kernel | threads | fp32 | bf16 | differs on |",
        "| --- | --- | --- | --- | --- | --- |",
        "| sum | `driftscope/eager` | 1, 2 | 1: PROVED; 2: NOT_REFUTED, 98% | PROVED |  |",
        "| sum | `torch/eager` | 1 | REFUTED: layout | – | layout |",
        "| sum | `triton/eager` | 1 | INCONCLUSIVE | – |  |",
        "| sum | `triton/compiled` | – | STATIC | – |  |",
    ]


def test_it_says_how_it_was_made_and_what_it_does_not_cover() -> None:
    text = markdown(RESULT, REQUEST, date(2030, 1, 2))
    command = "driftscope kernels check --op sum --quick --seed 3 --markdown FILE"
    for said in (
        f"- command: `{command}`",
        "- date: 2030-01-02",
        "- CPU: Fast, 2 cores (avx2); Linux",
        "- versions: Python 3.11.7, torch 2.13.0\n",
        "- planted faults caught: 7 of 8; missed: sum/late fp32",
        "- `triton/sum/eager` (fp32×1): why\\|so",
        "- ops other than sum are not covered",
        "- left out: vllm (not installed)",
        "- `--quick`",
    ):
        assert said in text, said
