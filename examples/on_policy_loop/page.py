"""One self-contained page of a comparison, and its plot as a picture of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from examples.on_policy_loop.compare import Outcome

#: Of a chart, in pixels; on its right the names of the lines stand, one below the other.
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 560, 190, 64, 90, 26, 24
LABEL_AT, LABEL_STEP = 12, 16
#: Fields of LoopStep.
CHARTS = {
    "abs_diff_max": "largest |Δ| of the step, nats",
    "kl_k3": "KL (k3), nats",
    "reward": "reward",
    "grad_norm": "gradient norm",
}
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


TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
)


def write_page(outcomes: list[Outcome], machine: str, folder: Path) -> Path:
    """Returns the page's path; the pictures are SVG files beside it."""
    from examples.on_policy_loop.compare import table

    groups = {"As usual": [one for one in outcomes if not one.stressed]}
    if stressed := [one for one in outcomes if one.stressed]:
        groups["Under stress"] = stressed
    pictures = [(name, picture(group)) for name, group in groups.items()]
    for name, svg in pictures:
        (folder / f"{name.lower().replace(' ', '-')}.svg").write_text(svg, encoding="utf-8")
    page = TEMPLATES.get_template("page.html.j2").render(
        machine=machine, table=table(outcomes), pictures=pictures
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def picture(outcomes: list[Outcome]) -> str:
    charts = [_chart(title, name, outcomes) for name, title in CHARTS.items()]
    svg: str = TEMPLATES.get_template("picture.svg.j2").render(
        charts=charts,
        rows=2,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=RIGHT,
        bottom=BOTTOM,
        top=TOP,
    )
    return svg


def _chart(title: str, name: str, outcomes: list[Outcome]) -> Chart:
    series = [one.result.series(name) for one in outcomes]
    highest = max((value for one in series for value in one if value is not None), default=0.0)
    last = max(1, max(len(one) for one in series) - 1)
    x_scale = (WIDTH - RIGHT - LEFT) / last
    y_scale = (HEIGHT - BOTTOM - TOP) / (highest or 1.0)
    lines = []
    for number, (outcome, values) in enumerate(zip(outcomes, series, strict=True)):
        points = [
            f"{LEFT + step * x_scale:.1f},{HEIGHT - BOTTOM - value * y_scale:.1f}"
            for step, value in enumerate(values)
            if value is not None
        ]
        label_y = TOP + LABEL_AT + LABEL_STEP * number
        lines.append(Line(outcome.result.mode, COLOURS[number], " ".join(points), label_y))
    return Chart(title, tuple(lines), f"{highest:.3g}", "0", last)
