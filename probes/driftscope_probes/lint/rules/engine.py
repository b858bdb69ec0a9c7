"""Rules of the inference engine's arguments, alone and with the model that it serves.

In: nothing. Out: RULES. How log-probabilities are asked for is in rules/sampling.py, what an update
of weights does in rules/weights.py, and what variables do in rules/environment.py.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Before,
    Between,
    Contains,
    Either,
    Known,
    MoreThan,
    OneOf,
    Other,
    Since,
    Unless,
    Unlike,
    Unsaid,
    equals,
)

#: GPUs on which wrong answers with cascade attention were reported; Hopper was right.
_CASCADE_GPUS: Final = ("a100", "a800", "l20", "b200", "gb200")
#: First release after vLLM turned it off by default (pull request 36318, 2026-03-07).
_CASCADE_OFF: Final = (0, 18)
#: First release after vLLM kept those scales among the buffers that sleep saves (53508, 2026-08).
_BUFFERS: Final = (0, 29)
#: Words of kv_cache_dtype that keep 16 bits, or the dtype of the model.
_WHOLE_KV: Final = ("auto", "bf16", "bfloat16", "fp16", "float16", "half", "fp32", "float32")
_UNSCALED_KV: Final = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")
#: model_type for which vLLM refuses float16, "numerical instability" (config/model.py).
_OVERFLOWS: Final = ("gemma2", "gemma3", "gemma3_text", "glm4")
_NOT_VLLMS_OWN: Final = Unless(Other("engine.generation_config", ("auto",)))
_LOSSY: Final = (
    *("fp8", "awq", "awq_marlin", "gptq", "gptq_marlin", "bitsandbytes", "fbgemm_fp8", "mxfp4"),
    *(
        "mxfp8",
        "nvfp4",
        "modelopt",
        "modelopt_fp4",
        "compressed-tensors",
        "experts_int8",
        "torchao",
    ),
    *("fp8_per_tensor", "fp8_per_block", "int8", "int4", "gguf", "ptpc_fp8", "int8_per_channel"),
)

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
        name="cascade-attention-on",
        severity="warning",
        when=(equals("engine.cascade_attention", True),),
        why="Cascade attention is asked for: on A100, L20 and B200 it gave wrong answers for "
        "requests that share a long prefix.",
        remedy="Leave --no-disable-cascade-attn out; vLLM has it off by default since 0.18.",
        source="https://github.com/vllm-project/vllm/issues/22103",
        cause=None,
    ),
    Rule(
        name="cascade-attention-by-default",
        severity="warning",
        when=(
            Contains("machine.gpu", _CASCADE_GPUS),
            Either(
                (Before("engine.version", _CASCADE_OFF), Before("environment.vllm", _CASCADE_OFF))
            ),
            Unsaid("engine.cascade_attention"),
        ),
        why="This vLLM uses cascade attention by default, which on this GPU gave wrong answers "
        "for requests that share a long prefix, as the samples of one prompt do.",
        remedy="Set disable_cascade_attn, or install vLLM 0.18 or later.",
        source="https://github.com/vllm-project/vllm/issues/22103",
        cause=None,
    ),
    Rule(
        name="kv-fp8-without-scales",
        severity="warning",
        when=(
            OneOf("engine.kv_cache_dtype", _UNSCALED_KV),
            Unless(equals("engine.kv_scales", True)),
            Unsaid("model.kv_scales"),
            # Their latent cache carries a scale of its own per token.
            Unsaid("model.sparse_attention"),
        ),
        why="Unless the checkpoint brings scales of its own, keys and values are rounded to FP8 "
        "with the scale 1: what exceeds the range is cut, and small values lose most of their "
        "bits.",
        remedy="Leave kv_cache_dtype on auto, or serve a checkpoint with k_scale and v_scale.",
        source="https://github.com/NVIDIA-NeMo/RL/pull/3226",
        cause="fp8_kv_scales",
    ),
    Rule(
        name="kv-quantised",
        severity="warning",
        when=(
            Other("engine.kv_cache_dtype", (*_WHOLE_KV, "fp8_ds_mla")),
            Either(
                (
                    equals("engine.kv_scales", True),
                    equals("model.kv_scales", True),
                    Other("engine.kv_cache_dtype", (*_WHOLE_KV, *_UNSCALED_KV)),
                )
            ),
        ),
        why="The engine's keys and values have fewer bits than the trainer's: tokens differ from "
        "the first one that attends to the cache, in FlashAttention 3 from position 97 on.",
        remedy="Leave kv_cache_dtype on auto, or correct with importance weights and watch them.",
        source="https://github.com/vllm-project/vllm/issues/54035",
        cause="fp8_kv_tile",
    ),
    Rule(
        name="engine-quantised-on-load",
        severity="warning",
        when=(
            OneOf("engine.quantization", _LOSSY),
            Unsaid("model.quantization"),
            Unsaid("trainer.quantization"),
            # Of a trainer's whole configuration, the rules of the loss say more.
            Either((Unsaid("trainer.framework"), Known("trainer.adds_to"))),
        ),
        why="The engine rounds the weights to fewer bits than the trainer's have: it samples "
        "from another model.",
        remedy="Leave quantization out, or quantise the trainer's forward on the same grid.",
        source="https://github.com/verl-project/verl/pull/7519",
        cause="quantized_weights",
    ),
    Rule(
        name="checkpoint-quantised",
        severity="warning",
        when=(OneOf("model.quantization", _LOSSY), Known("engine.name")),
        why="The engine computes with the checkpoint's quantised weights and activations, and a "
        "trainer with what it makes of them in 16 bits.",
        remedy="Serve the 16-bit checkpoint that the trainer starts from, or train on the same "
        "grid.",
        source="https://github.com/InternLM/xtuner/pull/2044",
        cause="quantized_weights",
    ),
    Rule(
        name="checkpoint-cast-down",
        severity="warning",
        when=(
            equals("model.dtype", "fp32"),
            equals("engine.name", "vllm"),
            Either((Unsaid("engine.dtype"), equals("engine.dtype", "auto"))),
        ),
        why="With dtype auto, vLLM casts an FP32 checkpoint to BF16; a trainer that loads it as "
        "it is has other weights.",
        remedy="Set the engine's dtype to what the trainer computes in.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause="bf16_rounding_tail",
    ),
    Rule(
        name="fp16-overflows",
        severity="error",
        when=(OneOf("model.type", _OVERFLOWS), equals("engine.dtype", "fp16")),
        why="Activations of this model exceed FP16's largest number; vLLM refuses it, and other "
        "engines return NaN.",
        remedy="Use bfloat16 or float32.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/model.py",
        cause="sentinel_or_nan_logprob",
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
        name="state-dtype-overridden",
        severity="warning",
        when=(
            Unlike("engine.state_dtype", "model.state_dtype"),
            Other("engine.state_dtype", ("auto",)),
        ),
        why="The engine keeps the recurrent state in another dtype than the model's config names.",
        remedy="Leave mamba_ssm_cache_dtype out.",
        source="https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/model_executor/models/"
        "config.py",
        cause=None,
    ),
    Rule(
        name="state-half-precision",
        severity="warning",
        when=(
            OneOf("engine.state_dtype", ("bf16", "fp16")),
            equals("model.state_layers", True),
            Unsaid("model.state_dtype"),
        ),
        why="The recurrent state is rounded to 16 bits after every token or chunk: where chunks "
        "begin changes the result, and rounding adds up along the sequence.",
        remedy="Set mamba_ssm_cache_dtype to float32.",
        source="https://github.com/vllm-project/vllm/issues/42259",
        cause=None,
    ),
    Rule(
        name="state-rounded-at-random",
        severity="warning",
        when=(equals("engine.state_rounded_at_random", True),),
        why="The recurrent state is rounded at random: the same request gives other "
        "log-probabilities each time.",
        remedy="Leave enable_mamba_cache_stochastic_rounding out, and keep the state in float32.",
        source="https://docs.vllm.ai/en/v0.32.0/configuration/engine_args/",
        cause=None,
    ),
    Rule(
        name="sleep-with-fp8-cache",
        severity="warning",
        when=(
            OneOf("engine.kv_cache_dtype", _UNSCALED_KV),
            equals("engine.sleep_mode", True),
            Unless(
                Either((Since("engine.version", _BUFFERS), Since("environment.vllm", _BUFFERS)))
            ),
        ),
        why="Sleep of level 2 lost the scales of the FP8 cache, and later versions set them to 1 "
        "at wake-up: output is right until the first sleep and wrong after it.",
        remedy="Install vLLM 0.29 or later, or leave kv_cache_dtype on auto.",
        source="https://github.com/vllm-project/vllm/pull/28783",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="sleep-with-adapter",
        severity="warning",
        when=(equals("engine.sleep_mode", True), equals("engine.lora", True)),
        why="After sleep and wake-up an adapter was found to apply no more: answers are those of "
        "the base model, and no error is raised.",
        remedy="Load the adapter again after each wake-up, and compare a greedy answer.",
        source="https://github.com/vllm-project/vllm/issues/53888",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="sleep-with-state",
        severity="warning",
        when=(equals("engine.sleep_mode", True), equals("model.state_layers", True)),
        why="Sleep frees the pages of recurrent states, and what they hold after wake-up is "
        "undefined until they are written.",
        remedy="Compare log-probabilities before and after one sleep for this model.",
        source="https://github.com/vllm-project/vllm/issues/48310",
        cause="sleep_wake_corruption",
    ),
    Rule(
        name="prefix-cache-across-updates",
        severity="note",
        when=(
            equals("environment.dev_mode", True),
            equals("engine.name", "vllm"),
            Unless(equals("engine.prefix_caching", False)),
        ),
        why="Weights can be replaced over HTTP, which leaves the prefix cache as it is: repeated "
        "prompts go on with keys and values of the older weights.",
        remedy="Call /reset_prefix_cache after each update (or pause with clear_cache), or start "
        "with --no-enable-prefix-caching.",
        source="https://github.com/PrimeIntellect-ai/prime-rl/pull/1650",
        cause="stale_prefix_cache",
    ),
    Rule(
        name="random-weights-until-the-sync",
        severity="note",
        when=(equals("engine.load_format", "dummy"),),
        why="The engine starts with random weights: a tensor or buffer that the first update "
        "leaves out stays random, and nothing reports it.",
        remedy="Load the checkpoint (load_format auto), or compare a greedy answer after the sync.",
        source="https://github.com/vllm-project/vllm/issues/48312",
        cause="dropped_tensor_on_reload",
    ),
    Rule(
        name="other-tokenizer",
        severity="warning",
        when=(Unlike("engine.tokenizer", "engine.model"),),
        why="The engine's tokenizer is another folder than its model: a difference in one added "
        "token or in the chat template shifts every id that the trainer sees.",
        remedy="Send token ids in both directions, or name the same folder on both sides.",
        source="https://github.com/huggingface/trl/issues/5224",
        cause="retokenization_drift",
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
    Rule(
        name="adapter-in-another-dtype",
        severity="warning",
        when=(
            Unlike("engine.lora_dtype", "engine.dtype"),
            Other("engine.lora_dtype", ("auto",)),
            Other("engine.dtype", ("auto",)),
        ),
        why="The engine rounds the adapter to another dtype than it computes in.",
        remedy="Leave lora_dtype on auto.",
        source="https://github.com/NVIDIA-NeMo/RL/issues/3696",
        cause="lora_merge_rounding",
    ),
    Rule(
        name="autotuned-at-each-launch",
        severity="warning",
        when=(
            equals("engine.autotune", True),
            Between("engine.tensor_parallel", low=1),
            Unsaid("environment.autotune_cache"),
        ),
        why="FlashInfer times its kernels at each launch and keeps the fastest: replicas and "
        "restarts compute with other kernels, and their log-probabilities differ.",
        remedy="Turn enable_flashinfer_autotune off, or start all replicas from one saved cache.",
        source="https://github.com/sgl-project/sglang/issues/39597",
        cause="replica_differs",
    ),
    Rule(
        name="chunks-through-a-state",
        severity="note",
        when=(
            Known("engine.max_batched_tokens"),
            MoreThan("engine.max_length", "engine.max_batched_tokens"),
            equals("model.state_layers", True),
            Unless(equals("engine.chunked_prefill", False)),
        ),
        why="Prompts longer than max_num_batched_tokens are cut into chunks, across which a "
        "hybrid model carries its state: errors there begin at the first generated token.",
        remedy="Raise max_num_batched_tokens to the longest prompt, at least for a comparison.",
        source="https://github.com/AI-Hypercomputer/maxtext/pull/4770",
        cause="chunked_prompt_logprobs",
    ),
)
