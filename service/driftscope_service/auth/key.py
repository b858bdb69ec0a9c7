"""API keys as text: `dsk_<id>_<secret>`. Made once, shown once; only the secret's hash is kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "dsk"
#: Public, part of the log and of `keys list`: 48 bits do not meet among one service's keys.
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
