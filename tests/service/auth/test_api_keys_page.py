"""docs/api-keys.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from driftscope_service.auth.key import Scope
from driftscope_service.http.problem_kinds import SCOPE_MISSING, UNAUTHENTICATED
from driftscope_service.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "api-keys.md").read_text(encoding="utf-8")


def test_every_scope_is_listed() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(Scope)


def test_settings_and_problems_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"DRIFTSCOPE_API_KEY"}
    assert set(re.findall(r"DRIFTSCOPE_[A-Z_]+", PAGE)) <= known
    for kind in (UNAUTHENTICATED, SCOPE_MISSING):
        assert f"{kind.status} `{kind.slug}`" in PAGE
