"""Reports to look at: a paired grid, determinism axes, kernel verdicts and two weeks of nights.

In: a service. Out: the reports in its store, in the JSON that probes write; seeded, the same every
time. Nothing was measured for them: they show pages, not kernels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from driftscope_probes.mismatch import compare_pair, profiles_of_pair
from driftscope_probes.paired.request import PairedRequest
from driftscope_probes.trace import Pair, Trace, TraceMeta
from driftscope_service.experiments.record import store_report
from driftscope_service.jobs.store import JobRepository
from driftscope_service.service import Service

MODEL = "smollm2-135m"
CREATED_AT = "2026-11-22T12:00:00+00:00"
ENVIRONMENT = {
    "python": "3.11.2",
    "packages": {"driftscope": "0.1.0", "torch": "2.13.0", "vllm": "0.32.0"},
    "hardware": {"cpu": "a CPU with AVX-512", "cores": 2},
    "variables": {"OMP_NUM_THREADS": "2"},
}
#: Spread of Δ of a pair of formats, about what rounding gives.
_SPREADS = {"bf16": 0.03, "fp16": 0.004, "fp32": 2e-6}
NIGHTS = 14


def store(service: Service, report: dict[str, Any], model: str | None = None) -> str:
    """The id of the report."""
    kind = report["kind"]
    with tempfile.TemporaryDirectory() as workdir:
        return store_report(
            report,
            kind=service.kinds[kind],
            model=model,
            workdir=Path(workdir),
            job_of=lambda connection: JobRepository(connection).add_succeeded(kind, model, {}).id,
            database=service.database,
            files=service.report_files,
        ).report_id


def store_all(service: Service) -> dict[str, str]:
    """The id of the last report by kind."""
    ids = {
        "paired": store(service, paired_report(), MODEL),
        "kernels": store(service, kernels_report()),
        "determinism": store(service, determinism_report(), MODEL),
    }
    for number in range(NIGHTS):
        ids["nightly"] = store(service, night(number))
    return ids


def paired_report(
    engine_dtypes: Sequence[str] = ("bf16", "fp16", "fp32"),
    trainer_dtypes: Sequence[str] = ("bf16", "fp16", "fp32"),
) -> dict[str, Any]:
    request = PairedRequest(
        model=MODEL,
        prompts=8,
        engine_dtypes=list(engine_dtypes),
        trainer_dtypes=list(trainer_dtypes),
    ).model_dump(mode="json")
    figure = {
        **{"name": "abs_diff_mean bf16/fp16", "value": 7.47, "interval": [6.34, 9.03]},
        **{"published": "about 8", "source": "Qi et al. (arXiv 2510.26788)", "undefined": None},
    }
    return {
        "schema_version": "1",
        "kind": "paired",
        "created_at": CREATED_AT,
        "model": {"name": MODEL, "vocab_size": 49152},
        "request": request,
        "reading": {
            "sentence": "FP16 on both sides is 7.5 (6.3 to 9.0) times closer than BF16 in mean |Δ| "
            "(published: about 8).",
            "figures": [figure],
        },
        "grid": [_cell(engine, mode) for engine in engine_dtypes for mode in trainer_dtypes],
        "headroom": None,
        "gradients": None,
        "notes": [
            "Intervals come from resampling 8 sequences; below about 20 they are too narrow."
        ],
        "environment": ENVIRONMENT,
        "timing": {
            **{"engine_load_s": 54.0, "generate_s": 28.0, "trainer_s": 31.5},
            **{"analysis_s": 0.8, "total_s": 115.3},
        },
    }


def _cell(engine: str, mode: str) -> dict[str, Any]:
    random = np.random.default_rng([len(engine), len(mode), ord(engine[0]), ord(mode[-1])])
    sequences, length = 8, 96
    tokens = sequences * length
    surprise = random.exponential(0.8, tokens)
    rollout = -surprise.astype(np.float32)
    spread = max(_SPREADS[engine], _SPREADS[mode])
    trainer = np.minimum(rollout + random.normal(0.0, spread * np.sqrt(surprise)), 0.0)
    limits = np.arange(0, tokens + 1, length, dtype=np.int64)
    sides = (
        TraceMeta("rollout", MODEL, engine, "vllm", "0.32.0"),
        TraceMeta("trainer", MODEL, mode, "trainer", "0.1.0"),
    )
    ids = random.integers(0, 49152, tokens).astype(np.int32)
    mask = np.ones(tokens, dtype=np.bool_)
    pair = Pair(
        Trace(ids, rollout, limits, mask, sides[0]),
        Trace(ids.copy(), trainer.astype(np.float32), limits.copy(), mask.copy(), sides[1]),
    )
    return {
        "engine_dtype": engine,
        "trainer_dtype": mode,
        "comparison": compare_pair(pair, resamples=50).to_dict(),
        "diagnosis": None,
        "profiles": profiles_of_pair(pair).to_dict(),
        "rollout": sides[0].to_dict(),
        "trainer": sides[1].to_dict(),
        "pair_file": None,
    }


_AXES = (
    *("run_to_run", "fresh_process", "batch_size", "position", "neighbours", "arrival_order"),
    *("prefix_cache", "chunked_prefill", "decode_vs_prefill", "threads", "preemption"),
)
#: With stock kernels; the invariant ones keep all but the threads of one.
_DIFFERING = {"batch_size": 2, "chunked_prefill": 16, "decode_vs_prefill": "decode"}


def determinism_report(
    kernels: Sequence[str] = ("stock", "invariant"), dtypes: Sequence[str] = ("bf16", "fp32")
) -> dict[str, Any]:
    return {
        "schema_version": "1",
        "kind": "determinism",
        "created_at": CREATED_AT,
        "model": {"name": MODEL},
        "request": {"model": MODEL, "axes": list(_AXES)},
        "axes": [_axis(axis, dtype, one) for one in kernels for dtype in dtypes for axis in _AXES],
        "environment": ENVIRONMENT,
        "timing": {"total_s": 212.4},
        "notes": [],
    }


def _axis(name: str, dtype: str, kernels: str) -> dict[str, Any]:
    ran = name != "preemption"
    differs = kernels == "stock" and name in _DIFFERING
    onset = {
        "setting": name,
        "equal_up_to": 1,
        "differs_from": _DIFFERING.get(name),
        "tested": [1, 2, 4, 8],
    }
    first = {"cell": _DIFFERING.get(name), "sequence": "prompt 3", "token": 17}
    equal = {
        **{"bitwise_equal_tokens": 1.0, "bitwise_equal_logprobs": 1.0, "unique_outputs": 1},
        **{"max_abs_diff": 0.0, "max_ulps": 0, "first_differing_token": None},
    }
    other = {
        **{"bitwise_equal_tokens": 0.938, "bitwise_equal_logprobs": 0.412, "unique_outputs": 3},
        **{"max_abs_diff": 0.0413, "max_ulps": 1_204, "first_differing_token": first},
    }
    found = other if differs else equal if ran else dict.fromkeys(equal)
    replay = f"driftscope probe determinism --model {MODEL} --axes {name} --dtypes {dtype}"
    return {
        **{"axis": name, "dtype": dtype, "kernels": kernels, "engine": "vllm"},
        "verdict": "differs" if differs else "equal" if ran else "not_run",
        "reason": None if ran else "the cache never filled: nothing was preempted",
        **found,
        "outputs": 8 if ran else None,
        "tokens": 512 if ran else None,
        "onset": onset if differs else None,
        "replay": f"{replay} --seed 0" if differs else None,
        "cells": [{"value": 1, **equal}, {"value": _DIFFERING[name], **other}] if differs else [],
    }


#: (target, op, implementation), and whether its bits depend on the batch.
_KERNELS = (
    ("driftscope", "linear", "fixed_order", False),
    ("driftscope", "rms_norm", "fixed_order", False),
    ("driftscope", "log_softmax", "fixed_order", False),
    ("torch", "linear", "eager", True),
    ("torch", "rms_norm", "eager", False),
    ("torch", "log_softmax", "eager", False),
    ("vllm", "rms_norm", "native", False),
)


def kernels_report(
    dtypes: Sequence[str] = ("bf16", "fp32"), threads: Sequence[int] = (1, 2), caught: int = 9
) -> dict[str, Any]:
    return {
        "schema_version": "1",
        "kind": "kernels",
        "created_at": CREATED_AT,
        "request": {
            **{"targets": None, "ops": None, "dtypes": list(dtypes), "threads": list(threads)},
            **{"quick": True, "seed": 0},
        },
        "verdicts": [
            _verdict(kernel, dtype, count)
            for kernel in _KERNELS
            for dtype in dtypes
            for count in threads
        ],
        "planted": {"caught": caught, "total": 9, "missed": ["split_k"] * (9 - caught)},
        "skipped": [{"target": "triton", "reason": "there is no GPU"}],
        "environment": ENVIRONMENT,
    }


def _verdict(kernel: tuple[str, str, str, bool], dtype: str, threads: int) -> dict[str, Any]:
    target, op, implementation, depends = kernel
    proved = target == "driftscope"
    refuted = depends and dtype == "bf16"
    reason = "the same order of additions at every shape that was probed"
    if refuted:
        reason = "the path for the last rows of a batch adds in another order"
    elif not proved:
        reason = "no difference in 4,096 calls"
    return {
        **{"target": target, "op": op, "implementation": implementation},
        **{"dtype": dtype, "threads": threads},
        "verdict": "REFUTED" if refuted else "PROVED" if proved else "NOT_REFUTED",
        "reason": reason,
        "detection_rate": None if refuted else 1.0 if proved else 0.98,
        "counterexample": _counterexample(target, op, implementation, dtype) if refuted else None,
    }


def _counterexample(target: str, op: str, implementation: str, dtype: str) -> dict[str, Any]:
    asked = f'{{"target":"{target}","op":"{op}","implementation":"{implementation}"}}'
    return {
        **{"cause": "M-remainder path", "evidence": "batch sizes 1, 2, 3 differ from 65"},
        **{"axis": "batch_size", "k": 64, "n": 4, "inputs": "normal", "row": 0},
        **{"left": {"count": 65, "row": 0}, "right": {"count": 1, "row": 0}},
        **{"rows_differ": 1, "rows_compared": 1},
        "difference": {
            **{"index": 2, "left": -2.515625, "right": -2.5, "ulps": 1, "elements": 2, "of": 4},
            **{"left_bits": "0xc021", "right_bits": "0xc020"},
        },
        "found_at": {"k": 576, "n": 1536},
        "replay": f"driftscope kernels check --replay '{asked}'",
    }


_FIRST_NIGHT = datetime(2026, 11, 8, 3, 0, tzinfo=UTC)
_ITEMS = (
    *((f"kernel/driftscope/{op}/bf16/t2", "PROVED") for op in ("linear", "rms_norm", "rope")),
    *((f"kernel/torch/{op}/bf16/t2", "REFUTED") for op in ("linear", "softmax")),
    *((f"kernel/vllm/{op}/bf16/t2", "NOT_REFUTED") for op in ("rms_norm", "silu_and_mul")),
    (f"engine/{MODEL}/vllm/stock/bf16/batch_size", "differs"),
    (f"engine/{MODEL}/vllm/invariant/bf16/batch_size", "equal"),
    (f"engine/{MODEL}/vllm/invariant/bf16/prefix_cache", "equal"),
)
#: From this night on with another PyTorch; what came of it is put right two nights later.
UPGRADE, MENDED = 9, 11
_UPGRADED = {"kernel/vllm/rms_norm/bf16/t2": "REFUTED", _ITEMS[8][0]: "differs"}
_ADDED = _ITEMS[9][0]


def night(number: int) -> dict[str, Any]:
    """`number` from 0."""
    items = [
        _item(name, expected, number)
        for name, expected in _ITEMS
        if not (name == _ADDED and number < UPGRADE)
    ]
    started = _FIRST_NIGHT + timedelta(days=number)
    changed = any(item["changed"] in ("better", "worse") for item in items)
    missing = any(item["verdict"] == "NOT_RUN" for item in items)
    unexpected = [
        item for item in items if not item["as_expected"] and item["verdict"] != "NOT_RUN"
    ]
    upgraded = {"kind": "version", "name": "torch", "before": "2.12.0", "after": "2.13.0"}
    return {
        "schema_version": "1",
        "kind": "nightly",
        "exit_code": 1 if changed or unexpected else 2 if missing else 0,
        "started_at": started.isoformat(),
        "finished_at": (started + timedelta(minutes=9)).isoformat(),
        "config": {"name": "cpu", "sha256": "0" * 64},
        "key": {"hardware": {"cpu": "a CPU"}, "versions": {"torch": "2.13.0"}},
        "alarms": [
            f"{one['id']}: {one['verdict']}, {one['expected']} expected" for one in unexpected
        ],
        "items": items,
        "changed_environment": [upgraded] if number == UPGRADE else [],
        "environment": {**ENVIRONMENT, "platform": "Linux", "libraries": {}, "kernel_packages": {}},
        "resumed": 0,
        "budget_s": 900.0,
        "notes": [],
    }


def _verdict_of(name: str, expected: str, number: int) -> str | None:
    """None before the item was there."""
    if number < 0 or (name == _ADDED and number < UPGRADE):
        return None
    if name == "kernel/vllm/silu_and_mul/bf16/t2" and number == 4:
        return "NOT_RUN"
    if UPGRADE <= number < MENDED:
        return _UPGRADED.get(name, expected)
    return expected


def _item(name: str, expected: str, number: int) -> dict[str, Any]:
    verdict = _verdict_of(name, expected, number)
    previous = _verdict_of(name, expected, number - 1)
    assert verdict is not None
    changed = None
    if previous is None:
        changed = "new"
    elif "NOT_RUN" not in (verdict, previous) and verdict != previous:
        changed = "better" if verdict == expected else "worse"
    ran = verdict != "NOT_RUN"
    return {
        **{"id": name, "kind": name.partition("/")[0], "expected": expected, "verdict": verdict},
        **{"previous": previous, "changed": changed, "as_expected": verdict == expected},
        "seconds": 12.5,
        "settings": {},
        "detail": {} if ran else {"reason": "the budget of the night was used up"},
        "replay": f"driftscope nightly --only '{name}'" if ran else None,
    }
