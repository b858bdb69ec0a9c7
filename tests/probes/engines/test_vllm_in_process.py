"""Real vLLM, each engine in its own child process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import roll_out
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.progress import Progress, discard

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

MakeTask = Callable[..., RolloutTask]


def test_same_seed_same_tokens_bitwise_in_a_fresh_process(
    make_task: MakeTask, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    first = roll_out(make_task("vllm", "bf16"), tmp_path / "a", seen.append)
    again = roll_out(make_task("vllm", "bf16"), tmp_path / "b", discard)
    assert first.trace.token_ids.tolist() == again.trace.token_ids.tolist()
    assert first.trace.logprobs.tobytes() == again.trace.logprobs.tobytes()
    stages = {progress.stage for progress in seen}
    assert {"importing vLLM", "loading the model", "sampling"} <= stages
    settings = first.trace.meta.settings
    assert settings["dtype"] == "bfloat16"
    assert settings["attention_split_kv"] is True
    assert first.load_s > 0 and first.generate_s > 0


def test_settings_reach_the_engine_and_are_recorded_as_it_used_them(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(
        "vllm",
        "fp16",
        logprobs_mode="processed_logprobs",
        temperature=0.7,
        batch_size=2,
        prefix_caching=False,
        chunked_prefill_tokens=16,
        attention_split_kv=False,
        seed=11,
    )
    used = roll_out(task, tmp_path, discard).trace.meta.settings
    expected = {
        "dtype": "float16",
        "logprobs_mode": "processed_logprobs",
        "temperature": 0.7,
        "batch_size": 2,
        "prefix_caching": False,
        "chunked_prefill": True,
        "chunked_prefill_tokens": 16,
        "attention_split_kv": False,
        "compile": False,
        "threads": 1,
        "seed": 11,
    }
    assert {name: used[name] for name in expected} == expected


def test_processed_logprobs_differ_from_raw_at_another_temperature(
    make_task: MakeTask, tmp_path: Path
) -> None:
    raw = roll_out(make_task("vllm", temperature=0.5), tmp_path / "raw", discard).trace
    processed_task = make_task("vllm", temperature=0.5, logprobs_mode="processed_logprobs")
    processed = roll_out(processed_task, tmp_path / "processed", discard).trace
    assert raw.token_ids.tolist() == processed.token_ids.tolist()
    assert np.abs(raw.logprobs - processed.logprobs).max() > 0.1


def test_more_memory_than_the_machine_has_is_said(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="out of memory.*KV|memory for kv") as caught:
        roll_out(make_task("vllm", kv_cache_gib=60_000.0), tmp_path, discard)
    assert "--kv-cache-gib" in caught.value.remedy


def test_too_little_cache_is_said(make_task: MakeTask, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="memory"):
        roll_out(make_task("vllm", kv_cache_gib=1e-6), tmp_path, discard)


def test_an_engine_killed_in_mid_run_is_a_readable_error(
    make_task: MakeTask, tmp_path: Path
) -> None:
    def kill(progress: Progress) -> None:
        # Only the engine: Python's resource tracker, which is a child too, belongs to later tests.
        if progress.stage == "sampling":
            for child in psutil.Process().children():
                if str(tmp_path) in child.cmdline():
                    child.kill()

    with pytest.raises(EngineError, match="killed by SIGKILL"):
        roll_out(make_task("vllm", max_tokens=512), tmp_path, kill)
    assert not (tmp_path / "rollout.safetensors").exists()


def test_batch_invariant_on_a_cpu_is_refused_before_it_crashes(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("vLLM has a batch-invariant mode on this platform")
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    with pytest.raises(RequestError, match="no batch-invariant mode on CPUs"):
        roll_out(make_task("vllm"), tmp_path, discard)
