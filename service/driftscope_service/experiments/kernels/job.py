"""A kernel check as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict

from driftscope_probes.kernels.request import KernelsRequest
from driftscope_service.experiments.quotas import at_most
from driftscope_service.settings import Settings


class KernelsProbeRequest(KernelsRequest):
    """A kernel check: do the bits of a row depend on the batch around it?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"targets": ["torch"], "ops": ["linear"], "dtypes": ["fp32"]}]
        }
    )


NAME: Final = "kernels"


def probe_request(request: KernelsProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed.

    Which targets and ops there are only the probe's process knows: an unknown one fails the job.
    """
    allowed = settings.threads_allowed
    for index, threads in enumerate(request.threads or ()):
        at_most(f"/threads/{index}", str(threads), threads, allowed, "DRIFTSCOPE_MAX_THREADS")
    fields = request.model_dump(mode="json")
    if request.threads is None:
        # Most splits over threads show with two.
        fields["threads"] = [1, 2] if allowed > 1 else [1]
    return {"request": fields}
