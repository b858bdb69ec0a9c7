"""An API key: its text, and what its scopes allow."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

PREFIX: Final = "dsk"
#: Public, part of the log and of `keys list`: 48 bits do not collide among one service's keys.
ID_BYTES: Final = 6
#: 256 random bits cannot be guessed, so a fast hash keeps them as safe as a slow one would.
SECRET_BYTES: Final = 32
_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")
TOKEN_LENGTH: Final = len(PREFIX) + 2 * ID_BYTES + 2 * SECRET_BYTES + 2


@dataclass(frozen=True, slots=True)
class KeyText:
    id: str
    secret: str = field(repr=False)  # never into a log

    @property
    def token(self) -> str:
        return f"{PREFIX}_{self.id}_{self.secret}"

    @property
    def secret_sha256(self) -> str:
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()

    def matches(self, secret_sha256: str) -> bool:
        return secrets.compare_digest(self.secret_sha256, secret_sha256)


def new_key() -> KeyText:
    return KeyText(secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES))


def parse_key(token: str) -> KeyText | None:
    """None where `token` is not of this form."""
    if len(token) != TOKEN_LENGTH:
        return None
    found = _TOKEN.fullmatch(token)
    return None if found is None else KeyText(found[1], found[2])


#: Of the runs that a key may be bound to: as their names begin.
RUN_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Scope(StrEnum):
    INGEST = "ingest"  # push and mark runs, push steps, nights and reports
    READ = "read"  # everything that changes nothing, /metrics and pages included
    PROBE = "probe"  # start and cancel probes, which use the machine
    ADMIN = "admin"  # all of these, and everything that none of them covers


#: Health checks of an orchestrator without a key, pages that an error's `type` points to, and the
#: form that takes a browser's key, with its style.
_OPEN = re.compile(r"/healthz|/readyz|/problems/[^/]+|/login|/static/.+")
_FORMS = frozenset(["/login", "/logout"])
_READING = frozenset(["GET", "HEAD", "OPTIONS"])
_INGEST = re.compile(r"/v1/runs/.+|/v1/nightly|/v1/reports|/runs/[^/]+/(marks|pin)")
#: Says of every key what was done with it.
_ADMIN_READING = re.compile(r"(/v1)?/audit")
_PROBE = re.compile(r"/v1/probes/.+|/probes/new/[^/]+|(/v1)?/jobs/[^/]+/cancel")
#: Says what a request would be, or what is wrong with settings, and starts and keeps nothing; a
#: form may be too long for an address.
_CHECKED_FORM = re.compile(r"/probes/new/[^/]+/check|(/v1)?/lint")


def required_scope(method: str, path: str) -> Scope | None:
    """None: anyone may. A route that changes something and is not listed needs admin, so that a new
    route is closed until it is listed here."""
    if method in _READING and _ADMIN_READING.fullmatch(path):
        return Scope.ADMIN
    if method in _READING:
        return None if _OPEN.fullmatch(path) else Scope.READ
    if method == "POST" and path in _FORMS:
        return None
    if method == "POST" and _CHECKED_FORM.fullmatch(path):
        return Scope.READ
    if method in ("PUT", "POST") and _INGEST.fullmatch(path):
        return Scope.INGEST
    if method == "POST" and _PROBE.fullmatch(path):
        return Scope.PROBE
    return Scope.ADMIN


def allows(scopes: Iterable[Scope], needed: Scope) -> bool:
    return needed in scopes or Scope.ADMIN in scopes
