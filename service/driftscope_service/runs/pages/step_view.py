"""One pass over the tokens of a step, and the plots that come of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

import numpy as np

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.rounding_band import Band, rounding_band
from driftscope_probes.mismatch.fused.token_pass import token_pass
from driftscope_probes.mismatch.histogram import Histogram, abs_diff_histogram
from driftscope_probes.mismatch.oddities import FaultyKinds, faulty_values
from driftscope_probes.mismatch.report_profiles import (
    PROBABILITY_EDGES,
    BinnedSums,
    probability_bins,
)
from driftscope_probes.mismatch.token_differences import token_differences
from driftscope_probes.plural import counted
from driftscope_probes.profiles.coordinate_sums import Row
from driftscope_probes.profiles.step_profiles import Profile, ProfileName, StepProfiles
from driftscope_probes.push import PushError, StepFormat
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.tokens import Tokens
from driftscope_service.numbers.diagnosis_words import floor_words
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.runs.current import RunsService
from driftscope_service.runs.ingest.analysis import StepPart, whole_step
from driftscope_service.runs.last_used import LastUsed
from driftscope_service.runs.pages.token_counts import (
    CELL,
    LOWEST,
    DensityCounts,
    OddSequences,
    WorstSequences,
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
    attempt: int | None = None  # None: of the series

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
                place = require_place(self.service, self.run, self.step, self.attempt)
            except (TokenFileError, PushError) as error:
                # The reader of steps has a word of its own for a file that is gone.
                now = require_place(self.service, self.run, self.step)
                if (now.raw_files, now.tokens_file) != (place.raw_files, place.tokens_file):
                    place = now
                    continue
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


def token_source(
    service: RunsService, run: str, step: int, attempt: int | None = None
) -> TokenSource:
    """Raises NoTokens where there is no such step."""
    return TokenSource(service, run, step, require_place(service, run, step, attempt), attempt)


def require_place(
    service: RunsService, run: str, step: int, attempt: int | None = None
) -> TokenPlace:
    with service.database.read() as connection:
        place = token_place(connection, run, step, attempt=attempt)
    if place is None:
        raise NoTokens("There is no such step.")
    return place


#: Of a larger step evenly spaced row groups are drawn, and the page says so: 8M tokens take about
#: a second, the largest step that is accepted has 33M.
MOST_TOKENS: Final = 2**23
#: A view takes about 100 kB.
MOST_VIEWS: Final = 64


#: Nothing but what each value says by itself.
PLAIN: Final = FaultyKinds()


@dataclass(slots=True)
class StepView:
    tokens: int = 0  # looked at, those that do not count included
    histogram: Histogram = field(default_factory=Histogram.empty)
    density: DensityCounts = field(default_factory=DensityCounts)
    profiles: StepProfiles = field(default_factory=StepProfiles)
    by_probability: BinnedSums = field(default_factory=lambda: BinnedSums(PROBABILITY_EDGES))
    worst: WorstSequences = field(default_factory=WorstSequences)
    odd: OddSequences = field(default_factory=OddSequences)
    kinds: FaultyKinds = PLAIN

    def add(self, block: Tokens, first_sequence: int) -> None:
        tokens = token_differences(block)
        self.tokens += block.rollout.size
        self.histogram = self.histogram.merged(abs_diff_histogram(token_pass(block)))
        self.density.add(tokens)
        self.profiles.add(block, tokens)
        self.by_probability.add(tokens, probability_bins(tokens.rollout_prob))
        odd = faulty_values(block, self.kinds)
        before = np.concatenate([[0], np.cumsum(odd)])[block.cu_seqlens]
        self.worst.add(tokens, np.diff(before), first_sequence)
        self.odd.add(block, odd, first_sequence)

    def profile(self, name: ProfileName) -> Profile | None:
        """None where the step was pushed without it."""
        return next((one for one in self.profiles.profiles() if one.name == name), None)


def view_of(blocks: Iterable[TokenBlock], kinds: FaultyKinds = PLAIN) -> StepView:
    view = StepView(kinds=kinds)
    for block, first_sequence in blocks:
        view.add(block, first_sequence)
    return view


class StepViews:
    """The views looked at last. One is worked out at a time: each takes a core and 100 MB."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: LastUsed[tuple[int, FaultyKinds], StepView] = LastUsed(MOST_VIEWS)

    def of(self, source: TokenSource, kinds: FaultyKinds = PLAIN) -> StepView:
        """`kinds`: what the step's analysis found of both sides. Raises NoTokens."""
        with self._lock:
            return self._views.get(
                (source.place.number, kinds),
                lambda: source.read(
                    lambda path: view_of(file_blocks(path, MOST_TOKENS), kinds),
                    lambda step: view_of([(step, 0)], kinds),
                ),
            )


PlotName: TypeAlias = Literal["histogram", "density", "position", "end", "absolute", "probability"]
#: Plots that are profiles along a place.
PROFILE_PLOTS: Final[Mapping[PlotName, ProfileName]] = {
    "position": "index",
    "end": "end",
    "absolute": "position",
}
_EMPTY: Final = {"empty": "No token of this step counts: all are masked or not finite."}
_PROFILE_COLUMNS: Final = (
    "from",
    "below",
    "tokens",
    "abs_diff_mean",
    "diff_mean",
    "abs_diff_max",
)


def _histogram(view: StepView, band: Band | None) -> PlotData:
    about: dict[str, Any] = {**_EMPTY, "zero": view.histogram.zero}
    if view.histogram.zero:
        about["note"] = f"Not drawn, since Δ is exactly 0: {counted(view.histogram.zero, 'token')}."
    if band is not None:
        about["band"] = band.to_dict()
    return PlotData(("above", "up_to", "tokens"), view.histogram.rows(), about)


def _density(view: StepView) -> PlotData:
    about = {**_EMPTY, "cell": CELL, "lowest": LOWEST}
    return PlotData(("rollout_from", "trainer_from", "tokens"), view.density.rows(), about)


def _profile(rows: Sequence[Row], along: str) -> PlotData:
    return PlotData(_PROFILE_COLUMNS, rows, {**_EMPTY, "along": along})


def band_of(view: StepView, diagnosis: Diagnosis | None) -> Band | None:
    """How far rounding reaches at the floor that the step was judged by."""
    if diagnosis is None:
        return None
    counts = view.by_probability.counts.tolist()
    floor = diagnosis.floor
    return rounding_band(floor, diagnosis.excess, counts, view.histogram, floor_words(floor))


def step_plot(view: StepView, plot: PlotName, band: Band | None = None) -> PlotData | None:
    """None where the step was pushed without what the plot runs along."""
    if plot == "histogram":
        return _histogram(view, band)
    if plot == "density":
        return _density(view)
    if plot == "probability":
        return _profile(view.by_probability.rows(), "probability by the rollout")
    found = view.profile(PROFILE_PLOTS[plot])
    return None if found is None else _profile(found.rows, found.along)
