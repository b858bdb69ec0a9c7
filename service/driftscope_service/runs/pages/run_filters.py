"""What the list of runs shows stands in its address.

In: what an address asks for. Out: words and choices of the form that fills it, and chips that say
what is asked and take it back one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from driftscope_probes.verdicts import COMPARISON_VERDICTS
from driftscope_service.numbers import metric_words
from driftscope_service.numbers.diagnosis_words import verdict_words
from driftscope_service.runs.api.run_query import MOST_RUNS
from driftscope_service.runs.store.progress import PROGRESSES
from driftscope_service.runs.store.search import Order, RunFilter

PATH: Final = "/runs"
PAGE_SIZE: Final = 50
PAGE_SIZES: Final = (PAGE_SIZE, 100, 200, MOST_RUNS)
ORDER_WORDS: Final[Mapping[Order, str]] = {
    "activity": "Latest activity",
    "worst": "Worst first",
    "name": "Name",
    "created": "Newest",
}
VERDICT_WORDS: Final = {verdict: verdict_words(verdict) for verdict in COMPARISON_VERDICTS}
STATES: Final = PROGRESSES
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Chip:
    """One condition that holds for every run shown."""

    label: str
    without: str  # the address of the list without it


@dataclass(frozen=True, slots=True)
class Listing:
    """What one address asks for."""

    filter: RunFilter
    order: Order
    limit: int
    metric: str

    @property
    def conditions(self) -> Pairs:
        """Parameters of the filter, in the order of the form."""
        one = self.filter
        moments = (
            ("since", None if one.since is None else one.since.isoformat()),
            ("until", None if one.until is None else one.until.isoformat()),
        )
        texts = (
            ("text", one.text),
            ("model", one.model),
            ("framework", one.framework),
            ("engine", one.engine),
            ("dtype", one.dtype),
            ("cause", one.cause),
            *moments,
        )
        return [
            *((name, text) for name, text in texts if text is not None),
            *(("state", state) for state in one.states),
            *(("verdict", verdict) for verdict in one.verdicts),
            *(("tag", tag) for tag in one.tags),
        ]

    @property
    def shape(self) -> Pairs:
        """Parameters that do not choose runs; what is as usual is left out."""
        usual = {"sort": "activity", "limit": str(PAGE_SIZE), "metric": metric_words.DEFAULT}
        own = (("sort", self.order), ("limit", str(self.limit)), ("metric", self.metric))
        return [(name, value) for name, value in own if value != usual[name]]

    @property
    def address(self) -> str:
        return _address([*self.conditions, *self.shape])

    @property
    def everything(self) -> str:
        """The same without a condition."""
        return _address(self.shape)

    def after(self, cursor: str) -> str:
        return _address([*self.conditions, *self.shape, ("cursor", cursor)])

    @property
    def api(self) -> str:
        shape = [pair for pair in self.shape if pair[0] != "metric"]
        return f"/v1{_address([*self.conditions, *shape])}"

    @property
    def chips(self) -> Sequence[Chip]:
        every = self.conditions
        return [
            Chip(_label(*pair), _address([*_without(every, place), *self.shape]))
            for place, pair in enumerate(every)
        ]

    @property
    def folded(self) -> bool:
        """None of the conditions stands in the folded part of the form."""
        always = ("text", "state", "verdict")
        return all(name in always for name, _ in self.conditions)


def _without(pairs: Pairs, place: int) -> Iterable[tuple[str, str]]:
    return (pair for other, pair in enumerate(pairs) if other != place)


def _label(name: str, value: str) -> str:
    if name == "verdict":
        return f"verdict: {VERDICT_WORDS[value]}"
    if name in ("since", "until"):
        moment = value.removesuffix("+00:00").removesuffix("T00:00:00")
        return f"active {name} {moment.replace('T', ' ').removesuffix(' 23:59:59.999999')}"
    return f"{name}: {value}"


def _address(pairs: Iterable[tuple[str, str]]) -> str:
    query = urlencode(list(pairs))
    return f"{PATH}?{query}" if query else PATH
