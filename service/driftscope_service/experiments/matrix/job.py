"""A matrix probe as a job: the client's request, checked, as the probe process reads it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from driftscope_probes.matrix.request import HERE, MatrixRequest
from driftscope_service.experiments.quotas import at_most, check_model, model_folder
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import Settings


class MatrixProbeRequest(MatrixRequest):
    """A matrix probe: do several places give the same bits for the same tokens?"""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "smollm2-135m", "places": ["here", "here"]}]}
    )

    model: str = Field(
        min_length=1, max_length=100, description="name from the catalogue or the service's list"
    )


NAME: Final = "matrix"


def probe_request(request: MatrixProbeRequest, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets; raises InvalidField where the request is beyond what is allowed."""
    check_model(request.model, settings)
    _check_places(request, settings)
    at_most(
        *("/threads", str(request.threads), request.threads or 0),
        *(settings.threads_allowed, "DRIFTSCOPE_MAX_THREADS"),
    )
    places = len(request.places or [HERE, *settings.matrix_places])
    tokens = request.prompts * request.max_tokens * places
    at_most(
        "/max_tokens",
        f"{request.prompts} prompts × {request.max_tokens} tokens at {places} places = {tokens}",
        tokens,
        settings.max_response_tokens,
        "DRIFTSCOPE_MAX_RESPONSE_TOKENS",
    )
    folder = model_folder(request.model, settings)
    return {
        "request": request.model_dump(mode="json"),
        "model_path": None if folder is None else str(folder),
        "places": {
            name: place.model_dump(mode="json") for name, place in settings.matrix_places.items()
        },
        "ray_address": settings.matrix_ray_address,
    }


def _check_places(request: MatrixProbeRequest, settings: Settings) -> None:
    """Only names: an interpreter or a variable of a client's would run what the client likes."""
    known = list(dict.fromkeys([HERE, *settings.matrix_places]))
    for index, name in enumerate(request.places or ()):
        if name not in known:
            raise InvalidField(
                f"/places/{index}",
                f"there is no place {name[:100]!r} here",
                remedy=f"name one of: {', '.join(known)}. The operator adds them with "
                "DRIFTSCOPE_MATRIX_PLACES.",
            )
    if request.ray != "off" and settings.matrix_ray_address is None:
        raise InvalidField(
            "/ray",
            f"ray is {request.ray!r}, but this service knows no Ray cluster",
            remedy="leave it off; the operator names one with DRIFTSCOPE_MATRIX_RAY_ADDRESS.",
        )
    if request.ray == "off" and request.places is not None and len(request.places) == 1:
        raise InvalidField(
            "/places",
            "one place is compared with nothing",
            remedy=f"name two or more of: {', '.join(known)}; a name given twice runs twice.",
        )
