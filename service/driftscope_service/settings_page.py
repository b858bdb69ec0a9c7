"""Writes docs/settings.md: `python -m driftscope_service.settings_page > docs/settings.md`."""

from __future__ import annotations

from pydantic import SecretStr

from driftscope_service.settings import OTHER_VARIABLES, PREFIX, Settings

HEAD = """# Settings

Rendered by `python -m driftscope_service.settings_page`; edit `settings.py`, not this page.
The service reads each variable once, as it starts. An unknown `DRIFTSCOPE_*` variable is an error.

## Of the service

| variable | default | meaning |
|---|---|---|
"""
OTHERS = """
## Of other parts of driftscope

| variable | meaning |
|---|---|
"""


def settings_page() -> str:
    own = (
        f"| `{PREFIX}{name.upper()}` | {_shown(field.get_default(call_default_factory=True))} "
        f"| {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )
    others = (f"| `{name}` | {meaning} |\n" for name, meaning in OTHER_VARIABLES.items())
    return HEAD + "".join(own) + OTHERS + "".join(others)


def _shown(default: object) -> str:
    text = str(default.get_secret_value() if isinstance(default, SecretStr) else default)
    return "" if default is None or text in ("", "()", "{}") else f"`{text}`"


if __name__ == "__main__":
    print(settings_page(), end="")
