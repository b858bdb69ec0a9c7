"""What of a report goes into the database: the comparisons, without profiles and token data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sentence": report["reading"]["sentence"],
        "cells": [
            {name: cell[name] for name in ("engine_dtype", "trainer_dtype", "comparison")}
            for cell in report["grid"]
        ],
    }
