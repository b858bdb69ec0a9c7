"""The engine side behind a URL: what it is asked, and what is not done to a server of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.sides import EngineChange, Sides
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.trainer.settings import TrainerSettings

from ....completion_server import CompletionServer, serving

PROMPTS = ((3, 4, 5), (6, 7))


class Server(CompletionServer):
    """Continues a prompt by its last token, and is sure of what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        prompt, tokens = body["prompt"], [body["prompt"][-1]] * body["max_tokens"]
        choice: dict[str, Any] = {
            "token_ids": tokens,
            "logprobs": {"token_logprobs": [-1.5] * len(tokens)},
        }
        if "prompt_logprobs" in body:
            steps = [{str(token): {"logprob": -0.25, "rank": 1}} for token in prompt]
            choice["prompt_logprobs"] = [None, *steps[1:]]
        return {"choices": [choice], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


@pytest.fixture
def engine(server: Server, tmp_path: Path) -> LiveEngine:
    url = f"http://127.0.0.1:{server.server_port}"
    sides = Sides(
        engine_model=tmp_path,
        trainer_model=tmp_path,
        engine=EngineSettings(kind="vllm-server", server_url=url),
        trainer=TrainerSettings(),
        engine_dtype="bf16",
        trainer_mode="bf16",
        sampling=SamplingSettings(max_tokens=4, temperature=0.7, top_p=0.9, top_k=20, seed=11),
        prompts=PROMPTS,
    )
    return LiveEngine(sides, tmp_path)


def test_prompts_are_sampled_with_the_sides_settings(server: Server, engine: LiveEngine) -> None:
    sampled = engine.sample(EngineChange(rows=1))
    assert sampled.sequences.responses == ((5,) * 4, (7,) * 4)
    assert sampled.logprobs.tolist() == [-1.5] * 8 and sampled.cached_tokens == 4
    sent = [
        {name: body[name] for name in ("seed", "temperature", "top_p", "top_k")}
        for body in server.bodies
    ]
    assert sent == [
        {"seed": seed, "temperature": 0.7, "top_p": 0.9, "top_k": 20} for seed in (11, 12)
    ]
    salts = {body["cache_salt"] for body in server.bodies}
    assert len(salts) == 2, "batches start on a cold cache"


def test_a_warm_cache_is_asked_twice_and_greedily(server: Server, engine: LiveEngine) -> None:
    engine.sample(EngineChange(warm=True, greedy=True))
    assert len(server.bodies) == 4 and len({body["cache_salt"] for body in server.bodies}) == 1
    assert {(body["temperature"], body["seed"]) for body in server.bodies} == {(0.0, None)}


def test_responses_are_read_again(engine: LiveEngine) -> None:
    sampled = engine.sample(EngineChange())
    assert engine.rescore(sampled.sequences, EngineChange()).tolist() == [-0.25] * 8


@pytest.mark.parametrize(
    "change",
    [
        EngineChange(settings=(("prefix_caching", False),)),
        EngineChange(dtype="fp32"),
        EngineChange(launch=1),
        EngineChange(replica=1),
        EngineChange(before=("reload",)),
        EngineChange(weights="trainer"),
    ],
)
def test_a_server_of_others_is_left_as_it_is(
    server: Server, engine: LiveEngine, change: EngineChange
) -> None:
    with pytest.raises(RequestError, match="running server"):
        engine.sample(change)
    assert server.bodies == []
