"""Identifiers of jobs and reports: a prefix that says what it is, and a ULID."""

from __future__ import annotations

from typing import Literal

from ulid import ULID


def new_id(prefix: Literal["job", "report"]) -> str:
    return f"{prefix}_{ULID()}"
