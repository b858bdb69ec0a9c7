"""`driftscope analyze` and `push`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from driftscope_client import DriftscopeError
from driftscope_client.attempt import PushedAttempt, Start
from driftscope_client.client import KEY_VARIABLE
from driftscope_client.errors import RUN_NAME, RUN_VARIABLE
from driftscope_client.snapshot import CopiedArray
from driftscope_client.step_body import CHUNK_BYTES, CONTENT_TYPE, step_body, stored
from driftscope_client.transport import RequestBody, RetryPolicy, Transport
from driftscope_probes.analysis import analyze_step
from driftscope_probes.diagnosis.observed import compared_tokens
from driftscope_probes.errors import RequestError
from driftscope_probes.floor.store import DEFAULT_DATA, FOLDER, default_folder, find_floor
from driftscope_probes.gates import Judged
from driftscope_probes.mismatch.resampling import DEFAULT_RESAMPLES
from driftscope_probes.profiles.step_profiles import step_profiles
from driftscope_probes.push import PushedStep, PushError, StepFormat
from driftscope_probes.push.readers.registry import reader_of
from driftscope_probes.push.source import StepSource, read_source
from driftscope_service.auth.service_call import DEFAULT_URL, ApiError, Url
from driftscope_service.runs.step_files import (
    Columns,
    Format,
    StepPath,
    TrainerFile,
    step_sources,
)
from driftscope_service.runs.step_table import print_steps
from driftscope_service.runs.terminal import print_analysis
from driftscope_service.terminal.commands import print_json
from driftscope_service.terminal.fail_on import (
    FailOn,
    exit_where_a_rule_holds,
    outcome_of,
    with_outcome,
)

#: What a calibrated floor is found by, in the metadata of a step.
FLOOR_KEYS: Final = ("model", "rollout_dtype", "trainer_dtype")
EveryNumber = Annotated[
    bool, typer.Option("--all", help="Every number, and what each preset would do to the step.")
]


def analyze(
    file: StepPath,
    step_format: Format = None,
    columns: Columns = None,
    trainer: TrainerFile = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Of a folder with many: this one only.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="For the 95 % intervals; 0: none.")
    ] = DEFAULT_RESAMPLES,
    every_number: EveryNumber = False,
    fail_on: FailOn = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a service: its calibrated floors are used.",
            show_default=DEFAULT_DATA,
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether the sides of a step differ by rounding or by a bug, and which, from a file.

    Of a folder with many steps: one line for each.
    """
    sources = step_sources(file, step_format, columns, trainer, step)
    floors = default_folder() if data_dir is None else data_dir / FOLDER
    if len(sources) > 1:
        analyses = {
            str(one.step): _analysis(read_source(one), floors, resamples) for one in sources
        }
        judged = [Judged(a["comparison"], a["diagnosis"], f"step {n}") for n, a in analyses.items()]
        outcome = outcome_of(fail_on, judged)
        if json_:
            print_json(with_outcome({"steps": analyses}, outcome))
        else:
            print_steps(analyses)
        return exit_where_a_rule_holds(outcome)
    given = read_source(sources[0])
    analysis = _analysis(given, floors, resamples)
    outcome = outcome_of(fail_on, [Judged(analysis["comparison"], analysis["diagnosis"])])
    if json_:
        print_json(with_outcome(analysis, outcome))
    else:
        print_analysis(file.name, given, analysis, Console(), every_number=every_number)
    exit_where_a_rule_holds(outcome)


def _analysis(step: PushedStep, floors: Path, resamples: int) -> dict[str, Any]:
    floor = find_floor(floors, *(step.metadata.get(name) for name in FLOOR_KEYS))
    analysis = analyze_step(step, resamples=resamples, floor=floor).to_dict()
    analysis["profiles"] = step_profiles(compared_tokens(step)).to_dict()
    return analysis


#: What the service reads as it is; everything else is converted to safetensors.
CONTENT_TYPES: Mapping[StepFormat, str] = {
    "safetensors": CONTENT_TYPE,
    "arrow": "application/vnd.apache.arrow.stream",
    "json": "application/json",
}
#: The largest step takes minutes on a slow line, and its analysis seconds.
TIMEOUT_S = 300.0
#: A user waits at the terminal; a busy service is retried for about two seconds.
RETRY = RetryPolicy(attempts=3)
#: zstd's own default; log-probabilities hardly compress further at higher ones.
ZSTD_LEVEL = 3


@dataclass(frozen=True, slots=True)
class AnsweredStep:
    """What the service says about a step."""

    sequences: int
    tokens: int
    metadata: Mapping[str, str]


def push(
    file: StepPath,
    run: Annotated[str, typer.Option(envvar=RUN_VARIABLE, help="Name of the run.")],
    step: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of the training step; of a folder: this one only, default all."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key_env: Annotated[
        str, typer.Option(help="Variable that holds the API key, if the service asks for one.")
    ] = KEY_VARIABLE,
    step_format: Format = None,
    columns: Columns = None,
    trainer: TrainerFile = None,
    shard: Annotated[
        int | None, typer.Option(min=0, help="The file is this shard of the step, from 0 …")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, help="… of so many.")] = None,
    zstd: Annotated[bool, typer.Option("--zstd", help="Compress on the way.")] = False,
    attempt: Annotated[
        str | None, typer.Option(help="Name of this start of training, the same for all its steps.")
    ] = None,
    resumed_from: Annotated[
        int | None,
        typer.Option(min=0, help="With --attempt: the last step that still held when it started."),
    ] = None,
    every_number: EveryNumber = False,
    fail_on: FailOn = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the service's answer.")] = False,
) -> None:
    """Push one step to a running service, and show what it finds.

    The same file again is no error. Another file for the same step is a run that was started
    again: it opens an attempt of the run, or is refused where --attempt has the step already.
    """
    if resumed_from is not None and attempt is None:
        raise RequestError(
            "--resumed-from belongs to a start of training, and none is named.",
            remedy="give --attempt with a name of it as well.",
        )
    if (shard is None) != (shards is None):
        given, missing = ("shards", "shard") if shard is None else ("shard", "shards")
        raise RequestError(
            f"--{given} is given without --{missing}.",
            remedy="give both, --shard 0 --shards 2 for the first of two, or neither.",
        )
    if not RUN_NAME.fullmatch(run):
        raise RequestError(
            f"the run name {run!r} is not accepted.",
            remedy="use letters, digits, '.', '_' and '-', at most 128.",
        )
    sources = step_sources(file, step_format, columns, trainer, step)
    numbers = [step if one.step is None else one.step for one in sources]
    if None in numbers or (shard is not None and file.is_dir()):
        raise RequestError(
            "nothing says which training step it is."
            if None in numbers
            else "a folder holds whole steps, and --shard was given.",
            remedy="give --step N." if None in numbers else "leave --shard and --shards out.",
        )
    key = os.environ.get(api_key_env, "").strip()
    judged: list[Judged] = []
    for number, source in zip(numbers, sources, strict=True):
        assert number is not None, "refused above"
        body = _body(source, zstd)
        answer = _send(url, key, run, number, shard, shards, body, attempt, resumed_from)
        # A shard that is not the last has no comparison yet: rules are held against the last one's.
        of_step = []
        if "comparison" in answer:
            where = f"step {number}"
            of_step = [Judged(answer["comparison"], answer["diagnosis"], where)]
        told = with_outcome(answer, outcome_of(fail_on, of_step))
        _say(told, run, number, shard, shards, json_=json_, every_number=every_number)
        judged += of_step
    exit_where_a_rule_holds(outcome_of(fail_on, judged))


def _say(
    answer: Mapping[str, Any],
    run: str,
    step: int,
    shard: int | None,
    shards: int | None,
    *,
    json_: bool,
    every_number: bool,
) -> None:
    if json_:
        print_json(answer)
    elif "comparison" in answer:
        shown = AnsweredStep(answer["sequences"], answer["tokens"], answer["metadata"])
        where = f"{run} step {step}"
        print_analysis(where, shown, answer, Console(), every_number=every_number)
    else:
        missing = ", ".join(map(str, answer["missing"]))
        typer.echo(f"shard {shard} of {shards} is stored; missing: {missing}")


def _send(
    url: str,
    api_key: str,
    run: str,
    step: int,
    shard: int | None,
    shards: int | None,
    body: RequestBody,
    attempt: str | None,
    resumed_from: int | None,
) -> dict[str, Any]:
    """The analysis, or the receipt of a shard that was not the last."""
    path = f"/v1/runs/{run}/steps/{step}"
    params = {} if shard is None or shards is None else {"shard": shard, "shards": shards}
    try:
        transport = Transport(url, api_key or None, timeout_s=TIMEOUT_S, retry=RETRY)
        start = Start.named(attempt, resumed_from)
        of = PushedAttempt(start).opened(transport, run, step, of_shards=shard is not None)
        answer = transport.post(f"{path}/logprobs", {**params, **of}, body)
        if answer.get("missing") == []:
            answer = transport.post(f"{path}/complete", of)
        transport.stop()
    except DriftscopeError as error:
        raise ApiError(error.message, remedy=error.remedy) from None
    return answer


def _body(source: StepSource, zstd: bool) -> RequestBody:
    known, file = source.step_format or _format_of(source), source.files[0]
    if known is not None and known in CONTENT_TYPES and file.is_file():
        kind, size = CONTENT_TYPES[known], file.stat().st_size
        chunks: Callable[[], Iterator[bytes]] = partial(_chunks, file)
    else:  # also what does not exist or names no format: the reader says so
        kind = CONTENT_TYPE
        chunks, size = _converted(source)
    if zstd:
        return RequestBody(partial(_compressed, chunks), None, kind, "zstd")
    return RequestBody(chunks, size, kind)


def _format_of(source: StepSource) -> StepFormat | None:
    """None where it is not sent as it is, and where the reader says what is wrong."""
    if len(source.files) > 1 or source.trainer is not None or source.columns.given:
        return None
    try:
        return reader_of(source.files[0]).step_format
    except (PushError, OSError):
        return None


def _chunks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise PushError(
            f"{file}: it cannot be read: {error.strerror}.", remedy="check its permissions."
        ) from error


def _compressed(chunks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    import zstandard

    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
    for chunk in chunks():
        if packed := compressor.compress(chunk):
            yield packed
    yield compressor.flush()


def _converted(source: StepSource) -> tuple[Callable[[], Iterator[bytes]], int]:
    step = read_source(source)
    tensors = {name: stored(name, CopiedArray(v)) for name, v in step.tensors().items()}
    body = step_body(tensors, step.metadata)
    return body.chunks, body.size
