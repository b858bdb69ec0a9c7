"""By hand: controls of the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_probes.diagnosis.by_hand.base import ACTOR, MODEL, ROLLOUT, ByHand

TRAINER: Final[Mapping[str, ByHand]] = {
    "reference_forward": ByHand(
        "Score the step's tokens with transformers in float32 in evaluation mode, one sequence at "
        "a time, with the trainer's weights: dirty if the trainer differs from it by about as much "
        "as from the engine.",
        "said",
    ),
    "trainer_microbatch_one": ByHand(
        "Score the same sequences one at a time.",
        "twice",
        {
            "verl": f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=1 "
            f"{ROLLOUT}.log_prob_use_dynamic_bsz=False",
            "trl": "GRPOConfig(per_device_train_batch_size=1)",
            "nemo-rl": "policy.logprob_batch_size=1 policy.sequence_packing.enabled=false "
            "policy.dynamic_batching.enabled=false",
            "slime": "--micro-batch-size 1, without --use-dynamic-batch-size",
        },
    ),
    "trainer_padding_sides": ByHand(
        "Score the same batch padded on the left and on the right.",
        "twice",
        {"verl": f"{MODEL}.use_remove_padding=True: without any padding"},
    ),
    "document_perturbed": ByHand(
        "Score a packed batch twice, with one token of its first document changed: nothing in the "
        "second document may move. Or score the step without packing: dirty if the difference is "
        "gone.",
        "said",
        {
            "verl": f"{MODEL}.use_remove_padding=False; dirty if the difference is gone",
            "nemo-rl": "policy.sequence_packing.enabled=false; dirty if the difference is gone",
            "slime": "--micro-batch-size 1, without --use-dynamic-batch-size; dirty if the "
            "difference is gone",
        },
    ),
    "dropout_off": ByHand(
        "Set every dropout of the model's config and of the adapter to 0.",
        options={
            "verl": f"+{MODEL}.override_config.attention_dropout=0.0",
            "trl": "GRPOConfig(disable_dropout=True)",
            "nemo-rl": "++policy.hf_config_overrides.attention_dropout=0.0",
            "slime": "--attention-dropout 0 --hidden-dropout 0",
            "prime-rl": "[trainer.model.lora] dropout = 0.0",
        },
    ),
    "norm_epsilon": ByHand(
        "Set rms_norm_eps of the trainer's config.json to that of the engine's, and compare the "
        "two files.",
        options={
            "verl": f"+{MODEL}.override_config.rms_norm_eps=EPSILON_OF_THE_ENGINE",
            "nemo-rl": "++policy.hf_config_overrides.rms_norm_eps=EPSILON_OF_THE_ENGINE",
            "slime": "--norm-epsilon EPSILON_OF_THE_ENGINE",
        },
    ),
    "norm_cast_order": ByHand(
        "Let the trainer's RMSNorm cast to the model's dtype before, and then behind, the product "
        "with its weight: both are in use, and the engine has one of them."
    ),
    "dtypes_fp32": ByHand(
        "Run both sides in float32 for one step, on a few prompts.",
        options={
            "vllm": "--dtype float32, and the trainer in float32",
            "verl": f"{ROLLOUT}.dtype=float32 {ACTOR}.fsdp_config.dtype=float32",
            "trl": "GRPOConfig(bf16=False, fp16=False) and trl vllm-serve --dtype float32",
            "nemo-rl": "policy.precision=float32",
            "slime": "--sglang-dtype float32, without --bf16 and --fp16",
        },
    ),
    "fp32_head_both": ByHand(
        "Compute the logits in float32 on both sides: cast hidden states and lm_head.",
        options={
            "vllm": '--hf-overrides \'{"head_dtype": "float32"}\', and the same in the trainer',
            "trl": "GRPOConfig(cast_lm_head_to_fp32=True) and vllm serve --hf-overrides "
            '\'{"head_dtype": "float32"}\'',
            "slime": "--sglang-enable-fp32-lm-head, and the output layer of Megatron in float32",
        },
    ),
    "fp32_head_trainer": ByHand(
        "Compute the trainer's logits in float32, and leave the engine as it is.",
        options={"trl": "GRPOConfig(cast_lm_head_to_fp32=True)"},
    ),
    "trainer_attention": ByHand(
        "Load the trainer's model with another attention implementation.",
        options={
            "verl": f"+{MODEL}.override_config.attn_implementation=eager",
            "trl": 'GRPOConfig(model_init_kwargs={"attn_implementation": "eager"})',
            "slime": "--attention-backend unfused",
            "prime-rl": '[trainer.model] attn = "sdpa"',
        },
    ),
    "trainer_repeat": ByHand("Score the same batch twice in the trainer.", "twice"),
}
