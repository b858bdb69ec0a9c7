"""Rules of the loss: what it compares with the engine, corrects and clips, and what it cannot see.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import (
    Between,
    Contains,
    Either,
    OneOf,
    Other,
    Unless,
    Unset,
    equals,
)
from driftscope_probes.lint.rules.trainer import HALF, RATIO_OF_TRAINER, WHOLE

#: Mean |Δ| of one token between a BF16 engine and a BF16 trainer of equal weights: 0.044 nats
#: (SmolLM2, 1,536 tokens); FP16: 0.005. A ratio that rounding alone moves by more is clipped.
BF16_GAP: Final = 0.01
#: Updates of age up to which prime-rl drops nothing, and AReaL saw no loss (its figure 5).
USUAL_STALENESS: Final = 8
_OFF: Final = Either((equals("trainer.correction", "off"), Unset("trainer.correction")))
UNCORRECTED: Final = (_OFF, RATIO_OF_TRAINER, WHOLE, Other("trainer.framework", ("prime-rl",)))
_QUANTISED: Final = Either(
    (
        Other("engine.quantization", ("none", "bf16", "bfloat16")),
        equals("engine.dtype", "fp8"),
        Contains("engine.model", ("-fp8", "_fp8", "-int4", "-nvfp4", "-mxfp8", "-awq", "-gptq")),
    )
)
_TOKEN_RATIOS: Final = Either((Unset("trainer.ratio_of"), equals("trainer.ratio_of", "token")))

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="stale-and-uncorrected",
        severity="error",
        when=(
            equals("trainer.correction", "off"),
            Either((Between("trainer.staleness", low=0), equals("trainer.asynchronous", True))),
            RATIO_OF_TRAINER,
        ),
        why="Answers are trained on after the weights have moved on, and no importance sampling "
        "corrects for it: staleness and the gap of the kernels both go into the gradient.",
        remedy="Turn the correction on (use_importance_sampling_correction in NeMo-RL, "
        "rollout_correction in verl, vllm_importance_sampling_correction in TRL).",
        source="https://github.com/NVIDIA-NeMo/RL/blob/main/docs/guides/async-grpo.md",
        cause="policy_staleness",
    ),
    Rule(
        name="correction-turned-off",
        severity="warning",
        when=(
            equals("trainer.correction", "off"),
            equals("trainer.framework", "trl"),
            equals("engine.name", "vllm"),
            Either((Unset("trainer.asynchronous"), equals("trainer.asynchronous", False))),
        ),
        why="TRL corrects for the gap between vLLM and the trainer by default, and this turns it "
        "off: tokens count as if the trainer itself had drawn them.",
        remedy="Leave vllm_importance_sampling_correction on; its metrics are lost as well.",
        source="https://fengyao.notion.site/off-policy-rl",
    ),
    Rule(
        name="quantised-engine-uncorrected",
        severity="warning",
        when=(_QUANTISED, Unset("trainer.quantization"), *UNCORRECTED),
        why="The engine draws tokens with quantised weights, the trainer scores them in 16 bits, "
        "and no importance sampling corrects for it: the gap is several times that of rounding.",
        remedy="Turn token-level truncated importance sampling on (rollout_is=token in verl, "
        "--use-tis in slime), or quantise the trainer's products on the same grid.",
        source="https://fengyao.notion.site/flash-rl",
        cause="quantized_weights",
    ),
    Rule(
        name="quantised-engine-alone",
        severity="note",
        when=(
            _QUANTISED,
            Unset("trainer.quantization"),
            Other("trainer.correction", ("off",)),
            WHOLE,
        ),
        why="Only the engine computes with quantised weights. The correction reweights tokens; the "
        "gap itself stays, and grows with training where scales are per tensor.",
        remedy="Watch the gap over steps; the same grid on both sides, or MXFP8, keeps it flat.",
        source="https://github.com/verl-project/verl/pull/7519",
        cause="quantized_weights",
    ),
    Rule(
        name="gap-not-measured",
        severity="note",
        when=(
            equals("trainer.old_from_engine", True),
            Either((Unset("trainer.compares"), equals("trainer.compares", False))),
        ),
        why="The engine's log-probabilities are taken as the old ones and nothing is computed "
        "again: old minus rollout is 0 by definition, and the gap shows only in the ratio.",
        remedy="Score one batch in a while with the trainer before the update and push both "
        "(--get-mismatch-metrics in slime, bypass_mode=false in verl).",
        source="https://github.com/verl-project/verl/issues/7196",
    ),
    Rule(
        name="engine-logprobs-not-returned",
        severity="warning",
        when=(equals("engine.returns_logprobs", False),),
        why="The engine's log-probabilities are not kept: the gap can be neither measured nor "
        "corrected.",
        remedy="Set actor_rollout_ref.rollout.calculate_log_probs to true.",
        source="https://github.com/verl-project/verl/blob/main/docs/algo/rollout_corr.md",
    ),
    Rule(
        name="clip-range-below-rounding",
        severity="warning",
        when=(
            Either(
                (
                    Between("trainer.clip_high", low=0, high=BF16_GAP),
                    Between("trainer.clip_low", low=0, high=BF16_GAP),
                )
            ),
            _TOKEN_RATIOS,
            # Log-probs of a picture's steps are means over its dimensions: 1e-5 is usual there.
            Unless(equals("engine.name", "vllm_omni")),
            Either((Unset("trainer.dtype"), OneOf("trainer.dtype", HALF))),
        ),
        why="The clip range is narrower than what rounding does to a token's ratio in 16 bits: "
        "tokens are clipped by noise, not by the update.",
        remedy="Widen it to 0.1 or more for ratios of tokens, or compute in FP32; ranges like "
        "3e-4 belong to ratios of whole sequences (GSPO).",
        source="https://github.com/huggingface/trl/issues/5333",
        cause="bf16_rounding_tail",
    ),
    Rule(
        name="very-stale",
        severity="note",
        when=(Between("trainer.staleness", low=USUAL_STALENESS),),
        why="Answers may be older than 8 updates when they are trained on: their gap is mostly "
        "staleness, and a fault of the kernels is hard to see beside it.",
        remedy="Push behavior_version with each step, so that the gap is told apart by age.",
        source="https://arxiv.org/abs/2505.24298",
        cause="policy_staleness",
    ),
)
