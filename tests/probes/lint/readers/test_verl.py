"""verl: resolved YAML and launch scripts come to the same settings."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import lint
from driftscope_probes.lint.readers.registry import read_text
from driftscope_probes.lint.rules.registry import ALL_RULES

SCRIPT = """#!/usr/bin/env bash
set -xeuo pipefail
MODEL_PATH=${MODEL_PATH:-"${DATA_HOME}/models/Qwen3-8B"}
LOSS_MODE=${LOSS_MODE:-gspo}
case $LOSS_MODE in
    gspo) low=3e-4 ;;
    *) low=0.2 ;;
esac
clip_low=${CLIP_LOW:-$low}
max_tokens=$(((1024 + 2048) * 2))
rollout_tp=${ROLLOUT_TP:-2}
CORRECTION=(
    algorithm.rollout_correction.rollout_is=token
    # algorithm.rollout_correction.rollout_is=sequence
    algorithm.rollout_correction.rollout_rs=null
)
ACTOR=(
    actor_rollout_ref.actor.policy_loss.loss_mode=${LOSS_MODE}
    actor_rollout_ref.actor.clip_ratio_low=${clip_low}
    actor_rollout_ref.actor.clip_ratio_high=4e-4
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=${max_tokens}
    +actor_rollout_ref.actor.megatron.override_transformer_config.moe_router_dtype=fp32
)
EXTRA=()
if [ "${DEVICE:-gpu}" = npu ]; then
    EXTRA+=(actor_rollout_ref.rollout.temperature=0.5)
fi
RAY_ADDRESS='http://127.0.0.1:8265' ray job submit -- python3 -m verl.trainer.main_ppo \\
    "${CORRECTION[@]}" \\
    "${ACTOR[@]}" \\
    actor_rollout_ref.model.path="$MODEL_PATH" \\
    actor_rollout_ref.rollout.name=vllm \\
    actor_rollout_ref.rollout.tensor_model_parallel_size=${rollout_tp} \\
    +actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_dtype=fp8 \\
    "${EXTRA[@]}" \\
    "$@"
"""


def settings(name: str, text: str) -> dict[str, Any]:
    return {one.name: one.value for one in read_text(name, text)}


def test_a_launch_script() -> None:
    found = settings("run.sh", SCRIPT)
    assert found == {
        "engine.name": "vllm",
        "engine.kv_cache_dtype": "fp8",
        "engine.tensor_parallel": 2,
        "trainer.correction": "token",
        "trainer.rejection": "off",
        "trainer.ratio_of": "sequence",
        "trainer.router_dtype": "fp32",
        # clip_ratio_low depends on a branch: it is not known, whatever the last branch says.
        "trainer.clip_high": 4e-4,
        "trainer.framework": "verl",
        "trainer.backend": "megatron",
    }


def test_where_a_value_stands_in_the_users_words() -> None:
    (one,) = [one for one in read_text("run.sh", SCRIPT) if one.name == "trainer.router_dtype"]
    transformer = "actor_rollout_ref.actor.megatron.override_transformer_config"
    assert one.where == f"run.sh: {transformer}.moe_router_dtype"


def test_yaml_with_references() -> None:
    found = settings(
        "ppo.yaml",
        """
actor_rollout_ref:
  actor:
    strategy: fsdp2
    clip_ratio: 0.2
    clip_ratio_high: 0.28
    use_dynamic_bsz: true
    fsdp_config: {model_dtype: fp32, dtype: bfloat16}
  rollout:
    dtype: ${actor_rollout_ref.actor.fsdp_config.dtype}
    enforce_eager: ${oc.select:nowhere.at_all,false}
    temperature: ${oc.env:TEMPERATURE}
    calculate_log_probs: false
  model: {lora_rank: 0, use_remove_padding: true}
algorithm:
  rollout_correction: {rollout_is: null, bypass_mode: true}
async_training: {trigger_parameter_sync_step: 4}
""",
    )
    assert found == {
        "trainer.backend": "fsdp2",
        "trainer.clip_low": 0.2,
        "trainer.clip_high": 0.28,
        "trainer.dynamic_batch": True,
        "trainer.master_dtype": "fp32",
        "trainer.dtype": "bf16",
        "engine.dtype": "bf16",
        "engine.eager": False,
        "engine.returns_logprobs": False,
        "trainer.lora_rank": 0,
        "trainer.packing": True,
        "trainer.correction": "off",
        "trainer.old_from_engine": True,
        "trainer.asynchronous": True,
        "weights.sync_every": 4,
        "trainer.framework": "verl",
    }


def test_references_in_a_ring_are_not_known() -> None:
    ring = "actor_rollout_ref:\n  rollout: {top_p: '${b}', name: vllm}\nb: ${c}\nc: ${b}\n"
    assert "sampling.top_p" not in settings("ppo.yaml", ring)


def test_a_file_that_adds_to_another() -> None:
    text = "defaults: [ppo_trainer, _self_]\nactor_rollout_ref: {rollout: {name: vllm}}\n"
    assert settings("async.yaml", text)["trainer.adds_to"] == "defaults"


LOOP = """python3 -u my/train.py \\
    backend=verl \\
    '+actor_rollout_ref.model.override_config={attn_implementation:eager,x:1}' \\
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2 \\
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \\
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \\
    +algorithm.rollout_correction.bypass_old_logprob_for_rollout=true \\
    ++algorithm.router_replay=R3 \\
    "$@" 2>&1 | tee log
"""


def test_a_program_that_trains_with_verl_under_another_name() -> None:
    """What its own configuration holds is not known: it adds to that one."""
    assert settings("run.sh", LOOP) == {
        "trainer.attention": "eager",
        "trainer.micro_batch": 2,
        # log_prob_micro_batch_size_per_gpu is not used where batches are filled by tokens.
        "trainer.old_from_engine": True,
        "trainer.router_replay": True,
        "engine.returns_routes": True,
        "trainer.adds_to": "--config-name",
        "trainer.framework": "verl",
    }


@pytest.mark.parametrize(
    ("arguments", "adds"),
    [
        ("-m verl.trainer.main_ppo", False),
        ("-m verl.trainer.main_ppo --config-path=config --config-name=ppo_trainer.yaml", False),
        ("-m verl.trainer.main_ppo --config-name ppo_megatron_trainer", False),
        ("-m verl.trainer.main_ppo --config-name=mine", True),
        ("-m verl.experimental.fully_async_policy.fully_async_main", True),
    ],
)
def test_a_configuration_that_overrides_add_to(arguments: str, adds: bool) -> None:
    found = settings("run.sh", f"python3 {arguments} actor_rollout_ref.rollout.name=vllm")
    assert ("trainer.adds_to" in found) == adds


def test_what_is_printed_is_not_run() -> None:
    with pytest.raises(RequestError):
        settings("run.sh", "echo actor_rollout_ref.rollout.name=vllm")


def test_drafts_of_the_rollout_need_both_switches() -> None:
    mtp = "actor_rollout_ref.model.mtp."
    run = f"python3 -m verl.trainer.main_ppo {mtp}enable_rollout=True"
    assert "engine.speculative" not in settings("run.sh", run)
    assert settings("run.sh", f"{run} {mtp}enable=True")["engine.speculative"] == "mtp"


def test_an_overlay_that_says_nothing_of_the_engine_is_truncated_all_the_same() -> None:
    known = read_text("overlay.yaml", "actor_rollout_ref: {rollout: {top_p: 0.5}}")
    assert "sampling-truncated" in {found.rule for found in lint(known, ALL_RULES)}
