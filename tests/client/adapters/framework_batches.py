"""The same step as a batch of every framework: what an adapter must find again.

The batches of OpenRLHF, SkyRL and AReaL are made by their own code; those of NeMo-RL and slime in
the shape that their sources read, since no package of theirs holds it.
"""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from tests.client.adapters.framework_sources import FrameworkSources

PAD = 0


@dataclass(frozen=True, slots=True)
class Response:
    prompt: list[int]
    tokens: list[int]
    rollout: list[float]
    trainer: list[float]
    mask: list[int]  # 0 where a tool spoke
    advantage: float


def responses() -> list[Response]:
    """Of other lengths, one with a tool's tokens in it. All numbers are float32's."""
    return [
        Response([7, 8, 9], [11, 12], [-0.5, -1.25], [-0.5, -1.5], [1, 1], 1.0),
        Response(
            [7],
            [21, 22, 23, 24],
            [-2.0, 0.0, 0.0, -0.25],
            [-2.5, -9.0, -9.0, -0.25],
            [1, 0, 0, 1],
            -1.0,
        ),
        Response([5, 6], [31], [-3.0], [-3.0], [1], 0.5),
    ]


def openrlhf(own: FrameworkSources) -> Any:
    """Two micro-batches, as RemoteExperienceMaker.make_experience leaves them."""
    pad = own.namespace("openrlhf/utils/utils.py", only=["zero_pad_sequences"])
    names = own.namespace(
        "openrlhf/trainer/ppo_utils/experience.py", zero_pad_sequences=pad["zero_pad_sequences"]
    )
    path = "openrlhf/trainer/ppo_utils/samples_generator.py"
    make = own.function(path, "_process_response_into_experience", names)
    samples = []
    for one in responses():
        ranges, start = [], None
        for place, held in enumerate([*one.mask, 0], len(one.prompt)):
            if held and start is None:
                start = place
            elif not held and start is not None:
                ranges.append((start, place))
                start = None
        answer = {
            "observation_tokens": one.prompt + one.tokens,
            "action_ranges": ranges,
            "rollout_log_probs": [0.0] * len(one.prompt) + one.rollout,
            "prompt": "",
            "label": "",
            "reward": 1.0,
        }
        samples.append(make(None, answer))
    concat = names["Experience"].concat_experiences
    batch = [concat(samples[:2], PAD), concat(samples[2:], PAD)]
    for experience, part in zip(batch, (responses()[:2], responses()[2:]), strict=True):
        shape = experience.action_mask.shape
        experience.action_log_probs = torch.full(shape, -9.0)
        experience.advantages = torch.zeros(shape)
        for row, one in enumerate(part):
            start, end = len(one.prompt) - 1, len(one.prompt) + len(one.tokens) - 1
            experience.action_log_probs[row, start:end] = torch.tensor(one.trainer)
            experience.advantages[row, start:end] = one.advantage
    return batch


def skyrl(own: FrameworkSources) -> Any:
    """Filled up to a multiple of the ranks, as convert_to_training_input does."""
    names = own.namespace("skyrl/backends/skyrl_train/training_batch.py")
    path = "skyrl/train/dataset/preprocess.py"
    make = own.namespace(path, ["convert_prompts_responses_to_batch_tensors", "_verify_inputs"])
    every = responses()
    sequences, attention, response, rewards, loss, rollout, _ = make[
        "convert_prompts_responses_to_batch_tensors"
    ](
        SimpleNamespace(pad_token_id=PAD),
        [one.prompt for one in every],
        [one.tokens for one in every],
        [[0.0] * len(one.tokens) for one in every],
        [one.mask for one in every],
        [one.rollout for one in every],
    )
    batch = names["TrainingInputBatch"](
        {
            "sequences": sequences,
            "attention_mask": attention,
            "response_mask": response,
            "rewards": rewards,
            "loss_mask": loss,
            "rollout_logprobs": rollout,
        }
    )
    batch.metadata = {"response_length": response.shape[1]}
    batch = names["pad_training_input_batch"](batch, 1)
    for name, values in (
        ("action_log_probs", [one.trainer for one in every]),
        ("advantages", [[one.advantage] * len(one.tokens) for one in every]),
    ):
        batch[name] = torch.full(batch["loss_mask"].shape, -9.0)
        for row, own_values in enumerate(values):
            batch[name][row, -len(own_values) :] = torch.tensor(own_values)
    return batch


def areal(own: FrameworkSources) -> Any:
    """A dictionary per trajectory, as areal/workflow/rlvr.py returns it, with prox_logp."""
    labels = 'torch.roll(inputs["input_ids"], shifts=-1'
    assert labels in own.source("areal/engine/fsdp_engine.py")
    batch = []
    for one in responses():
        before = [0] * len(one.prompt)
        every = {
            "input_ids": torch.tensor(one.prompt + one.tokens, dtype=torch.int32),
            "loss_mask": torch.tensor(before + one.mask, dtype=torch.int32),
            "logprobs": torch.tensor([0.0] * len(before) + one.rollout),
            "versions": torch.tensor([-1] * len(before) + [3] * len(one.tokens), dtype=torch.int32),
            "attention_mask": torch.ones(len(before) + len(one.tokens), dtype=torch.bool),
            # What the model says at a token is of the next one.
            "prox_logp": torch.tensor([-9.0] * (len(before) - 1) + [*one.trainer, -9.0]),
        }
        batch.append({name: values.unsqueeze(0) for name, values in every.items()})
    return batch


def nemo_rl(_: FrameworkSources) -> Any:
    """BatchedDataDict is a UserDict; one sample is masked as a whole, as overlong ones are."""
    every = [*responses(), responses()[0]]
    longest = max(len(one.prompt) + len(one.tokens) for one in every)

    def padded(rows: list[list[float]], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        filled = [row + [0.0] * (longest - len(row)) for row in rows]
        return torch.tensor(filled).to(dtype)

    before = [[0.0] * len(one.prompt) for one in every]
    rows = list(zip(before, every, strict=True))
    return UserDict(
        {
            "input_ids": padded([[*one.prompt, *one.tokens] for one in every], torch.int64),
            "input_lengths": torch.tensor([len(one.prompt) + len(one.tokens) for one in every]),
            "generation_logprobs": padded([start + one.rollout for start, one in rows]),
            "prev_logprobs": padded([start + one.trainer for start, one in rows]),
            "token_mask": padded([[*start, *one.mask] for start, one in rows]),
            "sample_mask": torch.tensor([1.0, 1.0, 1.0, 0.0]),
            "advantages": padded(
                [start + [one.advantage] * len(one.tokens) for start, one in rows]
            ),
        }
    )


def slime(_: FrameworkSources) -> Any:
    every = responses()
    return {
        "tokens": [torch.tensor(one.prompt + one.tokens) for one in every],
        "loss_masks": [torch.tensor(one.mask, dtype=torch.int) for one in every],
        "rollout_log_probs": [torch.tensor(one.rollout) for one in every],
        "log_probs": [torch.tensor(one.trainer) for one in every],
        "advantages": [torch.full((len(one.tokens),), one.advantage) for one in every],
        "response_lengths": [len(one.tokens) for one in every],
        "total_lengths": [len(one.prompt) + len(one.tokens) for one in every],
    }


#: Adapter → its batch.
BATCHES = {
    "openrlhf": openrlhf,
    "skyrl": skyrl,
    "areal": areal,
    "nemo_rl": nemo_rl,
    "slime": slime,
    "miles": slime,
}
