"""A case as a file: what is read back is what was injected; settings have names of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from driftscope_probes.diagnosis.drill.dump import save_step
from driftscope_probes.diagnosis.drill.faults.rounding import HEALTHY_SETTINGS
from driftscope_probes.diagnosis.drill.settings import SETTINGS
from driftscope_probes.push import read_step
from driftscope_probes.push.pushed_step import pushed_step


def test_a_saved_step_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    step = pushed_step(
        {
            "rollout_logprobs": np.array([-0.5, np.nan, -np.inf], np.float32),
            "trainer_logprobs": np.array([-0.25, 0.0, 0.125], np.float32),
            "cu_seqlens": np.array([0, 1, 3]),
            "mask": np.array([1, 0, 1], np.uint8),
            "token_ids": np.array([5, 6, 7], np.int32),
            "prompt_lengths": np.array([3, 4], np.int32),
        },
        {"schema_version": "1", "model": "tiny"},
    )
    save_step(step, tmp_path / "step.safetensors")
    again = read_step(tmp_path / "step.safetensors")
    assert again.tensors().keys() == step.tensors().keys()
    for name, tensor in step.tensors().items():
        assert np.array_equal(again.tensors()[name], tensor, equal_nan=name.endswith("logprobs"))
    assert again.metadata == step.metadata


def test_names_of_settings_tell_them_apart() -> None:
    names = [setting.name for setting in (*SETTINGS, *HEALTHY_SETTINGS)]
    assert len(set(names)) == len(names)
