"""verl: a batch of its trainer, as a DataProto holds it, → one push.

In: the batch after old_log_probs were computed. Out: nothing; the push goes through the client.
Written for verl 0.9.1 (verl/trainer/ppo/ray_trainer.py); verl itself is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from driftscope_client.adapters.trainer_batch import present, setting
from driftscope_client.client import DriftscopeClient
from driftscope_client.errors import MalformedStep

#: Ours and verl's: all [sequences, response].
NEEDED = {
    "rollout_logprobs": "rollout_log_probs",
    "trainer_logprobs": "old_log_probs",
    "mask": "response_mask",
    "token_ids": "responses",
}
#: Advantages come later in verl's step; position_ids cover the prompt as well.
OPTIONAL = {"advantages": "advantages", "entropy": "entropys"}
#: Where verl's configuration names them (verl/trainer/config/_generated_ppo_trainer.yaml).
ROLLOUT, ACTOR = ("actor_rollout_ref", "rollout"), ("actor_rollout_ref", "actor")
SETTINGS = {
    "model": ("actor_rollout_ref", "model", "path"),
    "engine": (*ROLLOUT, "name"),
    "rollout_dtype": (*ROLLOUT, "dtype"),
    "top_p": (*ROLLOUT, "top_p"),
    "top_k": (*ROLLOUT, "top_k"),
}
#: fp8 or another; the weights are then no longer in `dtype`.
QUANTIZATION = (*ROLLOUT, "quantization")
STRATEGY = (*ACTOR, "strategy")
#: The dtype of the forward: with FSDP that of its mixed precision; model_dtype is the master's.
TRAINER_DTYPES = {
    "fsdp": (*ACTOR, "fsdp_config", "dtype"),
    "fsdp2": (*ACTOR, "fsdp_config", "dtype"),
    "megatron": (*ACTOR, "megatron", "dtype"),
}
WHEN = (
    "set actor_rollout_ref.rollout.calculate_log_probs=True, and push after old_log_probs were "
    "computed."
)
#: For a sequence whose data source is an empty name.
UNNAMED = "unknown"


def push_batch(
    client: DriftscopeClient,
    step: int,
    batch: Any,
    *,
    config: Any = None,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Push one step; `batch` is a DataProto, or a mapping with its tensors.

    config: the trainer's own (self.config), for the model, the engine and the dtypes of both sides,
    which limits depend on. `metadata` goes before what it says.

    verl's trainer runs in one process: this is the whole step. Never raises, unless the client is
    strict: a batch without rollout_log_probs (actor_rollout_ref.rollout.calculate_log_probs), or in
    bypass mode, where verl takes them for old_log_probs, is counted as failed.
    """
    with client.undisturbed(step):
        tensors = batch_tensors(getattr(batch, "batch", batch))
        temperature = getattr(batch, "meta_info", {}).get("temperature")
        described = {
            "framework": "verl",
            "temperature": temperature,
            "weights_version": step,
            **settings_of(config),
        }
        sources = getattr(batch, "non_tensor_batch", {}).get("data_source")
        if sources is not None:
            tensors["environment"], described["environments"] = environments_of(sources)
        client.push(step, metadata={**described, **(metadata or {})}, **tensors)


def metrics(client: DriftscopeClient) -> dict[str, float]:
    """What the service last said, for verl's own `metrics.update(…)` in fit(): the numbers of the
    latest step that was answered, as DriftscopeClient.metrics() has them."""
    return client.metrics()


def settings_of(config: Any) -> dict[str, object]:
    """What verl's configuration says of both sides; {} without one. Names of the metadata."""
    told = {name: setting(config, *path) for name, path in SETTINGS.items()}
    if (quantized := setting(config, *QUANTIZATION)) is not None:
        told["rollout_dtype"] = quantized
    strategy = str(setting(config, *STRATEGY))
    told["trainer_dtype"] = setting(config, *TRAINER_DTYPES.get(strategy, ("",)))
    return {name: value for name, value in told.items() if value is not None}


def environments_of(sources: Iterable[object]) -> tuple[list[int], str]:
    """One data source per sequence → the index of each, and what is counted, in verl's order."""
    # In the metadata a comma separates the names, and spaces around them do not count.
    named = [str(source).replace(",", ";").strip() or UNNAMED for source in sources]
    every = list(dict.fromkeys(named))
    return [every.index(name) for name in named], ",".join(every)


def batch_tensors(batch: Mapping[str, Any]) -> dict[str, Any]:
    """verl's tensors under the push format's names, padded as they are. Raises MalformedStep."""
    present(batch, tuple(NEEDED.values()), dict.fromkeys(NEEDED.values(), WHEN))
    names = set(batch.keys())
    if batch["old_log_probs"] is batch["rollout_log_probs"]:
        raise MalformedStep(
            "old_log_probs are the rollout's own (bypass mode): there is nothing to compare.",
            remedy="turn bypass mode off (algorithm.rollout_correction.bypass_mode=False), so that "
            "the actor scores the responses itself.",
        )
    tensors = {ours: batch[theirs] for ours, theirs in NEEDED.items()}
    tensors |= {ours: batch[theirs] for ours, theirs in OPTIONAL.items() if theirs in names}
    if "attention_mask" in names:
        prompt = batch["attention_mask"][:, : -batch["responses"].shape[1]]
        tensors["prompt_lengths"] = prompt.sum(1)
    positions = batch["position_ids"] if "position_ids" in names else None
    if positions is not None and positions.ndim == 2:  # multimodal models have three per token
        tensors["position_ids"] = positions[:, -batch["responses"].shape[1] :]
    return tensors
