"""A metric that an address names must be one that is followed over steps."""

from __future__ import annotations

from driftscope_probes.drift import SERIES
from driftscope_service.errors import InvalidField


def check_metric(name: str) -> None:
    if name not in SERIES:
        raise InvalidField(
            "query/metric",
            f"{name[:80]!r} is not a number that is followed over steps",
            remedy=f"use one of {', '.join(SERIES)}.",
        )
