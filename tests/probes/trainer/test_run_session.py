"""The desk of a trainer session: what it keeps, and what it undoes between questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.question import Forward, Question, from_bits
from driftscope_probes.trainer.run_session import MODELS_KEPT, TrainerDesk
from driftscope_probes.trainer.settings import TrainerSettings

ONE_THREAD = TrainerSettings(threads=1)


class CountingDesk(TrainerDesk):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[Forward] = []

    def load_model(self, forward: Forward) -> LoadedModel:
        self.loaded.append(forward)
        return super().load_model(forward)


def _ask(desk: TrainerDesk, folder: Path, mode: str = "fp32", **fields: object) -> list[int]:
    forward = Forward(folder, mode, ONE_THREAD, **fields)  # type: ignore[arg-type]
    rollout = {"logprobs_mode": "raw_logprobs", "temperature": 1.0}
    question = Question(forward, ((1, 2, 3), (4, 5)), ((6, 7, 8), (9,)), rollout)
    bits: list[int] = desk.reply(question.to_dict())["bits"]
    return bits


def test_one_model_answers_what_differs_in_its_forward_alone(llama_folder: Path) -> None:
    desk = CountingDesk()
    plain = _ask(desk, llama_folder)
    assert _ask(desk, llama_folder, quiet=True) == plain
    assert _ask(desk, llama_folder, norm_epsilon=1e-2) != plain
    assert _ask(desk, llama_folder, mode="autocast-bf16") != plain
    # What a question changed is undone before the next one.
    assert _ask(desk, llama_folder) == plain
    assert len(desk.loaded) == 1


def test_the_model_that_was_asked_last_stays(llama_folder: Path) -> None:
    desk = CountingDesk()
    first = _ask(desk, llama_folder)
    for mode in ("bf16", "fp16", "bf16"):
        _ask(desk, llama_folder, mode=mode)
    assert len(desk.loaded) == 1 + MODELS_KEPT
    assert _ask(desk, llama_folder) == first
    assert len(desk.loaded) == 2 + MODELS_KEPT


def test_weights_are_rounded_and_the_computation_is_not(llama_folder: Path) -> None:
    desk = TrainerDesk()
    plain, rounded = _ask(desk, llama_folder), _ask(desk, llama_folder, weights_as="bf16")
    moved = np.abs(from_bits(plain) - from_bits(rounded))
    assert 0.0 < moved.max() < 0.5


def test_the_reference_goes_through_no_desk(llama_folder: Path) -> None:
    desk = CountingDesk()
    reference = from_bits(_ask(desk, llama_folder, mode="bf16", reference=True))
    assert desk.loaded == []
    np.testing.assert_allclose(reference, from_bits(_ask(desk, llama_folder)), atol=1e-4)


def test_a_folder_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    for reference in (False, True):
        with pytest.raises(ModelError, match="cannot load nothing"):
            _ask(TrainerDesk(), tmp_path / "nothing", reference=reference)
