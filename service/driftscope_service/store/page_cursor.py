"""Opaque cursor of a listing: where the next page starts. In: a row number. Out: text for a URL."""

from __future__ import annotations

import base64
import binascii

#: The longest cursor we ever hand out is shorter; anything longer is refused unread.
MAX_CURSOR_LENGTH = 64
_PREFIX = "before:"


def encode(number: int) -> str:
    return base64.urlsafe_b64encode(f"{_PREFIX}{number}".encode()).decode().rstrip("=")


def decode(cursor: str) -> int:
    """Raises ValueError where `cursor` is none of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        prefix, number = text[: len(_PREFIX)].decode("ascii"), text[len(_PREFIX) :].decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not a cursor of this service") from error
    # isdecimal also bounds it: 18 digits fit SQLite's 64-bit integers.
    if prefix != _PREFIX or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise ValueError("not a cursor of this service")
    return int(number)
