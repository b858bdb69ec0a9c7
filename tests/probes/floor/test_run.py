"""A whole floor on a tiny model, and its ways one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from driftscope_probes.dtypes import Dtype, parse_mode
from driftscope_probes.floor.decoding import decoded_logprobs
from driftscope_probes.floor.perturbation import ROUNDING_RMS, UNIT_ROUNDOFF, perturbed_logprobs
from driftscope_probes.floor.report import FloorReport
from driftscope_probes.floor.run import run_probe
from driftscope_probes.floor.store import FloorStore
from driftscope_probes.floor.ways import Where
from driftscope_probes.models.fetch import fetch
from driftscope_probes.progress import Progress
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.forward import score_rollout
from driftscope_probes.trainer.load import LoadedModel, load_model
from driftscope_probes.trainer.microbatch import micro_batches
from driftscope_probes.trainer.settings import TrainerSettings

SETTINGS = TrainerSettings(headroom=False)
#: Tokens of prompt and response, ragged.
LENGTHS = ((5, 9), (17, 1), (1, 23), (11, 14))


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(str(fetch("tiny-random-llama").path), "tiny", "fp32", SETTINGS)


@pytest.fixture(scope="module")
def sampled(tiny: LoadedModel) -> tuple[PromptBatch, Trace]:
    rng = np.random.default_rng(0)
    prompts = PromptBatch.from_lists(
        [rng.integers(1, tiny.vocabulary, prompt).tolist() for prompt, _ in LENGTHS]
    )
    limits = np.cumsum([0, *(response for _, response in LENGTHS)])
    tokens = int(limits[-1])
    meta = TraceMeta("rollout", "tiny", "fp32", "hf", "1", {"logprobs_mode": "raw_logprobs"})
    ids = rng.integers(1, tiny.vocabulary, tokens).astype(np.int32)
    empty = np.zeros(tokens, np.float32)
    return prompts, Trace(ids, empty, limits, np.ones(tokens, np.bool_), meta)


def test_decoding_says_what_a_forward_says(
    tiny: LoadedModel, sampled: tuple[PromptBatch, Trace]
) -> None:
    prompts, rollout = sampled
    forward = score_rollout(tiny, parse_mode("fp32"), prompts, rollout, SETTINGS).trace.logprobs
    decoded = np.full(rollout.token_ids.size, np.nan, np.float32)
    for tokens, logprobs in decoded_logprobs(tiny, prompts, rollout, batch_size=3):
        decoded[tokens] = logprobs
    np.testing.assert_allclose(decoded, forward, atol=1e-4)
    assert tiny.model.training  # as it was


def moved(
    tiny: LoadedModel, sampled: tuple[PromptBatch, Trace], relative: float, where: Where
) -> float:
    """Root mean square of what the noise does to the log-probabilities."""
    prompts, rollout = sampled
    exact = score_rollout(tiny, parse_mode("fp32"), prompts, rollout, SETTINGS).trace.logprobs
    squares = [
        (perturbed_logprobs(tiny, batch, relative, where, seed=0).numpy() - exact[batch.tokens])
        ** 2
        for batch in micro_batches(prompts, rollout, SETTINGS)
    ]
    return float(np.sqrt(np.concatenate(squares).mean()))


def test_a_noisier_dtype_moves_the_model_in_proportion(
    tiny: LoadedModel, sampled: tuple[PromptBatch, Trace]
) -> None:
    size = {dtype: ROUNDING_RMS * UNIT_ROUNDOFF[dtype] for dtype in UNIT_ROUNDOFF}
    for where in ("embedding", "stored"):
        coarse, fine = (moved(tiny, sampled, size[dtype], where) for dtype in ("bf16", "fp16"))
        assert coarse == pytest.approx(8 * fine, rel=0.1)
    assert moved(tiny, sampled, size["bf16"], "stored") > 2 * moved(
        tiny, sampled, size["bf16"], "embedding"
    )
    # No noise: the model's own numbers, and no hook is left behind.
    assert moved(tiny, sampled, 0.0, "stored") < 1e-5
    assert not any(module._forward_hooks for module in tiny.model.modules())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_perturbation_predicts_the_error_of_the_real_dtype(
    tiny: LoadedModel, sampled: tuple[PromptBatch, Trace], dtype: Dtype
) -> None:
    prompts, rollout = sampled
    exact = score_rollout(tiny, parse_mode("fp32"), prompts, rollout, SETTINGS).trace.logprobs
    coarse = load_model(str(fetch("tiny-random-llama").path), "tiny", dtype, SETTINGS)
    rounded = score_rollout(coarse, parse_mode(dtype), prompts, rollout, SETTINGS).trace.logprobs
    measured = float(np.sqrt(((rounded - exact) ** 2).mean()))
    predicted = moved(tiny, sampled, ROUNDING_RMS * UNIT_ROUNDOFF[dtype], "stored")
    assert 0.5 < measured / predicted < 2.0


@pytest.mark.slow
def test_a_floor_from_request_to_store(tmp_path: Path) -> None:
    told: list[Progress] = []
    asked = {
        "kind": "floor",
        "request": {"model": "tiny-random-llama", "prompts": 4, "max_tokens": 8, "threads": 1},
        "floors": str(tmp_path / "floors"),
    }
    found = run_probe(asked, tmp_path, told.append)
    report = FloorReport.read(found)
    assert report.to_dict() == found
    assert len(report.pairs) == 9 and len(report.dtypes) == 3
    by_pair = {(pair.rollout_dtype, pair.trainer_dtype): pair for pair in report.pairs}
    sigmas = [by_pair[dtype, dtype].sigma for dtype in ("bf16", "fp16", "fp32")]
    assert sigmas[0] > 4 * sigmas[1] and sigmas[1] > 100 * sigmas[2] > 0.0
    assert by_pair["bf16", "bf16"].same_side.tokens == 32
    assert by_pair["fp16", "fp16"].same_side.tokens == 16  # half: emulated here
    assert any("emulates" in note for note in report.notes) or torch.cuda.is_available()
    fractions = [step.fraction for step in told]
    assert fractions == sorted(fractions) and 0.9 < fractions[-1] <= 1.0 or len(fractions) > 10
    store = FloorStore(tmp_path / "floors")
    assert len(store.all()) == 9
    floor = store.find("tiny-random-llama", "bf16", "bf16")
    assert floor is not None and floor.sigma == sigmas[0] and floor.source == "calibrated"
