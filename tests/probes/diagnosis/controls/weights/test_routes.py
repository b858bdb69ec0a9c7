"""The engine's experts forced upon the trainer: a router that errs, and two that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.registry import BY_NAME
from driftscope_probes.diagnosis.controls.sides import Routed, TrainerChange
from driftscope_probes.engines.sessions.hf_batches import HfBatches
from driftscope_probes.engines.sessions.question import Setup
from driftscope_probes.engines.sessions.registry import BatchEngine
from driftscope_probes.engines.sessions.run_session import Desk
from driftscope_probes.errors import EngineError, TrainerError

from .benches import HereEngine, HereTrainer, known_of, sides_of

CONTROL = BY_NAME["routes_replayed"]
COARSE = 0.25


class CoarseRouter(Desk):
    """Routers whose logits are rounded: near ties go to other experts."""

    def opened(self, model: Path, setup: Setup) -> BatchEngine:
        engine = super().opened(model, setup)
        assert isinstance(engine, HfBatches)
        for name, gate in engine._engine.model.named_modules():
            if name.endswith(".mlp.gate"):
                gate.register_forward_hook(_coarse)
        return engine


def _coarse(gate: Any, _: Any, output: Any) -> Any:
    logits = (output[0] / COARSE).round() * COARSE
    weights, chosen = torch.topk(torch.softmax(logits.float(), -1), gate.top_k, -1)
    return logits, (weights / weights.sum(-1, keepdim=True)).to(logits.dtype), chosen


def bench_of(model: Path, work: Path, dtype: str, desk: type[Desk] = Desk) -> Bench:
    sides = sides_of(model, model, dtype)
    known = known_of(sides, mixture_of_experts=True)
    return Bench(sides, HereEngine(sides, work, desk), HereTrainer(sides), known)


def test_a_router_that_rounds_its_logits(tiny_moe: Path, tmp_path: Path) -> None:
    bench = bench_of(tiny_moe, tmp_path, "bf16", CoarseRouter)
    found = CONTROL.run(bench)
    assert found.outcome == "clean" and found.value < 0.3 * bench.base.sigma
    sequences = bench.sample().sequences
    routed = bench.routed(sequences)
    read = [
        len(prompt) + len(response)
        for prompt, response in zip(sequences.prompts, sequences.responses, strict=True)
    ]
    assert [route.shape for route in routed.routes] == [(tokens, 3, 2) for tokens in read]
    # Its own choice, replayed, changes nothing; another one does.
    own = bench_of(tiny_moe, tmp_path, "bf16")
    alike = own.score_routed(sequences, own.routed(sequences), TrainerChange(quiet=True))
    assert np.array_equal(alike, own.score(sequences, TrainerChange(quiet=True)))
    swapped = Routed(routed.logprobs, tuple((route + 1) % 8 for route in routed.routes))
    assert np.abs(own.score_routed(sequences, swapped) - alike).mean() > 0.1
    short = Routed(routed.logprobs, tuple(route[:-1] for route in routed.routes))
    with pytest.raises(TrainerError, match="the routes are of"):
        own.score_routed(sequences, short)


def test_equal_engines_have_nothing_to_replay(tiny_moe: Path, tmp_path: Path) -> None:
    """transformers on both sides: read as a prompt, the values have equal bits."""
    with pytest.raises(NotExercised, match="decode_reprefill"):
        CONTROL.run(bench_of(tiny_moe, tmp_path, "bf16"))


def test_a_dense_model_has_no_routers(tiny_llama: Path, tmp_path: Path) -> None:
    bench = bench_of(tiny_llama, tmp_path, "bf16")
    with pytest.raises(EngineError, match="has no experts"):
        bench.routed(bench.sample().sequences)
