"""Routes the layers of the vLLM in this process to ours, once.

In: vLLM as installed. Out: vLLM's classes changed, or KernelChoiceError, or on CUDA vLLM's own
batch-invariant mode asked for.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

from driftscope_kernels.vllm_choice import INVARIANT, VARIABLE, KernelChoiceError
from driftscope_kernels.vllm_plugin import patches, rounding

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
    if find_spec("vllm") is None:
        raise KernelChoiceError(f"{VARIABLE}={INVARIANT}, but vllm is not installed here")
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        check_version()
        _install_on_cpu()
    elif current_platform.is_cuda():
        _defer_to_vllm()
    else:
        raise KernelChoiceError(
            f"{VARIABLE}={INVARIANT} is for vLLM on CPU (ours) and on CUDA (vLLM's own mode); this "
            f"platform is {current_platform.device_type}. Unset {VARIABLE}."
        )


def check_version() -> None:
    import vllm

    version = vllm.__version__.partition("+")[0]
    if version in TESTED_VERSIONS:
        return
    tested = ", ".join(TESTED_VERSIONS)
    if os.environ.get(FORCE_VARIABLE) != "1":
        raise KernelChoiceError(
            f"{VARIABLE}={INVARIANT} is tested with vLLM {tested} and this is {version}. Install a "
            f"tested one, or set {FORCE_VARIABLE}=1 to try: a layer that has moved then stops the "
            "engine or stays vLLM's own, which coverage() tells."
        )
    logger.warning("driftscope kernels are tested with vLLM %s, this is %s", tested, version)


def _install_on_cpu() -> None:
    if os.environ.get(OWN_MODE_VARIABLE, "0") == "1":
        raise KernelChoiceError(
            f"{OWN_MODE_VARIABLE}=1 installs GPU kernels that fail on CPUs; unset it, "
            f"{VARIABLE}={INVARIANT} is enough."
        )
    rounding.use(rounding.asked())
    from driftscope_kernels.vllm_plugin import (
        activation,
        attention,
        config,
        experts,
        linear,
        log_softmax,
        norm,
        reload,
        rotary,
    )

    try:
        for route in (
            config, linear, norm, activation, rotary, attention, log_softmax, experts, reload
        ):  # fmt: skip
            route.route()
    except BaseException:
        patches.restore_all()
        raise
    logger.info(
        "driftscope: batch-invariant kernels on CPU, %s=%s, rounding as %s",
        VARIABLE, INVARIANT, rounding.text_in_use(),
    )  # fmt: skip


def _defer_to_vllm() -> None:
    """On CUDA vLLM has batch-invariant kernels; ours are not run there."""
    if os.environ.setdefault(OWN_MODE_VARIABLE, "1") != "1":
        raise KernelChoiceError(
            f"{VARIABLE}={INVARIANT} on CUDA means vLLM's own batch-invariant mode, but "
            f"{OWN_MODE_VARIABLE}={os.environ[OWN_MODE_VARIABLE]}: unset one of them."
        )
    logger.warning(
        "driftscope: on CUDA %s=%s defers to vLLM's own mode, %s=1; none of our kernels runs",
        VARIABLE, INVARIANT, OWN_MODE_VARIABLE,
    )  # fmt: skip
