"""A vLLM server that a client may name: one of the operator's."""

from __future__ import annotations

from driftscope_service.errors import InvalidField
from driftscope_service.settings import EngineEndpoint, Settings


def check_endpoint(kind: str, name: str | None, settings: Settings) -> EngineEndpoint | None:
    """None for engines that have no address. Raises InvalidField."""
    if (kind == "vllm-server") != (name is not None):
        raise InvalidField(
            "/engine_endpoint",
            f"engine kind {kind!r} with engine_endpoint {name!r}",
            remedy="give engine_endpoint with kind vllm-server, and only then.",
        )
    if name is None:
        return None
    if name not in settings.engine_endpoints:
        known = ", ".join(sorted(settings.engine_endpoints)) or "(none is configured)"
        raise InvalidField(
            "/engine_endpoint",
            f"there is no engine endpoint {name!r} here",
            remedy=f"name one of: {known}. The operator adds them with "
            "DRIFTSCOPE_ENGINE_ENDPOINTS.",
        )
    return settings.engine_endpoints[name]
