"""A line without axes, as SVG, for rows of a table: it needs no script and no style attribute.

In: values, oldest first. Out: markup of a fixed size, or a dash where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 132
HEIGHT: Final = 28
#: Room for the dot at the end of the line.
MARGIN: Final = 3
#: Values of one sign that span more than this are drawn by their logarithm: a jump by a factor is
#: seen as one whatever the level.
LOG_SPAN: Final = 20.0


def sparkline(values: Sequence[float | None], label: str) -> Markup:
    """`label` is what a screen reader says instead."""
    heights = _heights(values)
    if len([height for height in heights if height is not None]) < 2:
        return Markup('<span class="muted">–</span>')
    across = (WIDTH - 2 * MARGIN) / (len(heights) - 1)
    lines: list[list[str]] = [[]]
    last = ""
    for place, height in enumerate(heights):
        if height is None:
            lines.append([])
            continue
        x, y = MARGIN + across * place, MARGIN + (HEIGHT - 2 * MARGIN) * (1 - height)
        lines[-1].append(f"{x:.1f},{y:.1f}")
        last = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
    drawn = "".join(f'<polyline points="{" ".join(line)}"/>' for line in lines if len(line) > 1)
    return Markup(
        f'<svg class="spark" role="img" aria-label="{escape(label)}" width="{WIDTH}" '
        f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{drawn}{last}</svg>'
    )


def _heights(values: Sequence[float | None]) -> list[float | None]:
    """0 to 1, None where there is no value."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return [None] * len(values)
    low, high = min(known), max(known)
    logarithmic = low > 0 and high / low > LOG_SPAN
    if logarithmic:
        low, high = math.log(low), math.log(high)
    span = high - low

    def height(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        place = math.log(value) if logarithmic else value
        return 0.5 if span == 0 else (place - low) / span

    return [height(value) for value in values]
