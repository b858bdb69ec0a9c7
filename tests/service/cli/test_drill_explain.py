"""`driftscope drill --explain` on one live pair."""

from __future__ import annotations
