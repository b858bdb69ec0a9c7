"""What the operator's settings allow a probe: amounts, models, engine servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from driftscope_probes.engines.settings import EngineSettings
from driftscope_service.http.errors import InvalidField
from driftscope_service.settings import EngineEndpoint, Settings

FROM_OPERATOR = (
    "the service takes this from its own settings; name one of its servers as engine_endpoint"
)


class ClientEngineSettings(EngineSettings):
    """Engine options of a client: no addresses."""

    server_url: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")
    server_model: None = Field(default=None, description=f"must be null: {FROM_OPERATOR}")

    @field_validator("server_url", "server_model", mode="before")
    @classmethod
    def _no_addresses(cls, value: Any) -> None:
        if value is not None:
            raise ValueError(FROM_OPERATOR)


def at_most(pointer: str, amount: str, value: float, limit: float, setting: str) -> None:
    """Raises InvalidField naming the setting that an operator can raise."""
    if value > limit:
        raise InvalidField(
            pointer,
            f"{amount} is more than this service allows: {limit:g}",
            remedy=f"lower it, or let the operator raise {setting}.",
        )


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
        names = ", ".join(sorted(settings.engine_endpoints)) or "(none is configured)"
        raise InvalidField(
            "/engine_endpoint",
            f"there is no engine endpoint {name!r} here",
            remedy=f"name one of: {names}. The operator adds them with "
            "DRIFTSCOPE_ENGINE_ENDPOINTS.",
        )
    return settings.engine_endpoints[name]


def check_model(name: str, settings: Settings, field: str = "/model") -> None:
    """Only names: a client's path or address would let it read what the service can read."""
    if name not in settings.model_names:
        raise InvalidField(
            field,
            f"there is no model {name!r} here",
            remedy=f"name one of: {', '.join(settings.model_names)}. The operator adds folders "
            "with DRIFTSCOPE_MODELS.",
        )


def model_folder(name: str, settings: Settings) -> Path | None:
    """None for a catalogue name, which the probe finds by itself."""
    return settings.models.get(name)
