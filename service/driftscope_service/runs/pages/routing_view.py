"""Routes of a step as its page shows them: sentence, groups of tokens, layers, signs, heat map.

In: `routing` of a stored analysis. Out: RoutingView for the template, PlotData of the heat map. The
tokens are not read: what is shown lasts as long as the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from driftscope_service.pages.plot_data import PlotData
from driftscope_service.runs.routing_words import routing_sentence

_COLUMNS: Final = ("layer", "from", "below", "tokens", "flipped")
_EMPTY: Final = {"empty": "No token of this step has a route on both sides."}


@dataclass(frozen=True, slots=True)
class RoutingView:
    sentence: str
    agreement: Mapping[str, Any] | None  # as stored; None: one side only, or unequal shapes
    places: tuple[tuple[int, int], ...]  # first and last place of each bin of the grid
    found: tuple[Mapping[str, Any], ...]  # signs that chance does not explain
    looked_for: tuple[Mapping[str, Any], ...]  # all others


def routing_view(routing: Mapping[str, Any] | None) -> RoutingView | None:
    """None for a step without routes, and for one that an older version analysed."""
    if routing is None:
        return None
    agreement, signs = routing["agreement"], routing["integrity"]["signs"]
    return RoutingView(
        sentence=routing_sentence(routing),
        agreement=agreement,
        places=() if agreement is None else _places(agreement["grid"]),
        found=tuple(sign for sign in signs if sign["significant"]),
        looked_for=tuple(sign for sign in signs if not sign["significant"]),
    )


def routing_plot(routing: Mapping[str, Any] | None) -> PlotData | None:
    """Flipped choices by layer and place; None where the two sides were not compared."""
    if routing is None or routing["agreement"] is None:
        return None
    agreement = routing["agreement"]
    grid = agreement["grid"]
    rows = [
        (layer["layer"], first, last + 1, tokens, flipped)
        for layer, of_layer in zip(agreement["layers"], grid["flipped"], strict=True)
        for (first, last), tokens, flipped in zip(
            _places(grid), grid["tokens"], of_layer, strict=True
        )
        if flipped is not None
    ]
    return PlotData(_COLUMNS, rows, {**_EMPTY, "width": grid["width"]})


def _places(grid: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    width = grid["width"]
    return tuple((at * width, (at + 1) * width - 1) for at in range(len(grid["tokens"])))
