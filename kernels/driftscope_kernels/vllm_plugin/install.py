"""Routes the layers of the vLLM in this process to ours, once; refuses what ours cannot run.

In: vLLM as installed, VllmConfig. Out: vLLM's classes changed, or KernelChoiceError, or on CUDA
vLLM's own batch-invariant mode asked for.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import Any

from driftscope_kernels.vllm_plugin import patches, rounding
from driftscope_kernels.vllm_plugin.rounding import (
    INVARIANT,
    KERNELS_VARIABLE,
    STOCK,
    KernelChoiceError,
    kernels_asked,
)


def adapt_configurations() -> None:
    from vllm.platforms import current_platform

    platform = type(current_platform)
    original = platform.check_and_update_config

    def check_and_update_config(cls: type, vllm_config: Any) -> None:
        original(vllm_config)
        run_eagerly(vllm_config)
        if kernels_asked() == INVARIANT:
            check_config(vllm_config)

    patches.replace(platform, "check_and_update_config", classmethod(check_and_update_config))


def run_eagerly(vllm_config: Any) -> None:
    """As enforce_eager=True, which TRL does not pass on: a compiled graph has its own kernels."""
    from vllm.config import CompilationMode

    if vllm_config.compilation_config.mode not in (None, CompilationMode.NONE):
        logger.warning("driftscope kernels run without compilation, as with enforce_eager=True")
        vllm_config.compilation_config.mode = CompilationMode.NONE


def check_config(vllm_config: Any) -> None:
    """Raises KernelChoiceError with everything that is in the way."""
    faults = []
    if str(vllm_config.cache_config.cache_dtype) not in ("auto", "bfloat16", "float16", "float32"):
        faults.append(
            f"kv_cache_dtype={vllm_config.cache_config.cache_dtype}: keys and values are kept in "
            "the dtype of the model; leave it at auto"
        )
    if vllm_config.parallel_config.world_size > 1:
        faults.append(
            f"{vllm_config.parallel_config.world_size} ranks: sums over ranks are vLLM's own; use "
            "tensor_parallel_size=1 and pipeline_parallel_size=1"
        )
    if vllm_config.lora_config is not None:
        faults.append("LoRA: its products are vLLM's own; merge the adapter into the weights")
    if vllm_config.speculative_config is not None:
        faults.append("speculative decoding: not tested; leave it off")
    if faults:
        raise KernelChoiceError(f"{KERNELS_VARIABLE}={INVARIANT} does not run " + "; ".join(faults))


#: Each release moves classes and changes signatures that we replace.
TESTED_VERSIONS = ("0.32.0",)
FORCE_VARIABLE = "DRIFTSCOPE_VLLM_FORCE"
OWN_MODE_VARIABLE = "VLLM_BATCH_INVARIANT"

#: A child of vLLM's logger, whose handlers and level it thereby has.
logger = logging.getLogger("vllm.driftscope")


def install() -> None:
    """Idempotent. Raises KernelChoiceError with what to do."""
    if patches.installed():
        return
    if kernels_asked() == STOCK:
        _keep_stock_loadable()
        return
    if find_spec("vllm") is None:
        raise KernelChoiceError(f"{KERNELS_VARIABLE}={INVARIANT}, but vllm is not installed here")
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        check_version()
        _install_on_cpu()
    elif current_platform.is_cuda():
        _defer_to_vllm()
    else:
        raise KernelChoiceError(
            f"{KERNELS_VARIABLE}={INVARIANT} is for vLLM on CPU (ours) and on CUDA (vLLM's own "
            f"mode); this platform is {current_platform.device_type}. Unset {KERNELS_VARIABLE}."
        )


def check_version() -> None:
    import vllm

    version = vllm.__version__.partition("+")[0]
    if version in TESTED_VERSIONS:
        return
    tested = ", ".join(TESTED_VERSIONS)
    if os.environ.get(FORCE_VARIABLE) != "1":
        raise KernelChoiceError(
            f"{KERNELS_VARIABLE}={INVARIANT} is tested with vLLM {tested} and this is {version}. "
            f"Install a tested one, or set {FORCE_VARIABLE}=1 to try: a layer that has moved then "
            "stops the engine or stays vLLM's own, which coverage() tells."
        )
    logger.warning("driftscope kernels are tested with vLLM %s, this is %s", tested, version)


def _keep_stock_loadable() -> None:
    from driftscope_kernels.vllm_plugin import stock_linear, weights

    check_version()
    adapt_configurations()
    stock_linear.route()
    weights.route()
    logger.info("driftscope: vLLM's own kernels, whose weights can be written while it runs")


def _install_on_cpu() -> None:
    if os.environ.get(OWN_MODE_VARIABLE, "0") == "1":
        raise KernelChoiceError(
            f"{OWN_MODE_VARIABLE}=1 installs GPU kernels that fail on CPUs; unset it, "
            f"{KERNELS_VARIABLE}={INVARIANT} is enough."
        )
    rounding.use(rounding.asked())
    from driftscope_kernels.vllm_plugin import (
        activation,
        attention,
        experts,
        linear,
        log_softmax,
        norm,
        rotary,
        weights,
    )

    try:
        adapt_configurations()
        for layer in (linear, norm, activation, rotary, attention, log_softmax, experts, weights):
            layer.route()
        linear.route_reloads()
    except BaseException:
        patches.restore_all()
        raise
    logger.info(
        "driftscope: batch-invariant kernels on CPU, %s=%s, rounding as %s",
        KERNELS_VARIABLE, INVARIANT, rounding.text_in_use(),
    )  # fmt: skip


def _defer_to_vllm() -> None:
    """On CUDA vLLM has batch-invariant kernels; ours are not run there."""
    if os.environ.setdefault(OWN_MODE_VARIABLE, "1") != "1":
        raise KernelChoiceError(
            f"{KERNELS_VARIABLE}={INVARIANT} on CUDA means vLLM's own batch-invariant mode, but "
            f"{OWN_MODE_VARIABLE}={os.environ[OWN_MODE_VARIABLE]}: unset one of them."
        )
    logger.warning(
        "driftscope: on CUDA %s=%s defers to vLLM's own mode, %s=1; none of our kernels runs",
        KERNELS_VARIABLE, INVARIANT, OWN_MODE_VARIABLE,
    )  # fmt: skip
