"""A night as a job: the operator's configuration, run in a process of its own."""

from __future__ import annotations

from typing import Any, Final

from driftscope_service.settings import Settings

NAME: Final = "nightly"


def probe_request(_: None, settings: Settings) -> dict[str, Any]:
    """What `run_probe` gets. The history is in the data folder: the next night compares with it."""
    config = settings.nightly_config
    return {
        "request": {
            "config": None if config is None else str(config),
            "history": str(settings.data_dir / "nightly"),
        }
    }
