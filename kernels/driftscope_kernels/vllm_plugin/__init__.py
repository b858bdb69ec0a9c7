"""vLLM with driftscope's batch-invariant kernels: entry point of the group vllm.general_plugins.

In: the environment variables of `rounding`. Out: nothing where they are unset or "stock"; with
"invariant" vLLM's layers are routed to ours. Imports neither torch nor vllm until then.
"""

from __future__ import annotations

from driftscope_kernels.vllm_plugin.rounding import STOCK, kernels_asked, loadable_asked


def register() -> None:
    """Called by vLLM in each of its processes, perhaps more than once."""
    if kernels_asked() == STOCK and not loadable_asked():
        return
    from driftscope_kernels.vllm_plugin.install import install

    install()
