"""When a control of the engine has nothing to say, and how it compares: on a stand-in for a side.

What starts a compiled engine or another number of threads takes minutes on a real one, and each
control changes one setting only: that it is the right one is what is held here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.engine.comparison import decoded_gap
from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.registry import BY_NAME
from driftscope_probes.diagnosis.controls.sides import (
    EngineChange,
    Known,
    Logprobs,
    Sampled,
    Sequences,
    Sides,
    Tokens,
    TrainerChange,
)
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.trainer.settings import TrainerSettings

FLOOR: Final = prior_floor("bf16", "bf16")
PROMPTS: Final = tuple((7,) * length for length in (24, 140, 48))
RESPONSES: Final = ((5,) * 24,) * len(PROMPTS)
#: Of every token before a fault moves it, nats.
LOGPROB: Final = -1.5

#: Nats on the logits that an engine of these settings, asked so, is off by.
Fault = Callable[[EngineSettings, EngineChange], float]


@dataclass
class StandIn:
    """Both sides: the trainer is right, the engine off by what its fault says."""

    engine: EngineSettings
    fault: Fault
    asked: list[EngineChange] = field(default_factory=list)

    def _logprobs(self, change: EngineChange, tokens: int) -> Logprobs:
        self.asked.append(change)
        settings = EngineSettings(**{**self.engine.model_dump(), **dict(change.settings)})
        signs = np.resize([1.0, -1.0], tokens)
        moved = self.fault(settings, change) * signs * -np.expm1(LOGPROB)
        logprobs: Logprobs = (LOGPROB + moved).astype(np.float32)
        return logprobs

    def sample(self, change: EngineChange) -> Sampled:
        tokens = sum(map(len, RESPONSES))
        return Sampled(Sequences(PROMPTS, RESPONSES), self._logprobs(change, tokens), 0)

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        responses = ((5,) * max_tokens,) * len(prompts)
        logprobs = self._logprobs(change, max_tokens * len(prompts))
        return Sampled(Sequences(prompts, responses), logprobs, 0)

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        return self._logprobs(change, sum(map(len, sequences.responses)))

    def score(self, sequences: Sequences, change: TrainerChange) -> Logprobs:
        return np.full(sum(map(len, sequences.responses)), LOGPROB, np.float32)

    def close(self) -> None: ...


def bench(fault: Fault = lambda settings, change: 0.0, **engine: Any) -> tuple[Bench, StandIn]:
    settings = EngineSettings(**{"threads": 2, "prefix_caching": True, **engine})
    stand_in = StandIn(settings, fault)
    model = Path("model")
    sides = Sides(
        engine_model=model,
        trainer_model=model,
        engine=settings,
        trainer=TrainerSettings(),
        engine_dtype="bf16",
        trainer_mode="bf16",
        sampling=SamplingSettings(max_tokens=24),
        prompts=PROMPTS,
    )
    return Bench(sides, stand_in, stand_in, Known(FLOOR)), stand_in


@pytest.mark.parametrize(
    ("control", "engine", "told"),
    [
        ("engine_batch_of_one", {"batch_size": 1}, "one request at a time"),
        ("whole_prefill", {"chunked_prefill_tokens": 512}, "in one step of 512"),
        ("prefix_cache_off", {"prefix_caching": False}, "no prefix cache"),
        ("eager", {}, "runs eagerly"),
        ("kv_split_off", {"attention_split_kv": False}, "splits no keys"),
        ("kv_cache_auto", {"kv_cache_dtype": "auto"}, "model's dtype"),
    ],
)
def test_what_cannot_happen_is_not_called_clean(
    control: str, engine: dict[str, Any], told: str
) -> None:
    with pytest.raises(NotExercised, match=told):
        BY_NAME[control].run(bench(**engine)[0])


#: Control -> the engine as it is, and the settings under which it errs.
ONE_SETTING: dict[str, tuple[dict[str, Any], Callable[[EngineSettings], bool]]] = {
    "eager": ({"compile": True}, lambda settings: settings.compile),
    "kv_split_off": ({}, lambda settings: settings.attention_split_kv is not False),
    "kv_cache_auto": ({"kv_cache_dtype": "fp8"}, lambda s: s.kv_cache_dtype == "fp8"),
    "prefix_cache_off": ({}, lambda settings: settings.prefix_caching is not False),
    "whole_prefill": (
        {"chunked_prefill_tokens": 32},
        lambda settings: (settings.chunked_prefill_tokens or 2048) < 2048,
    ),
}


@pytest.mark.parametrize("control", ONE_SETTING)
def test_the_gap_goes_with_the_one_setting(control: str) -> None:
    engine, errs = ONE_SETTING[control]
    planted, _ = bench(lambda settings, change: 0.6 * errs(settings), **engine)
    assert BY_NAME[control].run(planted).outcome == "clean"
    elsewhere, _ = bench(lambda settings, change: 0.6, **engine)
    assert BY_NAME[control].run(elsewhere).outcome == "dirty"
    # Rounding is not taken for a gap that has fallen.
    healthy, _ = bench(lambda settings, change: 0.03, **engine)
    assert BY_NAME[control].run(healthy).outcome == "dirty"


def test_an_engine_that_does_not_repeat_itself_is_allowed_its_floor() -> None:
    """As a GPU's may: then a launch that differs by rounding is no other engine."""
    by_launch, _ = bench(lambda settings, change: 0.05 + 0.05 * change.launch)
    assert BY_NAME["engine_restart"].run(by_launch).outcome == "dirty"
    noisy, _ = bench(lambda settings, change: 0.05 + 0.05 * (change.launch + change.again))
    assert BY_NAME["engine_restart"].run(noisy).outcome == "clean"
    far, _ = bench(lambda settings, change: 0.05 + 0.5 * change.launch + 0.05 * change.again)
    assert BY_NAME["engine_restart"].run(far).outcome == "dirty"


def test_processed_values_are_not_held_against_raw_ones() -> None:
    """vLLM reports raw values of a prompt in every mode."""
    processed, stand_in = bench(logprobs_mode="processed_logprobs")
    BY_NAME["decode_reprefill"].run(processed)
    raw = ("logprobs_mode", "raw_logprobs")
    assert all(raw in change.settings for change in stand_in.asked[:2])


def test_decoded_tokens_are_compared_up_to_the_first_that_differs() -> None:
    one = Sampled(
        Sequences(((1,), (2,)), ((5, 6, 7), (8, 9))), np.array([-1, -2, -3, -4, -5], np.float32)
    )
    moved = np.array([-1, -2.5, -9, -4, -5], np.float32)
    other = Sampled(Sequences(((1,), (2,)), ((5, 6, 0), (8, 9))), moved)
    gap = decoded_gap(one, other)
    assert gap is not None and (gap.tokens, gap.largest, gap.equal) == (4, 0.5, 0.75)
    apart = replace(one, sequences=Sequences(((1,), (2,)), ((0, 6, 7), (0, 9))))
    assert decoded_gap(one, apart) is None
