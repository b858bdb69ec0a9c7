"""Which causes a pair's own settings rule out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from driftscope_probes.diagnose.possible import OF_ENGINE, OF_PAIR, can_be, possible_here
from driftscope_probes.diagnosis.controls.sides import Known, Sides
from driftscope_probes.diagnosis.families.registry import BY_NAME
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.diagnosis.planner import UNEXPLAINED, prior_of
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.trainer.settings import TrainerSettings

PLAIN = Sides(
    engine_model=Path("a"),
    trainer_model=Path("a"),
    engine=EngineSettings(),
    trainer=TrainerSettings(),
    engine_dtype="bf16",
    trainer_mode="bf16",
    sampling=SamplingSettings(),
    prompts=((1, 2), (3, 4)),
)
KNOWN = Known(prior_floor("bf16", "bf16"))
PACKED = TrainerSettings(batching="packed", micro_batch=2)
LEFT = TrainerSettings(padding_side="left", micro_batch=2)


@pytest.mark.parametrize(
    ("cause", "sides"),
    [
        ("packed_attention_leak", replace(PLAIN, trainer=PACKED)),
        ("pad_attended", replace(PLAIN, trainer=LEFT)),
        ("batch_variant_trainer", replace(PLAIN, trainer=LEFT)),
        ("stale_engine_weights", replace(PLAIN, trainer_model=Path("b"))),
        ("fp8_kv_scales", replace(PLAIN, engine=EngineSettings(kv_cache_dtype="fp8"))),
        ("compile_or_cudagraph_mode", replace(PLAIN, engine=EngineSettings(compile=True))),
        ("truncation_renorm", replace(PLAIN, sampling=SamplingSettings(top_p=0.9))),
        (
            "chunked_prompt_logprobs",
            replace(
                PLAIN,
                engine=EngineSettings(chunked_prefill_tokens=16),
                prompts=((1,) * 40, (2,)),
            ),
        ),
    ],
)
def test_a_setting_makes_a_cause_possible(cause: str, sides: Sides) -> None:
    assert not can_be(cause, PLAIN, KNOWN)
    assert can_be(cause, sides, KNOWN)


def test_nobody_knows_what_a_server_of_others_runs() -> None:
    server = replace(PLAIN, engine=EngineSettings(kind="vllm-server"))
    assert all(can_be(cause, server, KNOWN) for cause in OF_ENGINE)
    assert not can_be("packed_attention_leak", server, KNOWN)


def test_what_is_ruled_out_goes_to_the_causes_that_are_left() -> None:
    before = prior_of(())
    after = possible_here(before, PLAIN, KNOWN)
    assert sum(after.probabilities.values()) == pytest.approx(1.0)
    assert after.probabilities[UNEXPLAINED] == before.probabilities[UNEXPLAINED]
    assert after.probabilities["norm_eps"] > before.probabilities["norm_eps"]
    assert after.probabilities["off_by_one"] < before.probabilities["off_by_one"]
    assert {*OF_ENGINE, *OF_PAIR} <= BY_NAME.keys()
