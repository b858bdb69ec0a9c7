"""Captures hidden states of a language model for the kernel checker's "activations" inputs.

    python scripts/capture_activations.py MODEL_FOLDER OUT.safetensors

What goes into the last layer's down projection: the widest range of values in such models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

#: Positions kept: 48 rows of 1,536 bf16 values are 147 kB.
ROWS = 48
SEED = 0


def main(folder: str, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    captured: list[torch.Tensor] = []
    projection = model.model.layers[-1].mlp.down_proj
    projection.register_forward_pre_hook(lambda _module, inputs: captured.append(inputs[0]))
    generator = torch.Generator().manual_seed(SEED)
    ids = torch.randint(0, model.config.vocab_size, (1, ROWS), generator=generator)
    with torch.no_grad():
        model(ids)
    save_file({"hidden": captured[0][0].to(torch.bfloat16).contiguous()}, target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
