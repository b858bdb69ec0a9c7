"""One pass over the tokens of a step, and the plots that come of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram, abs_diff_histogram
from driftscope_probes.mismatch.report_profiles import (
    PROBABILITY_EDGES,
    BinnedSums,
    probability_bins,
)
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.plural import counted
from driftscope_probes.push import PushError, StepFormat
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.tokens import Tokens
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.runs.current import RunsService
from driftscope_service.runs.ingest.analysis import StepPart, whole_step
from driftscope_service.runs.last_used import LastUsed
from driftscope_service.runs.pages.token_counts import (
    CELL,
    INDEX_EDGES,
    LOWEST,
    DensityCounts,
    WorstSequences,
    index_bins,
)
from driftscope_service.runs.store.steps import TokenPlace, token_place
from driftscope_service.runs.store.token_columns import TokenBlock, file_blocks
from driftscope_service.runs.store.token_files import TokenFileError

#: A larger upload is read once it is a token file, whose parts can be read alone.
MOST_RAW_TOKENS: Final = 2**23
#: While one reads, the upload may become a token file, and that may be dropped.
_ATTEMPTS: Final = 3
_Read = TypeVar("_Read")


class NoTokens(Exception):
    """The text says why, as a sentence."""


@dataclass(frozen=True, slots=True)
class TokenSource:
    service: RunsService
    run: str
    step: int
    place: TokenPlace

    def read(
        self, of_file: Callable[[Path], _Read], of_step: Callable[[PushedStep], _Read]
    ) -> _Read:
        """Raises NoTokens."""
        place = self.place
        for _ in range(_ATTEMPTS):
            try:
                if place.tokens_file is not None:
                    return of_file(self.service.intake.files.path(place.tokens_file))
                return of_step(self._raw(place))
            except FileNotFoundError:
                place = require_place(self.service, self.run, self.step)
            except (TokenFileError, PushError) as error:
                raise NoTokens("The file with the tokens of this step is damaged.") from error
        raise NoTokens("The tokens of this step are being moved; look again in a moment.")

    def _raw(self, place: TokenPlace) -> PushedStep:
        if place.raw_files is None:
            raise NoTokens(
                "The tokens of this step are no longer kept: they go after "
                f"{self.service.settings.token_ring_steps} newer steps unless a limit was crossed, "
                "or when the disk space for tokens is used up. The numbers stay."
            )
        if place.tokens > MOST_RAW_TOKENS:
            raise NoTokens(
                "The tokens of this step have just arrived and are being put in order; "
                "look again in a moment."
            )
        files = self.service.intake.files
        parts = [
            StepPart(files.path(raw["file"]), cast(StepFormat, raw["format"]))
            for raw in place.raw_files
        ]
        return whole_step(parts)


def token_source(service: RunsService, run: str, step: int) -> TokenSource:
    """Raises NoTokens where there is no such step."""
    return TokenSource(service, run, step, require_place(service, run, step))


def require_place(service: RunsService, run: str, step: int) -> TokenPlace:
    with service.database.read() as connection:
        place = token_place(connection, run, step)
    if place is None:
        raise NoTokens("There is no such step.")
    return place


#: Of a larger step evenly spaced row groups are drawn, and the page says so: 8M tokens take about
#: a second, the largest step that is accepted has 33M.
MOST_TOKENS: Final = 2**23
#: A view takes about 100 kB.
MOST_VIEWS: Final = 64


@dataclass(slots=True)
class StepView:
    tokens: int = 0  # looked at, those that do not count included
    histogram: Histogram = field(default_factory=Histogram.empty)
    density: DensityCounts = field(default_factory=DensityCounts)
    by_index: BinnedSums = field(default_factory=lambda: BinnedSums(INDEX_EDGES))
    by_probability: BinnedSums = field(default_factory=lambda: BinnedSums(PROBABILITY_EDGES))
    worst: WorstSequences = field(default_factory=WorstSequences)

    def add(self, block: Tokens, first_sequence: int) -> None:
        tokens = token_differences(block)
        self.tokens += block.rollout.size
        self.histogram = self.histogram.merged(abs_diff_histogram(token_pass(block)))
        self.density.add(tokens)
        self.by_index.add(tokens, index_bins(tokens))
        self.by_probability.add(tokens, probability_bins(tokens.rollout_prob))
        self.worst.add(tokens, first_sequence)


def view_of(blocks: Iterable[TokenBlock]) -> StepView:
    view = StepView()
    for block, first_sequence in blocks:
        view.add(block, first_sequence)
    return view


class StepViews:
    """The views looked at last. One is worked out at a time: each takes a core and 100 MB."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: LastUsed[int, StepView] = LastUsed(MOST_VIEWS)

    def of(self, source: TokenSource) -> StepView:
        """Raises NoTokens."""
        with self._lock:
            return self._views.get(
                source.place.number,
                lambda: source.read(
                    lambda path: view_of(file_blocks(path, MOST_TOKENS)),
                    lambda step: view_of([(step, 0)]),
                ),
            )


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
        about["note"] = f"Not drawn, since Δ is exactly 0: {counted(view.histogram.zero, 'token')}."
    return PlotData(("above", "up_to", "tokens"), view.histogram.rows(), about)


def _density(view: StepView) -> PlotData:
    about = {**_EMPTY, "cell": CELL, "lowest": LOWEST}
    return PlotData(("rollout_from", "trainer_from", "tokens"), view.density.rows(), about)


def _profile(profile: BinnedSums, along: str) -> PlotData:
    return PlotData(_PROFILE_COLUMNS, profile.rows(), {**_EMPTY, "along": along})


_PLOTS: Final[Mapping[PlotName, Callable[[StepView], PlotData]]] = {
    "histogram": _histogram,
    "density": _density,
    "position": lambda view: _profile(view.by_index, "place in the response"),
    "probability": lambda view: _profile(view.by_probability, "probability by the rollout"),
}


def step_plot(view: StepView, plot: PlotName) -> PlotData:
    return _PLOTS[plot](view)
