"""The printed command asks for the same probe, by the command line's own parser."""

from __future__ import annotations

import shlex
from typing import Any

import typer.main

from driftscope_probes.paired.request import PairedRequest
from driftscope_service.cli.main import build_app
from driftscope_service.experiments.paired.reproduce import reproduction

CHANGED = PairedRequest.model_validate(
    {
        "model": "org/name; rm -rf ~",
        "trainer_model": "org/base",
        "adapter": "./my lora",
        "prompts": 3,
        "chat_template": False,
        "engine_dtypes": ["bf16"],
        "trainer_dtypes": ["autocast-bf16+fp32-head", "fp16"],
        "sampling": {
            "max_tokens": 17,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "seed": 5,
            "ignore_eos": False,
        },
        "engine": {
            "kind": "vllm-server",
            "logprobs_mode": "processed_logprobs",
            "batch_size": 2,
            "prefix_caching": False,
            "chunked_prefill_tokens": 64,
            "compile": True,
            "fp32_head": True,
            "cascade_attention": True,
            "attention_split_kv": False,
            "threads": 2,
            "kv_cache_gib": 1.5,
            "server_url": "http://localhost:8000",
            "server_model": "served",
        },
        "trainer": {
            "attention": "eager",
            "micro_batch": 4,
            "batching": "packed",
            "padding_side": "left",
            "threads": 2,
            "seed": 5,
            "backward": True,
            "headroom": False,
            "headroom_sequences": 3,
        },
        "resamples": 100,
    }
)


def parsed(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    assert words[:3] == ["driftscope", "probe", "paired"]
    root: Any = typer.main.get_command(build_app())
    paired = root.commands["probe"].commands["paired"]
    params: dict[str, Any] = paired.make_context("paired", words[3:]).params
    return params


def asked(request: PairedRequest) -> dict[str, Any]:
    """The request in the names and words of the command line."""
    fields = request.model_dump()
    flat = fields.pop("sampling") | fields.pop("engine") | fields.pop("trainer") | fields
    for name in ("engine_dtypes", "trainer_dtypes"):
        flat[name] = ",".join(flat[name])
    flat["prompts"] = str(flat["prompts"])
    return {name: value for name, value in flat.items()}


def check(request: PairedRequest) -> None:
    again = reproduction(request)
    assert again.remarks == ()
    params = parsed(again.command)
    assert {name: params[name] for name in asked(request)} == asked(request)


INVARIANT = PairedRequest.model_validate(
    {
        "model": "m",
        "engine": {"kind": "vllm", "kernels": "invariant"},
        "trainer": {"kernels": "invariant"},
    }
)


def test_the_command_asks_for_the_same_probe() -> None:
    check(CHANGED)
    check(INVARIANT)
    check(PairedRequest(model="smollm2-135m"))


def test_defaults_are_left_out() -> None:
    assert reproduction(PairedRequest(model="m")).command == (
        "driftscope probe paired --model m --engine-dtypes bf16,fp16,fp32 "
        "--trainer-dtypes bf16,fp16,fp32 --prompts 8 --max-tokens 64 --seed 0"
    )


def test_given_prompts_need_a_file() -> None:
    again = reproduction(PairedRequest(model="m", prompts=["one", "two"]))
    assert again.needs_prompt_file
    assert parsed(again.command)["prompts"] == "prompts.jsonl"


def test_what_the_command_line_cannot_say_is_said() -> None:
    request = CHANGED.model_dump()
    request["trainer"] |= {"threads": None, "seed": 1}
    threads, seed = reproduction(PairedRequest.model_validate(request)).remarks
    assert "all threads, the engine with 2" in threads
    assert "seed was 1" in seed
