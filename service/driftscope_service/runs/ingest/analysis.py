"""From the files of one step to its analysis: what `driftscope analyze` prints, limits, series.

In: pushed files, one per shard. Out: Analysis with the JSON that is stored and answered. It runs in
processes of its own (`analysis_pool`), where it may take seconds and gigabytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.drift import SERIES
from driftscope_probes.mismatch import SideArrays, compare
from driftscope_probes.mismatch.frameworks import aliases, presets
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram, abs_diff_histogram
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.mismatch.thresholds import crossed_thresholds
from driftscope_probes.mismatch.tokens import paired_logprobs
from driftscope_probes.push import PushedStep, StepFormat, read_step
from driftscope_probes.push.joined_steps import join_steps

#: Nine digits fit the int32 in which `behavior_version` is sent; a hash or a time does not count.
MAX_VERSION_DIGITS = 9


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
class Dtypes:
    """Of a run, for steps whose metadata name none."""

    rollout: str | None = None
    trainer: str | None = None


@dataclass(frozen=True, slots=True)
class Analysis:
    content: StepContent
    crossed: tuple[str, ...]  # names of metrics
    series: Mapping[str, float | None]
    document: bytes  # JSON object: comparison, diagnosis, …, crossed_limits, profiles
    took_s: float  # reading included


def analyze_step(step: PushedStep, *, resamples: int = DEFAULT_RESAMPLES) -> dict[str, Any]:
    """What `analyze --json` prints. Raises RequestError for a bad count of resamples."""
    arrays = (step.rollout_logprobs, step.trainer_logprobs, step.cu_seqlens, step.mask)
    pair = paired_logprobs(*arrays)
    return {
        "comparison": compare(*arrays, resamples=resamples, side=_side_arrays(step)).to_dict(),
        "diagnosis": None,
        "aliases": aliases(pair, advantages=step.advantages, entropy=step.entropy),
        "presets": presets(pair, advantages=step.advantages),
    }


def read_part(part: StepPart) -> StepContent:
    """Check one shard. Raises PushError."""
    return _content(read_step(part.path, part.step_format))


def analyze_parts(parts: Sequence[StepPart], run_dtypes: Dtypes) -> Analysis:
    """Raises PushError where a file is malformed or the shards do not fit together."""
    start = time.perf_counter()
    step = whole_step(parts)
    document = analyze_step(step)
    comparison = document["comparison"]
    crossed = crossed_thresholds(
        comparison,
        rollout_dtype=step.metadata.get("rollout_dtype", run_dtypes.rollout),
        trainer_dtype=step.metadata.get("trainer_dtype", run_dtypes.trainer),
    )
    document["crossed_limits"] = [limit.to_dict() for limit in crossed]
    document["profiles"] = {"abs_diff_histogram": _histogram(step).to_dict()}
    return Analysis(
        content=_content(step),
        # An overflow crosses the limit on either side.
        crossed=tuple(dict.fromkeys(limit.metric for limit in crossed)),
        # Some numbers exist only where the optional tensors were pushed.
        series={name: comparison.get(name) for name in SERIES},
        document=json.dumps(document, allow_nan=False, separators=(",", ":")).encode(),
        took_s=time.perf_counter() - start,
    )


def whole_step(parts: Sequence[StepPart]) -> PushedStep:
    """In order of shards."""
    return join_steps([read_step(part.path, part.step_format) for part in parts])


def _content(step: PushedStep) -> StepContent:
    return StepContent(step.tokens, step.sequences, dict(step.metadata))


def _histogram(step: PushedStep) -> Histogram:
    arrays = (step.rollout_logprobs, step.trainer_logprobs, step.cu_seqlens, step.mask)
    return abs_diff_histogram(token_pass(paired_logprobs(*arrays)))


def _side_arrays(step: PushedStep) -> SideArrays:
    """Lags need the trainer's own step beside the rollouts': metadata `weights_version`."""
    version = step.metadata.get("weights_version", "")
    countable = version.isdecimal() and len(version) <= MAX_VERSION_DIGITS
    known = step.behavior_version is not None and countable
    return SideArrays(
        entropy=step.entropy,
        position_ids=step.position_ids,
        turn_ids=step.turn_ids,
        behavior_version=step.behavior_version if known else None,
        train_version=int(version) if known else None,
    )
