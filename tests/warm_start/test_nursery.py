"""A child from the nursery against one that starts by itself, and how either ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.rollout import roll_out
from driftscope_probes.engines.run_rollout import LOAD_FRACTION
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import ProbeError
from driftscope_probes.progress import Progress, discard
from driftscope_probes.prompts import PromptBatch, write_prompts

pytestmark = pytest.mark.slow
PATIENCE_S = 120.0


def task(model: Path, kind: str, prompts: int = 2, max_tokens: int = 8) -> RolloutTask:
    return RolloutTask(
        model_path=model,
        model_name="tiny",
        dtype="bf16",
        prompts=PromptBatch.from_lists([[5, 6, 7], [300, 301]] * (prompts // 2)),
        sampling=SamplingSettings(max_tokens=max_tokens),
        engine=EngineSettings(kind=kind, threads=1, batch_size=1),
    )


@pytest.mark.parametrize("kind", ["hf", "vllm"])
def test_the_same_bits_as_a_plain_start(
    tiny_llama: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    forked = roll_out(task(tiny_llama, kind), tmp_path / "forked", discard)
    request.getfixturevalue("plain_starts")
    plain = roll_out(task(tiny_llama, kind), tmp_path / "plain", discard)
    assert forked.trace.meta == plain.trace.meta
    bits = load_file(forked.trace_file)
    assert bits.keys() == (again := load_file(plain.trace_file)).keys()
    assert all(bits[name].tobytes() == again[name].tobytes() for name in bits)


def _explain(crash: Crash) -> ProbeError:
    return ProbeError(f"ended with {crash.returncode}", remedy="")


def workers(workdir: Path) -> list[psutil.Process]:
    """Processes that have a file of the child open: it, and what stands for it."""
    found = []
    for process in psutil.process_iter():
        try:
            opened = process.pid != os.getpid() and process.open_files()
            if any(Path(file.path).parent == workdir for file in opened or ()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_what_stands_for_it(
    tiny_llama: Path, tmp_path: Path, number: signal.Signals
) -> None:
    long, workdir = task(tiny_llama, "hf", 64, 500), tmp_path / "work"
    workdir.mkdir()
    write_prompts(long.prompts, workdir / "prompts.safetensors")

    def end(progress: Progress) -> None:
        if progress.fraction > LOAD_FRACTION:  # it samples, and would for minutes
            os.kill(child.pid, number)

    child = ChildProcess(
        "driftscope_probes.engines.run_rollout",
        {
            "model_path": str(tiny_llama),
            "model_name": "tiny",
            "dtype": "bf16",
            "prompts": str(workdir / "prompts.safetensors"),
            "sampling": long.sampling.model_dump(),
            "engine": long.engine.model_dump(),
            "started": time.time(),
        },
        workdir,
        explain_crash=_explain,
        on_progress=end,
    )
    with pytest.raises(ProbeError, match=f"ended with {-number}"):
        child.wait()
    deadline = time.monotonic() + PATIENCE_S
    while left := workers(workdir):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
