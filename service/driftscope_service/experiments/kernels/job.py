"""A kernel check as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import ConfigDict

from driftscope_probes.kernels.request import KernelsRequest
from driftscope_service.experiments.quotas import at_most
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import Settings


class KernelsProbeRequest(KernelsRequest):
    """A kernel check: do the bits of a row depend on the batch around it?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"]}]
        }
    )


NAME: Final = "kernels"
#: Of driftscope itself.
KERNEL_TARGETS: Final = ("driftscope", "triton", "torch", "vllm")


def probe_request(request: KernelsProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    _check_targets(request.targets or (), settings)
    allowed = settings.threads_allowed
    for index, threads in enumerate(request.threads or ()):
        at_most(f"/threads/{index}", str(threads), threads, allowed, "DRIFTSCOPE_MAX_THREADS")
    fields = request.model_dump(mode="json")
    if request.threads is None:
        # Most splits over threads show with two.
        fields["threads"] = [1, 2] if allowed > 1 else [1]
    return {"request": fields}


#: Other packages bring targets under it (docs/add-a-kernel.md).
ENTRY_POINTS: Final = "driftscope.kernels"


def _check_targets(targets: Sequence[str], settings: Settings) -> None:
    """Those of other packages only the probe's process knows: an unknown one then fails the job."""
    if settings.probe_python is not None or entry_points(group=ENTRY_POINTS):
        return
    for index, target in enumerate(targets):
        if target not in KERNEL_TARGETS:
            raise InvalidField(
                f"/targets/{index}",
                f"there is no target {target!r}",
                remedy=f"use one of {', '.join(KERNEL_TARGETS)}.",
            )
