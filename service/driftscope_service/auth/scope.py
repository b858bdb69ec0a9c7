"""Scopes of API keys: what a key allows, and which one a request needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    INGEST = "ingest"  # push runs, steps and nights
    READ = "read"  # everything that changes nothing, /metrics and pages included
    PROBE = "probe"  # start and cancel probes, which use the machine
    ADMIN = "admin"  # all of these, and whatever none of them names


#: What an orchestrator asks before it has a key, what an error's `type` points at, and the form
#: that takes a browser's key, with its style.
_OPEN = re.compile(r"/healthz|/readyz|/problems/[^/]+|/login|/static/.+")
_FORMS = frozenset(["/login", "/logout"])
_READING = frozenset(["GET", "HEAD", "OPTIONS"])
_INGEST = re.compile(r"/v1/runs/.+|/v1/nightly")
_PROBE = re.compile(r"/v1/probes/.+|(/v1)?/jobs/[^/]+/cancel")


def required_scope(method: str, path: str) -> Scope | None:
    """None: anyone may. Whatever changes something and is not listed needs admin, so that a new
    route is closed until it is named here."""
    if method in _READING:
        return None if _OPEN.fullmatch(path) else Scope.READ
    if method == "POST" and path in _FORMS:
        return None
    if method in ("PUT", "POST") and _INGEST.fullmatch(path):
        return Scope.INGEST
    if method == "POST" and _PROBE.fullmatch(path):
        return Scope.PROBE
    return Scope.ADMIN


def allows(scopes: Iterable[Scope], needed: Scope) -> bool:
    return needed in scopes or Scope.ADMIN in scopes
