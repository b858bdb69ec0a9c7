"""The Service that a route works on."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from driftscope_service.service import Service


def _current_service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


CurrentService = Annotated[Service, Depends(_current_service)]
