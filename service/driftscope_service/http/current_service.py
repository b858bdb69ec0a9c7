"""What a route works on: the parts of the service, of which each wing names its own."""

from __future__ import annotations

from typing import Any

from fastapi import Request


def current_service(request: Request) -> Any:
    """To be annotated with the Protocol of a wing, which the service satisfies."""
    return request.app.state.service
