"""By hand: controls of the weights and of the way that they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from driftscope_probes.diagnosis.by_hand.base import ACTOR, MODEL, NEMO_VLLM, ROLLOUT, ByHand

WEIGHTS: Final[Mapping[str, ByHand]] = {
    "tensors_compared": ByHand(
        "Save the weights that the engine holds and those of the trainer, and compare them tensor "
        "by tensor: dirty if some differ, or are missing, while the rest is equal.",
        "said",
    ),
    "explain_ops": ByHand(
        "Capture the tensors between the ops of engine and trainer on the same tokens "
        "(docs/capture.md) and compare them with driftscope explain --dumps ENGINE TRAINER: dirty "
        "if an op is at fault.",
        "said",
    ),
    "trainer_weights_in_engine": ByHand(
        "Save the trainer's weights as a Hugging Face folder and start the engine freshly on it.",
        options={
            "vllm": "vllm serve CHECKPOINT_OF_THE_STEP",
            "verl": f"{MODEL}.path=CHECKPOINT_OF_THE_STEP {ROLLOUT}.load_format=auto",
            "trl": "trl vllm-serve --model CHECKPOINT_OF_THE_STEP",
            "nemo-rl": "policy.model_name=CHECKPOINT_OF_THE_STEP",
            "slime": "--hf-checkpoint CHECKPOINT_OF_THE_STEP",
            "prime-rl": '[inference.model] name = "CHECKPOINT_OF_THE_STEP"',
        },
    ),
    "older_weights": ByHand(
        "Score the step's tokens with the checkpoints of the steps before it: clean if one of them "
        "gives the engine's values.",
        "said",
    ),
    "recorded_generation": ByHand(
        "Generate greedily with transformers under the trainer's weights and with the engine: "
        "clean if the first differing token stands where the two best are almost equal.",
        "said",
    ),
    "weights_rounded": ByHand(
        "Round the trainer's master weights to the engine's dtype before scoring.",
        options={
            "verl": f"{ACTOR}.fsdp_config.model_dtype=bfloat16",
            "trl": 'GRPOConfig(model_init_kwargs={"dtype": "bfloat16"})',
            "prime-rl": '[trainer.model] optimization_dtype = "bfloat16"',
        },
    ),
    "adapter_off": ByHand(
        "Score the step's tokens with the base model alone: clean if that gives the engine's "
        "values.",
        "said",
    ),
    "adapter_merged_fp32": ByHand(
        "Merge the adapter in float32 (PEFT: merge_and_unload) and start the engine on that folder."
    ),
    "adapter_unmerged": ByHand(
        "Let the engine apply the adapter itself, unmerged.",
        options={
            "vllm": "--enable-lora --lora-modules NAME=ADAPTER_FOLDER",
            "verl": f"{MODEL}.lora.merge=False",
            "prime-rl": "[inference] enable_lora = true",
        },
    ),
    "unquantised": ByHand(
        "Start the engine on the model's weights in 16 bits.",
        options={
            "vllm": "vllm serve CHECKPOINT_IN_BF16, without --quantization",
            "verl": f"{ROLLOUT}.quantization=null",
            "nemo-rl": f"{NEMO_VLLM}.precision=bfloat16",
            "slime": "--hf-checkpoint CHECKPOINT_IN_BF16, without --sglang-quantization",
            "prime-rl": "[inference.model] without quantization",
        },
    ),
    "routes_replayed": ByHand(
        "Take the experts that the engine chose (vLLM: --enable-return-routed-experts) and let the "
        "trainer use them.",
        options={
            "verl": f"{ACTOR}.router_replay.mode=R3 {ROLLOUT}.enable_rollout_routing_replay=True",
            "nemo-rl": "++policy.router_replay.enabled=true",
            "slime": "--use-rollout-routing-replay",
            "prime-rl": "[trainer] enable_router_replay = true",
        },
    ),
}
