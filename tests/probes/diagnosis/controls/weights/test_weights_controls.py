"""Every control of the weights on healthy sides and on sides whose folders differ for real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftscope_probes.diagnosis.controls.bench import Bench
from driftscope_probes.diagnosis.controls.measurement import Measurement, NotExercised
from driftscope_probes.diagnosis.controls.registry import BY_NAME
from driftscope_probes.diagnosis.controls.sides import AS_IS_ENGINE, Recorded
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import RequestError

from .benches import (
    HereEngine,
    HereTrainer,
    MakeBench,
    Values,
    adapter,
    folder,
    known_of,
    moved,
    sides_of,
)

#: A matrix of 128 inputs in groups of 32 with 4 bits.
GROUP, MOST = 32, 7.0
LOST = "model.layers.1.mlp.down_proj.weight"


def outcomes(bench: Bench, *names: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = BY_NAME[name].run(bench).outcome
        except NotExercised:
            found[name] = "not exercised"
    return found


def measured(bench: Bench, name: str) -> Measurement:
    return BY_NAME[name].run(bench)


def told(found: Measurement) -> Mapping[str, object]:
    return {item.what: item.value for item in found.evidence}


WEIGHTS = ("tensors_compared", "trainer_weights_in_engine", "weights_rounded", "unquantised")
ALL = (*WEIGHTS, "older_weights", "recorded_generation")


@pytest.fixture(scope="module")
def newer(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tiny_llama, tmp_path_factory.mktemp("newer") / "newer", moved(0.03))


def test_healthy_sides(
    tiny_llama: Path, newer: Path, tmp_path: Path, make_bench: MakeBench
) -> None:
    """The same weights in two folders, an older checkpoint known. Nothing speaks for a cause."""
    bench = make_bench(folder(newer, tmp_path / "copy"), newer, older_models=(tiny_llama,))
    assert outcomes(bench, *ALL) == {
        "tensors_compared": "clean",
        "trainer_weights_in_engine": "dirty",
        "weights_rounded": "not exercised",
        "unquantised": "dirty",
        "older_weights": "dirty",
        "recorded_generation": "clean",
    }
    assert measured(bench, "recorded_generation").value == 1.0
    assert measured(bench, "older_weights").value > 5.0 * bench.base.sigma


def test_an_engine_that_serves_an_earlier_step(
    tiny_llama: Path, newer: Path, tmp_path: Path, make_bench: MakeBench
) -> None:
    """The earlier step is found among two checkpoints, whichever place it has."""
    other = folder(tiny_llama, tmp_path / "other", moved(0.1, seed=9))
    bench = make_bench(tiny_llama, newer, older_models=(other, tiny_llama))
    assert outcomes(bench, *ALL) == {
        "tensors_compared": "clean",
        "trainer_weights_in_engine": "clean",
        "weights_rounded": "dirty",
        "unquantised": "dirty",
        "older_weights": "clean",
        "recorded_generation": "dirty",
    }
    found = told(measured(bench, "older_weights"))
    assert found[f"sigma, trainer at {other.name}"] > 0.5  # type: ignore[operator]
    assert "the nearest of 2" in measured(bench, "older_weights").what
    # The checkpoint of another run instead: none of the older ones is it.
    strange = make_bench(other, newer, older_models=(tiny_llama,))
    assert outcomes(strange, "older_weights", "trainer_weights_in_engine") == {
        "older_weights": "dirty",
        "trainer_weights_in_engine": "clean",
    }


def test_rows_of_one_tensor_are_lost(
    tiny_llama: Path, newer: Path, tmp_path: Path, make_bench: MakeBench
) -> None:
    def lose(name: str, values: Values) -> Values:
        kept = values.copy()
        if name == LOST:
            kept[::3] = 0.0
        return kept

    bench = make_bench(folder(newer, tmp_path / "lossy", lose), newer, older_models=(tiny_llama,))
    assert outcomes(bench, *ALL) == {
        "tensors_compared": "dirty",
        "trainer_weights_in_engine": "clean",
        "weights_rounded": "dirty",
        "unquantised": "dirty",
        "older_weights": "dirty",
        "recorded_generation": "dirty",
    }
    assert told(measured(bench, "tensors_compared"))[LOST] == "lost"
    # One that kept an earlier step's values stands alone, too.
    old = {LOST: moved(0.03)}
    stale = folder(
        newer, tmp_path / "one", lambda name, v: old[name](name, v) if name in old else v
    )
    assert measured(make_bench(stale, newer), "tensors_compared").value == 1.0


@pytest.mark.parametrize("most", [MOST, 127.0])
def test_quantised_values(newer: Path, tmp_path: Path, make_bench: MakeBench, most: float) -> None:
    """int8 moves the values no further than bf16 rounds: in float32 it shows."""

    def quantise(name: str, values: Values) -> Values:
        if values.ndim == 1 or "embed" in name:
            return values
        groups = values.reshape(values.shape[0], -1, GROUP)
        scale = np.abs(groups).max(-1, keepdims=True) / most
        coarse: Values = (np.rint(groups / scale) * scale).reshape(values.shape)
        return coarse.astype(np.float32)

    bench = make_bench(folder(newer, tmp_path / "coarse", quantise), newer)
    found = outcomes(bench, "tensors_compared", "weights_rounded", "unquantised")
    assert list(found.values()) == ["clean", "dirty", "clean"]
    (sentence,) = [
        str(value)
        for what, value in told(measured(bench, "unquantised")).items()
        if "folder" in what
    ]
    assert sentence.startswith("22 of 30 tensors differ: 22 coarser")


def test_an_update_below_the_last_bit(
    tiny_llama: Path, tmp_path: Path, make_bench: MakeBench
) -> None:
    """The trainer's master is in float32; what the engine got is its rounding to bf16."""
    master = folder(tiny_llama, tmp_path / "master", moved(1e-3), "fp32")
    bench = make_bench(
        folder(master, tmp_path / "export"), master, "fp32", older_models=(tiny_llama,)
    )
    assert outcomes(bench, *ALL) == {
        "tensors_compared": "clean",
        "trainer_weights_in_engine": "clean",
        "weights_rounded": "clean",
        "unquantised": "dirty",
        "older_weights": "dirty",
        "recorded_generation": "clean",
    }
    # What rounding took is another weight to the op that computes with it.
    bench.sides = replace(bench.sides, engine=EngineSettings(threads=1))
    assert measured(bench, "explain_ops").outcome == "dirty"
    assert BY_NAME["explain_ops"].likelihood("dirty", "sub_ulp_update") > 0.9


ADAPTER = ("adapter_off", "adapter_merged_fp32")


@pytest.mark.parametrize(
    ("how", "dtype", "expected"),
    [
        ("off", "bf16", ["clean", "clean"]),
        ("merged-bf16", "fp32", ["dirty", "clean"]),
        ("merged-bf16", "bf16", ["dirty", "clean"]),
        ("merged-fp32", "fp32", ["dirty", "not exercised"]),  # healthy
    ],
)
def test_adapters(
    tiny_llama: Path,
    tmp_path: Path,
    make_bench: MakeBench,
    how: str,
    dtype: str,
    expected: list[str],
) -> None:
    lora = adapter(tiny_llama, tmp_path / "lora")
    bench = make_bench(tiny_llama, tiny_llama, dtype, adapter=lora, engine_adapter=how)
    assert {"adapter", "other_weights"} <= bench.offers
    assert list(outcomes(bench, *ADAPTER).values()) == expected
    with pytest.raises(RequestError, match="vLLM's own LoRA, the engine is hf"):
        bench.gap(engine=replace(AS_IS_ENGINE, adapter="unmerged"))
    bench.close()
    assert not list(tmp_path.glob("w/weights/*"))  # merged folders


def test_a_recorded_step_is_scored_by_a_fresh_engine(
    tiny_llama: Path, newer: Path, tmp_path: Path
) -> None:
    """Its tokens were sampled, so that none can be expected again: their values are compared."""

    def bench(recorded_by: Path) -> Bench:
        sides = sides_of(newer, newer)
        ran = sides_of(recorded_by, newer)
        trainer = HereTrainer(ran)
        sampled = HereEngine(ran, tmp_path / "ran").sample(AS_IS_ENGINE)
        scored = Bench(ran, HereEngine(ran, tmp_path / "x"), trainer, known_of(ran)).score(
            sampled.sequences
        )
        known = known_of(sides, recorded=Recorded(sampled.sequences, sampled.logprobs, scored))
        return Bench(sides, HereEngine(sides, tmp_path / "w"), HereTrainer(sides), known)

    assert measured(bench(newer), "recorded_generation").outcome == "clean"
    stale = measured(bench(tiny_llama), "recorded_generation")
    assert stale.outcome == "dirty" and "recorded engine" in stale.what


def test_ops_of_both_folders_are_run_on_equal_inputs(
    make_bench: MakeBench, tiny_llama: Path, tmp_path: Path
) -> None:
    """A real engine and trainer in a process of its own: the op is named with its reason."""
    other = folder(tiny_llama, tmp_path / "other", moved(0.03))
    same = folder(tiny_llama, tmp_path / "same")
    outcomes_of = {}
    for name, engine_folder in (("same", same), ("other", other)):
        bench = make_bench(engine_folder, tiny_llama)
        bench.sides = replace(bench.sides, engine=EngineSettings(threads=1))
        outcomes_of[name] = measured(bench, "explain_ops")
    assert outcomes_of["same"].outcome == "clean"
    found = outcomes_of["other"]
    assert found.outcome == "dirty" and found.value > 0.0
    assert any("weight differs" in str(item.value) for item in found.evidence)
