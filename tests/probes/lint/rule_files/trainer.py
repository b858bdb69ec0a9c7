"""Rules of the trainer's arithmetic: what trips them, what does not."""

from __future__ import annotations

from ..recipes import nemo_rl, slime, trl, verl
from .row import Row, serve

_ACTOR = "actor_rollout_ref.actor."
_ROLLOUT = "actor_rollout_ref.rollout."
_MODEL = "actor_rollout_ref.model."
_MEGATRON = "--tensor-model-parallel-size 1"

ROWS: tuple[Row, ...] = (
    Row(
        "fp32-head-on-the-trainer-alone",
        trl(cast_lm_head_to_fp32=True),
        {
            **trl(cast_lm_head_to_fp32=True),
            **serve('--hf-overrides \'{"head_dtype": "float32"}\''),
        },
    ),
    Row(
        "fp32-head-on-the-engine-alone",
        slime(_MEGATRON, "--sglang-enable-fp32-lm-head"),
        slime(_MEGATRON, "--sglang-enable-fp32-lm-head", "--fp32-lm-head"),
    ),
    Row(
        "log-softmax-in-half-precision",
        slime("--fp16-lm-cross-entropy"),
        slime("--cross-entropy-loss-fusion"),
    ),
    Row(
        "async-trainer-in-half-precision",
        {"run.py": "from trl import x\nc = AsyncGRPOConfig(dtype='bfloat16', max_staleness=4)\n"},
        {"run.py": "from trl import x\nc = AsyncGRPOConfig(dtype='float32', max_staleness=4)\n"},
    ),
    Row(
        "weights-updated-in-half-precision",
        trl(torch_dtype="bfloat16"),
        trl(torch_dtype="bfloat16", use_peft=True),
    ),
    Row(
        "dtypes-apart",
        nemo_rl(
            """
            policy:
              precision: float32
              generation: {backend: vllm, vllm_cfg: {precision: bfloat16}}
            """
        ),
        nemo_rl(
            """
            policy:
              precision: bfloat16
              generation: {backend: vllm, vllm_cfg: {precision: "${policy.precision}"}}
            """
        ),
    ),
    Row(
        "fp16-on-the-engine-alone",
        verl(f"{_ROLLOUT}dtype=float16"),
        verl(f"{_ROLLOUT}dtype=float16", f"{_ACTOR}fsdp_config.dtype=float16"),
    ),
    Row(
        "dropout-while-scoring",
        slime("--attention-dropout 0.0", "--hidden-dropout 0.1"),
        slime("--attention-dropout 0.0", "--hidden-dropout 0.0"),
    ),
    Row(
        "megatron-dropout-by-default",
        {"run.sh": f"python3 train.py --rollout-batch-size 8 {_MEGATRON}\n"},
        slime(_MEGATRON),
    ),
    Row(
        "adapter-dropout-while-scoring",
        trl(use_peft=True),  # ModelConfig's default is 0.05
        trl(use_peft=True, disable_dropout=True),
    ),
    Row(
        "packing-without-its-kernel",
        verl(
            f"{_MODEL}use_remove_padding=True",
            f"+{_MODEL}override_config.attn_implementation=sdpa",
        ),
        verl(
            f"{_MODEL}use_remove_padding=True",
            f"+{_MODEL}override_config.attn_implementation=flash_attention_2",
        ),
    ),
    Row(
        "packing-across-split-sequences",
        verl(f"{_ACTOR}megatron.context_parallel_size=2", f"{_MODEL}use_remove_padding=True"),
        verl(f"{_ACTOR}megatron.context_parallel_size=1", f"{_MODEL}use_remove_padding=True"),
    ),
    Row(
        "invariant-engine-alone",
        slime("--sglang-enable-deterministic-inference"),
        slime("--sglang-enable-deterministic-inference", "--deterministic-mode"),
    ),
    Row(
        "matrices-split-unalike",
        slime(
            "--sglang-enable-deterministic-inference",
            "--rollout-num-gpus-per-engine 2",
            _MEGATRON,
        ),
        slime(
            "--sglang-enable-deterministic-inference",
            "--rollout-num-gpus-per-engine 2",
            "--tensor-model-parallel-size 2",
        ),
    ),
    Row(
        "deterministic-over-dynamic-batches",
        slime("--deterministic-mode", "--use-dynamic-batch-size"),
        slime("--deterministic-mode", "--micro-batch-size 1"),
    ),
    Row(
        "scored-in-other-batches",
        verl(
            f"{_ACTOR}ppo_micro_batch_size_per_gpu=16",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=32",
        ),
        verl(
            f"{_ACTOR}ppo_micro_batch_size_per_gpu=16",
            "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
        ),
    ),
)
