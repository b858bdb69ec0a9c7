"""GET /metrics: the page that Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from driftscope_service.export.prometheus import registry_of
from driftscope_service.routes.current_service import CurrentService

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(
    service: CurrentService, accept: Annotated[str, Header(include_in_schema=False)] = ""
) -> Response:
    """Numbers of the last paired probe of every model, the last verdict on every kernel, and the
    state of the service."""
    encode, content_type = choose_encoder(accept)
    registry = registry_of(service.database, service.settings.model_names)
    return Response(encode(registry), headers={"Content-Type": content_type})
