"""The training-mode forward against the model's own logits, and against float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from driftscope_probes.dtypes import BASE_MODES, HEAD_SUFFIX, parse_mode
from driftscope_probes.errors import TrainerError
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, both_sides
from driftscope_probes.trainer.forward import KnownScores, score_rollout
from driftscope_probes.trainer.load import LoadedModel, torch_dtype
from driftscope_probes.trainer.settings import TrainerSettings

MODES = (*BASE_MODES, *(mode + HEAD_SUFFIX for mode in BASE_MODES))
#: Largest |Δ| in nats of a float32 forward of these three small layers (measured: 4e-6).
FLOAT32_ERROR = 1e-5
#: The same between layouts that sum in other orders (measured: 3e-6).
FLOAT32_LAYOUT_ERROR = 1e-5

Load = Callable[..., LoadedModel]
Rollouts = Callable[..., Trace]
Floats = NDArray[np.float32]


def own_logits(loaded: LoadedModel, mode: str, ids: list[int]) -> torch.Tensor:
    """What the model itself says, alone and whole: [length, vocabulary] in the mode's dtype."""
    parsed = parse_mode(mode)
    autocast = torch_dtype(parsed.autocast or "bf16")
    with torch.autocast("cpu", dtype=autocast, enabled=parsed.autocast is not None):
        logits: torch.Tensor = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits
    return logits[0]


def plain_scores(
    logits: Callable[[list[int]], torch.Tensor],
    prompts: PromptBatch,
    rollout: Trace,
    temperature: float = 1.0,
) -> Floats:
    parts = []
    for index in range(rollout.sequences):
        prompt = prompts.ids(index)
        response = rollout.token_ids[rollout.sequence(index)].tolist()
        with torch.no_grad():
            scaled = logits(prompt + response) / temperature
            logprobs = torch.log_softmax(scaled, -1)
        steps = torch.arange(len(response)) + len(prompt) - 1
        parts.append(logprobs[steps, torch.tensor(response)].numpy())
    return np.concatenate(parts)


def score(
    loaded: LoadedModel,
    mode: str,
    prompts: PromptBatch,
    rollout: Trace,
    **options: Any,
) -> Trace:
    settings = TrainerSettings(attention=loaded.attention, **options)
    return score_rollout(loaded, parse_mode(mode), prompts, rollout, settings).trace


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", BASE_MODES)
def test_one_sequence_at_a_time_has_the_bits_of_the_models_own_logits(
    load: Load, prompts: PromptBatch, rollout: Trace, mode: str, threads: int
) -> None:
    torch.set_num_threads(threads)
    loaded = load(mode)
    ours = score(loaded, mode, prompts, rollout)
    theirs = plain_scores(lambda ids: own_logits(loaded, mode, ids).float(), prompts, rollout)
    assert np.array_equal(ours.logprobs, theirs)
    both_sides(rollout, ours)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_runs_and_says_what_it_did(
    load: Load, prompts: PromptBatch, rollout: Trace, mode: str
) -> None:
    trace = score(load(mode), mode, prompts, rollout)
    assert np.isfinite(trace.logprobs).all()
    assert (trace.logprobs < 0).all()
    assert (trace.meta.side, trace.meta.dtype) == ("trainer", mode)
    settings = trace.meta.settings
    assert settings["mode"] == mode
    assert settings["train_mode"] is True
    assert settings["gradients"] is True
    assert settings["torch"] == torch.__version__
    assert {"attention", "batching", "micro_batch", "threads", "temperature", "head_chunk_rows"} < (
        set(settings)
    )


def test_modes_are_not_the_same_numbers(load: Load, prompts: PromptBatch, rollout: Trace) -> None:
    """The planted fault would be a mode that is recorded but not applied."""
    seen = {mode: score(load(mode), mode, prompts, rollout).logprobs for mode in MODES}
    # A float32 head changes nothing where the head is float32 already.
    assert len({logprobs.tobytes() for logprobs in seen.values()}) == len(MODES) - 1
    assert np.array_equal(seen["fp32"], seen["fp32" + HEAD_SUFFIX])


def test_float32_stays_near_float64(load: Load, prompts: PromptBatch, rollout: Trace) -> None:
    loaded = load("fp32")
    ours = score(loaded, "fp32", prompts, rollout).logprobs
    double = load("fp32").model.double().eval()
    exact = plain_scores(
        lambda ids: double(input_ids=torch.tensor([ids]), use_cache=False).logits[0],
        prompts,
        rollout,
    )
    assert exact.dtype == np.float64
    assert np.abs(ours - exact).max() < FLOAT32_ERROR


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
def test_a_float32_head_changes_only_the_head(
    load: Load, prompts: PromptBatch, rollout: Trace, weights: str
) -> None:
    loaded = load(weights)
    head = loaded.model.lm_head.weight.detach().float()

    def logits(ids: list[int]) -> torch.Tensor:
        states = loaded.decoder(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
        return torch.nn.functional.linear(states[0].float(), head)

    ours = score(loaded, weights + HEAD_SUFFIX, prompts, rollout).logprobs
    assert np.array_equal(ours, plain_scores(logits, prompts, rollout))
    assert not np.array_equal(ours, score(loaded, weights, prompts, rollout).logprobs)


LAYOUTS: tuple[dict[str, Any], ...] = (
    {"micro_batch": 3, "padding_side": "right"},
    {"micro_batch": 3, "padding_side": "left"},
    {"micro_batch": 3, "batching": "packed"},
    {"micro_batch": 5, "batching": "packed"},
)


@pytest.mark.parametrize("kind", ["llama", "moe"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_layouts_agree_in_float32(
    load: Load,
    llama_folder: Path,
    moe_folder: Path,
    prompts: PromptBatch,
    rollout: Trace,
    layout: dict[str, Any],
    attention: Any,
    kind: str,
) -> None:
    folder = llama_folder if kind == "llama" else moe_folder
    loaded = load("fp32", TrainerSettings(attention=attention, **layout), folder)
    alone = score(loaded, "fp32", prompts, rollout).logprobs
    together = score(loaded, "fp32", prompts, rollout, **layout).logprobs
    assert np.abs(alone - together).max() < FLOAT32_LAYOUT_ERROR


@pytest.mark.parametrize("mode", ["fp32", "bf16", "fp16"])
def test_right_padding_with_eager_attention_changes_no_bit(
    load: Load, make_rollout: Rollouts, mode: str
) -> None:
    """Sequences above INVARIANT_ROWS: shorter ones change kernels inside the model as well."""
    random = np.random.default_rng(3)
    prompts = PromptBatch.from_lists([random.integers(200, size=n).tolist() for n in (30, 20, 25)])
    rollout = make_rollout(lengths=(20, 33, 40))
    loaded = load(mode, TrainerSettings(attention="eager"))
    alone = score(loaded, mode, prompts, rollout).logprobs
    padded = score(loaded, mode, prompts, rollout, micro_batch=3).logprobs
    assert np.array_equal(alone, padded)


@pytest.mark.parametrize("mode", ["bf16", "autocast-fp16"])
def test_a_rerun_gives_the_same_bits(
    load: Load, prompts: PromptBatch, rollout: Trace, mode: str
) -> None:
    first = score(load(mode), mode, prompts, rollout, micro_batch=2)
    second = score(load(mode), mode, prompts, rollout, micro_batch=2)
    assert np.array_equal(first.logprobs, second.logprobs)


def test_training_mode_without_dropout_has_the_bits_of_evaluation(
    load: Load, prompts: PromptBatch, rollout: Trace
) -> None:
    loaded = load("fp32")
    training = score(loaded, "fp32", prompts, rollout)
    loaded.model.eval()
    evaluation = score(loaded, "fp32", prompts, rollout)
    assert np.array_equal(training.logprobs, evaluation.logprobs)
    assert (training.meta.settings["train_mode"], evaluation.meta.settings["train_mode"]) == (
        True,
        False,
    )
    assert training.meta.settings["random_numbers_drawn"] is False


def test_dropout_is_applied_as_configured_and_seeded(
    load: Load, save_llama: Callable[..., Path], prompts: PromptBatch, rollout: Trace
) -> None:
    folder = save_llama(attention_dropout=0.3)
    loaded = load("fp32", folder=folder)
    first, same, other = (score(loaded, "fp32", prompts, rollout, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.logprobs, same.logprobs)
    assert not np.array_equal(first.logprobs, other.logprobs)
    without = score(load("fp32"), "fp32", prompts, rollout)
    assert not np.array_equal(first.logprobs, without.logprobs)
    assert first.meta.settings["random_numbers_drawn"] is True


def test_processed_logprobs_divide_by_the_temperature(
    load: Load, prompts: PromptBatch, make_rollout: Rollouts
) -> None:
    loaded = load("bf16")
    processed = make_rollout(logprobs_mode="processed_logprobs", temperature=0.7)
    raw = make_rollout(logprobs_mode="raw_logprobs", temperature=0.7)

    def logits(ids: list[int]) -> torch.Tensor:
        return own_logits(loaded, "bf16", ids).float()

    scored = score(loaded, "bf16", prompts, processed)
    assert np.array_equal(scored.logprobs, plain_scores(logits, prompts, processed, 0.7))
    assert scored.meta.settings["temperature"] == 0.7
    scored = score(loaded, "bf16", prompts, raw)
    assert np.array_equal(scored.logprobs, plain_scores(logits, prompts, raw))
    assert scored.meta.settings["temperature"] == 1.0


class CountedForwards:
    def __init__(self, loaded: LoadedModel) -> None:
        self.count = 0
        loaded.decoder.register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def with_one_token_changed(rollout: Trace, sequence: int) -> Trace:
    token_ids = rollout.token_ids.copy()
    token_ids[rollout.sequence(sequence).start] ^= 1
    return Trace(
        token_ids,
        rollout.logprobs.copy(),
        rollout.cu_seqlens.copy(),
        rollout.mask.copy(),
        rollout.meta,
    )


def test_a_known_sequence_is_not_run_twice(
    load: Load, prompts: PromptBatch, rollout: Trace
) -> None:
    loaded, known, settings = load("bf16"), KnownScores(), TrainerSettings()
    forwards = CountedForwards(loaded)
    mode = parse_mode("bf16")
    score_rollout(loaded, mode, prompts, rollout, settings, known=known)
    assert forwards.count == rollout.sequences
    other = with_one_token_changed(rollout, 2)
    again = score_rollout(loaded, mode, prompts, other, settings, known=known).trace
    assert forwards.count == rollout.sequences + 1
    assert again.meta.settings["reused_micro_batches"] == rollout.sequences - 1
    fresh = score(loaded, "bf16", prompts, other)
    assert np.array_equal(again.logprobs, fresh.logprobs)


def test_another_temperature_is_not_known(
    load: Load, prompts: PromptBatch, make_rollout: Rollouts
) -> None:
    loaded, known, settings = load("bf16"), KnownScores(), TrainerSettings()
    mode, processed = parse_mode("bf16"), {"logprobs_mode": "processed_logprobs"}
    for temperature in (0.5, 2.0):
        rollout = make_rollout(temperature=temperature, **processed)
        scored = score_rollout(loaded, mode, prompts, rollout, settings, known=known).trace
        assert np.array_equal(scored.logprobs, score(loaded, "bf16", prompts, rollout).logprobs)


def test_with_dropout_nothing_is_known(
    load: Load, save_llama: Callable[..., Path], prompts: PromptBatch, rollout: Trace
) -> None:
    loaded = load("bf16", folder=save_llama(attention_dropout=0.3))
    forwards, known = CountedForwards(loaded), KnownScores()
    for _ in range(2):
        score_rollout(loaded, parse_mode("bf16"), prompts, rollout, TrainerSettings(), known=known)
    assert forwards.count == 2 * rollout.sequences


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_progress_adds_up_to_every_input_token(
    load: Load, prompts: PromptBatch, rollout: Trace, micro_batch: int
) -> None:
    seen: list[int] = []
    settings = TrainerSettings(micro_batch=micro_batch)
    score_rollout(
        load("bf16"), parse_mode("bf16"), prompts, rollout, settings, on_tokens=seen.append
    )
    assert sum(seen) == prompts.token_ids.size + rollout.token_ids.size
    assert len(seen) == -(-rollout.sequences // micro_batch)


def test_a_token_beyond_the_vocabulary_is_refused(
    load: Load, prompts: PromptBatch, rollout: Trace
) -> None:
    foreign = Trace(
        rollout.token_ids + np.int32(100_000),
        rollout.logprobs.copy(),
        rollout.cu_seqlens.copy(),
        rollout.mask.copy(),
        rollout.meta,
    )
    with pytest.raises(TrainerError, match="vocabulary ends at 210"):
        score(load("bf16"), "bf16", prompts, foreign)


def test_an_empty_response_is_passed_over(
    load: Load, prompts: PromptBatch, make_rollout: Rollouts
) -> None:
    rollout = make_rollout(lengths=(4, 0, 3, 0, 0))
    loaded = load("fp32")
    alone = score(loaded, "fp32", prompts, rollout)
    padded = score(loaded, "fp32", prompts, rollout, micro_batch=2)
    assert alone.logprobs.size == 7
    assert np.abs(alone.logprobs - padded.logprobs).max() < FLOAT32_LAYOUT_ERROR
