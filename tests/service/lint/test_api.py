"""POST /v1/lint: named texts in, findings and differences out; nothing is opened, run or kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

CONFIG = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "float16"}'
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "packages": {"torch": "2.9.0", "vllm": "0.12.0"},
    "hardware": {"cpu": "x", "gpus": ["NVIDIA A100"], "memory_gib": 80.0},
    "variables": {"VLLM_BATCH_INVARIANT": "1"},
}


def lint(running: Any, **asked: Any) -> Any:
    return running.client.post("/v1/lint", json=asked)


def test_what_was_read_is_told_beside_the_findings(running: Any) -> None:
    answer = lint(running, files={"config.json": CONFIG}, command="vllm serve m --dtype float16")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert {one["name"] for one in told["read"]} == {"config.json", "command"}
    assert told["rules"] > 0 and told["against"] is None


def test_variables_alone_are_an_environment(running: Any) -> None:
    told = lint(running, environment={"VLLM_BATCH_INVARIANT": "1"}).json()
    assert told["read"] == [{"name": "environment.json", "settings": 1}]


def test_two_sides_differ_by_what_can_change_numerics_first(running: Any) -> None:
    other = ENVIRONMENT | {
        "packages": {"torch": "2.10.0", "vllm": "0.12.0", "numpy": "2.3.5"},
        "hardware": {**ENVIRONMENT["hardware"], "memory_gib": 79.0},  # type: ignore[dict-item]
    }
    told = lint(running, environment=ENVIRONMENT, against={"environment": other}).json()
    found = [(one["name"], one["changes"]) for one in told["against"]["differences"]]
    assert found == [("torch", "yes"), ("memory_gib", "perhaps"), ("numpy", "no")]
    assert told["against"]["same"] == 6


@pytest.mark.parametrize(
    ("asked", "pointer", "said"),
    [
        ({}, "", "nothing is given"),
        ({"files": {"notes.txt": "prose"}}, "/files/notes.txt", "understood"),
        ({"files": {"config.json": "{"}}, "/files/config.json", "not valid JSON"),
        ({"files": {"a/config.json": CONFIG}}, "/files/a~1config.json", "match pattern"),
        ({"files": {"config.json": CONFIG}, "ignore": ["no-such"]}, "/ignore/0", "no rule"),
        (
            {"files": {"pip.txt": "torch==2.9.0"}, "against": {"files": {"a.env": "A=1\nB=2"}}},
            "/against",
            "nothing in common",
        ),
        ({"path": "/etc/passwd"}, "/path", "Extra inputs"),
        ({"files": {"a.yaml": "a: 1\n" * 110_000}}, "/files/a.yaml", "at most"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_is_named_by_its_place(
    running: Any, asked: dict[str, Any], pointer: str, said: str
) -> None:
    answer = lint(running, **asked)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["pointer"].startswith(pointer)
    assert said in problem["errors"][0]["message"]


def test_a_body_is_limited(running: Any) -> None:
    answer = running.client.post("/v1/lint", content=json.dumps({"command": "x" * 1_100_000}))
    assert answer.status_code == 413


def test_yaml_that_multiplies_itself_is_answered(running: Any) -> None:
    """Aliases of aliases: ten lines that would be a billion values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = "\n".join([*lines, "dtype: bfloat16", "tensor-parallel-size: 2"])
    files = {"files": {"bomb.yaml": bomb}}
    answer = lint(running, **files, against=files)
    assert answer.status_code in (200, 422)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", ".".join(["a"] * 200_000) + " = 1"),
        ("a.json", '{"a":' * 80_000),
        ("a.yaml", "a: " + "[" * 200_000),
    ],
)
def test_what_would_take_hours_or_end_the_process_is_refused(
    running: Any, name: str, text: str
) -> None:
    answer = lint(running, files={name: text})
    assert answer.status_code == 422
    assert f"{name} is not valid" in answer.json()["detail"]


def test_an_environment_without_an_end_is_refused(running: Any) -> None:
    body = '{"environment": ' + '{"a":' * 100_000 + "1" + "}" * 100_001
    assert running.client.post("/v1/lint", content=body).status_code in (400, 422)
