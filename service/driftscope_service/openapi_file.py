"""Prints the OpenAPI document: `python -m driftscope_service.openapi_file > docs/openapi.json`."""

from __future__ import annotations

import json
from typing import Any

from driftscope_service.app import create_app
from driftscope_service.openapi import document
from driftscope_service.service import build_service
from driftscope_service.settings import Settings


def openapi_document() -> dict[str, Any]:
    """Of a service with the settings that it has by itself."""
    return document(create_app(build_service(Settings())))


def main() -> None:
    print(json.dumps(openapi_document(), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
