"""Updates: real steps of a policy gradient, and the weights before and after them.

In: a lab and a setting. Out: the displacement of the trainer's weights. Two independent rules:
plain gradient ascent on the very responses that are pushed, and Adam on those of earlier batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.lab import PAD, Lab, Sampled
from driftscope_probes.diagnosis.drill.pool import kept, rollout

Rule = Literal["gradient", "adam"]
#: Backward passes cost three times a forward: enough tokens for a real direction, not more.
MOST_SEQUENCES, MOST_TOKENS = 16, 64
STEPS = 3
ADAM_LEARNING_RATE = 1e-5
EARLIER = 10_000  # added to the seed: prompts that no setting draws
GRADIENT_STEP = 1e-3  # length of each plain step, by clipping the norm; doses multiply it
Displacement = Mapping[str, Tensor]  # float32, by parameter name


def displacement(lab: Lab, setting: Setting, rule: Rule) -> Displacement:
    """Difference of the trainer's float32 weights after STEPS steps; made once per setting."""
    small = replace(
        setting,
        sequences=min(setting.sequences, MOST_SEQUENCES),
        max_tokens=min(setting.max_tokens, MOST_TOKENS),
    )
    fp32 = Lab(lab.model_folder, lab.rollout_dtype, "fp32", lab.seed)
    return kept(fp32, ("displacement", small, rule), lambda: _displacement(fp32, small, rule))


def move(model: Any, difference: Displacement, by: float) -> Any:
    """The model itself, its weights moved in float32 and rounded to its dtype."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in difference:
                moved = parameter.float() + by * difference[name]
                parameter.copy_(moved)
    return model


def _displacement(lab: Lab, setting: Setting, rule: Rule) -> Displacement:
    model = lab.trainer(fresh=True).requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer: torch.optim.Optimizer
    if rule == "gradient":
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=ADAM_LEARNING_RATE)
    for step in range(STEPS):
        # Plain ascent sees the pushed batch again (several passes over one batch); Adam has seen
        # other prompts, as a trainer that is a few batches ahead of its engine.
        batch = (
            setting if rule == "gradient" else replace(setting, seed=setting.seed + EARLIER + step)
        )
        sampled = rollout(lab, batch)
        optimizer.zero_grad()
        loss = _loss(model, sampled, lab.advantages(len(sampled.prompts)).tolist(), setting)
        loss.backward()  # type: ignore[no-untyped-call]
        if rule == "gradient":
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_STEP)
        optimizer.step()
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def _loss(model: Any, sampled: Sampled, advantages: Sequence[float], setting: Setting) -> Tensor:
    """− mean over tokens of advantage × log p: the policy gradient on the first sequences."""
    total = torch.zeros(())
    tokens = 0
    rows = range(len(sampled.prompts))
    whole = [sampled.prompts[row] + sampled.responses[row] for row in rows]
    ids = torch.full((len(whole), max(map(len, whole))), PAD)
    for row, sequence in enumerate(whole):
        ids[row, : len(sequence)] = torch.tensor(sequence)
    # Padding on the right of a causal model is seen by no response token.
    logits = model(input_ids=ids, use_cache=False).logits
    for row in rows:
        first, response = len(sampled.prompts[row]) - 1, sampled.responses[row]
        classes = torch.log_softmax(logits[row, first : first + len(response)].float(), -1)
        chosen = classes.gather(1, torch.tensor(response)[:, None])
        total = total - advantages[row] * chosen.sum()
        tokens += len(response)
    return total / tokens
