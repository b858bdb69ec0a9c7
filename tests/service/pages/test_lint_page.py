"""/lint in a browser: what is pasted is answered on the same page, which axe finds nothing in."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow
CONFIG = """{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rope_theta": 1e6,
"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "head_dim": 128}"""


def test_pasted_settings_are_answered(look: Any, accessible: Any) -> None:
    page: Page = look(viewport={"width": 390, "height": 844}).at("/lint")
    page.fill("#text", CONFIG)
    page.fill("#name", "config.json")
    page.fill("#other_text", CONFIG.replace("128", "64"))
    page.fill("#other_name", "config.json")
    page.click("button.primary")
    expect(page.locator("#result-title")).to_have_text("1 finding")
    expect(page.locator("#result code").first).to_contain_text("rope_parameters.rope_theta = 1")
    expect(page.locator("#against-result summary").first).to_contain_text("Can change numerics")
    expect(page.locator("#text")).to_have_value(CONFIG)
    accessible(page)
