"""Explanation: which op makes the gap between a live engine and a live trainer, and why.

In: an ExplainRequest. Out: the report. Free of torch: the sides live in a child process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftscope_probes.device.environment import environment
from driftscope_probes.explain.conclusion import remedy_of, sentence_of
from driftscope_probes.explain.report import ExplainReport, Parts
from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.models.fetch import resolve
from driftscope_probes.pair_process import explain_pair
from driftscope_probes.progress import Progress, ProgressSink, scaled
from driftscope_probes.prompts import demo_prompts
from driftscope_probes.tokenization import check_context, tokenize

SCHEMA_VERSION: Final = "1"
#: Fraction of the whole at which the child begins.
PREPARED: Final = 0.1


def run_probe(request: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    """`model_path`, `trainer_model_path`: folders that were resolved, or null."""
    report = run_explanation(
        ExplainRequest(**request["request"]),
        workdir,
        progress,
        _path(request.get("model_path")),
        _path(request.get("trainer_model_path")),
    )
    return report.to_dict()


def _path(given: str | None) -> Path | None:
    return Path(given) if given else None


def run_explanation(
    request: ExplainRequest,
    workdir: Path,
    progress: ProgressSink,
    model_path: Path | None = None,
    trainer_path: Path | None = None,
) -> ExplainReport:
    """Raises ProbeError where a side cannot be run."""
    started = time.monotonic()
    model = resolve(str(model_path or request.model), progress=scaled(progress, 0.0, PREPARED / 2))
    trainer = None
    if trainer_path is not None or request.trainer_model is not None:
        trainer = resolve(str(trainer_path or request.trainer_model))
    progress(Progress("preparing prompts", PREPARED / 2))
    given = request.prompts
    prompts = demo_prompts(given) if isinstance(given, int) else given
    batch = tokenize(model.path, prompts, chat_template=request.chat_template)
    check_context(batch, request.sampling.max_tokens, model.max_context)
    parts = Parts.read(
        explain_pair(
            request.model_dump(mode="json"),
            request.engine,
            model.path,
            (trainer or model).path,
            [batch.ids(index) for index in range(len(batch))],
            workdir / "pair",
            scaled(progress, PREPARED, 1.0),
        )
    )
    return ExplainReport(
        schema_version=SCHEMA_VERSION,
        kind="explain",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model.facts(request.model),
        trainer_model=None
        if trainer is None
        else trainer.facts(request.trainer_model or trainer.name),
        request=ExplainRequest(**request.model_dump()),  # with every default
        equal=parts.verdict == "equal",
        sentence=sentence_of(parts),
        remedy=remedy_of(parts),
        environment=environment(),
        **{name: getattr(parts, name) for name in Parts.model_fields if name != "timing"},
        timing={**parts.timing, "total_s": time.monotonic() - started},
    )
