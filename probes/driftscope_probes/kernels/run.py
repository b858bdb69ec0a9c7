"""Process entry of the kernel checker: request file in, verdicts out.

    python -m driftscope_probes.kernels.run WORKDIR

request.json: {"action": "list" | "check" | "replay", "targets", "ops", "dtypes", "threads", "axes"
(lists, null: all), "quick", "seed", "spec" (of a replay)}. Result: the JSON of `kernels check`. Or
{"action": "bench", "groups", "dtypes" (lists, null: all), "threads", "rounds" (null: the usual)},
with the JSON of `kernels bench`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.device.environment import environment
from driftscope_probes.errors import RequestError
from driftscope_probes.kernels.report import SCHEMA
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.nightly.item import KERNEL_AXES
from driftscope_probes.progress import Progress, ProgressSink


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """The JSON of `kernels check`, with what was asked and when."""
    asked = KernelsRequest(**request["request"]).model_dump(mode="json")
    began = datetime.now(UTC)
    result = run({"action": "check", **asked}, workdir, progress)
    return {
        "schema_version": SCHEMA,
        "kind": "kernels",
        "created_at": began.isoformat(timespec="seconds"),
        "request": asked,
        **result,
    }


def run(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    action = request["action"]
    if action == "list":
        return {"kernels": [_listed(kernel) for kernel in _kernels(request)], **_skipped()}
    if action == "check":
        return _check(request, progress)
    if action == "replay":
        return _replay(request["spec"])
    if action == "bench":
        return _bench(request, progress)
    raise RequestError(f"unknown action {action!r}.", remedy="use list, check, replay or bench.")


def _check(request: Mapping[str, Any], progress: ProgressSink) -> dict[str, Any]:
    progress(Progress("importing torch and the kernels", 0.0))
    from driftscope_kernels.check.cases.case import DTYPES
    from driftscope_kernels.check.run_check import Plan, default_threads, run_check
    from driftscope_kernels.check.static.static_kernels import StaticKernel

    plan = Plan(
        dtypes=tuple(DTYPES[name] for name in _known("dtype", request["dtypes"], list(DTYPES))),
        threads=tuple(request["threads"] or default_threads()),
        quick=bool(request["quick"]),
        seed=int(request["seed"]),
        axes=None
        if request.get("axes") is None
        else frozenset(_known("axis", request["axes"], KERNEL_AXES)),
    )

    def tell(stage: str, fraction: float) -> None:
        progress(Progress(stage, fraction))

    chosen = _kernels(request)
    static = [kernel for kernel in chosen if isinstance(kernel, StaticKernel)]
    run = [kernel for kernel in chosen if not isinstance(kernel, StaticKernel)]
    report = run_check(run, plan, tell, static)
    return {**report.to_dict(), "environment": environment(), **_skipped()}


def _replay(spec: Mapping[str, Any]) -> dict[str, Any]:
    from driftscope_kernels.check import planted
    from driftscope_kernels.check.cases.op_cases import UnknownOpError
    from driftscope_kernels.check.placements.placement import thread_count
    from driftscope_kernels.check.run_check import replay
    from driftscope_kernels.check.verdict import ReplaySpecError, mismatch_dict, read_replay_spec
    from driftscope_kernels.registry import kernels

    try:
        subject, axis, trial, left, right = read_replay_spec(dict(spec))
    except ReplaySpecError as error:
        raise RequestError(str(error), remedy="copy the whole replay command.") from error
    name = f"{subject.target}/{subject.op}/{subject.implementation}"
    found = [kernel for kernel in (*kernels(), *planted.kernels()) if kernel.name == name]
    if not found:
        raise RequestError(f"no kernel {name} here.", remedy="see driftscope kernels list.")
    try:
        with thread_count(subject.threads):
            mismatch = replay(found[0], axis, trial, left, right)
    except UnknownOpError as error:
        raise RequestError(str(error), remedy="see driftscope kernels list.") from error
    return {
        "kernel": name,
        "reproduced": mismatch is not None,
        "mismatch": None if mismatch is None else mismatch_dict(mismatch),
        "environment": environment(),
    }


def _bench(request: Mapping[str, Any], progress: ProgressSink) -> dict[str, Any]:
    from driftscope_kernels.check.cases.case import DTYPES
    from driftscope_kernels.speed.run_speed import DEFAULT_ROUNDS, GROUPS, run_speed

    report = run_speed(
        _known("group", request["groups"], list(GROUPS)),
        _known("dtype", request["dtypes"], list(DTYPES)),
        int(request["threads"]),
        int(request["rounds"] or DEFAULT_ROUNDS),
        lambda stage, fraction: progress(Progress(stage, fraction)),
    )
    return {**report.to_dict(), "environment": environment()}


def _kernels(request: Mapping[str, Any]) -> list[Any]:
    """The requested kernels: registered ones in their order, then those that are read."""
    from driftscope_kernels.check.cases.op_cases import OP_CASES
    from driftscope_kernels.check.static.static_kernels import StaticKernel, static_kernels
    from driftscope_kernels.registry import kernels

    known: list[Any] = [*kernels(), *static_kernels()]
    targets = _known("target", request["targets"], sorted({kernel.target for kernel in known}))
    ops = _known("op", request["ops"], sorted({kernel.op for kernel in known}))
    chosen = [kernel for kernel in known if kernel.target in targets and kernel.op in ops]
    strange = [
        kernel.name
        for kernel in chosen
        if kernel.op not in OP_CASES and not isinstance(kernel, StaticKernel)
    ]
    if strange:
        raise RequestError(
            f"the checker does not know the inputs of {', '.join(strange)}.",
            remedy=f"register them under one of {', '.join(OP_CASES)}.",
        )
    if not chosen:
        raise RequestError(
            f"no kernel of {', '.join(targets)} computes {', '.join(ops)}.",
            remedy="see driftscope kernels list.",
        )
    return chosen


def _known(what: str, given: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise RequestError(
            f"unknown {what} {', '.join(unknown)}.", remedy=f"known here: {', '.join(known)}."
        )
    return list(given or known)


def _listed(kernel: Any) -> dict[str, Any]:
    from driftscope_kernels.check.cases.case import DTYPE_NAMES

    return {
        "target": kernel.target,
        "op": kernel.op,
        "implementation": kernel.implementation,
        "dtypes": [name for dtype, name in DTYPE_NAMES.items() if dtype in kernel.dtypes],
        "note": kernel.note,
    }


def _skipped() -> dict[str, Any]:
    from driftscope_kernels.check.static import static_kernels
    from driftscope_kernels.targets import torch_ops, vllm_ops

    reasons = {
        "vllm": vllm_ops.missing(),
        "torch compiled": torch_ops.missing_compiler(),
        "triton": static_kernels.missing(),
    }
    return {"skipped": [{"target": t, "reason": r} for t, r in reasons.items() if r is not None]}


if __name__ == "__main__":
    child_main(run)
