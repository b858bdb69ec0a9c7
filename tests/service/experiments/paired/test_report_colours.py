"""Contrast of the colours of all pages, in both themes, by the WCAG 2.2 formulas."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray

Theme = dict[str, str]
Colour = NDArray[np.float64]  # [3] linear-light sRGB

STYLE = files("driftscope_service.pages").joinpath("static", "theme.css").read_text("utf-8")
READABLE, VISIBLE = 4.5, 3.0  # WCAG 1.4.3 for text, 1.4.11 for graphics
# Oklab, as CSS Color 4 section 9.5 has it: linear sRGB -> cone responses -> Lab.
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def themes() -> dict[str, Theme]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    pairs = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]
    assert pairs[0].keys() == pairs[1].keys()
    return {"light": pairs[0], "dark": pairs[1]}


def linear(colour: str) -> Colour:
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    curved: Colour = ((channels + 0.055) / 1.055) ** 2.4
    return np.where(channels <= 0.04045, channels / 12.92, curved)


def contrast(first: Colour, second: Colour) -> float:
    dark, light = sorted((float(LUMINANCE @ first), float(LUMINANCE @ second)))
    return (light + 0.05) / (dark + 0.05)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mixing in Oklab is mixing of the cube roots of the cone responses, which are linear in it."""
    roots = (1 - share) * np.cbrt(TO_CONES @ first) + share * np.cbrt(TO_CONES @ second)
    mixed: Colour = np.linalg.inv(TO_CONES) @ roots**3
    return mixed


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> Theme:
    return themes()[request.param]


def shades(theme: Theme) -> list[Colour]:
    low, middle, high = (linear(theme[f"heat-{name}"]) for name in ("low", "mid", "high"))
    steps = np.linspace(0, 1, 21)
    return [mix(low, middle, share) for share in steps] + [mix(middle, high, s) for s in steps]


def test_numbers_are_readable_on_every_shade(theme: Theme) -> None:
    for name in ("heat-text", "heat-muted"):
        assert min(contrast(linear(theme[name]), shade) for shade in shades(theme)) >= READABLE


def test_neighbouring_shades_can_be_told_apart(theme: Theme) -> None:
    """The shade says which of two cells is worse, so lightness must run one way."""
    lightness = [float(LUMINANCE @ shade) for shade in shades(theme)]
    steps = np.diff(lightness)
    assert np.all(steps <= 1e-3) or np.all(steps >= -1e-3)


@pytest.mark.parametrize("surface", ["page", "surface", "sunken"])
def test_text_is_readable(theme: Theme, surface: str) -> None:
    for name in ("text", "muted"):
        assert contrast(linear(theme[name]), linear(theme[surface])) >= READABLE


@pytest.mark.parametrize("name", ["accent", "good", "watch", "bad"])
def test_tags_are_readable(theme: Theme, name: str) -> None:
    assert contrast(linear(theme[name]), linear(theme[f"{name}-soft"])) >= READABLE
    assert contrast(linear(theme[name]), linear(theme["surface"])) >= READABLE


@pytest.mark.parametrize("number", range(1, 11))
def test_series_are_visible(theme: Theme, number: int) -> None:
    assert contrast(linear(theme[f"series-{number}"]), linear(theme["surface"])) >= VISIBLE
