"""docs/metrics.md names only metrics, settings and alerts that are there."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from driftscope_service.experiments.registry import load_kinds
from driftscope_service.metrics.metric_names import sample_names
from driftscope_service.metrics_page import every_metric
from driftscope_service.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
NAMES = {
    name for metric in every_metric(load_kinds()) for name in (metric.name, *sample_names(metric))
}


def written_names() -> set[str]:
    """`a_{b,c}_d` stands for two names; what is in braces after a name are labels."""
    found = set()
    for text in re.findall(r"driftscope_(?:_\{[a-z0-9_,]+\}|[a-z0-9_*])+", PAGE):
        parts = [part.split(",") for part in re.split(r"[{}]", text)]
        found |= {"".join(chosen) for chosen in product(*parts)}
    return found - {"driftscope_service", "driftscope_url"}


def test_every_metric_on_the_page_exists() -> None:
    written = written_names()
    assert len(written) > 40
    for name in written:
        pattern = name.replace("*", "[a-z0-9_]*")
        assert any(re.fullmatch(pattern, known) for known in NAMES), name


def test_every_setting_on_the_page_exists() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"DRIFTSCOPE_[A-Z_]+", PAGE)) <= settings


def test_settings_in_the_runbooks_exist() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for path in (Path(__file__).parents[3] / "docs" / "runbooks").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"DRIFTSCOPE_[A-Z_]+", text)) <= settings, path.name
        assert set(re.findall(r"driftscope_[a-z0-9_]+", text)) <= NAMES, path.name


def test_every_alert_is_on_the_page() -> None:
    alerts = {path.stem for path in (Path(__file__).parents[3] / "docs" / "runbooks").glob("*.md")}
    assert set(re.findall(r"\(runbooks/(\w+)\.md\)", PAGE)) == alerts
