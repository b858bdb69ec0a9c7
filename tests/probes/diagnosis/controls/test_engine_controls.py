"""Every control of the engine on a real vLLM: quiet on a healthy pair, loud on a planted fault.

One engine for all: its session moves the answers where the file named by $PLANTED says so. In the
engine as it is chunks of 32 tokens and an FP8 cache are at work, which healthy controls bear.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.live_engine import LiveEngine
from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.registry import BY_NAME
from driftscope_probes.diagnosis.controls.sides import EngineChange, Known, Sides
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import RequestError
from driftscope_probes.tokenization import prompt_text
from driftscope_probes.trainer.settings import TrainerSettings

pytest.importorskip("vllm")
# vLLM has an FP8 cache with AVX-512 only.
pytestmark = [pytest.mark.slow, pytest.mark.avx512]

CHILDREN = Path(__file__).parent / "children"
FLOOR = prior_floor("bf16", "bf16")
#: As whole_prefill asks it, whose engine is still open then.
WHOLE = EngineChange(settings=(("chunked_prefill_tokens", 2048),))
LENGTHS = (24, 40, 140, 48)

Run = Callable[[str, str], Measurement]


@dataclass(frozen=True)
class Live:
    engine: LiveEngine
    run: Run  # a control by name with a plant by name, on a bench that remembers nothing


@pytest.fixture(scope="module")
def live(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("controls")
    text = prompt_text(tiny_llama)
    sides = Sides(
        engine_model=tiny_llama,
        trainer_model=tiny_llama,
        engine=EngineSettings(
            threads=1, prefix_caching=True, chunked_prefill_tokens=32, kv_cache_dtype="fp8"
        ),
        trainer=TrainerSettings(threads=1),
        engine_dtype="bf16",
        trainer_mode="bf16",
        sampling=SamplingSettings(max_tokens=24),
        prompts=tuple(tuple(text[37 * i : 37 * i + length]) for i, length in enumerate(LENGTHS)),
    )
    planted = folder / "planted.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTED", str(planted))
        patch.setenv("PYTHONPATH", str(CHILDREN), prepend=os.pathsep)
        engine = LiveEngine(sides, folder / "engine", module="planted_engine_session")
        trainer = LiveTrainer(sides, folder / "trainer")

        @cache
        def run(control: str, plant: str) -> Measurement:
            planted.write_text(plant, encoding="utf-8")
            return BY_NAME[control].run(Bench(sides, engine, trainer, Known(FLOOR)))

        yield Live(engine, run)
        engine.close()
        trainer.close()


#: Those of one launch, one after the other, so that no process is started twice.
CASES = [
    ("engine_batch_of_one", "none", "clean"),
    ("engine_batch_of_one", "batch", "dirty"),
    ("decode_reprefill", "none", "clean"),
    ("decode_reprefill", "decode", "dirty"),
    ("truncated_prompts", "none", "clean"),
    ("truncated_prompts", "onset", "dirty"),
    ("second_replica", "none", "clean"),
    ("second_replica", "replica", "dirty"),
    ("engine_restart", "none", "clean"),
    ("engine_restart", "launch", "dirty"),
    ("reload_same_weights", "none", "clean"),
    ("reload_same_weights", "launch", "clean"),
    ("reload_same_weights", "reload", "dirty"),
    ("sleep_wake", "none", "clean"),
    ("sleep_wake", "sleep_wake", "dirty"),
    ("prefix_cache_off", "none", "dirty"),
    ("prefix_cache_off", "cache", "clean"),
    ("whole_prefill", "none", "dirty"),
    ("whole_prefill", "chunks", "clean"),
    ("whole_prefill", "chunks read", "clean"),
    # The FP8 cache is no plant: the engine really has one.
    ("kv_cache_auto", "decode", "dirty"),
    ("kv_cache_auto", "none", "clean"),
]


@pytest.mark.parametrize(("control", "plant", "outcome"), CASES)
def test_what_a_control_finds(live: Live, control: str, plant: str, outcome: str) -> None:
    found = live.run(control, plant)
    assert found.outcome == outcome, found
    if BY_NAME[control].positive == "dirty":
        assert (found.value == 0.0) == (outcome == "clean"), found


def test_what_a_reload_does_beyond_the_gap_is_not_in_it(live: Live) -> None:
    """As vLLM on a CPU does to a mixture of experts at any reload, whatever the gap's cause."""
    with pytest.raises(NotExercised, match="a fault, but not the one in it"):
        live.run("reload_same_weights", "reload far")


def test_the_onset_is_exact(live: Live) -> None:
    found = live.run("truncated_prompts", "onset")
    assert found.value == 97.0
    before, behind = (float(evidence.value) for evidence in found.evidence)
    assert before < 0.2 < behind


def test_a_hot_cache_is_told_of(live: Live) -> None:
    (evidence,) = live.run("prefix_cache_off", "none").evidence
    assert "128 prompt tokens" in evidence.what and evidence.value == 0.0


def test_a_seed_draws_the_same_whether_a_prompt_is_read_whole_or_in_pieces(live: Live) -> None:
    """vLLM by itself dies here: it turns a generator back that cannot be."""
    pieces, whole = live.engine.sample(EngineChange()), live.engine.sample(WHOLE)
    assert pieces.sequences == whole.sequences
    assert len(set(pieces.sequences.responses)) == len(LENGTHS)


def test_what_an_engine_cannot_be_is_refused(live: Live) -> None:
    with pytest.raises(RequestError, match="cannot run with"):
        live.engine.sample(EngineChange(settings=(("kernels", "invariant"), ("compile", True))))
    with pytest.raises(RequestError, match="0 folders are known"):
        live.engine.sample(EngineChange(weights=0))
