"""Rules of what the engine draws and reports: defaults of a model, speculation, log-probabilities.

In: nothing. Out: RULES. Sampling that a trainer asks for is in rules/sampling.py.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Between,
    Either,
    Known,
    OneOf,
    Other,
    Unless,
    Unsaid,
    equals,
)

_NOT_VLLMS_OWN: Final = Unless(Other("engine.generation_config", ("auto",)))

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="generation-config-sampling",
        severity="warning",
        when=(
            Either(
                (
                    Between("defaults.top_k", low=0),
                    Between("defaults.top_p", high=1),
                    Other("defaults.temperature", (1, 1.0)),
                    Between("defaults.min_p", low=0),
                )
            ),
            equals("engine.name", "vllm"),
            _NOT_VLLMS_OWN,
            # Trainers state their sampling in every request, which leaves nothing to fill.
            Unsaid("trainer.framework"),
            Unsaid("sampling.top_k"),
            Unsaid("sampling.top_p"),
        ),
        why="vLLM fills what a request does not say from the model's generation_config.json: "
        "tokens are drawn with its temperature and truncation, though nobody asked for them.",
        remedy="Start the server with --generation-config vllm, or send temperature, top_p, top_k "
        "and min_p with every request.",
        source="https://github.com/NVIDIA-NeMo/RL/issues/3497",
        cause="generation_config_defaults",
    ),
    Rule(
        name="generation-config-penalty",
        severity="warning",
        when=(
            Other("defaults.repetition_penalty", (1, 1.0)),
            equals("engine.name", "vllm"),
            _NOT_VLLMS_OWN,
            Unsaid("trainer.framework"),
            Unsaid("sampling.repetition_penalty"),
        ),
        why="vLLM applies the repetition_penalty of generation_config.json to every request that "
        "says none; a trainer has no such thing.",
        remedy="Start the server with --generation-config vllm, or send repetition_penalty 1.",
        source="https://github.com/modelscope/ms-swift/issues/8442",
        cause="generation_config_defaults",
    ),
    Rule(
        name="generation-config-length",
        severity="note",
        when=(Known("defaults.max_tokens"), equals("engine.name", "vllm"), _NOT_VLLMS_OWN),
        why="vLLM makes max_new_tokens of generation_config.json a limit of all requests: longer "
        "answers are cut, and a cut answer has no end token.",
        remedy="Start the server with --generation-config vllm.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause="generation_config_defaults",
    ),
    Rule(
        name="logits-instead-of-logprobs",
        severity="error",
        when=(OneOf("engine.logprobs_mode", ("raw_logits", "processed_logits")),),
        why="The engine returns logits where log-probabilities are expected: they differ by each "
        "token's log-sum-exp.",
        remedy="Set logprobs_mode to processed_logprobs, or to raw_logprobs at temperature 1.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause="positive_logprob",
    ),
    Rule(
        name="no-logprobs-allowed",
        severity="warning",
        when=(OneOf("engine.max_logprobs", (0,)),),
        why="max_logprobs 0 lets the engine answer with the sampled token's log-probability at "
        "most: top log-probabilities, which a comparison of distributions needs, are refused.",
        remedy="Leave max_logprobs at its default, 20.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause=None,
    ),
    Rule(
        name="speculative-decoding",
        severity="warning",
        when=(Other("engine.speculative", (False,)),),
        why="With speculative decoding, log-probabilities come from the verification of several "
        "tokens at once, and were wrong near the maximum length and for part of the requests.",
        remedy="Turn it off for rollouts, or compare its log-probabilities with it off first.",
        source="https://github.com/vllm-project/vllm/pull/38711",
        cause="spec_decode_logprobs",
    ),
    Rule(
        name="speculation-over-pipeline-stages",
        severity="error",
        when=(
            Between("engine.pipeline_parallel", low=1),
            Other("engine.speculative", (False,)),
            equals("engine.async_scheduling", False),
        ),
        why="Speculative decoding over pipeline stages without asynchronous scheduling was found "
        "to give wrong tokens: nothing keeps steps of one request apart.",
        remedy="Leave --no-async-scheduling out, or turn speculative decoding off.",
        source="https://github.com/vllm-project/vllm/issues/52071",
        cause="spec_decode_logprobs",
    ),
    Rule(
        name="routes-not-returned",
        severity="note",
        when=(
            Between("model.experts", low=1),
            equals("engine.name", "vllm"),
            Unless(equals("engine.returns_routes", True)),
            Unless(equals("trainer.router_replay", True)),
            # Of a server that only serves, nobody replays anything.
            Either((Known("trainer.framework"), equals("environment.dev_mode", True))),
        ),
        why="The experts that the engine chooses do not reach the trainer, so that a gap from "
        "other routes cannot be told from other gaps, nor replayed.",
        remedy="Set enable_return_routed_experts, and replay or at least compare the routes.",
        source="https://github.com/NVIDIA-NeMo/RL/pull/2590",
        cause="moe_routing_flip",
    ),
    Rule(
        name="watermarked-sampling",
        severity="error",
        when=(equals("engine.watermark", True),),
        why="Tokens are drawn with a watermark, from another distribution than the one whose "
        "log-probabilities are reported: importance ratios do not average to 1.",
        remedy="Leave watermark_config out of rollouts.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause=None,
    ),
)
