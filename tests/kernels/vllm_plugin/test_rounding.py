"""Where the engine's ops round: what may be written, and that every op follows."""

import pytest
import torch

from driftscope_kernels.cpu.norm import add_rms_norm
from driftscope_kernels.options import TRANSFORMERS, VLLM
from driftscope_kernels.vllm_plugin import rounding
from driftscope_kernels.vllm_plugin.rounding import (
    OPS,
    PRESETS,
    ROUNDING_VARIABLE,
    KernelChoiceError,
    parse,
)


def test_unset_it_is_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROUNDING_VARIABLE, raising=False)
    assert parse(rounding.asked()) == PRESETS["transformers"]
    monkeypatch.setenv(ROUNDING_VARIABLE, "")
    assert parse(rounding.asked()) == PRESETS["transformers"]
    monkeypatch.setenv(ROUNDING_VARIABLE, "vllm,norm=transformers")
    assert parse(rounding.asked()).norm == TRANSFORMERS.norm


@pytest.mark.parametrize("op", OPS)
def test_an_exception_changes_one_op(op: str) -> None:
    whole, mixed = PRESETS["transformers"], parse(f"transformers,{op}=vllm")
    changed = [name for name in OPS if getattr(mixed, name) != getattr(whole, name)]
    assert changed == [op]
    assert parse(f"transformers,{','.join(f'{name}=vllm' for name in OPS)}") == PRESETS["vllm"]


@pytest.mark.parametrize("text", ["", "torch", "vllm,", "vllm,linear=vllm", "vllm,norm=torch"])
def test_anything_else_is_an_error(text: str) -> None:
    with pytest.raises(KernelChoiceError, match=ROUNDING_VARIABLE):
        parse(text)


def test_what_is_in_use_is_what_was_asked_for(use_rounding: None) -> None:
    rounding.use("vllm,rotary=transformers")
    assert rounding.in_use() == parse("vllm,rotary=transformers")
    assert rounding.text_in_use() == "vllm,rotary=transformers"
    with pytest.raises(KernelChoiceError):
        rounding.use("none")
    assert rounding.text_in_use() == "vllm,rotary=transformers"


def test_a_layer_of_vllm_follows(use_rounding: None) -> None:
    pytest.importorskip("vllm")
    from types import SimpleNamespace

    from vllm.model_executor.layers.layernorm import RMSNorm

    from driftscope_kernels.vllm_plugin import norm, patches

    generator = torch.Generator().manual_seed(0)
    x, residual = torch.randn(2, 4, 64, generator=generator).bfloat16()
    weight = torch.randn(64, generator=generator).bfloat16()
    layer = SimpleNamespace(
        weight=torch.nn.Parameter(weight), variance_epsilon=1e-5, variance_size_override=None
    )
    norm.route()
    try:
        for name, preset in (("vllm", VLLM), ("transformers", TRANSFORMERS)):
            rounding.use(name)
            expected = add_rms_norm(x, residual, weight, 1e-5, options=preset.norm)
            found = RMSNorm.forward_cpu(layer, x, residual)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    finally:
        patches.restore_all()
