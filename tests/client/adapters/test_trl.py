"""TRL's own trainer runs a few steps; what arrives must be what TRL and the model say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_probes.push import PushedStep

MakeTrainer = Callable[..., Any]
StepsOf = Callable[[Any], dict[int, PushedStep]]
#: float32 on both sides; padding and the cache change the order of sums.
ROUNDING = 2e-4

pytestmark = [
    pytest.mark.slow,  # importing TRL alone takes ten seconds
    pytest.mark.filterwarnings("ignore"),  # of transformers and TRL, about themselves
]


def sequences(step: PushedStep) -> dict[tuple[int, ...], slice]:
    assert step.extras.token_ids is not None
    cuts = [step.sequence(place) for place in range(step.sequences)]
    return {tuple(step.extras.token_ids[cut].tolist()): cut for cut in cuts}


def recomputed(
    folder: Path, tokenizer: Any, prompt: str, completion: list[int], temperature: float
) -> np.ndarray[Any, Any]:
    """Log-probabilities from one plain forward of the untrained model, without padding or cache."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    ids = tokenizer(prompt)["input_ids"] + completion
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -len(completion) - 1 : -1]
    logprobs = (logits / temperature).log_softmax(-1)
    values: np.ndarray[Any, Any] = logprobs[range(len(completion)), completion].numpy()
    return values


def test_both_sides_are_those_of_the_model(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    steps_of: StepsOf,
    tiny_llama: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub = serve()
    trainer = make_trainer(connect(stub.url, strict=True))
    trainer.driftscope_metadata = {"note": "mine"}
    trainer.weights_digest = lambda: f"of step {trainer.state.global_step}"
    trainer.train()
    told = [line for line in capsys.readouterr().out.splitlines() if "driftscope" in line]
    assert told == [f"driftscope: the page of this run is {stub.url}/runs/r"]
    steps = steps_of(stub)
    assert sorted(steps) == [0, 1, 2]
    assert stub.puts == [("/v1/runs/r", {"state": "finished"})]
    first = steps[0]
    assert first.metadata["framework"] == "trl" and first.metadata["engine"] == "transformers"
    assert first.metadata["rollout_dtype"] == "fp32"  # the very model that is trained generates
    assert first.metadata["trainer_dtype"] == "fp32" and first.metadata["note"] == "mine"
    # As of the generation, not of the push.
    looks = [step.metadata["weights_digest"] for _, step in sorted(steps.items())]
    assert looks == ["of step 0", "of step 1", "of step 2"]
    assert (first.metadata["temperature"], first.metadata["weights_version"]) == ("0.8", "0")
    cuts = sequences(first)
    for prompt, completion in trainer.seen[:4]:
        expected = recomputed(tiny_llama, trainer.processing_class, prompt, completion, 0.8)
        cut = cuts[tuple(completion)]
        np.testing.assert_allclose(first.rollout[cut], expected, atol=ROUNDING)
        np.testing.assert_allclose(first.trainer[cut], expected, atol=ROUNDING)
        length = len(trainer.processing_class(prompt)["input_ids"])
        positions = first.tensors()["position_ids"][cut].tolist()
        assert positions == list(range(length, length + len(completion)))
        sequence = int(np.searchsorted(first.cu_seqlens, cut.start, side="right")) - 1
        assert first.tensors()["prompt_lengths"][sequence] == length
    assert first.tensors()["rank"].tolist() == [0] * first.sequences
    # By the last step the weights are others: the test above sees whose log-probabilities they are.
    prompt, completion = trainer.seen[-1]
    stale = recomputed(tiny_llama, trainer.processing_class, prompt, completion, 0.8)
    cut = sequences(steps[2])[tuple(completion)]
    assert np.abs(steps[2].trainer[cut] - stale).max() > 10 * ROUNDING
    np.testing.assert_allclose(steps[2].trainer[cut], steps[2].rollout[cut], atol=ROUNDING)
    logged = [log["entropy"] for log in trainer.state.log_history if "entropy" in log]
    assert first.extras.entropy is not None
    assert float(first.extras.entropy.mean()) == pytest.approx(logged[0], rel=1e-3)


def test_training_is_the_same_with_and_without(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
) -> None:
    weights = []
    for client in (None, connect(serve().url, strict=True)):
        trainer = make_trainer(client, off_policy_mask_threshold=0.5)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({"steps_per_generation": 4}, [0, 2, 4]),  # a generation spans two optimiser steps
        ({"steps_per_generation": 1}, [0, 1, 2, 3, 4, 5]),  # two generations in each
        ({"num_iterations": 2}, [0, 2, 4]),  # each completion is used in two
        ({"num_iterations": 2, "steps_per_generation": 1}, [0, 1, 2, 3, 4, 5]),
        (
            {"num_iterations": 2, "steps_per_generation": 1, "gradient_accumulation_steps": 4},
            [0, 1, 2, 3, 4, 5],
        ),
        ({"steps_per_generation": 3}, [0, 2, 4]),  # the end of an epoch ends an accumulation early
    ],
)
def test_however_trl_generates_every_completion_is_pushed_once(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    steps_of: StepsOf,
    config: dict[str, Any],
    steps: list[int],
) -> None:
    stub = serve()
    trainer = make_trainer(connect(stub.url, strict=True), max_steps=6, **config)
    trainer.train()
    pushed = steps_of(stub)
    assert sorted(pushed) == steps
    completions = sorted(tuple(ids) for _, ids in trainer.seen)
    assert sorted(ids for step in pushed.values() for ids in _all(step)) == completions
    for step in pushed.values():
        np.testing.assert_allclose(step.rollout, step.trainer, atol=ROUNDING)


def _all(step: PushedStep) -> list[tuple[int, ...]]:
    assert step.extras.token_ids is not None
    return [tuple(step.extras.token_ids[step.sequence(i)].tolist()) for i in range(step.sequences)]


def test_a_rollout_func_gives_the_rollout_side(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    steps_of: StepsOf,
) -> None:
    def roll_out(prompts: list[str], trainer: Any) -> dict[str, Any]:
        ids = trainer.processing_class(prompts)["input_ids"]
        completions = [[10 + place, 20 + place, 30] for place in range(len(prompts))]
        logprobs = [[-1.0, -2.0, None if place == 0 else -3.0] for place in range(len(prompts))]
        return {"prompt_ids": ids, "completion_ids": completions, "logprobs": logprobs}

    stub = serve()
    make_trainer(connect(stub.url, strict=True), rollout_func=roll_out, max_steps=1).train()
    step = steps_of(stub)[0]
    assert step.metadata["engine"] == "rollout_func" and "rollout_dtype" not in step.metadata
    assert sorted(_all(step)) == [(10 + place, 20 + place, 30) for place in range(4)]
    assert np.isnan(step.rollout).sum() == 1
    assert set(step.rollout[~np.isnan(step.rollout)]) == {-1.0, -2.0, -3.0}
    assert np.isfinite(step.trainer).all()


def test_a_dead_service_does_not_stop_the_training(
    make_trainer: MakeTrainer, connect: Callable[..., DriftscopeClient], free_port: int
) -> None:
    client = connect(f"http://127.0.0.1:{free_port}")
    trainer = make_trainer(client)
    trainer.train()
    assert trainer.state.global_step == 3
    assert (client.pushed, client.failed, client.pushes) == (0, 3, 3)


def test_autocast_is_that_of_both_sides(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    steps_of: StepsOf,
) -> None:
    """The dtype of the products, in generation and in training, is the one that is named."""
    stub = serve()
    trainer = make_trainer(connect(stub.url, strict=True), bf16=True, max_steps=1)
    ran: set[tuple[bool, torch.dtype]] = set()
    projection = trainer.model.model.layers[0].self_attn.q_proj
    projection.register_forward_hook(
        lambda _module, _given, out: ran.add((torch.is_grad_enabled(), out.dtype))
    )
    trainer.train()
    assert ran == {(False, torch.bfloat16), (True, torch.bfloat16)}
    metadata = steps_of(stub)[0].metadata
    assert metadata["rollout_dtype"] == metadata["trainer_dtype"] == "autocast-bf16"


def test_an_unnamed_run_is_told_before_the_training(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(DriftscopeClient(run="r"))
    trainer.driftscope = None
    with pytest.raises(DriftscopeError, match="no run name"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_verdict_is_among_the_numbers_that_trl_logs(
    make_trainer: MakeTrainer, serve: Callable[..., Any], connect: Callable[..., DriftscopeClient]
) -> None:
    told = {"verdict": "bug_like", "sentence": "It is.", "excess": 7.5, "causes": []}
    stub = serve((201, {"state": "complete", "step": 0, "diagnosis": told}, {}))
    trainer = make_trainer(connect(stub.url, strict=True))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1]["driftscope/verdict"] == 3.0
    assert logged[-1]["driftscope/excess"] == 7.5
    assert "reward" in logged[-1]  # TRL's own are there as before


def test_a_resumed_training_is_an_attempt_of_its_run(
    make_trainer: MakeTrainer,
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    tmp_path: Path,
) -> None:
    saved = {"save_strategy": "steps", "save_steps": 2}
    first = serve()
    make_trainer(connect(first.url, strict=True), max_steps=3, **saved).train()
    assert [urlsplit(path).query for path, _, _ in first.requests] == ["", "", ""]
    again = serve((201, {"attempt": 2}, {}), (201, {"state": "complete", "step": 2}, {}))
    trainer = make_trainer(connect(again.url, strict=True), max_steps=4, **saved)
    trainer.train(resume_from_checkpoint=str(tmp_path / "trainer" / "checkpoint-2"))
    opening, *pushes = again.requests
    told = json.loads(opening[2])
    assert urlsplit(opening[0]).path == "/v1/runs/r/attempts"
    # Two optimiser steps were saved: those of before, 0 and 1, hold, and 2 is generated again.
    assert told["resumed_from"] == 1
    assert [urlsplit(path).path.split("/")[5] for path, _, _ in pushes] == ["2", "3"]
    assert {urlsplit(path).query for path, _, _ in pushes} == {f"attempt={told['id']}"}
