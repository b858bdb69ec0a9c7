"""The verdict and cause of a run over its steps: a strip, and the stretches that it is made of.

In: verdicts by step. Out: stretches of neighbouring steps that say the same, and SVG of a fixed
size, which needs no script and no style attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from driftscope_service.numbers.diagnosis_words import verdict_words
from driftscope_service.pages.diagnosis import TONES
from driftscope_service.pages.words import Tone
from driftscope_service.runs.store.steps import StepVerdict, VerdictPoint

WIDTH: Final = 1000
HEIGHT: Final = 20
#: A stretch of one step among ten thousand is still seen.
NARROWEST: Final = 2.0
#: Newest first; a run that flickers between two causes has as many as steps.
MOST_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring complete steps with one verdict and one cause."""

    first_step: int
    last_step: int
    steps: int
    tone: Tone
    word: str
    cause: str | None
    excess: float | None  # the largest

    @property
    def said(self) -> str:
        return f"{self.word}, {self.cause}" if self.cause else self.word


@dataclass(frozen=True, slots=True)
class VerdictStrip:
    stretches: tuple[Stretch, ...]  # ascending by step

    @property
    def shown(self) -> tuple[Stretch, ...]:
        return self.stretches[: -MOST_SHOWN - 1 : -1]

    @property
    def hidden(self) -> int:
        return len(self.stretches) - len(self.shown)

    @property
    def svg(self) -> Markup:
        """Steps side by side, equally wide, in the colours of their verdicts."""
        steps = sum(one.steps for one in self.stretches)
        # Of narrow ones one per place, so that a run that flickers stays a small page.
        drawn: dict[tuple[int, bool], str] = {}
        start = 0
        for one in self.stretches:
            x, width = WIDTH * start / steps, max(NARROWEST, WIDTH * one.steps / steps)
            title = f"<title>{escape(_steps(one))}: {escape(one.said)}</title>"
            key = int(x / NARROWEST), width > NARROWEST
            if key not in drawn or one.tone == "bad":
                drawn[key] = (
                    f'<rect class="{one.tone}" x="{x:.1f}" y="0" width="{width:.1f}" '
                    f'height="{HEIGHT}">{title}</rect>'
                )
            start += one.steps
        told = "; ".join(f"{_steps(one)} {one.said}" for one in self.shown)
        return Markup(
            f'<svg class="strip" role="img" aria-label="Verdicts over the steps, newest first: '
            f'{escape(told)}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
            f"{''.join(drawn.values())}</svg>"
        )


def _steps(one: Stretch) -> str:
    if one.first_step == one.last_step:
        return f"step {one.first_step:,}"
    return f"steps {one.first_step:,} to {one.last_step:,}"


def verdict_strip(points: Sequence[VerdictPoint]) -> VerdictStrip | None:
    """`points` ascending by step. None where no step has a verdict."""
    if all(point.verdict is None for point in points):
        return None
    stretches: list[Stretch] = []
    for point in points:
        tone, word, cause, excess = _said(point.verdict)
        last = stretches[-1] if stretches else None
        if last is not None and (last.word, last.cause) == (word, cause):
            stretches[-1] = Stretch(
                last.first_step, point.step, last.steps + 1, tone, word, cause,
                _largest(last.excess, excess),
            )  # fmt: skip
        else:
            stretches.append(Stretch(point.step, point.step, 1, tone, word, cause, excess))
    return VerdictStrip(tuple(stretches))


def _said(verdict: StepVerdict | None) -> tuple[Tone, str, str | None, float | None]:
    if verdict is None:
        return "none", "no diagnosis", None, None
    word = verdict_words(verdict.verdict)
    return TONES[verdict.verdict], word, verdict.cause, verdict.excess


def _largest(a: float | None, b: float | None) -> float | None:
    return max((one for one in (a, b) if one is not None), default=None)
