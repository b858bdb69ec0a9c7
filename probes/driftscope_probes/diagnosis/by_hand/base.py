"""The seam of this folder: one control in the words of the user's own framework. Free of torch.

Options were read in the sources of vLLM 0.32, TRL 1.16 (both installed with this repository), verl
0.9 (trainer/config/rollout/rollout.yaml, actor), NeMo-RL (examples/configs/grpo_math_1B.yaml),
slime (slime/utils/arguments.py; `--sglang-X` is SGLang's `--X`, the rest is Megatron's) and
prime-rl (configs/inference.py, configs/trainer.py) in November 2026.
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
