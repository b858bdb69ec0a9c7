"""OpenRLHF: the experiences of a step → one push.

In: what RemoteExperienceMaker.make_experience_batch returned, a list of Experience or one of them,
and the trainer's args; it runs in one process, which has the whole step. Out: nothing; the push
goes through the client. Written for OpenRLHF 0.11.2: class Experience,
openrlhf/trainer/ppo_utils/experience.py, filled in experience_maker.py beside it; the sequences are
padded on the right, and a column of `action_mask` belongs to the token after it. OpenRLHF itself is
not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftscope_client.adapters.trainer_batch import (
    BatchAdapter,
    Tensors,
    joined,
    present,
    rows_of_next_tokens,
    settings,
)

NEEDED = ("rollout_log_probs", "action_log_probs", "action_mask", "sequences")
REMEDIES = {
    "rollout_log_probs": "set --algo.advantage.is_correction_level token: without it, OpenRLHF "
    "asks vLLM for no log-probabilities.",
    "action_log_probs": "push after make_experience_batch, in BasePPOTrainer.train_step.",
}
SETTINGS = {
    "model": ("actor", "model_name_or_path"),
    "trainer_dtype": ("ds", "param_dtype"),
    "temperature": ("rollout", "temperature"),
    "top_p": ("rollout", "top_p"),
}
#: No option: openrlhf/trainer/ray/vllm_engine.py and openrlhf/cli/train_ppo_ray.py set them.
FIXED = {"engine": "vllm", "rollout_dtype": "bfloat16", "logprobs_mode": "processed_logprobs"}


def batch_tensors(batch: Any) -> Tensors:
    """One entry per sequence, under the push format's names. Raises MalformedStep."""
    experiences: Sequence[Any] = batch if isinstance(batch, Sequence) else [batch]
    return joined([_of(one) for one in experiences])


def _of(experience: Any) -> dict[str, list[Any]]:
    present(experience, NEEDED, REMEDIES)
    mask, sequences = experience.action_mask, experience.sequences
    columns = {
        "rollout_logprobs": experience.rollout_log_probs,
        "trainer_logprobs": experience.action_log_probs,
        "token_ids": sequences[:, 1:],
    }
    if experience.advantages is not None:
        columns["advantages"] = experience.advantages
    return rows_of_next_tokens(columns, mask)


def settings_of(config: Any) -> dict[str, object]:
    """What OpenRLHF's arguments say of both sides; {} without them."""
    return settings(config, SETTINGS)


push_batch = BatchAdapter("openrlhf", batch_tensors, settings_of, FIXED).push_batch
