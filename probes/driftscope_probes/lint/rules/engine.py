"""Rules of the engine's arithmetic: its weights, its dtypes, and the kernels that it picks.

In: nothing. Out: RULES. What it keeps between tokens is in rules/memory.py, what it draws and
reports in rules/generation.py, an update of weights in rules/weights.py.
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
    OneOf,
    Other,
    Unlike,
    Unsaid,
    equals,
)

#: GPUs on which wrong answers with cascade attention were reported; Hopper was right.
_CASCADE_GPUS: Final = ("a100", "a800", "l20", "b200", "gb200")
#: Releases before it have it on; pull request 36318 turned it off on 2026-03-07, about 0.17.
_CASCADE_OFF: Final = (0, 17)
#: model_type for which vLLM refuses float16, "numerical instability" (config/model.py).
_OVERFLOWS: Final = ("gemma2", "gemma3", "gemma3_text", "glm4")
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
        name="cascade-attention-on",
        severity="warning",
        when=(equals("engine.cascade_attention", True),),
        why="Cascade attention is asked for: on A100, L20 and B200 it gave wrong answers for "
        "requests that share a long prefix.",
        remedy="Leave --no-disable-cascade-attn out: later versions of vLLM have it off.",
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
        remedy="Set disable_cascade_attn, or install a later vLLM, which has it off.",
        source="https://github.com/vllm-project/vllm/issues/22103",
        cause=None,
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
        name="other-chat-template",
        severity="warning",
        when=(Known("engine.chat_template"), equals("tokenizer.chat_template", True)),
        why="The engine writes conversations with a template of its own, and a trainer that asks "
        "the model's tokenizer writes other tokens around every turn.",
        remedy="Send token ids, or put the template into tokenizer_config.json for both.",
        source="https://github.com/radixark/miles/blob/main/docs/developer/debug.md",
        cause="chat_template_mismatch",
    ),
    Rule(
        name="tokenizer-of-the-engines-own",
        severity="note",
        when=(
            Other("engine.tokenizer_mode", ("auto", "hf", "slow")),
            equals("engine.name", "vllm"),
        ),
        why="The engine encodes conversations with code of its own for this model, which a "
        "trainer with transformers' tokenizer does not run.",
        remedy="Send token ids in both directions, or compare both encodings of one conversation.",
        source="https://github.com/huggingface/trl/issues/5224",
        cause="retokenization_drift",
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
)
