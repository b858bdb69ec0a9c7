"""AReaL: the trajectories of a step → one push.

In: the list of trajectories that PPOTrainer trains on, once each has its prox_logp, and the
trainer's own configuration; every rank trains on a shard of its own. Out: nothing; the push goes
through the client. Written for AReaL 1.0.4: the dictionaries of areal/workflow/rlvr.py, and
prox_logp as areal/trainer/rl_trainer.py adds it. There `logprobs` are at their own token and
`prox_logp` one token earlier, where the model gave them. AReaL itself is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope_client.adapters.trainer_batch import (
    BatchAdapter,
    Tensors,
    joined,
    present,
    rows_of_next_tokens,
    setting,
    settings,
)
from driftscope_client.errors import MalformedStep

NEEDED = ("logprobs", "prox_logp", "loss_mask", "input_ids")
REMEDIES = {
    "prox_logp": "set actor.use_decoupled_loss=true with actor.prox_logp_method=recompute, or "
    "actor.recompute_logprob=true, and push after compute_logp: without them AReaL never scores "
    "the rollout.",
}
#: compute_advantages leaves it, and moves logprobs and loss_mask by one token.
TOO_LATE = "kl_rewards"
SETTINGS = {
    "model": ("actor", "path"),
    "trainer_dtype": ("actor", "dtype"),
    "temperature": ("gconfig", "temperature"),
    "top_p": ("gconfig", "top_p"),
    "top_k": ("gconfig", "top_k"),
}
#: rollout.backend begins with the engine's name: "sglang:d4t2".
BACKEND, ENGINE_DTYPE = ("rollout", "backend"), "dtype"


def settings_of(config: Any) -> dict[str, object]:
    """What AReaL's configuration says of both sides; {} without one."""
    told = settings(config, SETTINGS)
    engine = str(setting(config, *BACKEND) or "").partition(":")[0]
    if engine:
        told["engine"] = engine
        told |= settings(config, {"rollout_dtype": (engine, ENGINE_DTYPE)})
    return told


def batch_tensors(batch: Any) -> Tensors:
    """One entry per sequence, under the push format's names. Raises MalformedStep."""
    trajectories: Sequence[Any] = [batch] if isinstance(batch, Mapping) else batch
    return joined([_of(one) for one in trajectories])


def _of(trajectory: Mapping[str, Any]) -> dict[str, list[Any]]:
    present(trajectory, NEEDED, REMEDIES)
    if TOO_LATE in trajectory:
        raise MalformedStep(
            f"the trajectory has {TOO_LATE}: compute_advantages has moved its logprobs by one "
            "token, or put the trainer's own in their place.",
            remedy="push between compute_logp and compute_advantages.",
        )
    mask = _local(trajectory["loss_mask"])[:, 1:]
    columns = {
        "rollout_logprobs": _local(trajectory["logprobs"])[:, 1:],
        "trainer_logprobs": _local(trajectory["prox_logp"])[:, :-1],
        "token_ids": _local(trajectory["input_ids"])[:, 1:],
    }
    if "versions" in trajectory:
        # −1 stands for tokens that no engine sampled, which the mask leaves out.
        versions = _local(trajectory["versions"])[:, 1:]
        columns["token_behavior_version"] = versions.clamp(min=0)
    return rows_of_next_tokens(columns, mask)


def _local(tensor: Any) -> Any:
    """With a controller, AReaL hands out references (areal/infra/rpc/rtensor.py, RTensor)."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


push_batch = BatchAdapter("areal", batch_tensors, settings_of).push_batch
