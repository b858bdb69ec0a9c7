"""Rules of mixtures of experts: which experts a token goes to on the trainer's side.

In: nothing. Out: RULES.
"""

from __future__ import annotations

from typing import Final

from driftscope_probes.lint.base import Rule
from driftscope_probes.lint.conditions import Between, Either, OneOf, Unset, equals
from driftscope_probes.lint.rules.trainer import HALF, WHOLE

_NOT_REPLAYED: Final = Either(
    (equals("trainer.router_replay", False), Unset("trainer.router_replay"))
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        name="routes-not-replayed",
        severity="note",
        when=(Between("trainer.expert_parallel", low=1), _NOT_REPLAYED, WHOLE),
        why="Trainer and engine choose experts each for themselves: near ties fall differently, "
        "and single tokens move by far more than rounding.",
        remedy="Replay the engine's routes (router_replay.mode=R3 in verl, "
        "--use-rollout-routing-replay in slime, enable_router_replay in prime-rl), or expect "
        "heavy tails.",
        source="https://arxiv.org/abs/2510.11370",
        cause="moe_routing_flip",
    ),
    Rule(
        name="replay-without-routes",
        severity="error",
        when=(
            equals("trainer.router_replay", True),
            Either(
                (
                    equals("engine.returns_routes", False),
                    Unset("engine.returns_routes"),
                )
            ),
            # prime-rl, NeMo-RL and slime turn the engine's side on by themselves.
            equals("trainer.framework", "verl"),
            WHOLE,
        ),
        why="The trainer is to replay the engine's routes, and the engine is not told to return "
        "them.",
        remedy="Set actor_rollout_ref.rollout.enable_rollout_routing_replay to true.",
        source="https://github.com/verl-project/verl/blob/main/verl/trainer/config/rollout/"
        "rollout.yaml",
        cause="moe_routing_flip",
    ),
    Rule(
        name="router-bias-moves",
        severity="warning",
        when=(Between("trainer.router_bias_rate", low=0), _NOT_REPLAYED),
        why="The routers' correction bias moves after each step, outside of the gradient: the "
        "engine chooses experts with the old bias until the next transfer, if it gets it at all.",
        remedy="Set the bias update rate to 0 in RL.",
        source="https://github.com/NVIDIA-NeMo/RL/blob/main/examples/configs/grpo_math_1B.yaml",
        cause="moe_routing_flip",
    ),
    Rule(
        name="router-bias-moves-under-replay",
        severity="warning",
        when=(
            Between("trainer.router_bias_rate", low=0),
            equals("trainer.router_replay", True),
        ),
        why="The bias follows the replayed routes, which it had no part in: it drifts unseen, and "
        "acts all at once where routes are not replayed.",
        remedy="Set the bias update rate to 0 while routes are replayed.",
        source="https://github.com/PrimeIntellect-ai/prime-rl/pull/2953",
        cause="router_replay_corrupt",
    ),
    Rule(
        name="trainer-router-in-half-precision",
        severity="warning",
        when=(OneOf("trainer.router_dtype", HALF),),
        why="The trainer's router computes in 16 bits: scores of experts tie or change places, and "
        "the engine, which rounds elsewhere, takes others.",
        remedy="Set moe_router_dtype to fp32.",
        source="https://github.com/vllm-project/vllm/pull/58076",
        cause="moe_routing_flip",
    ),
)
