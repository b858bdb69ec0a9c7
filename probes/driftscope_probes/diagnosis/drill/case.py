"""Case: one step with a known fault; Injection: how a fault is put into a pair.

In: nothing. Out: the values that the drill's lab, its faults and its scoring share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from driftscope_probes.dtypes import Dtype
from driftscope_probes.push.pushed_step import PushedStep

if TYPE_CHECKING:
    from driftscope_probes.diagnosis.drill.lab import Lab

#: a: tuned on; b: another mechanism with the same cause, scored only.
Way = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Model, dtypes, size and sampling of one pair; everything that is not the fault."""

    name: str  # unique within a drill, part of file names: lower case, digits and hyphens
    model: str  # of policies.POLICIES
    rollout_dtype: Dtype = "bf16"
    trainer_dtype: Dtype = "bf16"
    sequences: int = 16
    max_tokens: int = 48  # most response tokens of a sequence
    context: int = 0  # at least so many prompt tokens in the longest prompts; 0: the prompt alone
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    processed: bool = False  # log-probabilities after temperature and truncation
    batch: int | None = None  # sequences decoded together; None: all
    microbatch: int = 8  # sequences scored together
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A step and what is wrong with it."""

    cause: str | None  # name of the catalogue; None: healthy
    way: Way
    severity: float  # 0 barely visible, 1 gross
    setting: str
    step: PushedStep
    note: str


@dataclass(frozen=True, slots=True)
class Injection:
    """One way in which a cause comes about. `inject(lab, severity, rng, setting)`."""

    cause: str | None
    way: Way
    description: str
    inject: Callable[[Lab, float, np.random.Generator, Setting], PushedStep]
    models: tuple[str, ...] | None = None  # policies it needs; None: any
    dtypes: tuple[Dtype, ...] | None = None  # of both sides; in others it is below the floor

    def fits(self, setting: Setting) -> bool:
        """Whether the setting's model and dtypes can have it."""
        dtypes = {setting.rollout_dtype, setting.trainer_dtype}
        return (self.models is None or setting.model in self.models) and (
            self.dtypes is None or dtypes <= set(self.dtypes)
        )
