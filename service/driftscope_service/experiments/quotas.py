"""What the operator's settings allow a probe: amounts, models, engine servers."""

from __future__ import annotations

from collections.abc import Sequence
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


def check_tokens(prompts: int | Sequence[object], max_tokens: int, settings: Settings) -> None:
    """`prompts`: themselves, or how many. Raises InvalidField."""
    count = prompts if isinstance(prompts, int) else len(prompts)
    tokens = count * max_tokens
    at_most(
        "/sampling/max_tokens",
        f"{count} prompts × {max_tokens} tokens = {tokens}",
        tokens,
        settings.max_response_tokens,
        "DRIFTSCOPE_MAX_RESPONSE_TOKENS",
    )


def check_resources(
    engine: EngineSettings, trainer_threads: int | None, settings: Settings
) -> None:
    """Threads of both sides and the engine's cache. Raises InvalidField."""
    for side, threads in (("engine", engine.threads), ("trainer", trainer_threads)):
        at_most(
            f"/{side}/threads",
            str(threads),
            threads or 0,
            settings.threads_allowed,
            "DRIFTSCOPE_MAX_THREADS",
        )
    cache = engine.kv_cache_gib
    at_most(
        "/engine/kv_cache_gib",
        str(cache),
        cache or 0.0,
        settings.max_kv_cache_gib,
        "DRIFTSCOPE_MAX_KV_CACHE_GIB",
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
