"""Rules of sampling: of which distribution the engine's log-probabilities are, and the trainer's.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import Between, Either, OneOf, Other, Unsaid, Unset, equals

#: The kept mass is at least top_p: above 0.99 its logarithm is below rounding in BF16.
KEEPS_ALL: Final = 0.99
_TRUNCATED: Final = Either(
    (
        Between("sampling.top_p", low=0, high=KEEPS_ALL),
        Between("sampling.top_k", low=0),
        Between("sampling.min_p", low=0),
    )
)
_SCALED: Final = Either(
    (
        Between("sampling.temperature", low=1),
        Between("sampling.temperature", low=0, high=1),
    )
)
_PENALISED: Final = Either(
    (
        Between("sampling.repetition_penalty", low=1),
        Between("sampling.repetition_penalty", high=1),
    )
)
_NOT_PROCESSED: Final = Either(
    (equals("engine.logprobs_mode", "raw_logprobs"), Unset("engine.logprobs_mode"))
)
#: Both compute the trainer's log-probabilities over the kept tokens (NeMo-RL pull 2053, prime-rl
#: pull 3431).
_FULL_VOCABULARY: Final = Other("trainer.framework", ("nemo-rl", "prime-rl"))

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="processed-logprobs-truncated",
        severity="warning",
        when=(
            _TRUNCATED,
            OneOf("engine.logprobs_mode", ("processed_logprobs", "processed_logits")),
            Either((_FULL_VOCABULARY, Unset("trainer.framework"))),
        ),
        why="The engine reports log-probabilities over the tokens that top-p, top-k or min-p kept, "
        "the trainer over the whole vocabulary: every token's gap has the log of the kept mass.",
        remedy="Draw from the whole vocabulary (top_p 1, top_k -1, min_p 0), or take the kept "
        "tokens along (return_sampling_mask of vLLM 0.28 or later).",
        source="https://github.com/huggingface/trl/issues/6789",
        cause="truncation_renorm",
    ),
    Rule(
        name="sampling-truncated",
        severity="warning",
        when=(
            _TRUNCATED,
            _FULL_VOCABULARY,
            Either(
                (OneOf("engine.logprobs_mode", ("raw_logprobs",)), Unsaid("engine.logprobs_mode"))
            ),
        ),
        why="Tokens are drawn from what top-p, top-k or min-p keep, and the trainer scores them "
        "over the whole vocabulary: ratios do not average to 1, in whichever mode the engine "
        "reports.",
        remedy="Draw from the whole vocabulary for training (top_p 1, top_k -1, min_p 0); truncate "
        "only when evaluating.",
        source="https://github.com/huggingface/trl/issues/6945",
        cause="truncation_renorm",
    ),
    Rule(
        name="raw-logprobs-with-temperature",
        severity="error",
        when=(_SCALED, equals("engine.logprobs_mode", "raw_logprobs")),
        why="The engine reports log-probabilities at temperature 1 of tokens that it drew at "
        "another one; a trainer that divides its logits by the temperature has others.",
        remedy="Start the engine with --logprobs-mode processed_logprobs, or sample at 1.",
        source="https://github.com/huggingface/trl/issues/4159",
        cause="temperature_semantics",
    ),
    Rule(
        name="server-with-raw-logprobs",
        severity="warning",
        when=(
            equals("engine.started_apart", True),
            _SCALED,
            Unset("engine.logprobs_mode"),
            equals("trainer.framework", "trl"),
        ),
        why="TRL divides its logits by the temperature, and a vLLM server that is started by hand "
        "reports log-probabilities at temperature 1 unless it is told otherwise.",
        remedy="Start the server with --logprobs-mode processed_logprobs.",
        source="https://github.com/huggingface/trl/issues/4159",
        cause="temperature_semantics",
    ),
    Rule(
        name="penalty-in-sampling",
        severity="warning",
        when=(_PENALISED, Other("trainer.framework", ())),
        why="The engine lowers tokens that have been written before, and no trainer does: tokens "
        "are drawn from a distribution that depends on the text and that is never scored.",
        remedy="Set repetition_penalty to 1 for training.",
        source="https://github.com/vllm-project/vllm/blob/main/vllm/sampling_params.py",
        cause="truncation_renorm",
    ),
)
