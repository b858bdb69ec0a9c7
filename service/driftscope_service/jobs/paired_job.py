"""A paired probe as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any

from driftscope_service.jobs.engine_endpoint import check_endpoint
from driftscope_service.jobs.model_folder import check_model, model_folder
from driftscope_service.jobs.paired_limits import check_paired
from driftscope_service.schemas import PairedProbeRequest
from driftscope_service.settings import Settings

KIND = "paired"


def probe_request(request: PairedProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed.

    Names become folder and address here, when the job is accepted: settings may change later.
    """
    check_model(request.model, settings)
    check_paired(request, settings)
    fields = request.model_dump(mode="json", exclude={"engine_endpoint"})
    endpoint = check_endpoint(request.engine.kind, request.engine_endpoint, settings)
    if endpoint is not None:
        fields["engine"] |= {"server_url": endpoint.url, "server_model": endpoint.model}
    folder = model_folder(request.model, settings)
    return {
        "kind": KIND,
        "request": fields,
        "model_path": None if folder is None else str(folder),
    }
