"""Bodies of runs and steps in the API."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from driftscope_probes.diagnosis.cause import ComparisonVerdict, Diagnosis
from driftscope_service.runs.baseline import AgainstBaseline, Marks
from driftscope_service.runs.ingest.accept import ShardReceipt
from driftscope_service.runs.store.marks import MAX_TAGS
from driftscope_service.runs.store.progress import Progress, run_progress
from driftscope_service.runs.store.runs import Run
from driftscope_service.runs.store.steps import StoredStep
from driftscope_service.store.tables import (
    ATTEMPT_ID_LENGTH,
    NOTE_LENGTH,
    RUN_TEXT_LENGTH,
    TAG_LENGTH,
)

RUN_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
#: Names of jobs, UUIDs, anything a launcher prints: visible ASCII.
ATTEMPT_PATTERN = rf"^[!-~]{{1,{ATTEMPT_ID_LENGTH}}}$"
#: JavaScript and JSON readers keep integers exactly up to here.
MAX_STEP = 2**53 - 1
MAX_LABELS = 16

RunName = Annotated[str, Path(pattern=RUN_PATTERN, description="name of the run")]
StepNumber = Annotated[int, Path(ge=0, le=MAX_STEP, description="number of the training step")]
#: More starts than anybody makes under one name.
MAX_ATTEMPT = 2**31 - 1
AttemptNumber = Annotated[
    int | None,
    Query(ge=1, le=MAX_ATTEMPT, description="number of one attempt; default: the series"),
]
RunProgress = Literal["running", "finished"]
RunText = Annotated[str, StringConstraints(max_length=RUN_TEXT_LENGTH)]
#: Without space and comma, which part tags in a form and on a command line.
Tag = Annotated[str, StringConstraints(max_length=TAG_LENGTH, pattern=r"^[^\s,\x00-\x1f]+$")]
Note = Annotated[str, StringConstraints(max_length=NOTE_LENGTH, pattern=r"^[^\x00]*$")]


class RunFields(BaseModel):
    """What describes a run. Fields that are left out stay as they are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "my-model-7b",
                    "framework": "trl",
                    "engine": "vllm 0.32.0",
                    "rollout_dtype": "bf16",
                    "trainer_dtype": "fp32",
                    "labels": {"team": "rl"},
                }
            ]
        },
    )

    model: RunText | None = None
    framework: RunText | None = None
    engine: RunText | None = None
    rollout_dtype: RunText | None = Field(default=None, description="for steps that name none")
    trainer_dtype: RunText | None = Field(default=None, description="for steps that name none")
    labels: dict[RunText, RunText] = Field(default_factory=dict, max_length=MAX_LABELS)
    state: RunProgress = Field(
        default="running",
        description="`finished`: it ended as it should; a later step or shard opens it again",
    )
    tags: list[Tag] = Field(
        default_factory=list, max_length=MAX_TAGS, description="in place of those that it has"
    )
    note: Note | None = Field(default=None, description="for people; found by its words")
    pinned: bool = Field(
        default=False,
        description="as the baseline of its model; of several, the one pinned last is it",
    )


class StepVerdictBody(BaseModel):
    """The diagnosis of a step in one line; the step has the whole."""

    verdict: ComparisonVerdict
    excess: float | None = Field(description="measured sigma over that of the floor")
    cause: str | None = Field(
        description="the first cause; `unexplained` where none is sure enough; null where there is "
        "nothing to explain"
    )
    confidence: float | None = Field(description="of the cause, 0 to 1")

    @staticmethod
    def of_run(run: Run) -> StepVerdictBody | None:
        if run.verdict is None:
            return None
        return StepVerdictBody(
            verdict=cast(ComparisonVerdict, run.verdict),
            excess=run.excess,
            cause=run.cause,
            confidence=run.confidence,
        )


class BaselineBody(BaseModel):
    """How the last step of a run compares with that of the baseline."""

    run: str = Field(description="the baseline")
    abs_diff_mean_times: float | None = Field(
        description="mean |Δ| over that of the baseline; null where either is undefined or 0"
    )
    page: str = Field(description="path of the page that compares both")

    @staticmethod
    def of(against: AgainstBaseline) -> BaselineBody:
        return BaselineBody(
            run=against.baseline, abs_diff_mean_times=against.times, page=against.page
        )


class RunLinks(BaseModel):
    self: str
    steps: str
    attempts: str


class RunBody(BaseModel):
    run: str
    model: str | None
    framework: str | None
    engine: str | None
    rollout_dtype: str | None
    trainer_dtype: str | None
    labels: dict[str, str]
    state: Progress = Field(
        description="`resumed`: running, in a later attempt than its first; `stale`: silent for "
        "longer than its own pace explains, without having said that it has ended"
    )
    finished_at: datetime | None = Field(description="when that was said")
    created_at: datetime
    updated_at: datetime = Field(description="the last PUT, shard or step")
    steps: int = Field(description="complete ones of the series")
    last_step: int | None = Field(description="the highest of the series")
    last_step_at: datetime | None = Field(description="when a step was last completed")
    verdict: StepVerdictBody | None = Field(
        description="of the last step, with what the steps together are surer of; null: no step, "
        "or stored by an older version"
    )
    crossed_limits: int = Field(description="by the last step")
    tags: list[str] = Field(description="sorted")
    note: str | None
    pinned: bool = Field(description="as a baseline")
    baseline: BaselineBody | None = Field(
        description="that of its model; null: there is none, or this run is it"
    )
    attempt: int = Field(description="number of the newest, and so how many there are")
    resumed: bool = Field(description="whether it was started again under its name")
    received_steps: int = Field(description="all that are stored, those of earlier attempts too")
    refused_steps: int = Field(description="steps and shards that were not taken; see attempts")
    links: RunLinks

    @staticmethod
    def of(run: Run, marks: Marks) -> RunBody:
        path = run_path(run.name)
        return RunBody(
            run=run.name,
            model=run.model,
            framework=run.framework,
            engine=run.engine,
            rollout_dtype=run.rollout_dtype,
            trainer_dtype=run.trainer_dtype,
            labels=run.labels,
            state=run_progress(run, datetime.now(UTC)),
            finished_at=run.finished_at,
            created_at=run.created_at,
            updated_at=run.updated_at,
            steps=run.complete_steps,
            last_step=run.last_step,
            last_step_at=run.last_step_at,
            verdict=StepVerdictBody.of_run(run),
            crossed_limits=run.crossed,
            tags=list(marks.tags),
            note=run.note,
            pinned=run.pinned_at is not None,
            baseline=None if marks.against is None else BaselineBody.of(marks.against),
            attempt=run.attempt,
            resumed=run.resumed,
            received_steps=run.received_steps,
            refused_steps=run.refused_steps,
            links=RunLinks(self=path, steps=f"{path}/steps", attempts=f"{path}/attempts"),
        )


class RunPage(BaseModel):
    runs: list[RunBody] = Field(description="in the order of `sort`")
    matches: int = Field(description="on all pages together")
    next_cursor: str | None = Field(description="give as `cursor` for the next page")


class CrossedLimitBody(BaseModel):
    metric: str = Field(description="name in the comparison")
    value: float | None = Field(description="null where it is not a finite number")
    limit: float
    direction: Literal["above", "below"]
    source: str = Field(description="who published the limit")


class StepLinks(BaseModel):
    self: str
    run: str


class StepAnalysis(BaseModel):
    """A complete step: what the comparison of both sides found."""

    run: str
    step: int
    state: Literal["complete"]
    content_sha256: str = Field(
        description="of the decoded body; of a step in shards: of their hashes, in order"
    )
    received_at: datetime
    tokens: int
    sequences: int
    size_bytes: int
    shards: int
    attempt: int = Field(description="of its run, from 1")
    superseded_by: int | None = Field(
        description="the later attempt whose steps the series shows instead; null: it is in the "
        "series"
    )
    metadata: dict[str, str]
    comparison: dict[str, Any] = Field(description="every number of the comparison")
    diagnosis: Diagnosis | None = Field(
        description="verdict, ranked causes with their evidence, and what data would tell more; "
        "null for a step that an older version stored"
    )
    hygiene: dict[str, Any] | None = Field(
        default=None,  # steps of older versions say nothing of it
        description="values that are no log-probabilities, each with value, count and place; and "
        "mean |Δ| without them",
    )
    notes: list[str] = Field(
        default_factory=list, description="what settings of the sampling do to the comparison"
    )
    lint: list[dict[str, Any]] = Field(
        default_factory=list,
        description="what settings that the metadata state are known to do: rule, severity, where, "
        "value, why, remedy, source, cause",
    )
    unused: list[dict[str, str]] = Field(
        default_factory=list, description="name, and why nothing reads it, of what was pushed"
    )
    routing: dict[str, Any] | None = Field(
        default=None,  # steps of older versions say nothing of it
        description="agreement of both sides' experts and signs of corrupt routes; null: no routes",
    )
    aliases: dict[str, Any] = Field(description="the same under each framework's own names")
    presets: dict[str, Any] = Field(description="what each preset would drop or clip")
    crossed_limits: list[CrossedLimitBody]
    profiles: dict[str, Any] = Field(
        default_factory=dict,  # steps of older versions have none
        description="abs_diff_histogram: tokens by |Δ|, in fixed buckets",
    )
    tokens_kept: bool = Field(description="whether the tokens themselves are still on disk")
    links: StepLinks


class ShardLinks(BaseModel):
    self: str
    complete: str


class ShardReceiptBody(BaseModel):
    """A shard that is durable; the step is analysed when it is completed."""

    run: str
    step: int
    state: Literal["open"]
    shard: int
    shards: int
    attempt: int = Field(description="of its run, from 1")
    content_sha256: str
    received: list[int] = Field(description="shards that are there")
    missing: list[int] = Field(description="shards that are not")
    tokens: int = Field(description="of this shard")
    links: ShardLinks

    @staticmethod
    def of(receipt: ShardReceipt) -> ShardReceiptBody:
        place = receipt.place
        path = step_path(place.run, place.step)
        return ShardReceiptBody(
            run=place.run,
            step=place.step,
            state="open",
            shard=place.shard,
            shards=place.shards,
            attempt=receipt.shard.attempt,
            content_sha256=receipt.shard.content_sha256,
            received=list(receipt.received),
            missing=list(receipt.missing),
            tokens=receipt.shard.tokens,
            links=ShardLinks(self=path, complete=f"{path}/complete"),
        )


class StepPoint(BaseModel):
    step: int
    attempt: int = Field(description="of its run, from 1")
    superseded_by: int | None = Field(
        description="null in the series; only steps asked for by their attempt have another value"
    )
    received_at: datetime
    tokens: int
    sequences: int
    values: dict[str, float | None] = Field(description="of the comparison; null: not defined")
    crossed_limits: list[str] = Field(description="metrics that crossed a limit")
    verdict: StepVerdictBody | None = Field(description="null: stored by an older version")
    tokens_kept: bool


class StepSeries(BaseModel):
    run: str
    diagnosis: Diagnosis | None = Field(
        description="of the last step, with what the steps of the run show together; null where an "
        "older version stored it"
    )
    steps: list[StepPoint] = Field(description="ascending")
    drift: dict[str, Any] = Field(
        description="trends and shifts over the last 10,000 steps of the run, whatever the page"
    )
    next_after: int | None = Field(description="give as `after` for the next page")


def run_path(run: str) -> str:
    return f"/v1/runs/{run}"


def step_path(run: str, step: int) -> str:
    return f"{run_path(run)}/steps/{step}"


def step_answer(stored: StoredStep) -> bytes:
    """A StepAnalysis."""
    head: dict[str, Any] = {
        "run": stored.run,
        "step": stored.step,
        "state": "complete",
        "content_sha256": stored.content_sha256,
        "received_at": stored.received_at.isoformat().replace("+00:00", "Z"),
        "tokens": stored.tokens,
        "sequences": stored.sequences,
        "size_bytes": stored.size_bytes,
        "shards": stored.shards,
        "attempt": stored.attempt,
        "superseded_by": stored.superseded_by,
        "metadata": stored.metadata,
        "tokens_kept": stored.kept_bytes > 0,
        "links": {"self": step_path(stored.run, stored.step), "run": run_path(stored.run)},
    }
    assert stored.analysis.startswith(b'{"'), "an object with members"
    return json.dumps(head).encode()[:-1] + b"," + stored.analysis[1:]
