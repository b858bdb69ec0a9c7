"""Norms as the other side may have them: another epsilon, another place of the cast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from driftscope_probes.diagnosis.controls.measurement import NotExercised
from driftscope_probes.diagnosis.controls.sides import (
    EngineChange,
    Logprobs,
    Sampled,
    Sequences,
    Sides,
    Tokens,
    TrainerChange,
    TrainerSide,
)
from driftscope_probes.diagnosis.controls.trainer.norms import NORM_CAST_ORDER, NORM_EPSILON

from .conftest import HfEngine, MakeBench, Planted

Edited = Callable[..., Path]


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_trainers_own_epsilon_is_put_right(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted("norm_epsilon", 0.05))
    measured = NORM_EPSILON.run(bench)
    assert measured.outcome == "clean"
    assert "1e-05" in measured.what  # the config's


def test_the_engines_folder_tells_its_epsilon(
    make_bench: MakeBench, edited: Edited, tiny_llama: Path
) -> None:
    engine = edited(tiny_llama, rms_norm_eps=3e-2)
    measured = NORM_EPSILON.run(make_bench(tiny_llama, "fp32", engine_model=engine))
    assert measured.outcome == "clean"
    assert "0.03" in measured.what


def test_an_epsilon_that_no_file_states_is_fitted(
    make_bench: MakeBench, edited: Edited, tiny_llama: Path
) -> None:
    """The engine serves another folder than the sides say, as one with a default in its code."""
    served = edited(tiny_llama, rms_norm_eps=0.0437)
    bench = make_bench(
        tiny_llama, "fp32", engine=lambda sides, _: HfEngine(replace(sides, engine_model=served))
    )
    measured = NORM_EPSILON.run(bench)
    assert measured.outcome == "clean"
    fitted = float(measured.what.split("epsilon ")[1])
    assert fitted == pytest.approx(0.0437, rel=0.02)


@pytest.mark.parametrize(
    ("fault", "size"), [("sharper", 0.3), ("rope", 3.0), ("attention", 2.0), ("dropout", 0.1)]
)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_no_epsilon_hides_another_fault(
    make_bench: MakeBench, planted: Planted, tiny_llama: Path, fault: str, size: float, dtype: str
) -> None:
    bench = make_bench(tiny_llama, dtype, desk=planted(fault, size))
    assert NORM_EPSILON.run(bench).outcome == "dirty"


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_moe"])
def test_a_healthy_pair_falls_with_neither(
    make_bench: MakeBench, request: pytest.FixtureRequest, model: str
) -> None:
    bench = make_bench(request.getfixturevalue(model), moe="moe" in model)
    assert NORM_EPSILON.run(bench).outcome == "dirty"
    assert NORM_CAST_ORDER.run(bench).outcome == "dirty"


class CastsElsewhere:
    """An engine of the trainer's own kernels, bit by bit, whose norms cast behind their weight."""

    def __init__(self, sides: Sides, trainer: TrainerSide) -> None:
        self._drawn, self._scores = HfEngine(sides), trainer

    def sample(self, change: EngineChange) -> Sampled:
        sequences = self._drawn.sample(change).sequences
        return Sampled(sequences, self.rescore(sequences, change))

    def respond(self, prompts: Tokens, max_tokens: int, change: EngineChange) -> Sampled:
        return self._drawn.respond(prompts, max_tokens, change)

    def rescore(self, sequences: Sequences, change: EngineChange) -> Logprobs:
        return self._scores.score(sequences, TrainerChange(norm_cast="after_weight"))

    def close(self) -> None:
        self._drawn.close()


def test_the_place_of_the_cast_is_found_where_the_rest_is_equal(
    make_bench: MakeBench, tiny_llama: Path
) -> None:
    bench = make_bench(tiny_llama, engine=CastsElsewhere)
    assert bench.base.sigma > 0.01
    measured = NORM_CAST_ORDER.run(bench)
    assert (measured.outcome, measured.value) == ("clean", 0.0)
    assert "after its weight" in measured.what


def test_nothing_is_cast_in_float32(make_bench: MakeBench, tiny_llama: Path) -> None:
    with pytest.raises(NotExercised, match="float32"):
        NORM_CAST_ORDER.run(make_bench(tiny_llama, "fp32"))
