"""What a trainer session is asked: sequences to score, and how. Free of torch.

In: nothing. Out: Forward, Question, and the bits of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope_probes.dtypes import Dtype
from driftscope_probes.models.adapter import Adapter
from driftscope_probes.trainer.settings import TrainerSettings

#: Where a norm casts back from float32: before it multiplies by its weight (transformers' Llama),
#: or after it (vLLM's kernels, Gemma).
NormCast = Literal["before_weight", "after_weight"]
Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """How the trainer's model is loaded and run."""

    model: Path
    mode: str  # dtypes.parse_mode
    settings: TrainerSettings
    adapter: Adapter | None = None
    quiet: bool = False  # evaluation mode: nothing is drawn at random
    norm_epsilon: float | None = None  # of every norm; None: the model's own
    norm_cast: NormCast | None = None  # None: the model's own
    weights_as: Dtype | None = None  # the folder's weights, rounded to it before anything else
    #: A plain float32 forward in evaluation mode, one sequence at a time, not through the trainer;
    #: of the fields above, `model` and `adapter` count.
    reference: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "model": str(self.model),
            "settings": self.settings.model_dump(),
            "adapter": None if self.adapter is None else self.adapter.to_json(),
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Forward:
        adapter = fields["adapter"]
        return Forward(
            model=Path(fields["model"]),
            settings=TrainerSettings.model_validate(fields["settings"]),
            adapter=None if adapter is None else Adapter.from_json(adapter),
            **{name: fields[name] for name in _PLAIN},
        )


#: Fields of Forward that are JSON as they are.
_PLAIN = ("mode", "quiet", "norm_epsilon", "norm_cast", "weights_as", "reference")


@dataclass(frozen=True, slots=True)
class Question:
    """Score these responses. The trainer scales logits as the rollout's settings say."""

    forward: Forward
    prompts: Rows
    responses: Rows
    rollout: Mapping[str, Any]  # logprobs_mode and temperature, as a rollout's Trace records them
    #: Expert ids that the forward takes, one [tokens, layers, used] per sequence; None: its own.
    routes: tuple[NDArray[np.int16], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        routes = None if self.routes is None else [one.tolist() for one in self.routes]
        return {
            "forward": self.forward.to_dict(),
            "prompts": self.prompts,
            "responses": self.responses,
            "rollout": dict(self.rollout),
            "routes": routes,
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Question:
        routes = fields.get("routes")
        return Question(
            forward=Forward.from_dict(fields["forward"]),
            prompts=tuple(map(tuple, fields["prompts"])),
            responses=tuple(map(tuple, fields["responses"])),
            rollout=fields["rollout"],
            routes=None if routes is None else tuple(np.array(one, np.int16) for one in routes),
        )


def to_bits(logprobs: NDArray[np.float32]) -> list[int]:
    """Bits, not decimals: no rounding on the way, and NaN is no JSON."""
    bits: list[int] = logprobs.view(np.uint32).tolist()
    return bits


def from_bits(bits: list[int]) -> NDArray[np.float32]:
    return np.array(bits, np.uint32).view(np.float32)
