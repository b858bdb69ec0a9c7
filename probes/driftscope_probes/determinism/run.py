"""The determinism probe: every axis, at every dtype and choice of kernels, on a real engine.

In: a DeterminismRequest. Out: the report.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftscope_probes.determinism.axes.base import Axis
from driftscope_probes.determinism.axes.registry import AXIS
from driftscope_probes.determinism.batch import Plan, Value, not_applicable
from driftscope_probes.determinism.report import (
    AxisReport,
    DeterminismReport,
    Subject,
    replay_command,
)
from driftscope_probes.determinism.request import AxisName, DeterminismRequest
from driftscope_probes.determinism.run_axis import AxisRun, NotExercised
from driftscope_probes.device.environment import environment
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.server_logprobs import gap_sentences
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.sessions.runners import EngineRunner, Memory, Runner, ServerRunner
from driftscope_probes.engines.settings import EngineSettings, Kernels, available_cores
from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.explain.batch_explanation import BatchExplanation, explain_batch
from driftscope_probes.models.fetch import resolve
from driftscope_probes.progress import Progress, ProgressSink, discard, scaled

SCHEMA_VERSION = "1"
#: Fraction of the whole at which the model and the prompts are ready.
PREPARED = 0.05
#: Longest prompt of the axes that cut prompts of their own length.
LONGEST_PROMPT = 320
#: Axes whose values are batch sizes, and the largest batch of those that have their own.
SIZED_AXES = (
    *("run_to_run", "batch_size", "seeded_sampling"),
    *("sglang_single", "sglang_mixed", "sglang_prefix"),
)
LEAST_ROWS_AT_ONCE = 32


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`model_path`: folder of the model, or null."""
    folder = request.get("model_path")
    asked = DeterminismRequest(**request["request"])
    report = run_determinism(asked, workdir, progress, Path(folder) if folder else None)
    return report.to_dict()


def run_determinism(
    request: DeterminismRequest,
    workdir: Path,
    progress: ProgressSink,
    model_path: Path | None = None,
) -> DeterminismReport:
    """Raises the first axis's ProbeError if nothing at all could be run."""
    started = time.monotonic()
    name = str(model_path) if model_path else request.model
    model = resolve(name, progress=scaled(progress, 0.0, PREPARED))
    _check_context(request, model.max_context)
    progress(Progress("preparing prompts", PREPARED))
    from driftscope_probes.tokenization import prompt_text

    text = prompt_text(model.path)
    runner = open_runner(request, model.path, workdir)
    try:
        part = scaled(progress, PREPARED, 1.0)
        results = run_axes(request, text, runner, part)
    finally:
        runner.close()
    if request.explain:
        results = [
            _explained(axis, request, text, model.path, workdir, progress) for axis in results
        ]
    return DeterminismReport(
        schema_version=SCHEMA_VERSION,
        kind="determinism",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.facts(request.model),
        request=DeterminismRequest(**request.model_dump()),  # with every default
        axes=results,
        engines=runner.engines,
        environment=environment(),
        timing={"total_s": time.monotonic() - started, "processes": runner.processes},
        notes=[*gap_sentences(runner.gaps), *_notes(request)],
    )


#: Most rows that are run alone and together: an onset beyond them is not explained.
MOST_EXPLAINED_ROWS = 64


def _explained(
    axis: AxisReport,
    request: DeterminismRequest,
    text: Sequence[int],
    model: Path,
    workdir: Path,
    progress: ProgressSink,
) -> AxisReport:
    """With the ops that make a batch differ, where it does and run to run does not."""
    if axis.axis != "batch_size" or axis.verdict != "differs" or axis.onset is None:
        return axis
    rows = axis.onset.differs_from
    if not isinstance(rows, int) or rows > MOST_EXPLAINED_ROWS:
        return axis
    progress(Progress(f"explaining {axis.dtype} {axis.kernels} batch_size", 1.0))
    dtype = next(one for one in request.engine_dtypes if one == axis.dtype)
    kernels = next(one for one in request.chosen_kernels if one == axis.kernels)
    setup = _setup(request, dtype, kernels)
    lengths = [request.prompt_tokens[i % len(request.prompt_tokens)] for i in range(rows)]
    prompts = [list(text[i : i + length]) for i, length in enumerate(lengths)]
    folder = workdir / f"explanation-{axis.dtype}-{axis.kernels}"
    try:
        found = explain_batch(model, setup, prompts, folder, discard)
    except ProbeError as error:
        # What was measured is not lost because it could not be explained.
        found = BatchExplanation.failed(error)
    return axis.model_copy(update={"explanation": found})


def open_runner(
    request: DeterminismRequest, model: Path, workdir: Path
) -> EngineRunner | ServerRunner:
    """A runner of our own processes, or of the server at the request's address."""
    if request.engine == "vllm-server":
        return ServerRunner(model)
    return EngineRunner(model, workdir)


def run_axes(
    request: DeterminismRequest, text: Sequence[int], runner: Runner, progress: ProgressSink
) -> list[AxisReport]:
    """Every axis at every dtype and choice of kernels. Raises ProbeError if none could run."""
    memory = Memory(runner)
    subjects = [
        (axis, dtype, kernels)
        for dtype in request.engine_dtypes
        for kernels in request.chosen_kernels
        for axis in request.chosen_axes
    ]
    results: list[AxisReport] = []
    failures = []
    for index, (axis, dtype, kernels) in enumerate(subjects):
        part = scaled(progress, index / len(subjects), (index + 1) / len(subjects))
        subject = Subject(axis, dtype, kernels, request.engine)
        plan = Plan(request, _setup(request, dtype, kernels), tuple(text))
        try:
            unrepeatable_from = _unrepeatable_from(subject, results)
            results.append(_run_axis(axis, subject, plan, memory, part, unrepeatable_from))
        except NotExercised as error:
            # The remedy belongs here: nothing has failed that would state it elsewhere.
            reason = f"{error.message}: {error.remedy}".removesuffix(".")
            results.append(AxisReport.not_run(subject, reason))
        except ProbeError as error:
            failures.append(error)
            results.append(AxisReport.not_run(subject, error.message))
    if failures and all(result.verdict == "not_run" for result in results):
        raise failures[0]
    return results


def _unrepeatable_from(subject: Subject, found: Sequence[AxisReport]) -> int | None:
    """Rows from which run_to_run differs for the same dtype and kernels; it is the first axis."""
    for one in found:
        same = (one.dtype, one.kernels) == (subject.dtype, subject.kernels)
        if same and one.axis == "run_to_run" and one.onset is not None:
            assert isinstance(one.onset.differs_from, int), "its values are numbers of rows"
            return one.onset.differs_from
    return None


def _run_axis(
    name: AxisName,
    subject: Subject,
    plan: Plan,
    runner: Runner,
    progress: ProgressSink,
    unrepeatable_from: int | None,
) -> AxisReport:
    reason = not_applicable(name, plan)
    if reason is not None:
        return AxisReport.not_run(subject, reason)
    axis: Axis = AXIS[name]
    request = plan.request
    values: tuple[Value, ...] = tuple(request.values or axis.values(plan))
    done = 0

    def on_cell(value: Value) -> None:
        nonlocal done
        stage = f"{subject.dtype} {subject.kernels} {name}"
        progress(Progress(stage, min(1.0, done / (len(values) - 1)), f"{axis.setting} {value}"))
        done += 1

    run = AxisRun(axis, plan, runner, on_cell)
    result = run.result(subject, values, request.bisect, unrepeatable_from)
    if result.onset is None:
        return result
    smallest = (values[0], result.onset.differs_from)
    threads = plan.setup.engine.threads or available_cores()
    command = replay_command(request, subject, smallest, threads)
    return result.model_copy(update={"replay": command})


def _setup(request: DeterminismRequest, dtype: Dtype, kernels: Kernels) -> Setup:
    engine = EngineSettings(
        kind=request.engine,
        kernels=kernels,
        threads=None if request.engine == "vllm-server" else request.threads or available_cores(),
        attention_split_kv=request.attention_split_kv,
        prefix_caching=True if request.engine == "vllm" else None,
        batch_size=_rows_at_once(request),
        server_url=request.server_url,
        server_model=request.server_model,
    )
    return Setup(dtype, engine, context=context(request))


def _rows_at_once(request: DeterminismRequest) -> int:
    """Room for the largest batch of any axis: a batch cut in two would test less than claimed."""
    named = request.values if request.values and request.chosen_axes[0] in SIZED_AXES else []
    sizes = [value for value in named if isinstance(value, int)]
    return max(LEAST_ROWS_AT_ONCE, *request.batch_sizes, *request.rows_repeated, *sizes)


def context(request: DeterminismRequest) -> int:
    """Longest sequence of any axis in tokens, the same for all: it is a setting of the engine."""
    return max(*request.prompt_tokens, LONGEST_PROMPT) + request.max_tokens + 1


def _check_context(request: DeterminismRequest, most: int) -> None:
    if context(request) > most:
        raise RequestError(
            f"prompts of up to {context(request) - request.max_tokens - 1} tokens and "
            f"{request.max_tokens} more exceed the model's context of {most}.",
            remedy="lower prompt_tokens or max_tokens, or take another model.",
        )


def _notes(request: DeterminismRequest) -> list[str]:
    notes = {
        "vllm-server": "The server forms its batches itself: rows that were sent together need "
        "not have run together, and others may have shared its batches.",
        "hf": "transformers pads a batch on the left: a row's batch also decides its padding.",
    }
    return [notes[request.engine]] if request.engine in notes else []
