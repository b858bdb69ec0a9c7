"""verl's own metric functions over a batch in verl's layout give what the push's aliases give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.adapters.verl import batch_tensors, metrics, push_batch
from driftscope_probes.mismatch.frameworks import aliases
from driftscope_probes.push import PushedStep, read_step
from driftscope_probes.tokens import checked_tokens

PROMPT, RESPONSE = 5, 12
VERL_READS = ("responses", "response_mask", "rollout_log_probs", "old_log_probs")
#: verl's debug metrics stay in the float32 that they are given.
FLOAT32 = 1e-5


def data_proto(seed: int = 0, rows: int = 6) -> Any:
    """As in verl/trainer/ppo/ray_trainer.py after old_log_probs: padded left and right."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, RESPONSE + 1, (rows,))
    held = torch.arange(RESPONSE) < lengths[:, None]
    rollout = torch.where(held, -torch.rand(rows, RESPONSE) * 3, 0.0)
    noise = torch.where(held, torch.randn(rows, RESPONSE) * 0.05, 0.0)
    prompt_held = torch.arange(PROMPT).flip(0) < torch.randint(1, PROMPT + 1, (rows, 1))
    attention = torch.cat([prompt_held, held], dim=1).long()
    response_mask = held.long()
    response_mask[0, 0 : int(lengths[0]) // 2] = 0  # a tool's tokens
    response_mask[0, int(lengths[0]) - 1] = 1
    batch = {
        "responses": torch.randint(0, 1000, (rows, RESPONSE)),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(-1) - 1).clamp(min=0),
        "response_mask": response_mask,
        "rollout_log_probs": rollout,
        "old_log_probs": rollout + noise,
        "advantages": torch.randn(rows, 1).expand(rows, RESPONSE) * held,
    }
    sources = np.array(["openai/gsm8k", "a, b", ""][:rows] * rows, dtype=object)[:rows]
    return SimpleNamespace(
        batch=batch,
        meta_info={"temperature": 0.9},
        non_tensor_batch={"data_source": sources},
    )


@pytest.fixture
def pushed(
    serve: Callable[..., Any], connect: Callable[..., DriftscopeClient], tmp_path: Path
) -> Callable[[Any], PushedStep]:
    def push(data: Any) -> PushedStep:
        stub = serve()
        push_batch(connect(stub.url, strict=True), 4, data, metadata={"model": "m"})
        (tmp_path / "s.safetensors").write_bytes(stub.requests[0][2])
        return read_step(tmp_path / "s.safetensors")

    return push


def test_every_response_token_arrives_at_its_place(pushed: Callable[[Any], PushedStep]) -> None:
    data = data_proto()
    step = pushed(data)
    assert step.metadata["framework"] == "verl" and step.metadata["weights_version"] == "4"
    assert (step.metadata["temperature"], step.metadata["model"]) == ("0.9", "m")
    mask = data.batch["response_mask"].bool()
    for ours, theirs in (
        ("rollout_logprobs", "rollout_log_probs"),
        ("trainer_logprobs", "old_log_probs"),
        ("token_ids", "responses"),
        ("advantages", "advantages"),
    ):
        expected = data.batch[theirs][mask].numpy()
        np.testing.assert_array_equal(step.tensors()[ours][step.mask], expected)
    positions = data.batch["position_ids"][:, PROMPT:][mask].numpy()
    assert step.extras.position_ids is not None
    np.testing.assert_array_equal(step.extras.position_ids[step.mask], positions)
    prompts = data.batch["attention_mask"][:, :PROMPT].sum(1).tolist()
    assert step.tensors()["prompt_lengths"].tolist() == prompts
    # What cannot stand in a list that commas separate is written otherwise, never dropped.
    assert step.metadata["environments"] == "openai/gsm8k,a; b,unknown"
    assert step.tensors()["environment"].tolist() == [0, 1, 2, 0, 1, 2]


def test_the_numbers_for_verls_own_log(
    serve: Callable[..., Any], connect: Callable[..., DriftscopeClient]
) -> None:
    told = {"verdict": "at_floor", "sentence": "It is.", "excess": 1.5, "causes": []}
    comparison = {"abs_diff_mean": 0.01}
    answer = {"step": 4, "diagnosis": told, "comparison": comparison}
    client = connect(serve((201, answer, {})).url, strict=True)
    logged: dict[str, float] = {"actor/loss": 1.0}
    push_batch(client, 4, data_proto())
    logged.update(metrics(client))
    assert logged == {
        "actor/loss": 1.0,
        "driftscope/step": 4.0,
        "driftscope/verdict": 1.0,
        "driftscope/excess": 1.5,
        "driftscope/abs_diff_mean": 0.01,
    }


def test_a_batch_of_tensors_alone(pushed: Callable[[Any], PushedStep]) -> None:
    batch = data_proto().batch
    del batch["attention_mask"]
    step = pushed(batch)
    assert "environments" not in step.metadata
    assert step.extras.environment is None and step.extras.prompt_lengths is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda batch: batch.pop("rollout_log_probs"), "no rollout_log_probs"),
        (lambda batch: batch.update(old_log_probs=batch["rollout_log_probs"]), "bypass mode"),
    ],
)
def test_a_batch_that_cannot_be_compared_is_counted_and_named(
    serve: Callable[..., Any], connect: Callable[..., DriftscopeClient], change: Any, told: str
) -> None:
    data = data_proto()
    change(data.batch)
    client = connect(serve().url)
    push_batch(client, 4, data)
    assert client.failed == 1 and told in str(client.last_error)
    with pytest.raises(DriftscopeError, match=told):
        push_batch(connect(serve().url, strict=True), 4, data)


#: As in verl 0.9.1's _generated_ppo_trainer.yaml.
CONFIG: dict[str, Any] = {
    "actor_rollout_ref": {
        "model": {"path": "Qwen/Qwen3-4B"},
        "actor": {
            "strategy": "fsdp",
            "fsdp_config": {"model_dtype": "fp32", "dtype": "bfloat16"},
        },
        "rollout": {
            "name": "vllm",
            "dtype": "bfloat16",
            "quantization": None,
            "top_p": 1,
            "top_k": -1,
        },
    }
}


def changed(part: str, **entries: Any) -> dict[str, Any]:
    own = CONFIG["actor_rollout_ref"]
    return {"actor_rollout_ref": {**own, part: {**own[part], **entries}}}


def namespaces(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(**{name: namespaces(inner) for name, inner in value.items()})


@pytest.mark.parametrize(
    ("config", "dtypes"),
    [
        (CONFIG, ("bfloat16", "bfloat16")),
        (namespaces(CONFIG), ("bfloat16", "bfloat16")),
        (changed("rollout", quantization="fp8"), ("fp8", "bfloat16")),
        (
            changed("actor", strategy="megatron", megatron={"dtype": "float16"}),
            ("bfloat16", "float16"),
        ),
        (changed("actor", strategy="veomni"), ("bfloat16", None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_the_configuration_gives_both_dtypes(
    serve: Callable[..., Any],
    connect: Callable[..., DriftscopeClient],
    tmp_path: Path,
    config: Any,
    dtypes: tuple[str | None, str | None],
) -> None:
    stub = serve()
    push_batch(connect(stub.url, strict=True), 4, data_proto(), config=config)
    (tmp_path / "s.safetensors").write_bytes(stub.requests[0][2])
    metadata = read_step(tmp_path / "s.safetensors").metadata
    assert (metadata.get("rollout_dtype"), metadata.get("trainer_dtype")) == dtypes
    assert metadata.get("model") == ("Qwen/Qwen3-4B" if config else None)


def test_multimodal_positions_are_left_out() -> None:
    batch = data_proto().batch
    batch["position_ids"] = batch["position_ids"].unsqueeze(1).expand(-1, 3, -1)
    assert "position_ids" not in batch_tensors(batch)


def test_verls_own_functions_give_the_numbers_of_the_push(
    pushed: Callable[[Any], PushedStep], verl_own: Any
) -> None:
    data = data_proto(seed=3)
    batch = {name: data.batch[name] for name in VERL_READS}
    _, _, correction = verl_own.rollout_corr.compute_rollout_correction_and_rejection_mask(
        old_log_prob=batch["old_log_probs"].double(),
        rollout_log_prob=batch["rollout_log_probs"].double(),
        response_mask=batch["response_mask"],
        rollout_is="sequence",
        rollout_is_threshold=2.0,
    )
    debug = verl_own.debug.calculate_debug_metrics(SimpleNamespace(batch=batch))
    theirs = {**correction, **debug}
    step = pushed(data)
    pair = checked_tokens(step.rollout, step.trainer, step.cu_seqlens, step.mask)
    ours = aliases(pair)["verl"]
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(float(value), rel=FLOAT32, abs=FLOAT32), name
