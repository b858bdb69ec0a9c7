"""Which model a client may name, and the folder it stands for."""

from __future__ import annotations

from pathlib import Path

from driftscope_service.errors import InvalidField
from driftscope_service.settings import Settings


def check_model(name: str, settings: Settings) -> None:
    """Only names: a path or an address of a client would let it read what the service can read."""
    if name not in settings.model_names:
        raise InvalidField(
            "/model",
            f"there is no model {name!r} here",
            remedy=f"name one of: {', '.join(settings.model_names)}. The operator adds folders "
            "with DRIFTSCOPE_MODELS.",
        )


def model_folder(name: str, settings: Settings) -> Path | None:
    """None for a catalogue name, which the probe finds by itself."""
    return settings.models.get(name)
