"""NeMo-RL: the backend that is on counts, and what waits for a switch counts once it is on."""

from __future__ import annotations

from typing import Any

from driftscope_probes.lint.readers.registry import read_text

BASE = """
grpo:
  async_grpo: {enabled: ASYNC, max_trajectory_age_steps: 4, in_flight_weight_updates: true}
loss_fn:
  ratio_clip_max: 0.28
  use_importance_sampling_correction: false
policy:
  precision: bfloat16
  dtensor_cfg: {enabled: DTENSOR, tensor_parallel_size: 4, lora_cfg: {enabled: false, dim: 8}}
  megatron_cfg:
    enabled: MEGATRON
    tensor_model_parallel_size: 2
    moe_router_dtype: fp64
    fp8_cfg: {enabled: true, fp8: e4m3}
  generation:
    backend: vllm
    top_k: null
    vllm_cfg: {precision: "${policy.precision}", kv_cache_dtype: auto}
    vllm_kwargs: {max_num_seqs: 32}
"""


def settings(text: str) -> dict[str, Any]:
    return {one.name: one.value for one in read_text("grpo.yaml", text)}


def base(backend: str, asynchronous: str = "false") -> str:
    return (
        BASE.replace("ASYNC", asynchronous)
        .replace("DTENSOR", str(backend == "dtensor").lower())
        .replace("MEGATRON", str(backend == "megatron").lower())
    )


def test_the_backend_that_is_on() -> None:
    dtensor, megatron = settings(base("dtensor")), settings(base("megatron"))
    assert dtensor["trainer.tensor_parallel"] == 4
    assert "trainer.router_dtype" not in dtensor
    assert "trainer.quantization" not in dtensor
    assert "trainer.lora_rank" not in dtensor
    assert megatron["trainer.tensor_parallel"] == 2
    assert megatron["trainer.router_dtype"] == "fp64"
    assert megatron["trainer.quantization"] == "fp8"


def test_references_and_arguments_that_are_passed_on() -> None:
    found = settings(base("megatron"))
    assert found["engine.dtype"] == "bf16"
    assert found["engine.max_sequences"] == 32
    assert "sampling.top_k" not in found
    assert found["trainer.correction"] == "off"


def test_what_waits_for_asynchronous_training() -> None:
    assert "trainer.staleness" not in settings(base("dtensor"))
    assert "weights.in_flight" not in settings(base("dtensor"))
    found = settings(base("dtensor", "true"))
    assert (found["trainer.staleness"], found["weights.in_flight"]) == (4, True)


def test_a_recipe_that_adds_to_another() -> None:
    found = settings(
        "defaults: ./base.yaml\n"
        "policy: {megatron_cfg: {expert_model_parallel_size: 8},\n"
        "         generation: {vllm_cfg: {precision: fp8}}}\n"
    )
    assert found == {
        "trainer.adds_to": "./base.yaml",
        "trainer.framework": "nemo-rl",
        "trainer.backend": "megatron",
        "trainer.expert_parallel": 8,
        "engine.name": "vllm",
        "engine.dtype": "fp8",
        "engine.quantization": "fp8",
    }
