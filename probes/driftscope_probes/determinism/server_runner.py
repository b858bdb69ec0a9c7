"""Runner over a vLLM server that is already up: requests over HTTP, token ids in and out.

The server forms its batches itself: rows of a batch are sent together, not run together. Every
batch has a salt of its own in the keys of the prefix cache, so that it starts cold.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from driftscope_probes.determinism.batch import Answer, Batch, Output, Row, Setup
from driftscope_probes.determinism.engines.registry import task_of
from driftscope_probes.engines.vllm_server import VllmServer
from driftscope_probes.errors import EngineError

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

    def run(self, setup: Setup, batch: Batch) -> Answer:
        if self._server is None:
            self._server = VllmServer(task_of(self._model, setup))
            self.engines.append(self._server.used_settings())
        salt = uuid.uuid4().hex
        if batch.warm:
            _send_all(self._server, batch, salt)
        return _send_all(self._server, batch, salt)

    def close(self) -> None:
        """The server is not ours."""


def _send_all(server: VllmServer, batch: Batch, salt: str) -> Answer:
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
    outputs = tuple(_output(row, answer["choices"][0]) for row, answer in pairs)
    return Answer(outputs, cached_tokens=_cached_tokens(answers))


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


def _output(row: Row, choice: dict[str, Any]) -> Output:
    if row.score:
        steps = choice["prompt_logprobs"][len(row.prompt) :]
        scored = [step[str(token)]["logprob"] for token, step in zip(row.score, steps, strict=True)]
        return Output.of(list(row.score), scored)
    tokens, logprobs = choice.get("token_ids"), (choice.get("logprobs") or {})
    if tokens is None or "token_logprobs" not in logprobs:
        raise EngineError(
            "the server's answer holds no token ids or no log-probabilities.",
            remedy="use a vLLM server that knows return_token_ids (0.10.2 or newer).",
        )
    return Output.of(tokens, logprobs["token_logprobs"])


def _cached_tokens(answers: list[dict[str, Any]]) -> int | None:
    """None: the server was started without --enable-prompt-tokens-details."""
    details = [(answer.get("usage") or {}).get("prompt_tokens_details") for answer in answers]
    if not all(details):
        return None
    return sum(detail["cached_tokens"] or 0 for detail in details if detail)
