"""Row: files that trip a rule, and files like them that do not.

One module beside this one per file of rules, each with ROWS; test_rules.py finds them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    rule: str
    #: File name, whose suffix says its form, → content, in the order in which they are given. Of
    #: "model/config.json" the folder is given.
    trips: Mapping[str, str]
    clean: Mapping[str, str]


def config(**more: Any) -> dict[str, str]:
    """A model's folder with a config.json like that of a published Qwen3."""
    table = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 64,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "rope_theta": 1_000_000,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        **more,
    }
    kept = {key: value for key, value in table.items() if value is not None}
    return {"model/config.json": json.dumps(kept)}


def experts(**more: Any) -> dict[str, str]:
    return config(model_type="qwen3_moe", num_experts=8, **more)


def hybrid(**more: Any) -> dict[str, str]:
    return config(model_type="qwen3_next", linear_num_value_heads=4, **more)


def serve(arguments: str = "") -> dict[str, str]:
    return {"serve.sh": f"vllm serve a/model {arguments}\n"}


def variables(*lines: str) -> dict[str, str]:
    return {"host.env": "\n".join(lines) + "\n"}


def weights(**tensors: str) -> dict[str, str]:
    """A header of safetensors without data: tensors by dtype, short enough for one byte."""
    header = json.dumps(
        {name: {"dtype": dtype, "shape": [1]} for name, dtype in tensors.items()},
        separators=(",", ":"),
    )
    assert len(header) < 128
    return {"model/model.safetensors": chr(len(header)) + "\0" * 7 + header}
