"""Models of other families, of a few hundred thousand weights, drawn wide enough to differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LEAST_VOCABULARY = 961  # of the models that the tests load


def family(folder: Path, name: str, seed: int = 3, **settings: Any) -> Path:
    """`name` as transformers spells its classes; vocabulary as the tests' prompts need it."""
    import torch
    import transformers

    torch.manual_seed(seed)
    usual = {
        "vocab_size": LEAST_VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    config = getattr(transformers, f"{name}Config")(**usual | settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for weight_name, weight in model.named_parameters():
        if weight_name.endswith("bias"):  # transformers makes them zero
            torch.nn.init.normal_(weight, std=0.2)
    model.bfloat16().save_pretrained(folder)
    return folder
