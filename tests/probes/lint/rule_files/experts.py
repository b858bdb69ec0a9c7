"""Rules of mixtures of experts: what trips them, what does not."""

from __future__ import annotations

from ..recipes import prime_rl, slime, verl
from .row import Row

_MEGATRON = "actor_rollout_ref.actor.megatron."
_ROUTES = "actor_rollout_ref.rollout.enable_rollout_routing_replay"

ROWS: tuple[Row, ...] = (
    Row(
        "routes-not-replayed",
        prime_rl("[trainer.model]\nep = 8\n"),
        prime_rl("[trainer]\nenable_router_replay = true\n\n[trainer.model]\nep = 8\n"),
    ),
    Row(
        "replay-without-routes",
        verl(f"{_MEGATRON}router_replay.mode=R3"),
        verl(f"{_MEGATRON}router_replay.mode=R3", f"{_ROUTES}=True"),
    ),
    Row(
        "router-bias-moves",
        slime("--moe-router-bias-update-rate 1e-3"),
        slime("--moe-router-bias-update-rate 0"),
    ),
    Row(
        "router-bias-moves-under-replay",
        slime("--moe-router-bias-update-rate 1e-3", "--use-rollout-routing-replay"),
        slime("--moe-router-bias-update-rate 0.0", "--use-rollout-routing-replay"),
    ),
    Row(
        "trainer-router-in-half-precision",
        verl(f"+{_MEGATRON}override_transformer_config.moe_router_dtype=bf16"),
        verl(f"+{_MEGATRON}override_transformer_config.moe_router_dtype=fp32"),
    ),
)
