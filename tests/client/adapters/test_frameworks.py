"""Each framework's batch arrives as the same step, with its dtypes; what lacks a side says so."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.client.adapters.framework_batches import BATCHES, responses
from tests.client.adapters.framework_sources import (
    FrameworkSources,
    SourcesUnreachable,
    download,
    has_setting,
)

from driftscope_client import DriftscopeClient, DriftscopeError
from driftscope_client.adapters import areal, miles, nemo_rl, openrlhf, skyrl, slime
from driftscope_probes.push import PushedStep, read_step

Serve = Callable[..., Any]
Connect = Callable[..., DriftscopeClient]
Received = Callable[[Any], PushedStep]
#: All of one shape, which is what the parametrised tests hold.
ADAPTERS: dict[str, Any] = {
    **{"openrlhf": openrlhf, "skyrl": skyrl, "areal": areal, "nemo_rl": nemo_rl},
    **{"slime": slime, "miles": miles},
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> FrameworkSources:
    try:
        return download(tmp_path_factory.mktemp("wheels"))
    except SourcesUnreachable as error:
        pytest.skip(str(error))


@pytest.fixture
def received(tmp_path: Path) -> Received:
    def read(stub: Any) -> PushedStep:
        (tmp_path / "s.safetensors").write_bytes(stub.requests[0][2])
        return read_step(tmp_path / "s.safetensors")

    return read


def push_batch(framework: str) -> Callable[..., None]:
    return ADAPTERS[framework].push_batch  # type: ignore[no-any-return]


def test_every_adapter_takes_the_same() -> None:
    assert set(ADAPTERS) == set(BATCHES)
    shapes = {str(inspect.signature(one.push_batch)) for one in ADAPTERS.values()}
    assert len(shapes) == 1, shapes


@pytest.mark.parametrize("framework", BATCHES)
def test_the_batch_arrives_as_the_step_that_it_is(
    serve: Serve, connect: Connect, received: Received, own: FrameworkSources, framework: str
) -> None:
    stub = serve()
    about = {"rollout_dtype": "bf16", "trainer_dtype": "fp32", "note": "mine"}
    batch = BATCHES[framework](own)
    push_batch(framework)(connect(stub.url, strict=True), 4, batch, metadata=about)
    step = received(stub)
    every = responses()
    assert step.sequences == len(every)
    assert step.metadata["framework"] == framework.replace("_", "-")
    assert (step.metadata["weights_version"], step.metadata["note"]) == ("4", "mine")
    assert step.tensors()["prompt_lengths"].tolist() == [len(one.prompt) for one in every]
    for place, one in enumerate(every):
        cut, held = step.sequence(place), np.array(one.mask, bool)
        assert step.mask[cut].tolist() == held.tolist()
        for name, expected in (
            ("rollout_logprobs", one.rollout),
            ("trainer_logprobs", one.trainer),
            ("token_ids", one.tokens),
        ):
            found = step.tensors()[name][cut]
            assert found[held].tolist() == np.array(expected)[held].tolist(), name
        if "advantages" in step.tensors():
            assert set(step.tensors()["advantages"][cut][held].tolist()) == {one.advantage}
    assert ("advantages" in step.tensors()) == (framework != "areal")
    if framework == "areal":
        assert set(step.tensors()["token_behavior_version"].tolist()) == {3}


def without(name: str) -> Callable[[Any], Any]:
    """The batch where the framework's option was not set: the entry is None, or is not there."""

    def change(batch: Any) -> Any:
        for part in batch if isinstance(batch, list) else [batch]:
            if hasattr(part, "keys"):
                part.pop(name)
            else:
                setattr(part, name, None)
        return batch

    return change


def cut_by_context_parallelism(batch: Any) -> Any:
    return {**batch, "log_probs": [row[:1] for row in batch["log_probs"]]}


def zeros(batch: Any) -> Any:
    batch["prev_logprobs"] = torch.zeros_like(batch["prev_logprobs"])
    return batch


def advantages_computed(batch: Any) -> Any:
    return [{**one, "kl_rewards": one["logprobs"]} for one in batch]


@pytest.mark.parametrize(
    ("framework", "change", "told", "option"),
    [
        ("openrlhf", without("rollout_log_probs"), "no rollout_log_probs", "is_correction_level"),
        ("openrlhf", without("action_log_probs"), "no action_log_probs", "make_experience_batch"),
        ("openrlhf", lambda _: [], "empty", "trains on"),
        ("skyrl", without("rollout_logprobs"), "no rollout_logprobs", "sampling_params.logprobs"),
        ("skyrl", without("action_log_probs"), "no action_log_probs", "off_policy_correction"),
        ("areal", without("prox_logp"), "no prox_logp", "actor.use_decoupled_loss=true"),
        ("areal", advantages_computed, "by one token", "before compute_advantages|compute_logp"),
        ("nemo_rl", without("prev_logprobs"), "no prev_logprobs", "policy.get_logprobs"),
        ("nemo_rl", zeros, "zeros", "force_on_policy_ratio=false"),
        ("slime", without("log_probs"), "no log_probs", "--get-mismatch-metrics"),
        ("slime", without("rollout_log_probs"), "no rollout_log_probs", "rollout_log_probs"),
        ("slime", cut_by_context_parallelism, "context parallelism", "all_gather_with_cp"),
        ("miles", without("log_probs"), "no log_probs", "--get-mismatch-metrics"),
    ],
)
def test_what_lacks_a_side_names_the_option_that_brings_it(
    serve: Serve,
    connect: Connect,
    own: FrameworkSources,
    framework: str,
    change: Callable[[Any], Any],
    told: str,
    option: str,
) -> None:
    batch = change(BATCHES[framework](own))
    client = connect(serve().url)
    push_batch(framework)(client, 4, batch)
    assert (client.failed, client.pushes) == (1, 1)
    with pytest.raises(DriftscopeError, match=told) as raised:
        push_batch(framework)(connect(serve().url, strict=True), 4, batch)
    assert any(one in raised.value.remedy for one in option.split("|"))


def namespaces(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return SimpleNamespace(**{name: namespaces(inner) for name, inner in value.items()})


ENGINE = {"inference_engine": {"backend": "vllm", "model_dtype": "bfloat16"}}
POLICY = {"fsdp_config": {"mixed_precision": {"param_dtype": "fp16"}}}
VLLM = {"backend": "vllm", "vllm_cfg": {"precision": "fp8"}}
SGLANG = {"backend": "sglang", "sglang_cfg": {"dtype": "bfloat16"}}


@pytest.mark.parametrize(
    ("framework", "config", "dtypes"),
    [
        ("openrlhf", {"ds": {"param_dtype": "bf16"}}, ("bfloat16", "bf16")),
        ("skyrl", {"trainer": {"bf16": True}, "generator": ENGINE}, ("bfloat16", "bf16")),
        ("skyrl", {"trainer": {"bf16": True, "policy": POLICY}}, (None, "fp16")),
        (
            "areal",
            {
                "actor": {"dtype": "float16"},
                "rollout": {"backend": "sglang:d4t2"},
                "sglang": {"dtype": "bfloat16"},
            },
            ("bfloat16", "float16"),
        ),
        ("nemo_rl", {"policy": {"precision": "bfloat16", "generation": VLLM}}, ("fp8", "bfloat16")),
        ("nemo_rl", {"policy": {"generation": SGLANG}}, ("bfloat16", None)),
        ("slime", {"bf16": True, "sglang_dtype": "auto"}, (None, "bf16")),
        ("slime", {"bf16": False, "fp16": False, "sglang_dtype": "float16"}, ("float16", "fp32")),
        ("miles", {"fp16": True}, (None, "fp16")),
    ],
)
def test_the_configuration_gives_both_dtypes(
    serve: Serve,
    connect: Connect,
    received: Received,
    own: FrameworkSources,
    framework: str,
    config: dict[str, Any],
    dtypes: tuple[str | None, str | None],
) -> None:
    arguments = framework in ("slime", "miles")  # a namespace, never a mapping
    forms: list[Callable[[Any], Any]] = [namespaces] if arguments else [namespaces, dict]
    for form in forms:
        stub = serve()
        batch = BATCHES[framework](own)
        push_batch(framework)(connect(stub.url, strict=True), 4, batch, config=form(config))
        metadata = received(stub).metadata
        assert (metadata.get("rollout_dtype"), metadata.get("trainer_dtype")) == dtypes


def test_every_setting_is_one_that_the_framework_declares(own: FrameworkSources) -> None:
    declared = own.classes("skyrl/train/config/config.py")
    for entry in (*skyrl.SETTINGS.values(), *skyrl.MIXED_PRECISION.values(), *skyrl.BF16.values()):
        assert has_setting(declared, "SkyRLTrainConfig", entry), entry
    declared = own.classes("areal/api/cli_args.py")
    engines = [(engine, areal.ENGINE_DTYPE) for engine in ("vllm", "sglang")]
    for entry in (*areal.SETTINGS.values(), areal.BACKEND, *engines):
        assert has_setting(declared, "PPOConfig", entry), entry
    assert not has_setting(declared, "PPOConfig", ("actor", "no_such_entry"))
    options = own.source("openrlhf/cli/train_ppo_ray.py")
    for entry in openrlhf.SETTINGS.values():
        assert f'"--{".".join(entry)}"' in options, entry
    assert '"dtype": "bfloat16"' in own.source("openrlhf/trainer/ray/vllm_engine.py")


@pytest.fixture
def megatron(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Megatron's mpu on the last stage of the second of two data-parallel ranks."""
    mpu = SimpleNamespace(
        is_pipeline_last_stage=lambda: True,
        get_tensor_model_parallel_rank=lambda: 0,
        get_context_parallel_rank=lambda: 0,
        get_data_parallel_rank=lambda: 1,
        get_data_parallel_world_size=lambda: 2,
    )
    core = ModuleType("megatron.core")
    core.mpu = mpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "megatron", ModuleType("megatron"))
    monkeypatch.setitem(sys.modules, "megatron.core", core)
    slime._client.cache_clear()
    yield mpu
    slime._client.cache_clear()


def test_slimes_hook_pushes_the_shard_of_its_rank(
    serve: Serve,
    own: FrameworkSources,
    megatron: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = serve()
    monkeypatch.setenv("DRIFTSCOPE_URL", stub.url)
    monkeypatch.setenv("DRIFTSCOPE_RUN", "r")
    monkeypatch.setenv("DRIFTSCOPE_ATTEMPT", "a")
    args, data = SimpleNamespace(bf16=True), BATCHES["slime"](own)
    megatron.get_tensor_model_parallel_rank = lambda: 1
    slime.postprocess(args, 5, data)  # another rank has the same responses
    megatron.get_tensor_model_parallel_rank = lambda: 0
    slime.postprocess(args, 6, data)
    client = slime._client()
    client.close()
    assert (client.pushes, client.pushed) == (1, 1), client.last_error
    path = stub.requests[-1][0]
    assert path.startswith("/v1/runs/r/steps/6/logprobs?shard=1&shards=2")
