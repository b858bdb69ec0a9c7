"""The server under explanation: every request has a timeout, and their number an end.

In: a request of an explanation. Out: what the server samples and how it scores, as it sent it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Self

import httpx
import numpy as np
from numpy.typing import NDArray

from driftscope_probes.diagnosis.controls.sides import Sequences, Tokens
from driftscope_probes.engines.server_logprobs import read_logprobs
from driftscope_probes.engines.sessions.runners import MOST_CONNECTIONS
from driftscope_probes.engines.vllm_server import CONNECT_TIMEOUT_S, completion_tokens, send
from driftscope_probes.errors import EngineError, ProbeError, RequestError
from driftscope_probes.explain.server.request import ServerExplainRequest


class BudgetSpent(ProbeError):
    """The time or the requests that the user allows are used up."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What a server said of responses: log-probabilities as sent, [tokens] float64 nats."""

    sequences: Sequences
    logprobs: NDArray[np.float64]
    cached_tokens: int | None = None  # None: the server does not tell

    @property
    def bits(self) -> NDArray[np.float32]:
        return self.logprobs.astype(np.float32)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    version: str
    model: str  # the name it answers to
    root: str | None  # the folder or Hub id that it says it serves
    max_length: int | None  # tokens, prompt and response together


#: Log-probabilities of one answer, and of which tokens.
Read = Callable[[Mapping[str, Any], int], tuple[list[int], tuple[float, ...]]]
REMEDY: Final = "raise --budget or --requests, or ask for fewer prompts and a smaller --longest."


class ServerClient:
    def __init__(self, request: ServerExplainRequest, deadline: float) -> None:
        """`deadline`: of time.monotonic(). Raises ProbeError."""
        self._request, self._deadline = request, deadline
        self._lock = Lock()
        self.requests = 0
        timeout = httpx.Timeout(request.request_timeout_s, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.Client(base_url=request.engine_server, timeout=timeout)
        try:
            self.facts = self._facts()
        except ProbeError:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def sample(
        self,
        prompts: Tokens,
        max_tokens: int,
        *,
        temperature: float,
        together: bool = True,
        salt: str | None = None,
    ) -> Served:
        """`salt`: names the prefix cache; None: an empty one. Raises ProbeError."""
        sampling = self._request.sampling
        bodies = [
            {
                "prompt": list(prompt),
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "seed": sampling.seed + index if temperature > 0 else None,
                "ignore_eos": True,
            }
            for index, prompt in enumerate(prompts)
        ]
        return self._served(prompts, bodies, _sampled, together, salt)

    def score(self, sequences: Sequences, *, together: bool) -> Served:
        """Responses read as part of the prompt, by prompt_logprobs. Raises ProbeError."""
        pairs = list(zip(sequences.prompts, sequences.responses, strict=True))
        bodies = [
            {"prompt": [*prompt, *response], "max_tokens": 1, "temperature": 0.0}
            | {"prompt_logprobs": 0}
            for prompt, response in pairs
        ]

        def read(choice: Mapping[str, Any], index: int) -> tuple[list[int], tuple[float, ...]]:
            prompt, response = pairs[index]
            steps = (choice.get("prompt_logprobs") or [])[len(prompt) :]
            if len(steps) != len(response):
                raise EngineError(
                    f"the server's answer holds {len(steps)} prompt_logprobs of "
                    f"{len(response)} tokens that were to be scored.",
                    remedy="use a vLLM server; others do not score a prompt.",
                )
            scored = [
                None if step is None else (step.get(str(token)) or {}).get("logprob")
                for step, token in zip(steps, response, strict=True)
            ]
            return list(response), read_logprobs(scored, f"text {index}").values

        return self._served(sequences.prompts, bodies, read, together, None)

    def _served(
        self,
        prompts: Tokens,
        bodies: Sequence[dict[str, Any]],
        read: Read,
        together: bool,
        salt: str | None,
    ) -> Served:
        shared = {"logprobs": 0, "return_token_ids": True, "cache_salt": salt or uuid.uuid4().hex}
        workers = min(len(bodies), MOST_CONNECTIONS) if together else 1
        with ThreadPoolExecutor(workers) as pool:
            answers = list(pool.map(lambda body: self._complete(body | shared), bodies))
        read_ones = [read(answer["choices"][0], index) for index, answer in enumerate(answers)]
        return Served(
            Sequences(prompts, tuple(tuple(tokens) for tokens, _ in read_ones)),
            np.array([value for _, values in read_ones for value in values], np.float64),
            _cached(answers),
        )

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", "/v1/completions", {"model": self.facts.model, **body})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() > self._deadline or self.requests >= self._request.most_requests:
                raise BudgetSpent(
                    f"the budget of {self._request.budget_s:g} s or of "
                    f"{self._request.most_requests} requests is used up.",
                    remedy=REMEDY,
                )
            self.requests += 1
        return send(self._client, method, path, body)

    def _facts(self) -> ServerFacts:
        models = self._send("GET", "/v1/models").get("data") or []
        served = {str(model.get("id")): model for model in models}
        wanted = self._request.server_model
        if wanted is None and len(served) == 1:
            wanted = next(iter(served))
        if wanted not in served:
            raise RequestError(
                f"the server offers the models {sorted(served)}, asked for was {wanted!r}.",
                remedy="name one of them with --server-model.",
            )
        length, root = served[wanted].get("max_model_len"), served[wanted].get("root")
        return ServerFacts(
            version=str(self._send("GET", "/version").get("version", "unknown")),
            model=wanted,
            root=None if root is None else str(root),
            max_length=length if isinstance(length, int) else None,
        )


def _sampled(choice: Mapping[str, Any], index: int) -> tuple[list[int], tuple[float, ...]]:
    tokens, sent = completion_tokens(choice, f"prompt {index}")
    return tokens, sent.values


def _cached(answers: Sequence[Mapping[str, Any]]) -> int | None:
    details = [(answer.get("usage") or {}).get("prompt_tokens_details") for answer in answers]
    if not all(details):
        return None
    return sum(detail["cached_tokens"] or 0 for detail in details if detail)
