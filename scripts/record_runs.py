"""Record the demo's runs: a small policy-gradient loop on SmolLM2, its steps in the push format.

    python scripts/record_runs.py [--steps 36] [--run NAME]

Two copies of the model stand for the two sides: one samples with a KV cache in bfloat16 and says
what probability it gave, the other is trained and scores the same tokens in one forward pass. What
is wrong in a run is done for real, from step FAULT_FROM on:

  healthy            weights are copied to the sampling side before every step
  stale-weights      they are no longer copied, while training goes on
  wrong-temperature  the engine samples at 0.7 and reports log-probabilities of that distribution,
                     the trainer scores at 1.0
"""

from __future__ import annotations

import argparse
import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from driftscope_probes.models.fetch import fetch
from driftscope_probes.prompts import DEMO_PROMPTS

RECORDINGS = Path(__file__).parents[1] / "service/driftscope_service/demo/recordings"
RUNS = ("healthy", "stale-weights", "wrong-temperature")
MODEL = "smollm2-135m"
SEQUENCES, LONGEST = 12, 40
FAULT_FROM = 18
WRONG_TEMPERATURE = 0.7
#: Adam's updates in bfloat16 weights. The stale run needs a policy that moves in so few steps.
LEARNING_RATES = {"healthy": 2e-5, "stale-weights": 1e-4, "wrong-temperature": 2e-5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--run", choices=RUNS)
    given = parser.parse_args()
    RECORDINGS.mkdir(parents=True, exist_ok=True)
    for name in [given.run] if given.run else RUNS:
        record(name, given.steps)


def record(name: str, steps: int) -> None:
    torch.manual_seed(0)
    folder = fetch(MODEL).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    engine = copy.deepcopy(trainer).eval()
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=LEARNING_RATES[name])
    generator = torch.Generator().manual_seed(1)
    version = 0
    with zipfile.ZipFile(
        RECORDINGS / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9
    ) as archive:
        for step in range(1, steps + 1):
            faulty = step >= FAULT_FROM
            if not (name == "stale-weights" and faulty):
                engine.load_state_dict(trainer.state_dict())
                version = step - 1
            hot = WRONG_TEMPERATURE if name == "wrong-temperature" and faulty else 1.0
            prompts = [
                DEMO_PROMPTS[(step * SEQUENCES + i) % len(DEMO_PROMPTS)] for i in range(SEQUENCES)
            ]
            ids, mask = encoded(tokenizer, prompts)
            tokens, rollout = sample(engine, ids, mask, hot, generator)
            logprobs, entropy = score(trainer, ids, mask, tokens)
            advantages = reward(tokens)
            train(optimizer, logprobs, advantages)
            entry = zipfile.ZipInfo(f"{step:04}.safetensors", (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(
                entry, body(tokens, rollout, logprobs, entropy, advantages, version, step)
            )
            gap = (logprobs.detach() - rollout).abs()
            print(f"{name} {step:3} mean |Δ| {gap.mean():.2e} max {gap.max():.2e}", flush=True)


def encoded(tokenizer: Any, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Left-padded, so that every prompt ends where its response begins."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]
    lists = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, lists))
    ids = torch.zeros(len(lists), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(lists):
        ids[row, longest - len(tokens) :] = torch.tensor(tokens)
        mask[row, longest - len(tokens) :] = 1
    return ids, mask


@torch.no_grad()
def sample(
    engine: Any, ids: Tensor, mask: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Token by token with a cache. Out: tokens and log-probabilities [sequences, LONGEST]."""
    cache, tokens, logprobs = None, [], []
    position = mask.cumsum(1) - 1
    given, places = ids, position.clamp(min=0)
    for _ in range(LONGEST):
        out = engine(
            input_ids=given,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        logits = out.logits[:, -1].float() / temperature
        distribution = torch.log_softmax(logits, dim=-1)
        chosen = torch.multinomial(distribution.exp(), 1, generator=generator)
        tokens.append(chosen)
        logprobs.append(distribution.gather(1, chosen))
        given, places = chosen, places[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(chosen)], dim=1)
    return torch.cat(tokens, 1), torch.cat(logprobs, 1)


def score(trainer: Any, ids: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass over prompt and response, with gradient."""
    whole = torch.cat([ids, tokens], 1)
    seen = torch.cat([mask, torch.ones_like(tokens)], 1)
    places = (seen.cumsum(1) - 1).clamp(min=0)
    out = trainer(input_ids=whole, attention_mask=seen, position_ids=places, use_cache=False)
    logits = out.logits[:, -LONGEST - 1 : -1].float()
    distribution = torch.log_softmax(logits, dim=-1)
    entropy = -(distribution.exp() * distribution).sum(-1)
    return distribution.gather(2, tokens[..., None])[..., 0], entropy.detach()


def reward(tokens: Tensor) -> Tensor:
    """A toy: many different tokens are good. As an advantage against the batch, per sequence."""
    different = torch.tensor([float(len(set(row.tolist()))) for row in tokens])
    return (different - different.mean()) / (different.std() + 1e-6)


def train(optimizer: torch.optim.Optimizer, logprobs: Tensor, advantages: Tensor) -> None:
    optimizer.zero_grad()
    loss = -(logprobs.mean(1) * advantages).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def body(
    tokens: Tensor,
    rollout: Tensor,
    logprobs: Tensor,
    entropy: Tensor,
    advantages: Tensor,
    version: int,
    step: int,
) -> bytes:
    tensors = {
        "rollout_logprobs": rollout.numpy().astype(np.float32).ravel(),
        "trainer_logprobs": logprobs.detach().numpy().astype(np.float32).ravel(),
        "entropy": entropy.numpy().astype(np.float32).ravel(),
        "token_ids": tokens.numpy().astype(np.int32).ravel(),
        "advantages": advantages.repeat_interleave(LONGEST).numpy().astype(np.float32),
        "cu_seqlens": np.arange(0, tokens.numel() + 1, LONGEST, dtype=np.int32),
        "behavior_version": np.full(len(tokens), version, np.int32),
    }
    metadata = {
        "schema_version": "1",
        "model": MODEL,
        "rollout_dtype": "bf16",
        "trainer_dtype": "bf16",
        "temperature": "1.0",  # what the trainer believes, in the wrong run too
        "framework": "transformers",
        "engine": "hf",
        "weights_version": str(step - 1),
    }
    return save(tensors, metadata)


if __name__ == "__main__":
    main()
