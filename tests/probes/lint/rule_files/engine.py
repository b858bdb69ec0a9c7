"""Rules of the inference engine: what trips them, what does not."""

from __future__ import annotations

from .row import Row

ROWS: tuple[Row, ...] = ()
