"""Rules of the trainer's arithmetic: dtypes, dropout, packing, and what depends on the batch.

In: nothing. Out: RULES. A recipe that says nothing of a setting runs with its framework's default,
which differs by version: only what is said, or what the framework itself decides, fires a rule.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Between,
    Either,
    OneOf,
    Other,
    Unlike,
    Unset,
    equals,
)

#: 16 bits: 8 or 11 bits of significand.
HALF: Final = ("bf16", "fp16")
#: There is an engine on the other side, whichever.
WITH_ENGINE: Final = Other("engine.name", ())
#: Ratios against the engine's own log-probabilities correct for the gap by themselves.
RATIO_OF_TRAINER: Final = Either(
    (Unset("trainer.old_from_engine"), equals("trainer.old_from_engine", False))
)
#: A recipe that adds to another file: what it does not say may stand there.
WHOLE: Final = Unset("trainer.adds_to")
_NO_ADAPTER: Final = (
    Unset("trainer.adapter"),
    Either((Unset("trainer.lora_rank"), OneOf("trainer.lora_rank", (0,)))),
)
_DROPOUT_ON: Final = Either(
    (Unset("trainer.dropout_disabled"), equals("trainer.dropout_disabled", False))
)
_INVARIANT_ENGINE: Final = Either(
    (equals("engine.batch_invariant", True), equals("environment.batch_invariant", True))
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="fp32-head-on-the-trainer-alone",
        severity="warning",
        when=(
            equals("trainer.fp32_head", True),
            WITH_ENGINE,
            Either((equals("engine.fp32_head", False), Unset("engine.fp32_head"))),
        ),
        why="Only the trainer computes the output head in FP32: the engine's logits are rounded to "
        "16 bits, and the gap is larger than with both sides rounded to the same grid.",
        remedy="Give the engine an FP32 head too (vLLM 0.30 or later: "
        '--hf-overrides \'{"head_dtype": "float32"}\'), or take it from the trainer.',
        source="https://github.com/NVIDIA-NeMo/RL/pull/3936",
        cause="lm_head_precision",
    ),
    Rule(
        name="fp32-head-on-the-engine-alone",
        severity="warning",
        when=(equals("engine.fp32_head", True), equals("trainer.fp32_head", False)),
        why="Only the engine computes the output head in FP32: the trainer's logits are rounded to "
        "16 bits, and the gap is larger than with both sides rounded to the same grid.",
        remedy="Compute the trainer's head in FP32 too, or take it from the engine.",
        source="https://github.com/NVIDIA-NeMo/RL/pull/3936",
        cause="lm_head_precision",
    ),
    Rule(
        name="log-softmax-in-half-precision",
        severity="error",
        when=(equals("trainer.half_cross_entropy", True),),
        why="The trainer takes logits and log-softmax in 16 bits: log-probabilities lie on a grid "
        "of up to 0.125 nats, and some of them come out above 0.",
        remedy="Take the option away: cast logits to FP32 before the log-softmax.",
        source="https://github.com/AI-Hypercomputer/maxtext/issues/5231",
        cause="positive_logprob",
    ),
    Rule(
        name="async-trainer-in-half-precision",
        severity="warning",
        when=(
            OneOf("trainer.master_dtype", HALF),
            equals("trainer.asynchronous", True),
            *_NO_ADAPTER,
        ),
        why="Asynchronous GRPO of TRL was seen not to converge with a trainer in 16 bits: ratios "
        "leave the clip range by rounding alone, and the gradient of those tokens is lost.",
        remedy="Load the trainer in float32, the default since then; the engine may stay in BF16.",
        source="https://github.com/huggingface/trl/issues/5333",
        cause="sub_ulp_update",
    ),
    Rule(
        name="weights-updated-in-half-precision",
        severity="warning",
        when=(
            OneOf("trainer.master_dtype", HALF),
            *_NO_ADAPTER,
            Either((Unset("trainer.asynchronous"), equals("trainer.asynchronous", False))),
        ),
        why="The optimizer changes weights that are kept in 16 bits: with learning rates of RL "
        "most updates are smaller than half a step of BF16 and are rounded away.",
        remedy="Keep the trained weights in FP32 (torch_dtype: float32 with bf16: true in TRL, "
        "model_dtype: fp32 in verl, optimization_dtype = float32 in prime-rl).",
        source="https://arxiv.org/abs/2510.26788",
        cause="sub_ulp_update",
    ),
    Rule(
        name="dtypes-apart",
        severity="warning",
        when=(
            Unlike("trainer.dtype", "engine.dtype"),
            OneOf("engine.dtype", ("bf16", "fp16", "fp32")),
            OneOf("trainer.dtype", ("bf16", "fp16", "fp32")),
        ),
        why="The two sides compute in different dtypes: the gap is that of the coarser one, about "
        "8 times as large with BF16 as with FP16.",
        remedy="Compute in one dtype on both sides; FP16 where its range suffices.",
        source="https://arxiv.org/abs/2510.26788",
        cause="bf16_rounding_tail",
    ),
    Rule(
        name="fp16-on-the-engine-alone",
        severity="warning",
        when=(
            equals("engine.dtype", "fp16"),
            Unset("trainer.dtype"),
            equals("trainer.framework", "verl"),
            WHOLE,
        ),
        why="The engine computes in FP16, and verl's trainer in BF16 where nothing else is said: "
        "the gap is that of BF16.",
        remedy="Set actor.fsdp_config.dtype (actor.megatron.dtype) to float16 as well.",
        source="https://github.com/verl-project/verl/blob/main/verl/trainer/config/engine/fsdp.yaml",
        cause="bf16_rounding_tail",
    ),
    Rule(
        name="dropout-while-scoring",
        severity="error",
        when=(
            Either(
                (
                    Between("trainer.attention_dropout", low=0),
                    Between("trainer.hidden_dropout", low=0),
                )
            ),
            _DROPOUT_ON,
        ),
        why="The trainer drops activations at random while it scores and learns: each pass gives "
        "other log-probabilities, and the engine drops none.",
        remedy="Set attention and hidden dropout to 0.",
        source="https://github.com/unslothai/unsloth-zoo/issues/832",
        cause="dropout_active",
    ),
    Rule(
        name="megatron-dropout-by-default",
        severity="warning",
        when=(
            equals("trainer.framework", "slime"),
            equals("trainer.backend", "megatron"),
            Unset("trainer.attention_dropout"),
            WHOLE,
        ),
        why="Megatron's arguments default to a dropout of 0.1, and this script does not set it.",
        remedy="Add --attention-dropout 0.0 and --hidden-dropout 0.0.",
        source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
        cause="dropout_active",
    ),
    Rule(
        name="adapter-dropout-while-scoring",
        severity="warning",
        when=(
            Between("trainer.lora_dropout", low=0),
            Other("trainer.lora_rank", (0,)),
            _DROPOUT_ON,
        ),
        why="The adapter's dropout is drawn while the trainer scores and learns: the old "
        "log-probabilities and the new ones differ at random, and the engine drops nothing.",
        remedy="Set lora_dropout to 0, or disable_dropout to true in TRL.",
        source="https://github.com/unslothai/unsloth-zoo/issues/832",
        cause="dropout_active",
    ),
    Rule(
        name="packing-without-its-kernel",
        severity="warning",
        when=(OneOf("trainer.attention", ("sdpa", "eager")), equals("trainer.packing", True)),
        why="Documents share a row, and this attention does not know where they end: it takes a "
        "mask, which packed rows often do not have, so that later documents see earlier ones.",
        remedy="Use flash_attention_2 or another kernel with cu_seqlens, or do not pack.",
        source="https://github.com/areal-project/AReaL/issues/1442",
        cause="packed_attention_leak",
    ),
    Rule(
        name="packing-across-split-sequences",
        severity="note",
        when=(
            Between("trainer.context_parallel", low=1),
            equals("trainer.packing", True),
            equals("trainer.backend", "megatron"),
        ),
        why="Packed rows are split over devices: Megatron before June 2026 gave later documents of "
        "a row the positions of the first, on its path without fused RoPE.",
        remedy="Change one token of a row's first document: no log-probability of the second may "
        "move, and positions have to start at 0 in each.",
        source="https://github.com/NVIDIA/Megatron-LM/pull/5243",
        cause="packed_attention_leak",
    ),
    Rule(
        name="invariant-engine-alone",
        severity="note",
        when=(
            _INVARIANT_ENGINE,
            Other("trainer.framework", ()),
            Either((Unset("trainer.deterministic"), equals("trainer.deterministic", False))),
        ),
        why="The engine pays for kernels that do not depend on the batch, and the trainer does not "
        "have the same ones: the gap gets repeatable, not zero.",
        remedy="Use the engine's kernels in the trainer too, or expect a gap at rounding size.",
        source="https://docs.vllm.ai/en/v0.32.0/features/batch_invariance/",
    ),
    Rule(
        name="matrices-split-unalike",
        severity="warning",
        when=(
            Unlike("engine.tensor_parallel", "trainer.tensor_parallel"),
            Either((equals("engine.batch_invariant", True), equals("trainer.deterministic", True))),
        ),
        why="Both sides are asked for reproducible results, and they split matrices over different "
        "numbers of devices: partial sums are added in another order.",
        remedy="Give both the same tensor parallelism, or kernels whose sums do not depend on it.",
        source="https://github.com/vllm-project/vllm/pull/50299",
    ),
    Rule(
        name="deterministic-over-dynamic-batches",
        severity="note",
        when=(equals("trainer.deterministic", True), equals("trainer.dynamic_batch", True)),
        why="The trainer's kernels are reproducible for one batch, and micro-batches are filled by "
        "tokens: a sequence is computed with others in the update than when it was scored.",
        remedy="Use micro-batches of one fixed size where the two passes have to agree.",
        source="https://github.com/verl-project/verl/issues/6280",
    ),
    Rule(
        name="scored-in-other-batches",
        severity="note",
        when=(
            Unlike("trainer.scoring_micro_batch", "trainer.micro_batch"),
            Either((Unset("trainer.dynamic_batch"), equals("trainer.dynamic_batch", False))),
            RATIO_OF_TRAINER,
        ),
        why="Old log-probabilities are computed in micro-batches of another size than the update: "
        "the first ratios are not 1, and some tokens are clipped before anything has changed.",
        remedy="Give both the same size, or read the first step's clip fraction as rounding.",
        source="https://github.com/verl-project/verl/issues/6280",
    ),
)
