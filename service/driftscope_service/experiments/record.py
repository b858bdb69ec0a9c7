"""What of a report goes into the database: what /metrics shows, without profiles and token data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftscope_service.store.kernel_verdict_repository import SUBJECT
from driftscope_service.store.tables import MODEL_NAME_LENGTH


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    """By kind. paired: sentence and comparisons. kernels: verdicts and planted faults.
    determinism: a verdict per axis. nightly: how it ended and what became of each item."""
    return _SUMMARIES[report["kind"]](report)


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


def _determinism(report: Mapping[str, Any]) -> dict[str, Any]:
    return {"axes": [_axis(axis) for axis in report["axes"]]}


def _axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    tokens, equal = axis["tokens"], axis["bitwise_equal_logprobs"]
    known = tokens is not None and equal is not None
    return {
        **{name: axis[name] for name in ("engine", "axis", "dtype", "kernels", "verdict")},
        "unique_outputs": axis["unique_outputs"],
        "tokens": tokens,
        "mismatched_tokens": round(tokens * (1.0 - equal)) if known else None,
    }


def _nightly(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "config_name": report["config"]["name"][:MODEL_NAME_LENGTH],
        "config_sha256": report["config"]["sha256"],
        "started_at": report["started_at"],
        "finished_at": report["finished_at"],
        "exit_code": report["exit_code"],
        "outcomes": [{name: item[name] for name in OUTCOME} for item in report["items"]],
    }


#: What the pages show of an item over many nights.
OUTCOME = ("id", "verdict", "expected", "changed", "as_expected")
_SUMMARIES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "paired": _paired,
    "kernels": _kernels,
    "determinism": _determinism,
    "nightly": _nightly,
}
