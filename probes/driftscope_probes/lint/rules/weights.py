"""Rules of the way of weights from trainer to engine: adapters, updates in flight, their rhythm.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import Between, Either, OneOf, Other, Unsaid, Unset, equals
from driftscope_probes.lint.rules.correction import UNCORRECTED
from driftscope_probes.lint.rules.trainer import HALF, WITH_ENGINE

_ADAPTER: Final = Between("trainer.lora_rank", low=0)
_OLD_TOKENS_COUNT: Final = Either(
    (Unset("weights.old_tokens_masked"), equals("weights.old_tokens_masked", False))
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="cache-of-older-weights",
        severity="warning",
        when=(
            equals("weights.in_flight", True),
            Either((equals("weights.cache_recomputed", False), Unset("weights.cache_recomputed"))),
        ),
        why="Weights change under answers that are being written, and keys and values of the older "
        "weights stay: later tokens come from a mixture that no trainer can compute again.",
        remedy="Compute them anew after each update (recompute_kv_cache_after_weight_updates), or "
        "push behavior_version per token and tell the gap apart by it.",
        source="https://github.com/NVIDIA-NeMo/RL/issues/4018",
        cause="hybrid_version_kv",
    ),
    Rule(
        name="tokens-of-several-weights",
        severity="warning",
        when=(
            equals("weights.partial_rollout", True),
            Either(
                (Unset("weights.old_tokens_masked"), equals("weights.old_tokens_masked", False))
            ),
            *UNCORRECTED,
        ),
        why="Answers that were cut at an update are continued with the new weights, and the loss "
        "takes all their tokens as drawn from one policy.",
        remedy="Correct with the engine's log-probabilities of each token, or leave the older "
        "tokens out of the loss (--mask-offpolicy-in-partial-rollout in slime).",
        source="https://github.com/radixark/miles/issues/2783",
        cause="policy_staleness",
    ),
    Rule(
        name="engine-updated-seldom",
        severity="warning",
        when=(Between("weights.sync_every", low=1), *UNCORRECTED),
        why="The engine gets new weights only after several optimizer steps, and no importance "
        "sampling corrects for the steps between.",
        remedy="Update the engine after each step, or turn the correction on.",
        source="https://github.com/THUDM/slime/blob/main/slime/utils/arguments.py",
        cause="policy_staleness",
    ),
    Rule(
        name="adapter-merged-in-half-precision",
        severity="warning",
        when=(
            equals("weights.lora_merged", True),
            Other("trainer.lora_rank", (0,)),
            WITH_ENGINE,
            Either((Unset("engine.dtype"), OneOf("engine.dtype", (*HALF, "auto", "fp8")))),
        ),
        why="The adapter is added to 16-bit weights before they are sent: what is smaller than "
        "half a step of a weight is rounded away, while the trainer applies all of it.",
        remedy="Send the adapter itself and let the engine apply it beside the weights, or compare "
        "both ways once: probe paired --adapter.",
        source="https://github.com/NVIDIA-NeMo/RL/issues/3696",
        cause="lora_merge_rounding",
    ),
    Rule(
        name="adapter-scaled-to-nothing",
        severity="error",
        when=(OneOf("trainer.lora_alpha", (0, 0.0)), _ADAPTER),
        why="The adapter is multiplied by alpha over rank, which is 0: whoever applies it computes "
        "with the base model.",
        remedy="Set alpha to the rank or twice the rank.",
        source="https://github.com/verl-project/verl/issues/3050",
        cause="lora_not_applied",
    ),
    Rule(
        name="adapter-trained-on-the-head",
        severity="warning",
        when=(
            equals("trainer.lora_targets_head", True),
            Either((equals("weights.lora_merged", False), Unsaid("weights.lora_merged"))),
            _ADAPTER,
        ),
        why="The adapter changes the output head or the embedding, and an engine that applies it "
        "beside the weights leaves it out of the log-probabilities of prompts.",
        remedy="Leave lm_head and the embedding out of the adapter, or send merged weights.",
        source="https://github.com/vllm-project/vllm/issues/51594",
        cause="lora_not_applied",
    ),
)
