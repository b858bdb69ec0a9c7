"""One self-contained page of a comparison, and its plot as a picture of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from examples.on_policy_loop.compare import Outcome

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 190, 64, 26, 24
#: Apart for those who see colours otherwise: Okabe and Ito 2008, "Color universal design".
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    colour: str
    points: str  # as SVG has them
    label_y: float


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    lines: tuple[Line, ...]
    top: str
    bottom: str
    last_step: int


TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>On-policy loop</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em}
pre{background:#f4f4f4;padding:1em;overflow:auto}figure{margin:0;display:inline-block}</style></head>
<body><h1>The same policy, the same seed: what the kernels change</h1>
<p>Real TRL and real vLLM in one process; KL and |Δ| are the record of driftscope, reward and
gradient norm TRL's. Machine: {{ machine }}.</p>
<pre>{{ table }}</pre>
{% for name, svg in pictures %}<h2>{{ name }}</h2>{{ svg }}{% endfor %}
<p>“vocabulary”: at how many of the steps looked at (every tenth) the whole distribution after a
prompt and in a response is equal bit for bit. Logs of each run and the service's data lie beside
this page.</p></body></html>
"""
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="{{ 2 * width }}" height="{{ rows * height }}"
 viewBox="0 0 {{ 2 * width }} {{ rows * height }}" font-family="system-ui,sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
{% for chart in charts %}<g transform="translate({{ (loop.index0 % 2) * width }},{{ (loop.index0 // 2) * height }})">
<text x="{{ left }}" y="15" font-weight="600">{{ chart.title }}</text>
<path d="M{{ left }} {{ top }}V{{ height - bottom }}H{{ width - 90 }}" fill="none" stroke="#888"/>
<text x="{{ left - 6 }}" y="{{ top + 8 }}" text-anchor="end">{{ chart.top }}</text>
<text x="{{ left - 6 }}" y="{{ height - bottom }}" text-anchor="end">{{ chart.bottom }}</text>
<text x="{{ left }}" y="{{ height - 10 }}">step 0</text>
<text x="{{ width - 90 }}" y="{{ height - 10 }}" text-anchor="end">{{ chart.last_step }}</text>
{% for line in chart.lines %}<polyline points="{{ line.points }}" fill="none" stroke="{{ line.colour }}" stroke-width="1.6"/>
<text x="{{ width - 86 }}" y="{{ line.label_y }}" fill="{{ line.colour }}">{{ line.name }}</text>{% endfor %}
</g>{% endfor %}</svg>
"""


def write_page(outcomes: list[Outcome], machine: str, folder: Path) -> Path:
    """Returns the page's path; the pictures are SVG files beside it."""
    from examples.on_policy_loop.compare import table

    groups = {"As usual": [one for one in outcomes if not one.stressed]}
    if stressed := [one for one in outcomes if one.stressed]:
        groups["Under stress"] = stressed
    pictures = [(name, picture(group)) for name, group in groups.items()]
    for name, svg in pictures:
        (folder / f"{name.lower().replace(' ', '-')}.svg").write_text(svg, encoding="utf-8")
    page = jinja2.Template(TEMPLATE).render(
        machine=machine, table=table(outcomes), pictures=pictures
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def picture(outcomes: list[Outcome]) -> str:
    charts = [
        _chart("largest |Δ| of the step, nats", outcomes, [one.abs_diff_max for one in outcomes]),
        _chart("KL (k3), nats", outcomes, [one.kl_k3 for one in outcomes]),
        _chart("reward", outcomes, [one.reward for one in outcomes]),
        _chart("gradient norm", outcomes, [one.grad_norm for one in outcomes]),
    ]
    return jinja2.Template(PICTURE).render(
        charts=charts, rows=2, width=WIDTH, height=HEIGHT, left=LEFT, bottom=BOTTOM, top=TOP
    )


def _chart(title: str, outcomes: list[Outcome], series: list[tuple[float | None, ...]]) -> Chart:
    highest = max((value for one in series for value in one if value is not None), default=0.0)
    scale = highest or 1.0
    last = max(1, max(len(one) for one in series) - 1)
    lines = []
    for number, (outcome, values) in enumerate(zip(outcomes, series, strict=True)):
        points = [
            f"{LEFT + step / last * (WIDTH - 90 - LEFT):.1f},"
            f"{HEIGHT - BOTTOM - value / scale * (HEIGHT - BOTTOM - TOP):.1f}"
            for step, value in enumerate(values)
            if value is not None
        ]
        label_y = TOP + 12 + 16 * number
        lines.append(Line(outcome.mode, COLOURS[number], " ".join(points), label_y))
    return Chart(title, tuple(lines), f"{highest:.3g}", "0", last)
