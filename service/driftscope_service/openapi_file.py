"""Prints the OpenAPI document: `python -m driftscope_service.openapi_file > docs/openapi.json`."""

from __future__ import annotations

import json

from driftscope_service.app import create_app
from driftscope_service.openapi import document
from driftscope_service.service import build_service
from driftscope_service.settings import Settings


def main() -> None:
    print(json.dumps(document(create_app(build_service(Settings()))), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
