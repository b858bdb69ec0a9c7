"""What our kernels cannot run is refused before a model is loaded, all of it in one message."""

from types import SimpleNamespace
from typing import Any

import pytest

from driftscope_kernels.vllm_plugin.rounding import KernelChoiceError

pytest.importorskip("vllm")


def settings(**changed: Any) -> SimpleNamespace:
    from vllm.config import CompilationMode

    mode = changed.get("mode", CompilationMode.NONE)
    return SimpleNamespace(
        compilation_config=SimpleNamespace(mode=mode),
        cache_config=SimpleNamespace(cache_dtype=changed.get("cache_dtype", "auto")),
        parallel_config=SimpleNamespace(world_size=changed.get("world_size", 1)),
        lora_config=changed.get("lora"),
        speculative_config=changed.get("speculative"),
    )


def test_the_usual_configuration_is_accepted() -> None:
    from driftscope_kernels.vllm_plugin.install import check_config

    check_config(settings())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cache_dtype": "fp8"}, "leave it at auto"),
        ({"world_size": 2}, "tensor_parallel_size=1"),
        ({"lora": object()}, "LoRA"),
        ({"speculative": object()}, "speculative"),
    ],
)
def test_each_fault_is_named(changed: dict[str, Any], message: str) -> None:
    from driftscope_kernels.vllm_plugin.install import check_config

    with pytest.raises(KernelChoiceError, match=message):
        check_config(settings(**changed))


def test_compilation_is_switched_off() -> None:
    from vllm.config import CompilationMode

    from driftscope_kernels.vllm_plugin.install import run_eagerly

    config = settings(mode=CompilationMode.DYNAMO_TRACE_ONCE)
    run_eagerly(config)
    assert config.compilation_config.mode == CompilationMode.NONE


def test_all_faults_are_named_at_once() -> None:
    from driftscope_kernels.vllm_plugin.install import check_config

    with pytest.raises(KernelChoiceError, match=r"2 ranks.*LoRA"):
        check_config(settings(world_size=2, lora=object()))
