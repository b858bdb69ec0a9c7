"""The plots of a step as data: histogram, density, position, probability. In: StepView."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from driftscope_service.web.plot_data import PlotData
from driftscope_service.web.step.density import CELL, LOWEST
from driftscope_service.web.step.profile import Profile
from driftscope_service.web.step.step_view import StepView

PlotName: TypeAlias = Literal["histogram", "density", "position", "probability"]
_EMPTY: Final = {"empty": "No token of this step counts: all are masked or not finite."}
_PROFILE_COLUMNS: Final = (
    "from",
    "below",
    "tokens",
    "abs_diff_mean",
    "diff_mean",
    "abs_diff_max",
)


def _histogram(view: StepView) -> PlotData:
    about: dict[str, Any] = {**_EMPTY, "zero": view.histogram.zero}
    if view.histogram.zero:
        about["note"] = f"{view.histogram.zero:,} tokens with Δ exactly 0 are not drawn."
    return PlotData(("above", "up_to", "tokens"), view.histogram.rows(), about)


def _density(view: StepView) -> PlotData:
    about = {**_EMPTY, "cell": CELL, "lowest": LOWEST}
    return PlotData(("rollout_from", "trainer_from", "tokens"), view.density.rows(), about)


def _profile(profile: Profile, along: str) -> PlotData:
    return PlotData(_PROFILE_COLUMNS, profile.rows(), {**_EMPTY, "along": along})


_PLOTS: Final[Mapping[PlotName, Callable[[StepView], PlotData]]] = {
    "histogram": _histogram,
    "density": _density,
    "position": lambda view: _profile(view.by_index, "place in the response"),
    "probability": lambda view: _profile(view.by_probability, "probability by the rollout"),
}


def step_plot(view: StepView, plot: PlotName) -> PlotData:
    return _PLOTS[plot](view)
