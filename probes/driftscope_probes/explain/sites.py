"""Where a decoder is cut: the tensors between its ops, and the ops between those tensors.

In: the places at which a model was seen. Out: its sites in the order in which they run. Free of
torch.

Names, of one layer: `residual_in`, `attention_norm`, `q_proj`, `k_proj`, `v_proj`, `q_norm`,
`k_norm`, `q_rotary`, `k_rotary`, `attention`, `o_proj`, `attention_output_norm`, `residual_mid`,
`mlp_norm`, `gate_proj`, `up_proj`, `activation`, `down_proj`, or `router`, `top_k_weights`,
`top_k_experts`, `experts`, and `mlp_output_norm`; outside layers: `embedding`, `residual_out`,
`final_norm`, `logits`, `logprob`. A name stands for the tensor that the op of that name gives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: Kinds of ops: `driftscope_kernels.compare_ops.registry` has a family for each.
Kind = Literal[
    "embedding",
    "norm",
    "residual_norm",
    "linear",
    "rotary",
    "attention",
    "activation",
    "router",
    "top_k",
    "experts",
    "logprob",
]
KIND_LABELS: Final[Mapping[Kind, str]] = {
    "embedding": "embedding",
    "norm": "RMSNorm",
    "residual_norm": "residual + RMSNorm",
    "linear": "linear",
    "rotary": "rotary",
    "attention": "attention",
    "activation": "activation · up",
    "router": "router",
    "top_k": "top-k of the router",
    "experts": "experts",
    "logprob": "log-softmax",
}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A tensor between two ops. [tokens, features]."""

    layer: int | None  # None: before the first or behind the last layer
    name: str

    @property
    def key(self) -> str:
        """As captured tensors are named in files: `3.q_proj`, `final_norm`."""
        return self.name if self.layer is None else f"{self.layer}.{self.name}"

    @staticmethod
    def of_key(key: str) -> Place:
        """Raises ValueError for what is no such name."""
        layer, dot, name = key.partition(".")
        if not dot:
            return Place(None, key)
        return Place(int(layer), name)


@dataclass(frozen=True, slots=True)
class Site:
    """One op at one place of the model, between the tensors that it reads and gives."""

    layer: int | None
    name: str  # of the op: `q_proj`, `rotary`, `mlp_norm`
    kind: Kind
    inputs: Mapping[str, Place]  # by the family's own names
    outputs: Mapping[str, Place]  # likewise, in the family's order

    @property
    def key(self) -> str:
        return Place(self.layer, self.name).key


def sites_of(seen: Collection[Place]) -> list[Site]:
    """In the order in which they run; an op one of whose tensors was not seen is left out."""
    present = frozenset(seen)
    layers = 1 + max((place.layer for place in present if place.layer is not None), default=-1)
    builder = _Builder(present)
    builder.add("embedding", "embedding", {}, {"out": Place(None, "embedding")})
    for layer in range(layers):
        builder.layer(layer)
    builder.head()
    return builder.sites


def uncovered_of(seen: Collection[Place], sites: Collection[Site]) -> list[str]:
    """Keys of tensors that were seen and belong to no site."""
    known = {place for site in sites for place in (*site.inputs.values(), *site.outputs.values())}
    return [place.key for place in seen if place not in known]


class _Builder:
    def __init__(self, present: frozenset[Place]) -> None:
        self._present = present
        self.sites: list[Site] = []
        self._stream = Place(None, "embedding")  # the residual stream
        self._update: Place | None = None  # what is to be added to it

    def add(
        self,
        name: str,
        kind: Kind,
        inputs: dict[str, Place],
        outputs: dict[str, Place],
        layer: int | None = None,
    ) -> None:
        if self._present.issuperset([*inputs.values(), *outputs.values()]):
            self.sites.append(Site(layer, name, kind, inputs, outputs))

    def layer(self, layer: int) -> None:
        def place(name: str) -> Place:
            return Place(layer, name)

        self._norm("attention_norm", "residual_in", layer)
        normed = place("attention_norm")
        for name in ("q_proj", "k_proj", "v_proj"):
            self.add(name, "linear", {"x": normed}, {"y": place(name)}, layer)
        turned = {}
        for letter in "qk":
            projected, norm = place(f"{letter}_proj"), place(f"{letter}_norm")
            self.add(f"{letter}_norm", "norm", {"x": projected}, {"normed": norm}, layer)
            turned[letter] = norm if norm in self._present else projected
        rotated = {letter: place(f"{letter}_rotary") for letter in "qk"}
        self.add("rotary", "rotary", turned, rotated, layer)
        attended = place("attention")
        self.add(
            "attention", "attention", rotated | {"v": place("v_proj")}, {"out": attended}, layer
        )
        self.add("o_proj", "linear", {"x": attended}, {"y": place("o_proj")}, layer)
        self._output(place("o_proj"), place("attention_output_norm"))
        self._norm("mlp_norm", "residual_mid", layer)
        self._mlp(layer, place("mlp_norm"))

    def _mlp(self, layer: int, normed: Place) -> None:
        def place(name: str) -> Place:
            return Place(layer, name)

        last = place("down_proj")
        if place("experts") in self._present:
            last = place("experts")
            logits = place("router")
            self.add("router", "router", {"x": normed}, {"y": logits}, layer)
            chosen = {"weights": place("top_k_weights"), "experts": place("top_k_experts")}
            self.add("top_k", "top_k", {"logits": logits}, chosen, layer)
            self.add("experts", "experts", {"x": normed} | chosen, {"out": last}, layer)
        else:
            for name in ("gate_proj", "up_proj"):
                self.add(name, "linear", {"x": normed}, {"y": place(name)}, layer)
            halves = {"gate": place("gate_proj"), "up": place("up_proj")}
            active = place("activation")
            self.add("activation", "activation", halves, {"out": active}, layer)
            self.add("down_proj", "linear", {"x": active}, {"y": last}, layer)
        self._output(last, place("mlp_output_norm"))

    def _output(self, given: Place, norm: Place) -> None:
        """Of attention or MLP, normed once more in some models before it is added."""
        self.add(norm.name, "norm", {"x": given}, {"normed": norm}, norm.layer)
        self._update = norm if norm in self._present else given

    def _norm(self, name: str, stream: str, layer: int | None) -> None:
        """The update is added to the stream, and the sum normed; the first norm adds nothing."""
        normed, after = Place(layer, name), Place(layer, stream)
        if self._update is None:
            self.add(name, "norm", {"x": self._stream}, {"normed": normed}, layer)
            return
        inputs = {"update": self._update, "stream": self._stream}
        self.add(name, "residual_norm", inputs, {"stream": after, "normed": normed}, layer)
        self._stream = after

    def head(self) -> None:
        self._norm("final_norm", "residual_out", None)
        normed, logits = Place(None, "final_norm"), Place(None, "logits")
        self.add("lm_head", "linear", {"x": normed}, {"y": logits})
        self.add("logprob", "logprob", {"logits": logits}, {"logprob": Place(None, "logprob")})
