"""Routing: the two sides of a mixture of experts send a token to other experts.

In: a lab of a mixture. Out: injections of flips and of corrupt replay, with both sides' routes.

A token's routes are those of the forward that gave its log-probability, one position before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import sample, scored_by, strength
from driftscope_probes.diagnosis.drill.lab import Lab, Sampled, Scored
from driftscope_probes.diagnosis.drill.pool import between
from driftscope_probes.push.pushed_step import PushedStep

MIXTURES = ("tiny-moe",)
Routes = NDArray[np.uint8]  # [tokens, layers, k]


def routers(model: Any) -> list[Any]:
    """The gates, in the order of the layers."""
    return [part for part in model.modules() if type(part).__name__.endswith("TopKRouter")]


def _blocks(model: Any) -> list[Any]:
    return [part for part in model.modules() if type(part).__name__.endswith("SparseMoeBlock")]


@dataclass(slots=True, eq=False)
class RouteRecorder:
    """Hooks on a model; `forwards` holds a tensor [rows, columns, layers, k] per forward."""

    model: Any
    forwards: list[Tensor] = field(default_factory=list)
    _shape: tuple[int, int] = (0, 0)
    _layers: list[Tensor] = field(default_factory=list)
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> RouteRecorder:
        gates = routers(self.model)
        self._handles.append(_blocks(self.model)[0].register_forward_pre_hook(self._begin))
        for gate in gates:
            self._handles.append(gate.register_forward_hook(self._record))
        self._handles.append(gates[-1].register_forward_hook(self._end))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._shape = (inputs[0].shape[0], inputs[0].shape[1])
        self._layers = []

    def _record(self, _: nn.Module, __: Any, output: tuple[Tensor, ...]) -> None:
        self._layers.append(output[2].reshape(*self._shape, -1))

    def _end(self, _: nn.Module, __: Any, ___: Any) -> None:
        self.forwards.append(torch.stack(self._layers, 2).to(torch.uint8))

    def of_decoding(self, sampled: Sampled) -> Routes:
        """Each forward's last column gave one token of each row; a prefill begins a batch."""
        batches: list[list[Tensor]] = []
        for forward in self.forwards:
            # A prompt has more than one token, so that only a prefill has several columns.
            if forward.shape[1] > 1:
                batches.append([])
            batches[-1].append(forward[:, -1])
        rows = [row for batch in batches for row in torch.stack(batch, 1)]
        lengths = map(len, sampled.responses)
        parts = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        return _as_routes(parts)

    def of_scoring(self, sampled: Sampled) -> Routes:
        rows = [row for forward in self.forwards for row in forward]
        return _as_routes(
            [
                row[len(prompt) - 1 : len(prompt) - 1 + len(response)]
                for row, prompt, response in zip(
                    rows, sampled.prompts, sampled.responses, strict=True
                )
            ]
        )


def _as_routes(parts: Sequence[Tensor]) -> Routes:
    routes: Routes = torch.cat(list(parts)).numpy()
    return routes


@dataclass(frozen=True, slots=True)
class _OtherChoice:
    """Behind a gate: experts chosen by other logits, weighted by the true ones."""

    chosen_by: Callable[[Tensor], Tensor]

    def __call__(self, gate: Any, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
        logits = output[0]
        indices = self.chosen_by(logits.float()).topk(gate.top_k, dim=-1).indices
        return logits, _weights(gate, logits, indices), indices


def _weights(gate: Any, logits: Tensor, indices: Tensor) -> Tensor:
    """Of the chosen experts, as the gate itself computes them."""
    weights = torch.softmax(logits, dtype=torch.float, dim=-1).gather(-1, indices)
    if gate.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype)


def noisy_routers(model: Any, size: float, seed: int) -> Any:
    """Normal noise on what the experts are chosen by, as of a router in a coarser dtype."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(logits: Tensor) -> Tensor:
        return logits + size * torch.randn(logits.shape, generator=generator)

    for gate in routers(model):
        gate.register_forward_hook(_OtherChoice(noisy))
    return model


def coarse_routers(model: Any, step: float, seed: int) -> Any:
    """Logits on a grid: near ties become ties, and the lower expert wins them."""

    def coarse(logits: Tensor) -> Tensor:
        # Ties in the order of the experts, whatever topk does: a step too small to matter else.
        order = torch.arange(logits.shape[-1]) * 1e-4 * step
        return (logits / step).round() * step - order

    for gate in routers(model):
        gate.register_forward_hook(_OtherChoice(coarse))
    return model


def _recorded_rollout(lab: Lab, setting: Setting, model: Any) -> tuple[Sampled, Routes]:
    with RouteRecorder(model) as recorder:
        sampled = sample(lab, setting, model)
    return sampled, recorder.of_decoding(sampled)


def _recorded_scores(
    lab: Lab, setting: Setting, sampled: Sampled, model: Any
) -> tuple[Scored, Routes]:
    with RouteRecorder(model) as recorder:
        scored = scored_by(lab, setting, sampled, model)
    return scored, recorder.of_scoring(sampled)


def routed_step(
    lab: Lab, setting: Setting, engine: Any, trainer: Any, *, pushed: bool = True
) -> PushedStep:
    """A step of a mixture, with both sides' routes where they are `pushed`."""
    sampled, engine_routes = _recorded_rollout(lab, setting, engine)
    scored, trainer_routes = _recorded_scores(lab, setting, sampled, trainer)
    if not pushed:
        return lab.step(sampled, scored)
    return lab.step(
        sampled, scored, routed_experts=engine_routes, trainer_routed_experts=trainer_routes
    )


#: Router logits are of order 1: from ties in the last bits to another choice at every token.
NOISE_BOUNDS = (1e-4, 10.0)


def _flips_in_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    seed = int(rng.integers(2**31))
    dose = strength(lab, setting, noisy_routers, severity, seed, NOISE_BOUNDS)
    engine = noisy_routers(lab.engine(fresh=True), dose, seed)
    return routed_step(lab, setting, engine, lab.trainer(), pushed=rng.random() < 0.5)


def _flips_in_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    dose = strength(lab, setting, coarse_routers, severity, 0, NOISE_BOUNDS)
    trainer = coarse_routers(lab.trainer(fresh=True), dose, 0)
    return routed_step(lab, setting, lab.engine(), trainer, pushed=rng.random() < 0.5)


# Replay


@dataclass(slots=True, eq=False)
class _Replay:
    """Behind a gate: routes changed by `corrupt`, weighted by the trainer's own logits."""

    corrupt: Callable[[Tensor], Tensor]  # [rows, columns, k] → the same shape
    columns: int = 1

    def begin(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.columns = inputs[0].shape[1]

    def __call__(self, gate: Any, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> Any:
        logits, _, indices = output
        routes = self.corrupt(indices.reshape(-1, self.columns, indices.shape[-1]))
        indices = routes.reshape(indices.shape)
        return logits, _weights(gate, logits, indices), indices


def _replaying(model: Any, layers: int, corrupt: Callable[[Tensor], Tensor]) -> Any:
    """The last `layers` layers replay corrupt routes; the other ones what the router says."""
    for block in _blocks(model)[-layers:]:
        fault = _Replay(corrupt)
        block.register_forward_pre_hook(fault.begin)
        block.gate.register_forward_hook(fault)
    return model


def _layer_count(model: Any, severity: float) -> int:
    return max(1, round(severity * len(_blocks(model))))


def _shifted(onset: int) -> Callable[[Tensor], Tensor]:
    """From absolute position `onset` ≥ 1 on each token has the routes of the token before it."""

    def corrupt(routes: Tensor) -> Tensor:
        return torch.cat([routes[:, :onset], routes[:, onset - 1 : -1]], 1)

    return corrupt


#: Positions of a chunk of prefill, at whose border replay goes wrong.
ONSETS = (1, 16, 32)


def _shifted_replay(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine's routes are right, and the trainer replays them one token late."""
    trainer = lab.trainer(fresh=True)
    onset = int(rng.choice(ONSETS))
    _replaying(trainer, _layer_count(trainer, severity), _shifted(onset))
    return routed_step(lab, setting, lab.engine(), trainer)


def _padding_rows(every: int, rows: int) -> Callable[[Tensor], Tensor]:
    """`rows` of each `every` tokens have experts 0, 1, …: rows that nobody filled."""

    def corrupt(routes: Tensor) -> Tensor:
        hit = torch.arange(routes.shape[1]) % every >= every - rows
        filled = routes.clone()
        filled[:, hit] = torch.arange(routes.shape[-1])
        return filled

    return corrupt


def _unfilled_replay(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine reports rows that it never filled, at the end of each chunk of 16 tokens, and the
    trainer replays what was reported."""
    trainer = lab.trainer(fresh=True)
    rows = round(between(1, 12, severity))
    _replaying(trainer, len(_blocks(trainer)), _padding_rows(16, rows))
    sampled, _ = _recorded_rollout(lab, setting, lab.engine())
    scored, replayed = _recorded_scores(lab, setting, sampled, trainer)
    return lab.step(sampled, scored, routed_experts=replayed, trainer_routed_experts=replayed)


INJECTIONS: tuple[Injection, ...] = (
    Injection(
        "moe_routing_flip",
        "a",
        "noise on the engine's router, as of a coarser dtype",
        _flips_in_engine,
        MIXTURES,
    ),
    Injection(
        "moe_routing_flip",
        "b",
        "the trainer's router logits lie on a coarse grid",
        _flips_in_trainer,
        MIXTURES,
    ),
    Injection(
        "router_replay_corrupt",
        "a",
        "the trainer replays the engine's routes one token late",
        _shifted_replay,
        MIXTURES,
    ),
    Injection(
        "router_replay_corrupt",
        "b",
        "rows of the engine's routes were never filled, and the trainer replays them",
        _unfilled_replay,
        MIXTURES,
    ),
)
