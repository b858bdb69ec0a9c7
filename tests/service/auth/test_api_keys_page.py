"""docs/api-keys.md and docs/audit-log.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from driftscope_service.auth.audit import Action, Actor
from driftscope_service.auth.guard import WRONG_KEYS_PER_MINUTE
from driftscope_service.auth.key import Scope
from driftscope_service.http.problem_kinds import (
    RATE_LIMITED,
    RUN_OUT_OF_REACH,
    SCOPE_MISSING,
    TOO_MANY_WRONG_KEYS,
    UNAUTHENTICATED,
)
from driftscope_service.settings import PREFIX, Settings

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "api-keys.md").read_text(encoding="utf-8")
AUDIT_PAGE = (DOCS / "audit-log.md").read_text(encoding="utf-8")


def test_every_scope_is_listed() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(Scope)


def test_settings_and_problems_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"DRIFTSCOPE_API_KEY"}
    assert set(re.findall(r"DRIFTSCOPE_[A-Z_]+", PAGE)) <= known
    for kind in (
        UNAUTHENTICATED,
        SCOPE_MISSING,
        RUN_OUT_OF_REACH,
        RATE_LIMITED,
        TOO_MANY_WRONG_KEYS,
    ):
        assert f"{kind.status} `{kind.slug}`" in PAGE


def test_defaults_are_those_of_the_settings() -> None:
    per_minute = Settings.model_fields["requests_per_minute_per_key"].default
    assert f'RateLimit-Policy: "minute";q={per_minute};w=60' in PAGE
    assert WRONG_KEYS_PER_MINUTE == 10 and "after ten within a minute" in PAGE
    assert Settings.model_fields["concurrent_requests_per_key"].default == 256
    assert "256 are let in" in PAGE


def test_every_action_and_actor_is_listed() -> None:
    listed = re.findall(r"`([a-z]+\.[a-z]+)`", AUDIT_PAGE)
    assert sorted(listed) == sorted(Action)
    assert all(f"`{actor}`" in AUDIT_PAGE for actor in Actor)
