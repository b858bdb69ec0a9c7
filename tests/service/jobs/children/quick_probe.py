"""A probe without a model, for tests of the service: it does what its first prompt says.

    succeed | sleep | gate | refuse | crash | leave | family | widow | heir | babble | nonsense
    leak | hold

Runs as the real one does: `python -m quick_probe WORKDIR`, through child_main.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.errors import EngineError
from driftscope_probes.progress import Progress, ProgressSink, Told

#: Far longer than any test waits: what still runs was not stopped.
FOREVER_S = 600
#: Long enough that a kill hits some of them.
HOLD_S = 0.3
#: A leak that nobody ends stops here.
MOST_LEAKED, LEAK = 2**31, 2**24


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    if request["kind"] == "kernels":
        return _kernels_report(request["request"])
    if request["kind"] == "determinism":
        return _determinism_report(request["request"])
    if request["kind"] == "nightly":
        return _nightly_report()
    if request["kind"] == "diagnose":
        return _diagnose_report(request, progress)
    if request["kind"] == "explain":
        return _explain_report(request, progress)
    paired = request["request"]
    act = paired["prompts"][0]
    print(f"quick probe: {act}", flush=True)
    print(f"on device {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    progress(Progress(act, 0.25, "of a quick probe"))
    if act == "sleep":
        time.sleep(FOREVER_S)
    elif act == "gate":
        while not (workdir / "go").exists():
            time.sleep(0.02)
    elif act == "leak":
        leaked = [bytearray(os.urandom(1) * LEAK) for _ in range(MOST_LEAKED // LEAK) if _rest()]
        time.sleep(FOREVER_S + len(leaked))
    elif act == "refuse":
        raise EngineError("the engine is out of order.", remedy="repair it.")
    elif act == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "leave":
        print("the last line of the log", flush=True)
        os._exit(3)
    elif act in ("family", "widow", "heir"):
        _start_grandchild(workdir, holds_pipe=act == "heir")
        if act != "family":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(FOREVER_S)
    elif act == "babble":
        for step in range(2000):
            progress(Progress("babbling", step / 2000, str(step)))
        progress(Progress("last words", 0.99))
        time.sleep(FOREVER_S)
    elif act == "nonsense":
        return {"kind": "paired"}
    elif act == "hold":
        _hold()
    return _report(request, workdir)


def _hold() -> None:
    """Works for a moment, and notes it where another process works for the same job."""
    job = os.environ["DRIFTSCOPE_JOB_ID"]
    locks = Path(os.environ["KILL_ROUNDS_LOCKS"])
    with (locks / job).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (locks / f"{job}.twice").write_text(f"process {os.getpid()}")
        time.sleep(HOLD_S)


def _rest() -> bool:
    time.sleep(0.02)
    return True


def _explain_report(request: Mapping[str, Any], progress: ProgressSink) -> dict[str, Any]:
    """The recording, as of the request."""
    recording = files("driftscope_service.experiments.explain") / "recordings" / "explain.json"
    report: dict[str, Any] = json.loads(recording.read_text(encoding="utf-8"))
    progress(Told("comparing", 0.5, "", {"why": "every op", "found": report["ops"][0]["why"]}))
    report["notes"] = [f"found at {request['model_path']}, {request['trainer_model_path']}"]
    return {**report, "request": request["request"], "model": {"name": request["request"]["model"]}}


def _diagnose_report(request: Mapping[str, Any], progress: ProgressSink) -> dict[str, Any]:
    """The recording, as of the step that the request brings; its steps are told on the way."""
    recording = files("driftscope_service.experiments.diagnose") / "recordings" / "diagnose.json"
    report: dict[str, Any] = json.loads(recording.read_text(encoding="utf-8"))
    for step in report["steps"]:
        progress(Told(step["title"], 0.5, "", {"why": step["reason"]}))
        progress(Told(step["title"], 0.6, "", {"found": f"it was {step['outcome']}"}))
    data = request.get("data")
    brought = None if data is None else data["recorded"]
    report["notes"] = [f"brought {0 if brought is None else len(brought['prompts'])} prompts"]
    return {**report, "source": request.get("source"), "request": request["request"]}


def _kernels_report(asked: Mapping[str, Any]) -> dict[str, Any]:
    """One verdict per target and number of threads: torch is refuted, all others are not."""
    if asked["ops"] == ["crash"]:
        os.kill(os.getpid(), signal.SIGKILL)
    verdicts = []
    for target in asked["targets"]:
        for threads in asked["threads"]:
            refuted = target == "torch"
            verdicts.append(
                {
                    "target": target,
                    "op": asked["ops"][0],
                    "implementation": "eager",
                    "dtype": asked["dtypes"][0],
                    "threads": threads,
                    "verdict": "REFUTED" if refuted else "PROVED",
                    "reason": "M-remainder path: <b>1</b>" if refuted else "one reduction tree",
                    "detection_rate": None if refuted else 1.0,
                    "counterexample": COUNTEREXAMPLE if refuted else None,
                }
            )
    return {
        "schema_version": "1",
        "kind": "kernels",
        "created_at": "2026-11-22T12:00:00+00:00",
        "request": asked,
        "verdicts": verdicts,
        "planted": {"caught": 9 - asked["seed"], "total": 9, "missed": ["a"] * asked["seed"]},
        "skipped": [{"target": "vllm", "reason": "vllm is not installed"}],
        "environment": {"packages": {"driftscope": "0"}, "hardware": {"cores": 1}},
    }


COUNTEREXAMPLE = {
    **{"cause": "M-remainder path", "evidence": "batch sizes 1, 2, 3 differ from 65"},
    **{"axis": "batch_size", "k": 4, "n": 4, "inputs": "normal", "row": 0},
    **{"left": {"count": 2}, "right": {"count": 1}, "rows_differ": 1, "rows_compared": 1},
    "difference": {
        **{"index": 0, "left": -2.5, "right": -2.25, "ulps": 1, "elements": 2, "of": 4},
        **{"left_bits": "0xc017b3eb", "right_bits": "0xc017b3ea"},
    },
    "found_at": {"k": 64, "n": 48},
    "replay": 'driftscope kernels check --replay \'{"target":"torch"}\'',
}


def _determinism_report(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Of every axis that was asked for; the batch size is seen, preemption is not run."""
    return {
        "schema_version": "1",
        "kind": "determinism",
        "created_at": "2026-11-22T12:00:00+00:00",
        "model": {"name": asked["model"]},
        "request": dict(asked),
        "axes": [_axis(name, asked) for name in asked["axes"]],
        "environment": {"packages": {"driftscope": "0"}, "hardware": {"cores": 1}},
        "timing": {"total_s": 0.1},
        "notes": [],
    }


def _axis(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    differs, ran = name == "batch_size", name != "preemption"
    equal = 0.75 if differs else 1.0
    return {
        "axis": name,
        "dtype": asked["engine_dtypes"][0],
        "kernels": "stock",
        "engine": asked["engine"],
        "verdict": "not_run" if not ran else "differs" if differs else "equal",
        "reason": None if ran else "no <b>pressure</b>",
        "bitwise_equal_tokens": equal if ran else None,
        "bitwise_equal_logprobs": equal if ran else None,
        "unique_outputs": (2 if differs else 1) if ran else None,
        "outputs": 6 if ran else None,
        "tokens": 96 if ran else None,
        "max_abs_diff": (0.125 if differs else 0.0) if ran else None,
        "max_ulps": (7 if differs else 0) if ran else None,
        "first_differing_token": None,
        "onset": {"setting": name, "equal_up_to": 1, "differs_from": 2, "tested": [1, 2]}
        if differs
        else None,
        "replay": "driftscope probe determinism --axes batch_size" if differs else None,
        "cells": [],
    }


def _nightly_report() -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {
            "id": "kernel/torch/linear/fp32/t1",
            "kind": "kernel",
            "expected": "REFUTED",
            "verdict": "REFUTED",
            "previous": None,
            "changed": "new",
            "as_expected": True,
            "seconds": 0.5,
            "detail": {},
            "settings": {},
            "replay": "driftscope kernels check --target torch",
        }
    ]
    return {
        "schema_version": "1",
        "kind": "nightly",
        "exit_code": 0,
        "started_at": "2026-11-22T01:00:00+00:00",
        "finished_at": "2026-11-22T01:10:00+00:00",
        "config": {"name": "quick", "sha256": "0" * 64},
        "key": {"hardware": {}, "versions": {}},
        "alarms": [],
        "items": items,
        "changed_environment": [],
        "environment": {"packages": {"driftscope": "0"}, "hardware": {"cores": 1}},
        "resumed": 0,
        "budget_s": 900.0,
        "notes": [],
    }


def _start_grandchild(workdir: Path, *, holds_pipe: bool) -> None:
    """As engines do; one that ignores SIGTERM and, if asked, keeps the progress pipe open."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    code += f"print('ready', flush=True); time.sleep({FOREVER_S})"
    pipe = int(os.environ["DRIFTSCOPE_PROGRESS_FD"])
    grandchild = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        pass_fds=(pipe,) if holds_pipe else (),
    )
    assert grandchild.stdout is not None
    grandchild.stdout.readline()
    (workdir / "grandchild.log.txt").write_text(str(grandchild.pid))


def _report(request: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """A whole report of random numbers; the spread of Δ is the seed, in thousandths."""
    import numpy as np

    from driftscope_probes.mismatch import compare_tokens, profiles_of
    from driftscope_probes.trace import Trace, TraceMeta, both_sides

    paired = request["request"]
    seed = paired["sampling"]["seed"]
    random = np.random.default_rng(seed)
    tokens = np.arange(64, dtype=np.int32)
    rollout = -random.random(64, dtype=np.float32)
    trainer = rollout + (seed * 1e-3 * random.standard_normal(64)).astype(np.float32)
    limits, mask = np.array([0, 32, 64], dtype=np.int64), np.ones(64, dtype=np.bool_)
    grid = []
    for engine_dtype in paired["engine_dtypes"]:
        for mode in paired["trainer_dtypes"]:
            sides = (
                TraceMeta("rollout", paired["model"], engine_dtype, "vllm", "0"),
                TraceMeta("trainer", paired["model"], mode, "trainer", "0"),
            )
            pair = both_sides(
                Trace(tokens.copy(), rollout.copy(), limits.copy(), mask.copy(), sides[0]),
                Trace(tokens.copy(), trainer.copy(), limits.copy(), mask.copy(), sides[1]),
            )
            name = f"pairs/{engine_dtype}--{mode}.safetensors"
            (workdir / "pairs").mkdir(exist_ok=True)
            (workdir / name).write_bytes(b"tensors of this pair")
            grid.append(
                {
                    "engine_dtype": engine_dtype,
                    "trainer_dtype": mode,
                    "comparison": compare_tokens(pair, resamples=10)[0].to_dict(),
                    "diagnosis": None,
                    "profiles": profiles_of(pair).to_dict(),
                    "rollout": sides[0].to_dict(),
                    "trainer": sides[1].to_dict(),
                    "pair_file": name,
                }
            )
    (workdir / "rollout-bf16").mkdir(exist_ok=True)
    (workdir / "rollout-bf16" / "log.txt").write_text("the engine's own words\n")
    (workdir / "rollout-bf16" / "trace.safetensors").write_bytes(bytes(1000))
    return {
        "schema_version": "1",
        "kind": "paired",
        "created_at": "2026-11-22T12:00:00+00:00",
        "model": {
            "name": paired["model"],
            "path_given": request["model_path"],
            "architecture": "LlamaForCausalLM",
            "fingerprint": "0" * 64,
            "vocab_size": 64,
            "max_context": 128,
            "weights_dtype": "bf16",
        },
        "request": paired,
        "reading": {"sentence": "A quick probe says nothing.", "figures": []},
        "grid": grid,
        "headroom": None,
        "gradients": None,
        "notes": [],
        "environment": {
            "python": "3",
            "packages": {},
            "hardware": {},
            "variables": {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE")},
        },
        "timing": {
            "engine_load_s": 0.0,
            "generate_s": 0.0,
            "trainer_s": 0.0,
            "analysis_s": 0.0,
            "total_s": 0.0,
        },
    }


if __name__ == "__main__":
    child_main(run)
