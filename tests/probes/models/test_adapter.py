"""An adapter's folder: scales as PEFT has them, and a refusal by name for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.errors import ModelError
from driftscope_probes.models.adapter import Adapter, read_adapter

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
Write = Callable[..., str]


def matrices(module: str, rank: int = 4) -> dict[str, Any]:
    prefix = f"base_model.model.{module}.lora_"
    return {
        f"{prefix}A.weight": np.zeros((rank, 6), np.float32),
        f"{prefix}B.weight": np.zeros((5, rank), np.float32),
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(tensors: dict[str, Any] | None = None, **config: Any) -> str:
        given = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "base"}
        (tmp_path / "adapter_config.json").write_text(json.dumps({**given, **config}))
        found = matrices(Q) if tensors is None else tensors
        save_file(found, tmp_path / "adapter_model.safetensors")
        return str(tmp_path)

    return made


def test_layers_with_their_scales(write: Write) -> None:
    adapter = read_adapter(
        write(
            {**matrices(Q), **matrices(V, rank=2)},
            r=4,
            rank_pattern={"layers.1.self_attn.v_proj": 2},
            alpha_pattern={"v_proj": 3},
            lora_dropout=0.05,
        )
    )
    assert [(layer.module, layer.rank, layer.scale) for layer in adapter.layers] == [
        (Q, 4, 2.0),
        (V, 2, 1.5),
    ]
    assert (adapter.base, adapter.dropout) == ("base", 0.05)
    assert Adapter.from_json(json.loads(json.dumps(adapter.to_json()))) == adapter


def test_what_the_config_leaves_out_is_as_in_peft(write: Write, tmp_path: Path) -> None:
    write(matrices(Q, rank=8))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (layer,) = read_adapter(str(tmp_path)).layers
    assert (layer.rank, layer.scale) == (8, 1.0)
    (stabilised,) = read_adapter(write(use_rslora=True)).layers
    assert stabilised.scale == 8 / 4**0.5


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"r": 16}, "rank 4, adapter_config.json says 16"),
    ],
)
def test_what_is_not_a_plain_sum_is_refused(
    write: Write, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        read_adapter(write(**config))


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"base_model.model.{Q}.lora_magnitude_vector": np.ones(5, np.float32)}, "DoRA"),
        ({"base_model.model.lm_head.weight": np.ones((5, 6), np.float32)}, "lm_head"),
        ({"base_model.model.embed.lora_embedding_A": np.ones(5, np.float32)}, "embedding"),
        ({f"base_model.model.{Q}.lora_A.weight": np.ones((4, 6), np.float32)}, "lacks lora_B"),
        (
            {**matrices(Q), f"base_model.model.{Q}.lora_B.weight": np.ones((5, 3), np.float32)},
            "lora_B is",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    write: Write, tensors: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        read_adapter(write(tensors))


def test_a_folder_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter_config"):
        read_adapter(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        read_adapter(str(tmp_path))
