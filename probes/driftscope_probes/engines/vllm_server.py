"""Rollout engine `vllm-server`: any OpenAI-compatible vLLM server over HTTP.

Token ids go in and come out, so that nothing is re-tokenised. What the server does not tell (its
dtype, its logprobs mode) is recorded as declared by the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from driftscope_probes.engines.base import Response, RolloutTask, asked_settings, trace_of
from driftscope_probes.engines.server_logprobs import (
    SENT_NOT_FINITE,
    Gap,
    SentLogprobs,
    read_logprobs,
)
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.progress import Progress, ProgressSink
from driftscope_probes.trace import Trace

CONNECT_TIMEOUT_S = 10.0
#: A long response on a busy server; the caller can interrupt at any time.
READ_TIMEOUT_S = 1800.0
#: A response of 131,072 tokens with its log-probabilities is below 16 MiB of JSON.
MAX_ANSWER_BYTES = 64 * 2**20
REFUSED = "ask for what the server says it takes, or start it with other limits (--max-model-len)."
UNKNOWN = "check that it is a vLLM server (0.10.2 or newer) that serves this model."


class VllmServer:
    def __init__(self, task: RolloutTask) -> None:
        if not task.engine.server_url:
            raise RequestError(
                "the engine vllm-server was chosen without an address.",
                remedy="give --server-url, for example http://127.0.0.1:8000.",
            )
        self._task = task
        self._url = task.engine.server_url
        with self.open() as client:
            models = send(client, "GET", "/v1/models").get("data", [])
            self._version = str(send(client, "GET", "/version").get("version", "unknown"))
        self._model = self._chosen([model["id"] for model in models])

    def open(self) -> httpx.Client:
        timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        return httpx.Client(base_url=self._url, timeout=timeout)

    def _chosen(self, served: list[str]) -> str:
        wanted = self._task.engine.server_model
        if wanted is None and len(served) == 1:
            return str(served[0])
        if wanted not in served:
            raise RequestError(
                f"the server offers the models {served}, asked for was {wanted!r}.",
                remedy="name one of them with --server-model.",
            )
        return str(wanted)

    def generate(self, progress: ProgressSink) -> Trace:
        count = len(self._task.prompts)
        responses: list[Response] = [Response() for _ in range(count)]
        # Requests in flight decide the server's batch, as they would in training.
        with self.open() as client, ThreadPoolExecutor(self._task.batch_size) as pool:
            pending = {pool.submit(self._complete, client, index): index for index in range(count)}
            for done, future in enumerate(as_completed(pending), start=1):
                responses[pending[future]] = future.result()
                progress(Progress("sampling", done / count, f"{done}/{count} prompts"))
        gaps = [gap for response in responses for gap in response.gaps]
        return trace_of(
            responses, self._task, engine_version=self._version, settings=self.used_settings(gaps)
        )

    def complete(self, client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
        """The server's answer to one completion of its model. Raises EngineError."""
        return send(client, "POST", "/v1/completions", {"model": self._model, **body})

    def _complete(self, client: httpx.Client, index: int) -> Response:
        sampling = self._task.sampling
        body = {
            "prompt": self._task.prompts.ids(index),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": self._task.seed(index),
            "ignore_eos": sampling.ignore_eos,
            "logprobs": 0,
            "return_token_ids": True,
        }
        choice = self.complete(client, body)["choices"][0]
        token_ids, sent = completion_tokens(choice, f"prompt {index}")
        return Response(token_ids, list(sent.values), sent.gaps)

    def used_settings(self, gaps: Sequence[Gap] = ()) -> dict[str, Any]:
        """`gaps`: log-probabilities that the server did not send as finite numbers."""
        declared = ["dtype", "logprobs_mode"]
        return asked_settings(self._task) | {
            "server_model": self._model,
            "declared_by_user": declared,
            SENT_NOT_FINITE: [gap.to_dict() for gap in gaps],
        }


def completion_tokens(choice: Mapping[str, Any], sequence: str) -> tuple[list[int], SentLogprobs]:
    """Token ids of one choice of a completion and their log-probabilities. Raises EngineError."""
    token_ids = choice.get("token_ids")
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    if token_ids is None or logprobs is None:
        missing = "token ids" if token_ids is None else "log-probabilities"
        raise EngineError(
            f"the server's answer to {sequence} holds no {missing}.",
            remedy="use a vLLM server that knows return_token_ids (0.10.2 or newer).",
        )
    return list(token_ids), read_logprobs(logprobs, sequence)


def send(
    client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The JSON answer. Raises EngineError for a server that is absent, refuses or is not vLLM."""
    try:
        response = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise EngineError(
            f"{method} {path} failed: {error or type(error).__name__}",
            remedy="check that the vLLM server runs at the address that was given and is ready.",
        ) from error
    if response.status_code != httpx.codes.OK or len(response.content) > MAX_ANSWER_BYTES:
        raise EngineError(
            f"{method} {path} answered {response.status_code} ({len(response.content)} bytes): "
            f"{response.text[:500]}",
            remedy=REFUSED if response.status_code == httpx.codes.BAD_REQUEST else UNKNOWN,
        )
    try:
        answer: dict[str, Any] = response.json()
    except ValueError as error:
        raise EngineError(
            f"{method} {path} answered with something that is not JSON: {response.text[:200]}",
            remedy="check that the address given is the base URL of a vLLM server.",
        ) from error
    return answer
