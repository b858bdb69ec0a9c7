"""Agreement of two sides on the experts of each token, and what disagreement does to Δ.

In: Tokens and the expert ids of both sides, or the pass over them. Out: RoutingAgreement.
Free of torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from driftscope_probes.diagnosis.routing_differences import RouteDifferences, route_differences
from driftscope_probes.mismatch.number import BoolArray, FloatArray, Number, Undefined, mean
from driftscope_probes.mismatch.terms import k3_terms
from driftscope_probes.mismatch.token_differences import TokenDifferences, token_differences
from driftscope_probes.tokens import Tokens

NO_ROUTES = Undefined("no unmasked token has a route on both sides")
#: F(τ): the share of tokens whose ratio max(ρ, 1/ρ) is above τ. 2 is the routing-replay paper's
#: (arXiv 2510.11370); 1.2 is where PPO clips, 5 the upper bound of IcePop.
TAILS: Final = (1.2, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Unmasked tokens with finite log-probabilities that agree, or do not, on their routes."""

    tokens: int
    abs_diff_mean: Number  # nats
    kl_k3: Number  # nats
    tails: tuple[Number, ...]  # F(τ) at TAILS, fractions

    def to_dict(self) -> dict[str, Any]:
        tails = {f"{bound:g}": shown(tail) for bound, tail in zip(TAILS, self.tails, strict=True)}
        return {
            "tokens": self.tokens,
            "abs_diff_mean": shown(self.abs_diff_mean),
            "kl_k3": shown(self.kl_k3),
            "tails": tails,
        }


@dataclass(frozen=True, slots=True)
class LayerAgreement:
    """Of the choices of one layer; fractions."""

    layer: int
    flipped: Number  # sets of experts that differ
    overlap: Number  # mean |A∩B| / k
    reordered: Number  # same set in another order

    def to_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "flipped": shown(self.flipped),
            "overlap": shown(self.overlap),
            "reordered": shown(self.reordered),
        }


@dataclass(frozen=True, slots=True)
class RoutingGrid:
    """Flipped choices by layer and place in the sequence; bin i holds the places from i·width."""

    width: int  # tokens
    tokens: tuple[int, ...]  # [bins]
    flipped: tuple[tuple[float | None, ...], ...]  # [layers][bins] fraction; None: no token

    def to_dict(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "tokens": list(self.tokens),
            "flipped": [[_rounded(cell) for cell in row] for row in self.flipped],
        }


def _rounded(fraction: float | None) -> float | None:
    """Of a shade of the heat map: full digits would double a stored step."""
    return None if fraction is None else round(fraction, 4)


@dataclass(frozen=True, slots=True)
class RoutingAgreement:
    """Choice: one token in one layer; it flips where the sets of experts differ."""

    tokens: int  # unmasked, with a route on both sides
    tokens_without_route: int  # unmasked, left out: a side has -1 in a layer that routes
    k: int
    layers: tuple[LayerAgreement, ...]  # those that route
    choices_flipped: Number  # fraction of tokens × layers
    tokens_flipped: Number  # fraction of tokens with a flip in any layer
    flips_per_token: Number  # mean over all tokens
    overlap: Number  # mean |A∩B| / k over the choices
    choices_reordered: Number  # fraction: same set in another order
    agreeing: TokenGroup  # no flip in any layer
    flipped: TokenGroup
    grid: RoutingGrid

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "tokens_without_route": self.tokens_without_route,
            "k": self.k,
            "choices_flipped": shown(self.choices_flipped),
            "tokens_flipped": shown(self.tokens_flipped),
            "flips_per_token": shown(self.flips_per_token),
            "overlap": shown(self.overlap),
            "choices_reordered": shown(self.choices_reordered),
            "agreeing": self.agreeing.to_dict(),
            "flipped": self.flipped.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "grid": self.grid.to_dict(),
        }


def shown(number: Number) -> float | None:
    return None if isinstance(number, Undefined) else number


def routing_agreement(
    tokens: Tokens, rollout_routes: ArrayLike, trainer_routes: ArrayLike
) -> RoutingAgreement:
    """Both routes: [tokens, layers, k] integer ids of experts, -1 where no route was captured.

    Raises TraceError where shapes or dtypes do not fit.
    """
    return agreement_of(tokens, route_differences(tokens, rollout_routes, trainer_routes))


def agreement_of(tokens: Tokens, found: RouteDifferences) -> RoutingAgreement:
    """Of a pass that has been made."""
    count, choices = found.tokens, found.tokens * found.layers.size
    diffs = token_differences(tokens)
    counted, flips = diffs.kept(found.counted), diffs.kept(found.flips) > 0
    return RoutingAgreement(
        tokens=count,
        tokens_without_route=found.without_route,
        k=found.k,
        layers=_layers(found),
        choices_flipped=_share(int(found.layer_flips.sum()), choices),
        tokens_flipped=_share(int(np.count_nonzero(found.flips)), count),
        flips_per_token=_share(int(found.layer_flips.sum()), count),
        overlap=_share(float(found.layer_overlap.sum()), choices),
        choices_reordered=_share(int(found.layer_reordered.sum()), choices),
        agreeing=_group(diffs, counted & ~flips),
        flipped=_group(diffs, counted & flips),
        grid=_grid(found),
    )


def _share(part: float, whole: int) -> Number:
    return part / whole if whole else NO_ROUTES


def _layers(found: RouteDifferences) -> tuple[LayerAgreement, ...]:
    count = found.tokens
    columns = (found.layer_flips, found.layer_overlap, found.layer_reordered)
    return tuple(
        LayerAgreement(int(layer), *(_share(float(column[at]), count) for column in columns))
        for at, layer in enumerate(found.layers)
    )


def _group(diffs: TokenDifferences, chosen: BoolArray) -> TokenGroup:
    diff: FloatArray = diffs.diff[chosen]
    size = np.abs(diff)
    tails = (mean((size > math.log(bound)).astype(np.float64)) for bound in TAILS)
    return TokenGroup(diff.size, mean(size), mean(k3_terms(diff)), tuple(tails))


def _grid(found: RouteDifferences) -> RoutingGrid:
    with np.errstate(invalid="ignore"):
        fractions = found.bin_flips / found.bin_tokens
    return RoutingGrid(
        width=found.bin_width,
        tokens=tuple(found.bin_tokens.tolist()),
        flipped=tuple(
            tuple(None if math.isnan(value) else value for value in row)
            for row in fractions.tolist()
        ),
    )
