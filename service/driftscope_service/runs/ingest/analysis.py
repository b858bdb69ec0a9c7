"""From the files of one step to its analysis: what `driftscope analyze` prints, limits, series.

In: pushed files, one per shard. Out: StepAnalysis with the JSON that is stored and answered. It
runs in processes of its own (`analysis_pool`), where it may take seconds and gigabytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from driftscope_kernels.on_policy.weights.recorded import WeightsDigest, of_metadata
from driftscope_probes.analysis import Analysis, analyze_step
from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.floor import Floor
from driftscope_probes.drift import SERIES
from driftscope_probes.floor.store import find_floor
from driftscope_probes.push import PushedStep, StepFormat, read_step
from driftscope_probes.push.rules import MAX_TOKENS
from driftscope_probes.push.step_file import join_steps
from driftscope_probes.sharded_analysis import ShardAnalysis, analyze_shard, merge_analyses
from driftscope_service.numbers.diagnosis_words import cause_name
from driftscope_service.runs.store.steps import StepVerdict

#: Tokens; what one process takes into memory. A larger step comes in shards and is analysed so.
LARGEST_WHOLE_STEP: Final = MAX_TOKENS


@dataclass(frozen=True, slots=True)
class StepPart:
    """One pushed file."""

    path: Path
    step_format: StepFormat


@dataclass(frozen=True, slots=True)
class StepContent:
    """What is known of a file once it has been read."""

    tokens: int
    sequences: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Of a run, for steps whose metadata name none."""

    model: str | None = None
    rollout_dtype: str | None = None
    trainer_dtype: str | None = None

    def of_step(self, metadata: Mapping[str, str]) -> RunFacts:
        """What the step says itself goes before what its run says."""
        return RunFacts(
            metadata.get("model", self.model),
            metadata.get("rollout_dtype", self.rollout_dtype),
            metadata.get("trainer_dtype", self.trainer_dtype),
        )


@dataclass(frozen=True, slots=True)
class StepAnalysis:
    content: StepContent
    crossed: tuple[str, ...]  # names of metrics
    series: Mapping[str, float | None]
    verdict: StepVerdict | None
    document: bytes  # JSON object: comparison, diagnosis, …, crossed_limits, profiles
    took_s: float  # reading included

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; every bit of `document` stays."""
        return asdict(self) | {"document": self.document.decode()}

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> StepAnalysis:
        verdict = fields["verdict"]
        return StepAnalysis(
            content=StepContent(**fields["content"]),
            crossed=tuple(fields["crossed"]),
            series=fields["series"],
            verdict=None if verdict is None else StepVerdict(**verdict),
            document=fields["document"].encode(),
            took_s=fields["took_s"],
        )


def read_part(part: StepPart) -> StepContent:
    """Check one shard. Raises PushError."""
    return _content(read_step(part.path, part.step_format))


def analyze_parts(parts: Sequence[StepPart], run: RunFacts, floors: Path) -> StepAnalysis:
    """`floors`: folder of the calibrated ones, which need not exist.

    Raises PushError where a file is malformed or the shards do not fit together.
    """
    start = time.perf_counter()
    step = whole_step(parts)
    known = run.of_step(step.metadata)
    analysis = analyze_step(step, floor=_floor(known, floors))
    return _step_analysis(analysis, _content(step), known, time.perf_counter() - start)


def analyze_part(
    part: StepPart, run: RunFacts, floors: Path, here: str | None = None
) -> ShardAnalysis:
    """One shard of a step that is too large for one process. Raises PushError.

    `here`: the machine whose floors go first; None: this one.
    """
    step = read_step(part.path, part.step_format)
    return analyze_shard(step, _floor(run.of_step(step.metadata), floors, here))


def analysis_of_shards(shards: Sequence[ShardAnalysis], run: RunFacts) -> StepAnalysis:
    """Raises PushError where the shards do not fit together."""
    start = time.perf_counter()
    content = StepContent(
        sum(one.tokens for one in shards),
        sum(one.sequences for one in shards),
        dict(shards[0].metadata),
    )
    merged = merge_analyses(shards)
    return _step_analysis(
        merged, content, run.of_step(content.metadata), time.perf_counter() - start
    )


def _floor(known: RunFacts, floors: Path, here: str | None = None) -> Floor | None:
    return find_floor(floors, known.model, known.rollout_dtype, known.trainer_dtype, here=here)


def _step_analysis(
    analysis: Analysis, content: StepContent, known: RunFacts, took_s: float
) -> StepAnalysis:
    crossed = analysis.crossed_thresholds(known.rollout_dtype, known.trainer_dtype)
    document = analysis.to_dict() | {
        "crossed_limits": [limit.to_dict() for limit in crossed],
        "profiles": {"abs_diff_histogram": analysis.abs_diff_histogram.to_dict()},
    }
    return StepAnalysis(
        content=content,
        # An overflow crosses the limit on either side.
        crossed=tuple(dict.fromkeys(limit.metric for limit in crossed)),
        # Some numbers exist only where the optional tensors were pushed.
        series={name: document["comparison"].get(name) for name in SERIES},
        verdict=step_verdict(
            analysis.diagnosis,
            document["comparison"].get("entropy_mean"),
            of_metadata(content.metadata),
        ),
        document=json.dumps(document, allow_nan=False, separators=(",", ":")).encode(),
        took_s=took_s,
    )


def step_verdict(
    diagnosis: Diagnosis | None,
    entropy: float | None = None,
    weights: WeightsDigest | None = None,
) -> StepVerdict | None:
    """What lists and lines over the steps show. `entropy`: nats, mean over tokens."""
    if diagnosis is None:
        return None
    cause = diagnosis.cause
    return StepVerdict(
        verdict=diagnosis.verdict,
        excess=diagnosis.excess,
        cause=cause_name(diagnosis),
        confidence=None if cause is None else round(cause.confidence, 3),
        entropy=entropy,
        weights=None if weights is None else weights.kind,
    )


def whole_step(parts: Sequence[StepPart]) -> PushedStep:
    """In order of shards."""
    return join_steps([read_step(part.path, part.step_format) for part in parts])


def _content(step: PushedStep) -> StepContent:
    return StepContent(step.tokens, step.sequences, dict(step.metadata))
