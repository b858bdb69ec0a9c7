"""Whether a difference can change numerics: one row of each kind of answer, and no dead rows."""

from __future__ import annotations

import pytest

from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.numerics import EFFECTS, NOBODY, FactKind, effect_of


@pytest.mark.parametrize(
    ("kind", "name", "changes"),
    [
        ("version", "torch", "yes"),
        ("version", "flash-attn", "yes"),
        ("version", "nvidia-cublas-cu12", "yes"),
        ("version", "nvidia-nccl-cu12", "yes"),
        ("version", "tokenizers", "perhaps"),
        ("version", "requests", "no"),
        ("version", "driftscope", "no"),
        ("hardware", "gpus", "yes"),
        ("hardware", "cores", "perhaps"),
        ("variable", "VLLM_BATCH_INVARIANT", "yes"),
        ("variable", "VLLM_ATTENTION_BACKEND", "yes"),
        ("variable", "VLLM_LOGGING_LEVEL", "no"),
        ("variable", "VLLM_NEW_SWITCH", "perhaps"),
        ("variable", "NCCL_ALGO", "yes"),
        ("variable", "NCCL_DEBUG", "no"),
        ("variable", "PYTORCH_CUDA_ALLOC_CONF", "no"),
        ("variable", "PYTORCH_ALLOC_CONF", "no"),
        ("variable", "OMP_NUM_THREADS", "yes"),
        ("variable", "MY_VARIABLE", "perhaps"),
        ("config", "config.json: rms_norm_eps", "yes"),
        ("config", "config.json: transformers_version", "no"),
        ("config", "trainer.project_name", "no"),
        ("config", "trainer.logger", "no"),
        ("config", "actor.optim.lr", "perhaps"),
        ("config", "rollout.something_dtype", "yes"),
        ("config", "data.seed", "perhaps"),
        ("setting", "engine.dtype", "yes"),
        ("setting", "engine.seed", "perhaps"),
        ("setting", "tokenizer.padding_side", "perhaps"),
    ],
)
def test_a_difference_is_judged_with_a_reason(kind: FactKind, name: str, changes: str) -> None:
    judged, reason = effect_of(kind, name)
    assert judged == changes, reason
    assert reason and not reason.endswith(".")


def test_every_name_of_a_setting_is_judged() -> None:
    known = [name for name in NAMES if name.partition(".")[0] not in ("environment", "machine")]
    assert {effect_of("setting", name)[1] for name in known}.isdisjoint({NOBODY})


def test_no_row_is_there_twice() -> None:
    assert len({(one.kind, one.names) for one in EFFECTS}) == len(EFFECTS)
