"""POST …/steps/{step}/logprobs and …/complete: what both sides said about the tokens of a step."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import Headers

from driftscope_service.http import problem_kinds
from driftscope_service.http.body_pace import CLOCK
from driftscope_service.http.errors import InvalidField, problems
from driftscope_service.runs.api.schemas import (
    ATTEMPT_PATTERN,
    RunName,
    ShardReceiptBody,
    StepAnalysis,
    StepNumber,
    step_answer,
    step_path,
)
from driftscope_service.runs.current import CurrentService, RunsService
from driftscope_service.runs.ingest.accept import (
    AcceptedStep,
    ShardPlace,
    accept_shard,
    accept_step,
    complete_step,
)
from driftscope_service.runs.ingest.refusals import counted_refusals
from driftscope_service.runs.ingest.upload import (
    ARROW,
    JSON,
    SAFETENSORS,
    IncomingFile,
    UploadKind,
    arriving_body,
    received_body,
    upload_kind,
)

router = APIRouter(prefix="/v1/runs/{run}/steps/{step}", tags=["steps"])
UPLOAD_PATH = re.compile(r"/v1/runs/[^/]*/steps/[^/]*/logprobs")
MAX_SHARDS = 1024
OfAttempt = Annotated[
    str | None,
    Query(
        pattern=ATTEMPT_PATTERN,
        description="id of the attempt that sends it; without it the service finds the attempt",
    ),
]
_HEADERS = {
    "Location": {"description": "path of the step", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "what the analysis took, in milliseconds: `analysis;dur=…`",
        "schema": {"type": "string"},
    },
}
_EXAMPLE = {
    "metadata": {"schema_version": "1", "model": "my-model", "rollout_dtype": "bf16"},
    "rollout_logprobs": [[-0.51, -1.25], [-0.02]],
    "trainer_logprobs": [[-0.5, -1.25], [-0.021]],
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY = {
    "required": True,
    "description": "One step or shard in the push format (docs/push-format.md).",
    "content": {
        SAFETENSORS: _BINARY,
        "application/octet-stream": _BINARY,
        ARROW: _BINARY,
        JSON: {"schema": {"type": "object"}, "example": _EXAMPLE},
    },
}
_ENCODING_PARAMETER = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": ["identity", "zstd"], "default": "identity"},
}


@router.post(
    "/logprobs",
    status_code=201,
    response_model=StepAnalysis | ShardReceiptBody,
    responses={
        200: {"model": StepAnalysis | ShardReceiptBody, "description": "The same bytes are there"},
        201: {"description": "Stored, durable", "headers": _HEADERS},
        **problems(
            problem_kinds.MALFORMED_STEP,
            problem_kinds.NOT_FOUND,
            problem_kinds.UPLOAD_TIMEOUT,
            problem_kinds.STEP_CONFLICT,
            problem_kinds.CONTENT_TOO_LARGE,
            problem_kinds.UNSUPPORTED_MEDIA_TYPE,
            problem_kinds.INVALID_REQUEST,
            problem_kinds.TOO_MANY_UPLOADS,
            problem_kinds.ANALYSIS_FAILED,
            problem_kinds.STORAGE_FULL,
        ),
    },
    openapi_extra={"requestBody": _REQUEST_BODY, "parameters": [_ENCODING_PARAMETER]},
)
async def push_logprobs(
    run: RunName,
    step: StepNumber,
    request: Request,
    service: CurrentService,
    shard: Annotated[int | None, Query(ge=0, lt=MAX_SHARDS, description="which one")] = None,
    shards: Annotated[int | None, Query(ge=1, le=MAX_SHARDS, description="of how many")] = None,
    attempt: OfAttempt = None,
) -> Response:
    """Push a step: the answer is its analysis, and then it is durable. With `shard` and `shards`
    the body is one data-parallel rank's share: the answer is a receipt, and the step is analysed
    when it is completed. The same bytes again are answered with 200. Other bytes are a run that was
    started again: they open a new attempt, or are refused with 409 where the push names the attempt
    that has the step."""
    place = _place(run, step, shard, shards)
    async with counted_refusals(service.database, run, step, attempt):
        return await _push(run, step, request, service, place, attempt)


async def _push(
    run: str,
    step: int,
    request: Request,
    service: RunsService,
    place: ShardPlace | None,
    attempt: str | None,
) -> Response:
    kind = _kind(request.headers)
    arriving = await arriving_body(request)
    with _slot(service, request):
        file = await asyncio.to_thread(_new_file, service, kind)
        async with received_body(arriving, file) as received:
            if place is None:
                accepted = await accept_step(
                    service.intake, run, step, received, kind, attempt=attempt
                )
                return _step_response(accepted)
            receipt = await accept_shard(service.intake, place, received, kind, attempt=attempt)
            body = ShardReceiptBody.of(receipt).model_dump_json().encode()
            return _response(body, run, step, new=receipt.new)


@router.post(
    "/complete",
    status_code=201,
    response_model=StepAnalysis,
    responses={
        200: {"model": StepAnalysis, "description": "It is complete already"},
        201: {"description": "Stored, durable", "headers": _HEADERS},
        **problems(
            problem_kinds.MALFORMED_STEP,
            problem_kinds.NOT_FOUND,
            problem_kinds.SHARDS_MISSING,
            problem_kinds.INVALID_REQUEST,
            problem_kinds.TOO_MANY_UPLOADS,
            problem_kinds.ANALYSIS_FAILED,
            problem_kinds.STORAGE_FULL,
        ),
    },
)
async def complete_shards(
    run: RunName,
    step: StepNumber,
    request: Request,
    service: CurrentService,
    attempt: OfAttempt = None,
) -> Response:
    """Merge the shards of a step in their order, and analyse the whole."""
    async with counted_refusals(service.database, run, step, attempt):
        with _slot(service, request):
            accepted = await complete_step(service.intake, run, step, attempt=attempt)
            return _step_response(accepted)


def _place(run: str, step: int, shard: int | None, shards: int | None) -> ShardPlace | None:
    if shard is None and shards is None:
        return None
    if shard is None or shards is None:
        given, missing = ("shards", "shard") if shard is None else ("shard", "shards")
        raise InvalidField(
            f"query/{missing}", f"{given} is given without it", remedy="give both or neither."
        )
    if shard >= shards:
        raise InvalidField(
            "query/shard",
            f"shard {shard} of {shards} does not exist",
            remedy=f"number them from 0 to {shards - 1}.",
        )
    return ShardPlace(run, step, shard, shards)


def _kind(headers: Headers) -> UploadKind:
    return upload_kind(headers.get("content-type", ""), headers.get("content-encoding", ""))


@contextmanager
def _slot(service: RunsService, request: Request) -> Iterator[None]:
    length = request.headers.get("content-length", "0")
    declared = int(length) if length.isascii() and length.isdecimal() else 0
    with service.intake.slots.hold(declared, request.scope["state"].get(CLOCK)):
        yield


def _new_file(service: RunsService, kind: UploadKind) -> IncomingFile:
    limit = kind.max_bytes(service.settings.max_upload_bytes)
    return IncomingFile(service.intake.files.new_part(), limit, zstd=kind.zstd)


def _step_response(accepted: AcceptedStep) -> Response:
    stored = accepted.stored
    response = _response(step_answer(stored), stored.run, stored.step, new=accepted.new)
    if accepted.analysis_s is not None:
        response.headers["Server-Timing"] = f"analysis;dur={1000 * accepted.analysis_s:.1f}"
    return response


def _response(body: bytes, run: str, step: int, *, new: bool) -> Response:
    headers = {"Location": step_path(run, step)} if new else {}
    return Response(body, 201 if new else 200, headers=headers, media_type="application/json")
