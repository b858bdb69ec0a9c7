"""What the page of a step draws from its tokens, worked out in one pass and kept for the next look.

In: where the tokens lie. Out: StepView, or NoTokens with the reason. A complete step never changes,
so that a view stays right for as long as it is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from driftscope_service.store.token_columns import TokenBlock, file_blocks, step_block
from driftscope_service.web.step.density import DensityCounts
from driftscope_service.web.step.histogram import HistogramCounts
from driftscope_service.web.step.kept_tokens import kept_tokens
from driftscope_service.web.step.profile import (
    INDEX_EDGES,
    PROBABILITY_EDGES,
    Profile,
    index_bins,
    probability_bins,
)
from driftscope_service.web.step.token_source import TokenSource
from driftscope_service.web.step.worst_sequences import WorstSequences

#: Of a larger step evenly spaced row groups are drawn, and the page says so: 8M tokens take about
#: a second, the largest step that is accepted has 33M.
MOST_TOKENS: Final = 2**23
#: A view takes about 100 kB.
MOST_VIEWS: Final = 64


@dataclass(slots=True)
class StepView:
    tokens: int = 0  # looked at, those that do not count included
    histogram: HistogramCounts = field(default_factory=HistogramCounts)
    density: DensityCounts = field(default_factory=DensityCounts)
    by_index: Profile = field(default_factory=lambda: Profile(INDEX_EDGES))
    by_probability: Profile = field(default_factory=lambda: Profile(PROBABILITY_EDGES))
    worst: WorstSequences = field(default_factory=WorstSequences)

    def add(self, block: TokenBlock) -> None:
        tokens = kept_tokens(block)
        self.tokens += block.mask.size
        self.histogram.add(tokens)
        self.density.add(tokens)
        self.by_index.add(tokens, index_bins(tokens))
        self.by_probability.add(tokens, probability_bins(tokens))
        self.worst.add(tokens, block.first_sequence)


def view_of(blocks: Iterable[TokenBlock]) -> StepView:
    view = StepView()
    for block in blocks:
        view.add(block)
    return view


class StepViews:
    """The views looked at last. One is worked out at a time: each takes a core and 100 MB."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, StepView] = OrderedDict()

    def of(self, source: TokenSource) -> StepView:
        """Raises NoTokens."""
        number = source.place.number
        with self._lock:
            view = self._known.get(number)
            if view is None:
                view = source.read(
                    lambda path: view_of(file_blocks(path, MOST_TOKENS)),
                    lambda step: view_of([step_block(step)]),
                )
                self._known[number] = view
            self._known.move_to_end(number)
            while len(self._known) > MOST_VIEWS:
                self._known.popitem(last=False)
            return view
