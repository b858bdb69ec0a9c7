"""The seam of this folder: one control in the words of the user's own framework. Free of torch.

Options of vLLM 0.32 and TRL 1.16 are tested against the packages installed with this repository.
Those of verl, NeMo-RL, slime and prime-rl come from their sources of November 2026 in part
(verl's rollout.yaml, NeMo-RL's grpo_math_1B.yaml, prime-rl's configs, the first third of slime's
arguments.py) and else from their documentation: try one with your version before you rely on it.
`--sglang-X` of slime is SGLang's `--X`; the rest is Megatron's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Framework = Literal["vllm", "verl", "trl", "nemo-rl", "slime", "prime-rl"]
FRAMEWORKS: Final[tuple[Framework, ...]] = get_args(Framework)
#: A control changes one setting for one step, or asks the same twice; "said": its text says how.
Look = Literal["gap", "twice", "said"]
#: How an outcome is read, by what is looked at.
READ: Final[Mapping[Look, str]] = {
    "gap": "clean: the difference is gone, or most of it; dirty: it stays.",
    "twice": "clean: both runs give the same values, up to rounding; dirty: they do not.",
    "said": "",
}

#: Where the frameworks keep their settings.
ROLLOUT: Final = "actor_rollout_ref.rollout"
ACTOR: Final = "actor_rollout_ref.actor"
MODEL: Final = "actor_rollout_ref.model"
NEMO_VLLM: Final = "policy.generation.vllm_cfg"
NEMO_KWARGS: Final = "++policy.generation.vllm_kwargs"


@dataclass(frozen=True, slots=True)
class ByHand:
    otherwise: str  # what to do where a framework has no option
    look: Look = "gap"
    options: Mapping[Framework, str] = field(default_factory=dict)

    def how(self, framework: Framework) -> str:
        return self.options.get(framework, self.otherwise)
