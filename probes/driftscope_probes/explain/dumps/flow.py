"""How tensors follow from each other in a decoder of which only some were captured.

In: the places that both dumps have. Out: per op that gives one of them, which captured tensors its
result follows from, and which ops lie between that were not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from driftscope_probes.explain.sites import KIND_LABELS, Place, Site, sites_of

_ATTENTION = "attention_norm q_proj k_proj v_proj q_rotary k_rotary attention o_proj mlp_norm"
_DENSE = "gate_proj up_proj activation down_proj"
_EXPERTS = "router top_k_weights top_k_experts experts"


@dataclass(frozen=True, slots=True)
class Step:
    """From captured tensors to captured tensors: one op, or several with nothing seen between."""

    site: Site  # the last op
    inputs: frozenset[Place]  # captured
    outputs: tuple[Place, ...]  # captured
    between: tuple[Site, ...]  # ops before it that were not seen apart, in order
    known: bool  # False: something that it follows from was not captured

    @property
    def ops(self) -> tuple[Site, ...]:
        return (*self.between, self.site)

    @property
    def sequence_wide(self) -> bool:
        """Whether a token's result follows from other tokens too."""
        return any(site.kind == "attention" for site in self.ops)

    @property
    def names(self) -> str:
        return " or ".join(dict.fromkeys(KIND_LABELS[site.kind] for site in self.ops))


def steps_of(seen: Collection[Place], *, tokens_known: bool) -> list[Step]:
    """In the order in which they run. `tokens_known`: the embedding's input was compared."""
    present = frozenset(seen)
    sites = sites_of(present | frozenset(_imagined(present)))
    made_by = {place: site for site in sites for place in site.outputs.values()}
    steps = []
    for site in sites:
        outputs = tuple(place for place in site.outputs.values() if place in present)
        if not outputs:
            continue
        inputs: set[Place] = set()
        between: dict[str, Site] = {}
        known = _resolve(site, present, made_by, inputs, between, tokens_known)
        order = tuple(one for one in sites if one.key in between)
        steps.append(Step(site, frozenset(inputs), outputs, order, known))
    return steps


def _resolve(
    site: Site,
    present: frozenset[Place],
    made_by: dict[Place, Site],
    inputs: set[Place],
    between: dict[str, Site],
    tokens_known: bool,
) -> bool:
    """Walk back over what was not captured; False where it ends without a captured tensor."""
    if not site.inputs:
        return tokens_known
    known = True
    for place in site.inputs.values():
        if place in present:
            inputs.add(place)
            continue
        maker = made_by.get(place)
        if maker is None:
            known = False
        elif maker.key not in between:
            between[maker.key] = maker
            known &= _resolve(maker, present, made_by, inputs, between, tokens_known)
    return known


def _imagined(present: frozenset[Place]) -> Iterator[Place]:
    """Tensors that every decoder with these has, captured or not."""
    layers = 1 + max((place.layer for place in present if place.layer is not None), default=-1)
    for layer in range(layers):
        routed = any(Place(layer, name) in present for name in _EXPERTS.split())
        names = f"{_ATTENTION} residual_mid {_EXPERTS if routed else _DENSE}"
        yield from (Place(layer, name) for name in names.split())
        if layer:
            yield Place(layer, "residual_in")
    for name in ("embedding", "residual_out", "final_norm", "logits"):
        yield Place(None, name)
