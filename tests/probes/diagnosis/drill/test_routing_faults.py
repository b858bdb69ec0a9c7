"""Routes of a mixture as the drill records, disturbs and replays them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.damage import sigma
from driftscope_probes.diagnosis.drill.faults import routing
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.push.pushed_step import PushedStep

SETTING = Setting("tiny", "tiny-moe", "fp32", "fp32", sequences=6, max_tokens=16, batch=4)
ROUNDING = 5e-5  # nats


@pytest.fixture(scope="module")
def lab(tiny_moe: Path) -> Lab:
    return Lab(tiny_moe, "fp32", "fp32", 0)


def inject(lab: Lab, cause: str, way: str, severity: float, seed: int = 0) -> PushedStep:
    chosen = next(one for one in routing.INJECTIONS if (one.cause, one.way) == (cause, way))
    return chosen.inject(lab, severity, np.random.default_rng(seed), SETTING)


def with_routes(lab: Lab, cause: str, way: str, severity: float) -> PushedStep:
    for seed in range(8):
        step = inject(lab, cause, way, severity, seed)
        if step.routed_experts is not None:
            return step
    pytest.fail("no draw of eight pushed routes")


def routes_of(step: PushedStep) -> tuple[routing.Routes, routing.Routes]:
    assert step.routed_experts is not None and step.trainer_routed_experts is not None
    rollout: routing.Routes = step.routed_experts.astype(np.uint8)
    trainer: routing.Routes = step.trainer_routed_experts.astype(np.uint8)
    return rollout, trainer


def test_a_sound_pair_takes_the_same_experts_on_both_sides(lab: Lab) -> None:
    step = routing.routed_step(lab, SETTING, lab.engine(), lab.trainer())
    rollout, trainer = routes_of(step)
    assert rollout.shape == (step.tokens, 3, 2)
    assert np.array_equal(rollout, trainer)
    assert sigma(step.rollout, step.trainer) < ROUNDING


def test_a_token_has_the_routes_of_the_forward_that_gave_its_logprob(lab: Lab) -> None:
    """Against the gates' own logits in one forward of one sequence, without padding."""
    step = routing.routed_step(lab, SETTING, lab.engine(), lab.trainer())
    rollout, _ = routes_of(step)
    row, ids = 5, step.extras.token_ids  # of the second batch
    assert ids is not None
    prompt = lab.prompts(SETTING.sequences)[row]
    sequence = list(prompt) + ids[step.sequence(row)].tolist()
    model = lab.trainer()
    inputs: list[torch.Tensor] = []
    handles = [
        gate.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for gate in routing.routers(model)
    ]
    with torch.inference_mode():
        model(torch.tensor([sequence]), use_cache=False)
    for handle in handles:
        handle.remove()
    for layer, (gate, hidden) in enumerate(zip(routing.routers(model), inputs, strict=True)):
        logits = hidden.reshape(-1, hidden.shape[-1]) @ gate.weight.T
        best = logits.topk(2, -1).indices[len(prompt) - 1 : -1].numpy()
        assert np.array_equal(rollout[step.sequence(row), layer], best)


@pytest.mark.parametrize("way", ["a", "b"])
def test_flips_move_the_tokens_that_flip(lab: Lab, way: str) -> None:
    step = with_routes(lab, "moe_routing_flip", way, 0.5)
    rollout, trainer = routes_of(step)
    flipped = (np.sort(rollout, -1) != np.sort(trainer, -1)).any((1, 2))
    assert 0.0 < flipped.mean() < 1.0
    moved = np.abs(step.trainer - step.rollout)
    assert moved[flipped].mean() > 3 * moved[~flipped].mean()


def test_some_pushes_of_a_mixture_have_no_routes(lab: Lab) -> None:
    pushed = {
        inject(lab, "moe_routing_flip", "a", 0.5, seed).routed_experts is not None
        for seed in range(8)
    }
    assert pushed == {True, False}


def test_a_late_replay_is_the_rollouts_routes_shifted_by_one(lab: Lab) -> None:
    step = inject(lab, "router_replay_corrupt", "a", 1.0)
    rollout, trainer = routes_of(step)
    for row in range(step.sequences):
        own = step.sequence(row)
        # The first layer's routes depend on nothing that the replay has changed.
        assert np.array_equal(trainer[own, 0][1:], rollout[own, 0][:-1])
    assert sigma(step.rollout, step.trainer) > 0.1


def test_unfilled_rows_are_pushed_and_replayed(lab: Lab) -> None:
    step = inject(lab, "router_replay_corrupt", "b", 1.0)
    rollout, trainer = routes_of(step)
    assert np.array_equal(rollout, trainer)
    unfilled = (rollout == np.arange(2)).all((1, 2))
    # 12 of every 16 positions
    assert 0.6 < unfilled.mean() < 0.9
    moved = np.abs(step.trainer - step.rollout)
    assert moved[unfilled].mean() > 0.05
