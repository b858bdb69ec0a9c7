"""Batches through an engine: in child processes of ours, or on a server that runs already."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from driftscope_probes.asked_child import AskedChild
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.server_logprobs import Gap, SentLogprobs, read_logprobs
from driftscope_probes.engines.sessions.question import Answer, Batch, Event, Output, Row, Setup
from driftscope_probes.engines.sessions.registry import task_of
from driftscope_probes.engines.settings import child_environment
from driftscope_probes.engines.vllm_server import VllmServer, completion_tokens
from driftscope_probes.errors import EngineError, RequestError


class Runner(Protocol):
    def run(self, setup: Setup, batch: Batch) -> Answer:
        """Raises ProbeError."""
        ...


class Memory:
    """A reference that several cells or axes share is computed once."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._answers: dict[tuple[Setup, Batch], Answer] = {}

    def run(self, setup: Setup, batch: Batch) -> Answer:
        asked = (setup, batch)
        if asked not in self._answers:
            answer = self._runner.run(setup, batch)
            assert len(answer.outputs) == len(batch.rows)
            self._answers[asked] = answer
        return self._answers[asked]


MODULE = "driftscope_probes.engines.sessions.run_session"


class EngineSession:
    def __init__(
        self, model: Path, workdir: Path, environment: Mapping[str, str], module: str = MODULE
    ) -> None:
        self._child = AskedChild(
            module,
            {"model_path": str(model)},
            workdir,
            explain_crash=explain_engine_crash,
            environment=environment,
        )

    @property
    def alive(self) -> bool:
        return self._child.alive

    def open(self, setup: Setup) -> dict[str, Any]:
        """Replace the engine of this process; return its resolved settings. Raises ProbeError."""
        return dict(self._child.ask({"open": setup.to_dict()}))

    def run(self, batch: Batch) -> Answer:
        """Raises ProbeError."""
        return Answer.from_dict(self._child.ask({"run": batch.to_dict()}))

    def close(self) -> None:
        self._child.close()


@dataclass(slots=True)
class _Seat:
    """A process, and the engine that it holds."""

    session: EngineSession
    started: tuple[int, tuple[tuple[str, str], ...]]
    number: int  # of the process, counted from 1
    opened: Setup | None = None  # None: the next question opens an engine first
    undergone: tuple[Event, ...] = ()  # by this engine, since it was opened


class EngineRunner:
    """One process at a time: two would share cores and memory, and so disturb each other.

    But for replicas: they are asked one after the other, and are there at the same time.
    """

    def __init__(self, model: Path, workdir: Path, module: str = MODULE) -> None:
        """`module`: the child, which derives its Desk from that of MODULE."""
        self._model, self._workdir, self._module = model, workdir, module
        self._seats: dict[int, _Seat] = {}  # by number of the replica
        self.processes = 0
        self.engines: list[dict[str, Any]] = []
        self.gaps: dict[Gap, None] = {}  # an engine of ours sends bits, not JSON

    def run(self, setup: Setup, batch: Batch) -> Answer:
        if setup.replica:
            # A second one is only a second one beside a first.
            self._open(replace(setup, replica=0), ())
        seat = self._open(setup, batch.before)
        done, seat.undergone = seat.undergone, batch.before
        # What the engine has undergone for an earlier question need not happen twice.
        return seat.session.run(replace(batch, before=()) if done == batch.before else batch)

    def _open(self, setup: Setup, before: tuple[Event, ...]) -> _Seat:
        self._leave_only_replicas_of(setup)
        seat = self._seated(setup)
        # What an event did to the engine must not reach questions that are not about it.
        if seat.opened != setup or seat.undergone not in ((), before):
            # If opening fails, the previous engine is closed too.
            seat.opened, seat.undergone = None, ()
            used = seat.session.open(setup)
            self.engines.append(used | {"process": seat.number})
            seat.opened = setup
        return seat

    def _seated(self, setup: Setup) -> _Seat:
        wanted = (setup.process, tuple(sorted(child_environment(setup.engine).items())))
        seat = self._seats.get(setup.replica)
        if seat is not None and seat.started == wanted and seat.session.alive:
            return seat
        if seat is not None:
            seat.session.close()
        self.processes += 1
        folder = self._workdir / f"engine-{self.processes}"
        session = EngineSession(self._model, folder, dict(wanted[1]), self._module)
        self._seats[setup.replica] = _Seat(session, wanted, self.processes)
        return self._seats[setup.replica]

    def _leave_only_replicas_of(self, setup: Setup) -> None:
        for number, seat in list(self._seats.items()):
            alike = seat.opened is not None and replace(seat.opened, replica=0) == replace(
                setup, replica=0
            )
            if number != setup.replica and not alike:
                del self._seats[number]
                seat.session.close()

    def close(self) -> None:
        for seat in self._seats.values():
            seat.session.close()
        self._seats.clear()


#: Represents one engine step: about what a small model takes for one.
ARRIVAL_GAP_S = 0.02
#: vLLM's own default of sequences that run together.
MOST_CONNECTIONS = 256


class ServerRunner:
    def __init__(self, model: Path) -> None:
        self._model = model
        self._server: VllmServer | None = None
        self.processes = 0
        self.engines: list[dict[str, Any]] = []
        # Each once, however many batches it showed in; a dict keeps the order of arrival.
        self.gaps: dict[Gap, None] = {}

    def run(self, setup: Setup, batch: Batch) -> Answer:
        if batch.before:
            raise RequestError(
                f"{' and '.join(batch.before)} was asked of a running server.",
                remedy="use the engine vllm: what others run is not put to sleep or reloaded.",
            )
        if self._server is None:
            self._server = VllmServer(task_of(self._model, setup))
            self.engines.append(self._server.used_settings())
        salt = uuid.uuid4().hex
        if batch.warm:
            _send_all(self._server, batch, salt)
        answer, gaps = _send_all(self._server, batch, salt)
        self.gaps.update(dict.fromkeys(gaps))
        return answer

    def close(self) -> None:
        """The server is not ours."""


def _send_all(server: VllmServer, batch: Batch, salt: str) -> tuple[Answer, list[Gap]]:
    started = time.monotonic()
    with (
        server.open() as client,
        ThreadPoolExecutor(min(len(batch.rows), MOST_CONNECTIONS)) as pool,
    ):

        def send(row: Row) -> dict[str, Any]:
            time.sleep(max(0.0, started + row.arrival * ARRIVAL_GAP_S - time.monotonic()))
            body = _body(row, batch) | {"cache_salt": salt}
            return server.complete(client, body)

        answers = list(pool.map(send, batch.rows))
    pairs = zip(batch.rows, answers, strict=True)
    read = [_read(row, answer["choices"][0]) for row, answer in pairs]
    outputs = tuple(Output.of(tokens, list(sent.values)) for tokens, sent in read)
    gaps = [gap for _, sent in read for gap in sent.gaps]
    return Answer(outputs, cached_tokens=_cached_tokens(answers)), gaps


def _body(row: Row, batch: Batch) -> dict[str, Any]:
    scored = {"prompt_logprobs": 0} if row.score else {}
    return scored | {
        "prompt": [*row.prompt, *row.score],
        "max_tokens": 1 if row.score else batch.max_tokens,
        **batch.draw.fields(seeded=row.seed is not None),
        "seed": row.seed,
        "logprobs": 0,
        "return_token_ids": True,
    }


def _read(row: Row, choice: dict[str, Any]) -> tuple[list[int], SentLogprobs]:
    sequence = row.key or "a neighbour"
    if not row.score:
        return completion_tokens(choice, sequence)
    steps = (choice.get("prompt_logprobs") or [])[len(row.prompt) :]
    if len(steps) != len(row.score):
        raise EngineError(
            f"the server's answer to {sequence} holds {len(steps)} prompt_logprobs of "
            f"{len(row.score)} tokens that were scored.",
            remedy="leave the axis decode_vs_prefill out, or use a server that sends them.",
        )
    scored = [_scored(step, token) for token, step in zip(row.score, steps, strict=True)]
    return list(row.score), read_logprobs(scored, sequence)


def _scored(step: Mapping[str, Any] | None, token: int) -> object:
    """What the server says of one token of the prompt; None where it says nothing."""
    entry = None if step is None else step.get(str(token))
    return None if entry is None else entry["logprob"]


def _cached_tokens(answers: list[dict[str, Any]]) -> int | None:
    """None: the server was started without --enable-prompt-tokens-details."""
    details = [(answer.get("usage") or {}).get("prompt_tokens_details") for answer in answers]
    if not all(details):
        return None
    return sum(detail["cached_tokens"] or 0 for detail in details if detail)
