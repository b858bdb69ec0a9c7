"""What of a report goes into the database: what /metrics shows, without profiles and token data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftscope_service.store.kernel_verdict_repository import SUBJECT


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    """By kind. paired: sentence and comparisons. kernels: verdicts and planted faults."""
    return _kernels(report) if report["kind"] == "kernels" else _paired(report)


def _paired(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sentence": report["reading"]["sentence"],
        "cells": [
            {name: cell[name] for name in ("engine_dtype", "trainer_dtype", "comparison")}
            for cell in report["grid"]
        ],
    }


def _kernels(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "planted": {name: report["planted"][name] for name in ("caught", "total", "missed")},
        "verdicts": [
            {name: verdict[name] for name in (*SUBJECT, "verdict", "detection_rate")}
            for verdict in report["verdicts"]
        ],
    }
