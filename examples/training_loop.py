"""A policy-gradient loop that pushes every step: the sampler is a bfloat16 copy of the trainer.

The policy says the next token from the last one; the reward is the fraction of tokens equal to 7.
Everything but the three lines with `client` is any training loop. Usage: [STEPS]
"""

import copy
import sys

import torch

from driftscope_client import DriftscopeClient

VOCABULARY, RESPONSES, LENGTH, WANTED = 32, 64, 16, 7


def sample(policy: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [responses, length + 1], the first of them given, and log p of the sampled ones."""
    tokens, logprobs = [torch.zeros(RESPONSES, dtype=torch.long)], []
    with torch.no_grad():
        for _ in range(LENGTH):
            distribution = policy(tokens[-1]).log_softmax(-1)
            tokens.append(torch.multinomial(distribution.float().exp(), 1)[:, 0])
            logprobs.append(distribution.gather(-1, tokens[-1][:, None])[:, 0])
    return torch.stack(tokens, 1), torch.stack(logprobs, 1)


def score(policy: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    distribution = torch.log_softmax(policy(tokens[:, :-1]), -1)
    return distribution.gather(-1, tokens[:, 1:, None])[..., 0]


def main() -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Embedding(VOCABULARY, 64), torch.nn.Linear(64, VOCABULARY))
    policy = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=0.01)
    # The queue holds 8 steps, enough where a step takes seconds; here it takes milliseconds.
    client = DriftscopeClient(run="example-loop", queue_size=1024)
    about = {"rollout_dtype": "bf16", "trainer_dtype": "fp32"}
    mask = torch.ones(RESPONSES, LENGTH, dtype=torch.bool)
    for step in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        tokens, rollout = sample(copy.deepcopy(policy).bfloat16())
        trainer = score(policy, tokens)
        sides = {"rollout_logprobs": rollout, "trainer_logprobs": trainer}
        client.push(step, **sides, mask=mask, token_ids=tokens[:, 1:], metadata=about)
        reward = (tokens[:, 1:] == WANTED).float().mean(1)
        loss = -((reward - reward.mean())[:, None] * trainer).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        print(f"step {step}: reward {reward.mean():.3f}")
    client.finish()  # else nobody can tell the end of the run from a failure
    print(f"pushed {client.pushed}, failed {client.failed}, dropped {client.dropped}")


if __name__ == "__main__":
    main()
