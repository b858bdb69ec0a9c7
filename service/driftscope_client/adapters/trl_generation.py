"""One generation of TRL as the micro-batches of its loss come by, and as the tensors of one push.

In: TRL's padded batches. Out: padded [sequences, longest] tensors under the push format's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Generation:
    step: int  # optimiser steps done so far, which is also the version of the weights
    expected: int = 0  # micro-batches
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.batches) >= self.expected

    def tensors(self) -> dict[str, Any]:
        import torch

        longest = max(batch["mask"].shape[1] for batch in self.batches)

        def joined(name: str) -> Any:
            rows = [batch[name] for batch in self.batches]
            widened = [torch.nn.functional.pad(row, (0, longest - row.shape[1])) for row in rows]
            return torch.cat(widened)

        names = set.intersection(*(set(batch) for batch in self.batches))
        tensors = {name: joined(name) for name in sorted(names)}
        sequences = tensors["mask"].shape[0]
        versions = torch.full((sequences,), self.step, dtype=torch.int32)
        return {**tensors, "behavior_version": versions}


def micro_batch(
    inputs: Mapping[str, Any], rollout: Any, scored: Any, *, with_entropy: bool
) -> dict[str, Any]:
    """`scored`: log-probabilities and entropies of the loss's forward, both [sequences, longest].

    Without old_per_token_logps, TRL takes those of this very forward for them.
    """
    old, mask, advantages = (
        inputs.get("old_per_token_logps"),
        inputs["completion_mask"],
        inputs["advantages"],
    )
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1)
    prompt_lengths = inputs["prompt_mask"].sum(dim=1, keepdim=True)
    batch = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": scored[0].detach() if old is None else old,
        "mask": mask * inputs["tool_mask"] if "tool_mask" in inputs else mask,
        "token_ids": inputs["completion_ids"],
        "advantages": advantages.expand_as(mask),
        "position_ids": prompt_lengths + mask.new_ones(mask.shape).cumsum(dim=1) - 1,
    }
    if with_entropy and scored[1] is not None:
        batch["entropy"] = scored[1].detach()
    return batch
