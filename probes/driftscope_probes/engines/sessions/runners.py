"""Batches through an engine: in child processes of ours, or on a server that runs already."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from driftscope_probes.children import ChildProcess
from driftscope_probes.crashes import explain_engine_crash
from driftscope_probes.engines.server_logprobs import Gap, SentLogprobs, read_logprobs
from driftscope_probes.engines.sessions.question import Answer, Batch, Output, Row, Setup
from driftscope_probes.engines.sessions.registry import task_of
from driftscope_probes.engines.settings import child_environment
from driftscope_probes.engines.vllm_server import VllmServer, completion_tokens
from driftscope_probes.errors import EngineError, ProbeError
from driftscope_probes.progress import Progress, Told


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
    def __init__(self, model: Path, workdir: Path, environment: Mapping[str, str]) -> None:
        self._child = ChildProcess(
            MODULE,
            {"model_path": str(model)},
            workdir,
            explain_crash=explain_engine_crash,
            on_progress=self._hear,
            environment=environment,
            asked=True,
        )
        self._answers: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._failure: ProbeError | None = None
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _hear(self, step: Progress) -> None:
        if isinstance(step, Told):
            self._answers.put(step.told)

    def _watch(self) -> None:
        try:
            self._child.wait()
        except ProbeError as error:
            self._failure = error
        finally:
            self._answers.put(None)

    @property
    def alive(self) -> bool:
        return self._watcher.is_alive()

    def open(self, setup: Setup) -> dict[str, Any]:
        """Replace the engine of this process; return its resolved settings. Raises ProbeError."""
        return dict(self._ask({"open": setup.to_dict()}))

    def run(self, batch: Batch) -> Answer:
        """Raises ProbeError."""
        return Answer.from_dict(self._ask({"run": batch.to_dict()}))

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        self._child.ask(question)
        answer = self._answers.get()
        if answer is None:
            self._answers.put(None)
            raise self._failure or EngineError(
                "the engine process ended.", remedy="start the probe again."
            )
        if "error" in answer:
            raise ProbeError.from_dict(answer)
        return answer

    def close(self) -> None:
        self._child.cancel()
        self._watcher.join()


class EngineRunner:
    """One process at a time: two would share cores and memory, and so disturb each other."""

    def __init__(self, model: Path, workdir: Path) -> None:
        self._model, self._workdir = model, workdir
        self._session: EngineSession | None = None
        self._started: tuple[int, tuple[tuple[str, str], ...]] | None = None
        self._opened: Setup | None = None
        self.processes = 0
        self.engines: list[dict[str, Any]] = []
        self.gaps: dict[Gap, None] = {}  # an engine of ours sends bits, not JSON

    def run(self, setup: Setup, batch: Batch) -> Answer:
        return self._session_for(setup).run(batch)

    def _session_for(self, setup: Setup) -> EngineSession:
        wanted = (setup.process, tuple(sorted(child_environment(setup.engine).items())))
        if self._session is None or self._started != wanted or not self._session.alive:
            self.close()
            self.processes += 1
            folder = self._workdir / f"engine-{self.processes}"
            self._session = EngineSession(self._model, folder, dict(wanted[1]))
            self._started = wanted
        if self._opened != setup:
            # If opening fails, the previous engine is closed too.
            self._opened = None
            used = self._session.open(setup)
            self.engines.append(used | {"process": self.processes})
            self._opened = setup
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._started, self._opened = None, None, None


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
            body = _body(row, batch.max_tokens) | {"cache_salt": salt}
            return server.complete(client, body)

        answers = list(pool.map(send, batch.rows))
    pairs = zip(batch.rows, answers, strict=True)
    read = [_read(row, answer["choices"][0]) for row, answer in pairs]
    outputs = tuple(Output.of(tokens, list(sent.values)) for tokens, sent in read)
    gaps = [gap for _, sent in read for gap in sent.gaps]
    return Answer(outputs, cached_tokens=_cached_tokens(answers)), gaps


def _body(row: Row, max_tokens: int) -> dict[str, Any]:
    scored = {"prompt_logprobs": 0} if row.score else {}
    return scored | {
        "prompt": [*row.prompt, *row.score],
        "max_tokens": 1 if row.score else max_tokens,
        "temperature": 0.0 if row.seed is None else 1.0,
        "seed": row.seed,
        "ignore_eos": True,
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
