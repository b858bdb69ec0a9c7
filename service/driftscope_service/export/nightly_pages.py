"""The files of a night beside its report.json, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from driftscope_service.export import nightly_html, nightly_junit

PAGES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "report.xml": nightly_junit.render,
    "report.html": nightly_html.render,
}
