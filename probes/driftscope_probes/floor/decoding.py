"""The rollout's tokens scored as an engine meets them: one position at a time, with a KV cache.

In: a loaded model, prompts and the tokens. Out: float32 log-probabilities [tokens], in nats.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace
from driftscope_probes.trainer.load import LoadedModel
from driftscope_probes.trainer.microbatch import PAD_TOKEN


@torch.no_grad()
def decoded_logprobs(
    loaded: LoadedModel, prompts: PromptBatch, rollout: Trace, batch_size: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """`batch_size` sequences at a time: which tokens of the rollout, and their log-probabilities.

    The model is in evaluation mode meanwhile, as in an engine.
    """
    trained = loaded.model.training
    loaded.model.eval()
    try:
        for first in range(0, rollout.sequences, batch_size):
            batch = range(first, min(first + batch_size, rollout.sequences))
            tokens = slice(int(rollout.cu_seqlens[first]), int(rollout.cu_seqlens[batch.stop]))
            if tokens.start < tokens.stop:
                yield tokens, _decoded(loaded, prompts, rollout, batch)
    finally:
        loaded.model.train(trained)


def _decoded(
    loaded: LoadedModel, prompts: PromptBatch, rollout: Trace, batch: range
) -> NDArray[np.float32]:
    ids, attention = _left_padded([prompts.ids(index) for index in batch], loaded.device)
    responses = [rollout.token_ids[rollout.sequence(index)] for index in batch]
    steps = max(response.size for response in responses)
    # A finished sequence goes on with any token: its row is cut off below, no other row sees it.
    targets = np.full((len(batch), steps), PAD_TOKEN, np.int64)
    for row, response in enumerate(responses):
        targets[row, : response.size] = response
    forced = torch.from_numpy(targets).to(loaded.device)
    cache, columns = None, []
    for step in range(steps):
        positions = attention.cumsum(1).sub(1).clamp(min=0)[:, -ids.shape[1] :]
        output = loaded.model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        ids = forced[:, step : step + 1]
        logprobs = torch.log_softmax(output.logits[:, -1].float(), -1)
        columns.append(logprobs.gather(1, ids)[:, 0])
        attention = torch.cat([attention, torch.ones_like(ids)], 1)
    scored: NDArray[np.float32] = torch.stack(columns, 1).cpu().numpy()
    rows = [scored[row, : response.size] for row, response in enumerate(responses)]
    return np.concatenate(rows)


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both int64 [prompts, longest]."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), PAD_TOKEN, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention[row, width - len(prompt) :] = 1
    return ids.to(device), attention.to(device)
