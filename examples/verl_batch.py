"""The lines that go into verl's RayPPOTrainer.fit, with a stand-in for verl's own batch.

verl itself is not installed here: it needs a GPU and pins numpy below 2. The batch has the names,
shapes and padding of verl 0.9.1's DataProto after compute_advantage; in verl, `batch`,
`self.global_steps` and `self.config` are there already.
"""

from types import SimpleNamespace

import numpy as np
import torch

from driftscope_client import DriftscopeClient
from driftscope_client.adapters.verl import push_batch

RESPONSES, PROMPT, LONGEST = 16, 8, 24
CONFIG = {
    "actor_rollout_ref": {
        "model": {"path": "my-model"},
        "actor": {"strategy": "fsdp", "fsdp_config": {"dtype": "bfloat16"}},
        "rollout": {"name": "vllm", "dtype": "bfloat16", "calculate_log_probs": True},
    }
}


def data_proto() -> SimpleNamespace:
    """Prompts are padded on the left, responses on the right; the two sides by a little noise."""
    torch.manual_seed(0)
    lengths = torch.randint(4, LONGEST + 1, (RESPONSES, 1))
    held = (torch.arange(LONGEST) < lengths).long()
    rollout = -torch.rand(RESPONSES, LONGEST) * 2 * held
    tensors = {
        "responses": torch.randint(0, 1000, (RESPONSES, LONGEST)),
        "response_mask": held,
        "attention_mask": torch.cat([torch.ones(RESPONSES, PROMPT, dtype=torch.long), held], 1),
        "rollout_log_probs": rollout,
        "old_log_probs": rollout + torch.randn(RESPONSES, LONGEST) * 0.005 * held,
        "advantages": torch.randn(RESPONSES, 1) * held,
    }
    sources = np.array(["openai/gsm8k"] * RESPONSES, dtype=object)
    return SimpleNamespace(
        batch=tensors, meta_info={"temperature": 1.0}, non_tensor_batch={"data_source": sources}
    )


def main() -> None:
    client = DriftscopeClient(run="example-verl")
    for step in range(3):
        push_batch(client, step, data_proto(), config=CONFIG)
    client.finish()
    print(f"pushed {client.pushed}, failed {client.failed}")
    for name, value in client.metrics().items():
        print(name, f"{value:.6g}")


if __name__ == "__main__":
    main()
