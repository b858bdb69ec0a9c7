"""The trainer side of a bench: its own process, the product's trainer, and every change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.diagnosis.controls.live_trainer import LiveTrainer
from driftscope_probes.diagnosis.controls.sides import (
    AS_IS_TRAINER,
    Gap,
    Sequences,
    Sides,
    TrainerChange,
    gap_of,
)
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import ModelError
from driftscope_probes.trainer.settings import TrainerSettings

LENGTHS = ((9, 24), (17, 20), (30, 12), (5, 24))
TEMPERATURE = 0.7


def _sequences() -> Sequences:
    random = np.random.default_rng(0)
    drawn = [random.integers(3, 900, size=sum(pair)).tolist() for pair in LENGTHS]
    return Sequences(
        tuple(tuple(ids[:prompt]) for ids, (prompt, _) in zip(drawn, LENGTHS, strict=True)),
        tuple(tuple(ids[prompt:]) for ids, (prompt, _) in zip(drawn, LENGTHS, strict=True)),
    )


SEQUENCES = _sequences()


@pytest.fixture(scope="module")
def trainer(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveTrainer]:
    sides = Sides(
        engine_model=tiny_llama / "missing",
        trainer_model=tiny_llama,
        engine=EngineSettings(kind="hf", logprobs_mode="processed_logprobs"),
        trainer=TrainerSettings(threads=1),
        engine_dtype="bf16",
        trainer_mode="bf16",
        sampling=SamplingSettings(temperature=TEMPERATURE),
        prompts=SEQUENCES.prompts,
    )
    live = LiveTrainer(sides, tmp_path_factory.mktemp("live"))
    yield live
    live.close()


def _moved(trainer: LiveTrainer, change: TrainerChange, by: TrainerChange = AS_IS_TRAINER) -> Gap:
    return gap_of(trainer.score(SEQUENCES, by), trainer.score(SEQUENCES, change))


@pytest.mark.parametrize(
    "change",
    [
        TrainerChange(quiet=True),
        TrainerChange(settings=(("seed", 1),)),
        TrainerChange(norm_epsilon=1e-5),
        TrainerChange(norm_cast="before_weight"),
        TrainerChange(weights_as="bf16"),
        TrainerChange(mode="bf16"),
    ],
)
def test_what_the_model_has_already_changes_no_bit(
    trainer: LiveTrainer, change: TrainerChange
) -> None:
    assert _moved(trainer, change).equal == 1.0


@pytest.mark.parametrize(
    "change",
    [
        TrainerChange(settings=(("micro_batch", 4),)),
        TrainerChange(settings=(("micro_batch", 4), ("padding_side", "left"))),
        TrainerChange(settings=(("attention", "eager"),)),
        TrainerChange(packed=True),
        TrainerChange(norm_epsilon=1e-3),
        TrainerChange(norm_cast="after_weight"),
        TrainerChange(mode="fp32"),
        TrainerChange(mode="bf16+fp32-head"),
        TrainerChange(reference=True),
    ],
)
def test_a_change_moves_values_by_its_rounding(trainer: LiveTrainer, change: TrainerChange) -> None:
    moved = _moved(trainer, change)
    assert moved.equal < 1.0
    # 0.003 to 0.026 in bf16 were measured; two sequences swapped are 4 apart.
    assert 1e-4 < moved.sigma < 0.1


def test_the_trainer_in_float32_is_the_reference_to_its_last_digits(trainer: LiveTrainer) -> None:
    moved = _moved(trainer, TrainerChange(mode="fp32"), TrainerChange(reference=True))
    assert moved.sigma < 1e-5  # 1.7e-6: attention by sdpa against eager


def test_processed_log_probabilities_are_of_the_sampling_temperature(
    trainer: LiveTrainer, tiny_llama: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    prompt, response = SEQUENCES.prompts[0], SEQUENCES.responses[0]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    wanted = torch.log_softmax(logits / TEMPERATURE, -1)[range(len(response)), list(response)]
    for change in (TrainerChange(mode="fp32"), TrainerChange(reference=True)):
        scored = trainer.score(SEQUENCES, change)[: len(response)]
        np.testing.assert_allclose(scored, wanted.numpy(), atol=1e-4)


def test_a_question_that_fails_leaves_the_process_alive(trainer: LiveTrainer) -> None:
    with pytest.raises(ModelError, match="cannot load missing"):
        trainer.score(SEQUENCES, TrainerChange(weights="engine"))
    assert trainer.score(SEQUENCES, AS_IS_TRAINER).size == sum(pair[1] for pair in LENGTHS)
