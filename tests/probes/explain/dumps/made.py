"""Dumps of a made-up decoder of two layers, in every form, written by plain code.

Forms: ours (docs/capture.md), SGLang's dumper (python/sglang/srt/debug_utils/dumper.py), msprobe
(Ascend/msprobe, docs/en/user_guide/dump/pytorch_data_dump_instruct.md), Megatron's names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

TOKENS = 7
WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 8, 4, 2, 4, 12
CONFIG = {
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "hidden_size": WIDTH,
}
WIDTHS = {
    "attention_norm": WIDTH,
    "q_proj": HEADS * HEAD_DIM,
    "k_proj": KV_HEADS * HEAD_DIM,
    "v_proj": KV_HEADS * HEAD_DIM,
    "q_rotary": HEADS * HEAD_DIM,
    "k_rotary": KV_HEADS * HEAD_DIM,
    "attention": HEADS * HEAD_DIM,
    "o_proj": WIDTH,
    "residual_mid": WIDTH,
    "mlp_norm": WIDTH,
    "gate_proj": INNER,
    "up_proj": INNER,
    "activation": INNER,
    "down_proj": WIDTH,
}
Step = dict[str, Tensor]


def step(dtype: torch.dtype = torch.float32, tokens: int = TOKENS, seed: int = 0) -> Step:
    """Every place of two layers, [tokens, features], and the tokens."""
    generator = torch.Generator().manual_seed(seed)

    def values(width: int) -> Tensor:
        return torch.randn(tokens, width, generator=generator).to(dtype)

    made: Step = {"embedding": values(WIDTH)}
    for layer in range(2):
        if layer:
            made[f"{layer}.residual_in"] = values(WIDTH)
        made |= {f"{layer}.{name}": values(width) for name, width in WIDTHS.items()}
    made |= {"residual_out": values(WIDTH), "final_norm": values(WIDTH)}
    made["tokens"] = torch.arange(100, 100 + tokens)
    return made


def write(folder: Path, *steps: Step, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True)
    for index, one in enumerate(steps):
        contiguous = {name: value.contiguous() for name, value in one.items()}
        save_file(contiguous, folder / f"{index:06}.safetensors")
    if config is not None:
        (folder / "capture.json").write_text(json.dumps({"config": config}))
    return folder


def by_module(made: Step) -> dict[str, Tensor]:
    """Named as vLLM's and SGLang's modules are, q, k and v packed, gate and up packed."""
    named = {"model.embed_tokens.inputs.0": made["tokens"]}
    named["model.embed_tokens.output"] = made["embedding"]
    for layer in range(2):
        own = {name: made[f"{layer}.{name}"] for name in WIDTHS}
        prefix = f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        if layer:
            named[f"{prefix}.input_layernorm.output.0"] = own["attention_norm"]
            named[f"{prefix}.input_layernorm.output.1"] = made[f"{layer}.residual_in"]
        else:
            named[f"{prefix}.input_layernorm.output"] = own["attention_norm"]
        named[f"{attention}.qkv_proj.output.0"] = torch.cat(
            [own["q_proj"], own["k_proj"], own["v_proj"]], dim=1
        )
        named[f"{attention}.attn.inputs.0"] = own["q_rotary"]
        named[f"{attention}.attn.inputs.1"] = own["k_rotary"]
        named[f"{attention}.attn.inputs.2"] = own["v_proj"]
        named[f"{attention}.o_proj.inputs.0"] = own["attention"]
        named[f"{attention}.o_proj.output.0"] = own["o_proj"]
        named[f"{prefix}.post_attention_layernorm.output.0"] = own["mlp_norm"]
        named[f"{prefix}.post_attention_layernorm.output.1"] = own["residual_mid"]
        named[f"{mlp}.gate_up_proj.output.0"] = torch.cat([own["gate_proj"], own["up_proj"]], 1)
        named[f"{mlp}.down_proj.inputs.0"] = own["activation"]
        named[f"{mlp}.down_proj.output.0"] = own["down_proj"]
    named["model.norm.output.0"] = made["final_norm"]
    named["model.norm.output.1"] = made["residual_out"]
    return named


def write_sglang(folder: Path, made: Step) -> Path:
    """One pickle per tensor, `value` and `meta`, as `_dump_single` names and fills them."""
    folder.mkdir(parents=True)
    for index, (name, value) in enumerate(by_module(made).items(), 1):
        tags = {
            "step": 0,
            "rank": 0,
            "dump_index": index,
            "name": f"non_intrusive__{name}",
            "recompute_status": "disabled",
        }
        file = "___".join(f"{key}={one}" for key, one in tags.items()) + ".pt"
        meta = {**tags, "world_rank": 0, "world_size": 1}
        torch.save({"value": value, "meta": meta}, folder / file)
    return folder


def write_msprobe(folder: Path, made: Step, *, arrays: str | None = "npy") -> Path:
    """dump.json at level L0; `arrays`: npy, pt, or None for task `statistics`."""
    data_folder = folder / "dump_tensor_data"
    data_folder.mkdir(parents=True)
    data: dict[str, Any] = {}
    for name, value in by_module(made).items():
        module, _, end = name.partition(".inputs.")
        kind = "input_args" if end else "output"
        if not end:
            module, _, end = name.partition(".output")
        entry = data.setdefault(
            f"Module.{module}.Some.forward.0", {"input_args": [], "input_kwargs": {}, "output": []}
        )
        file = f"Module.{module}.Some.forward.0.{kind[:6].rstrip('_')}.{len(entry[kind])}"
        entry[kind].append(_tensor(value, f"{file}.pt" if arrays == "pt" else f"{file}.npy"))
        if arrays is None:
            del entry[kind][-1]["data_name"]
        elif arrays == "pt":
            torch.save(value, data_folder / f"{file}.pt")
        else:
            stored = value.float() if value.dtype == torch.bfloat16 else value
            np.save(data_folder / f"{file}.npy", stored.numpy())
    index = {"task": "tensor" if arrays else "statistics", "level": "L0", "data": data}
    (folder / "dump.json").write_text(json.dumps(index))
    return folder


def _tensor(value: Tensor, name: str) -> dict[str, Any]:
    numbers = value.double()
    return {
        "type": "torch.Tensor",
        "dtype": str(value.dtype),
        "shape": list(value.shape),
        "Max": float(numbers.max()),
        "Min": float(numbers.min()),
        "Mean": float(numbers.mean()),
        "Norm": float(numbers.norm()),
        "requires_grad": False,
        "data_name": name,
    }
