"""Real vLLM: faults that stock vLLM has on a CPU are found where they are, and no others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_axes, run_determinism
from driftscope_probes.engines.sessions.runners import EngineRunner
from driftscope_probes.progress import discard
from driftscope_probes.tokenization import prompt_text

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

Report = dict[str, Any]
Run = Callable[..., Report]
#: From about a hundred tokens on vLLM's CPU attention cuts one sequence's keys into pieces.
SHORT_AND_LONG = [24, 320]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting threads that spin starve the others where cores are shared; no bit depends on it."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def run(quiet: None, tmp_path: Path) -> Run:
    def run(model: Path, **fields: Any) -> Report:
        asked = DeterminismRequest(**{"model": str(model), "threads": 1, "max_tokens": 6} | fields)
        return run_determinism(asked, tmp_path, discard).to_dict()

    return run


def verdicts(report: Report) -> dict[tuple[str, str], str]:
    return {(axis["kernels"], axis["axis"]): axis["verdict"] for axis in report["axes"]}


def test_bf16_depends_on_the_batch_from_two_on_and_not_with_invariant_kernels(
    run: Run, smollm2: Path
) -> None:
    sizes = {"batch_sizes": [1, 2, 5], "prompt_tokens": [24, 40], "kernels": "both"}
    report = run(smollm2, axes=["batch_size", "decode_vs_prefill"], **sizes)
    assert verdicts(report) == {
        ("stock", "batch_size"): "differs",
        ("stock", "decode_vs_prefill"): "differs",
        ("invariant", "batch_size"): "equal",
        ("invariant", "decode_vs_prefill"): "equal",
    }
    stock = report["axes"][0]
    assert stock["onset"]["equal_up_to"] == 1 and stock["onset"]["differs_from"] == 2
    assert 0.0 < stock["max_abs_diff"] < 1.0 and stock["max_ulps"] > 0
    assert stock["bitwise_equal_logprobs"] < 1.0
    assert "--axes batch_size --values 1,2 " in stock["replay"]
    decoded = {cell["value"]: cell["max_ulps"] for cell in report["axes"][1]["cells"]}
    assert decoded[1] > 0
    if "amx_bf16" not in report["environment"]["hardware"]["cpu_features"]:
        # Only the single row is special; where there are tiles every number of rows is.
        assert decoded[2] == decoded[8] == 0
    kernels = [engine["kernels"] for engine in report["engines"]]
    assert kernels == ["stock", "invariant"]


def test_fp32_with_split_keys_depends_on_the_batch_and_without_it_does_not(
    quiet: None, tiny_llama: Path, tmp_path: Path
) -> None:
    asked = DeterminismRequest(
        model=str(tiny_llama),
        axes=["batch_size", "kv_split"],
        engine_dtypes=["fp32"],
        threads=2,
        prompt_tokens=SHORT_AND_LONG,
        batch_sizes=[1, 8],
        max_tokens=6,
    )
    whole = asked.model_copy(update={"axes": ["batch_size"], "attention_split_kv": False})
    text, runner = prompt_text(tiny_llama), EngineRunner(tiny_llama, tmp_path)
    try:
        # The engine with whole keys, which kv_split started, answers the second request as well.
        batch_size, kv_split = run_axes(asked, text, runner, discard)
        (off,) = run_axes(whole, text, runner, discard)
    finally:
        runner.close()
    assert (batch_size.verdict, kv_split.verdict, off.verdict) == ("differs", "differs", "equal")
    shown = batch_size.to_dict()
    assert shown["first_differing_logprob"]["sequence"] == "prompt 1", "the long one"
    assert shown["bitwise_equal_tokens"] == 1.0
    assert [engine["attention_split_kv"] for engine in runner.engines] == [True, False]
    assert runner.processes == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_engine_is_compared_with_an_eager_one(run: Run, tiny_llama: Path) -> None:
    """In fp32 fused loops leave the tokens as they are and change last bits only."""
    sizes = {"prompt_tokens": [24], "max_tokens": 3}
    report = run(tiny_llama, axes=["compiled"], engine_dtypes=["fp32"], **sizes)
    (axis,) = report["axes"]
    assert axis["verdict"] == "differs"
    assert axis["bitwise_equal_tokens"] == 1.0
    assert 0.0 < axis["max_abs_diff"] < 1e-4
    assert axis["onset"]["differs_from"] == "compiled"
    # What the engines say of themselves: without a mode nothing was compiled.
    used = [(engine["compile"], engine["compilation_mode"] != "0") for engine in report["engines"]]
    assert used == [(False, False), (True, True)]


def test_every_axis_of_the_scheduler_and_the_cache_does_what_it_says(
    run: Run, tiny_llama: Path
) -> None:
    """All in one process; the engines' own settings show that they were what the axis names.

    With invariant kernels, which promise all of it: of stock ones bf16 with AMX tiles keeps little.
    """
    axes = [
        *("arrival_order", "staggered_arrival", "seeded_sampling", "thinking_machines"),
        *("prefix_cache", "chunked_prefill", "preemption", "sglang_mixed", "run_to_run"),
        *("sleep_wake", "reload"),
    ]
    report = run(tiny_llama, axes=axes, samples=9, kernels="invariant")
    assert {axis["axis"]: axis["verdict"] for axis in report["axes"]} == dict.fromkeys(
        (axis["axis"] for axis in report["axes"]), "equal"
    )
    engines = report["engines"]
    assert report["timing"]["processes"] == 1
    without_cache = [engine for engine in engines if not engine["prefix_caching"]]
    small = [engine for engine in engines if engine["kv_cache_gib"] is not None]
    assert len(without_cache) == len(small) == 1
    chunks = [engine["chunked_prefill_tokens"] for engine in engines]
    first = chunks.index(128)
    assert chunks[first - 1 : first + 2] == [2048, 128, 32]
