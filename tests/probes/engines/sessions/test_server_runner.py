"""Over HTTP: what is sent, what is read from the answer, and the salt that keeps the cache cold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_axes
from driftscope_probes.engines.sessions.runners import ServerRunner
from driftscope_probes.errors import EngineError
from driftscope_probes.progress import discard

from ....completion_server import CompletionServer, serving

TEXT = tuple(range(3, 500))
#: Of the fault planted in the stand-in: a prompt found in its cache gives another last bit.
COLD, HOT = -1.5, -1.5000001192092896


class Server(CompletionServer):
    """Answers as a vLLM server does; its tokens follow from the prompt."""

    model = "tiny"

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []
        self.seen: set[str] = set()
        self.tells_cached = True
        self.knows_token_ids = True

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        prompt = body["prompt"]
        place = json.dumps([body["cache_salt"], prompt])
        hot = place in self.seen
        self.seen.add(place)
        logprob = HOT if hot else COLD
        tokens = [sum(prompt) % 97] * body["max_tokens"]
        choice: dict[str, Any] = {"logprobs": {"token_logprobs": [logprob] * len(tokens)}}
        if self.knows_token_ids:
            choice["token_ids"] = tokens
        if "prompt_logprobs" in body:
            scores = [{str(token): {"logprob": COLD, "rank": 1}} for token in prompt]
            choice["prompt_logprobs"] = [None, *scores[1:]]
        details = {"cached_tokens": len(prompt) - 1 if hot else 0} if self.tells_cached else None
        return {"choices": [choice], "usage": {"prompt_tokens_details": details}}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


def axis(server: Server, name: str, **fields: Any) -> dict[str, Any]:
    asked = {
        "model": "m",
        "engine": "vllm-server",
        "server_url": f"http://127.0.0.1:{server.server_port}",
        "axes": [name],
        "max_tokens": 3,
        **fields,
    }
    runner = ServerRunner(Path("m"))
    (result,) = run_axes(DeterminismRequest(**asked), TEXT, runner, discard)
    return result.to_dict()


@pytest.mark.parametrize("name", ["run_to_run", "batch_size", "staggered_arrival", "position"])
def test_batches_start_on_a_cold_cache(server: Server, name: str) -> None:
    """Else the planted fault would show."""
    found = axis(server, name, batch_sizes=[1, 4])
    # Which rows ran together is not known: no hash that another night could be held against.
    assert (found["verdict"], found["bits"]) == ("equal", None)


def test_a_hot_cache_is_compared_with_a_cold_one(server: Server) -> None:
    found = axis(server, "prefix_cache")
    assert (found["verdict"], found["reference"]) == ("differs", "cold")
    assert found["max_ulps"] == 1
    assert [cell["value"] for cell in found["cells"]] == ["hot"]


def test_a_server_that_does_not_tell_of_its_cache(server: Server) -> None:
    server.tells_cached = False
    found = axis(server, "prefix_cache")
    assert found["verdict"] == "not_run" and "does not tell" in found["reason"]
    assert "--enable-prompt-tokens-details" in found["reason"]


def test_scores_are_read_at_the_response(server: Server) -> None:
    found = axis(server, "decode_vs_prefill")
    assert found["verdict"] == "equal"
    scoring = [body for body in server.bodies if "prompt_logprobs" in body]
    assert scoring and all(body["max_tokens"] == 1 for body in scoring)


def test_seeds_and_greedy_decoding_are_sent(server: Server) -> None:
    axis(server, "seeded_sampling", seed=5)
    sent = {(body["temperature"], body["seed"]) for body in server.bodies}
    assert sent == {(1.0, 5 + index) for index in range(8)}
    axis(server, "position")
    assert (server.bodies[-1]["temperature"], server.bodies[-1]["seed"]) == (0.0, None)


def test_a_server_without_token_ids_is_refused(server: Server) -> None:
    server.knows_token_ids = False
    with pytest.raises(EngineError, match="no token ids"):
        axis(server, "position")
