"""Whether the two sides agree on every token of the vocabulary, not only on the sampled one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from vllm import SamplingParams

from driftscope_kernels.cpu.tiled_log_softmax import tiled_log_softmax
from driftscope_kernels.invariant_mode import invariant_mode
from driftscope_kernels.on_policy.token_scores import from_position_zero

#: Sequences of the batch; of each the distribution after the prompt and that after its first half.
SEQUENCES = 2


def same_over_the_vocabulary(trainer: Any, batch: Any) -> bool:
    """Bitwise, of a few places; the trainer's side by its kernels if it is exact, else torch's."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)[:SEQUENCES]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)[:SEQUENCES]
    moved, _ = from_position_zero(ids, mask)
    prompts = batch["prompt_mask"][:SEQUENCES].sum(1)
    lengths = mask.sum(1)
    return all(
        torch.equal(_engine(trainer, moved[row, :end]), _trainer(trainer, moved[row, :end]))
        for row in range(len(ids))
        for end in {int(prompts[row]), int(prompts[row] + lengths[row]) // 2}
    )


def _engine(trainer: Any, prefix: torch.Tensor) -> torch.Tensor:
    llm = trainer.vllm_generation.llm
    # TRL leaves it at 20; it is read at every request.
    llm.llm_engine.model_config.max_logprobs = -1
    asked = SamplingParams(max_tokens=1, temperature=trainer.temperature, logprobs=-1, seed=0)
    (output,) = llm.generate([{"prompt_token_ids": prefix.tolist()}], [asked], use_tqdm=False)
    found = output.outputs[0].logprobs[0]
    return torch.tensor([found[token].logprob for token in range(len(found))])


@torch.no_grad()
def _trainer(trainer: Any, prefix: torch.Tensor) -> torch.Tensor:
    model = trainer.accelerator.unwrap_model(trainer.model)
    exact = hasattr(trainer, "exact")
    with invariant_mode() if exact else nullcontext():
        hidden = model.base_model(input_ids=prefix[None], use_cache=False).last_hidden_state
        head: torch.Tensor = model.get_output_embeddings().weight
        logits = torch.nn.functional.linear(hidden[:, -1], head).float() / trainer.temperature
        whole = tiled_log_softmax(logits) if exact else logits.log_softmax(-1)
    return torch.as_tensor(whole[0])
