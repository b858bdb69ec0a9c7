"""Recorded: what a pushed step brings to a diagnosis by controls. Free of torch.

In: a step and what its data say. Out: JSON for the process that runs the controls, and back: the
diagnosis, and as many sequences as a control needs, where their prompts are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from driftscope_probes.diagnosis.cause import Diagnosis
from driftscope_probes.diagnosis.controls.sides import Recorded, Sequences
from driftscope_probes.diagnosis.floor import short_dtype
from driftscope_probes.push.pushed_step import PushedStep

#: Enough for every control, which compares sigmas: that of 1,000 tokens is known to 5 %.
MOST_SEQUENCES: Final = 32
#: Prompts and responses together; the JSON of a job stays below a megabyte.
MOST_TOKENS: Final = 2**14
_DIAGNOSIS: Final = TypeAdapter(Diagnosis)


@dataclass(frozen=True, slots=True)
class StepData:
    diagnosis: Diagnosis
    recorded: Recorded | None  # None: prompts, tokens or whole responses are missing
    rollout_dtype: str | None  # as short names: bf16, fp16, fp32
    trainer_dtype: str | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "diagnosis": self.diagnosis.to_dict(),
            "recorded": None if self.recorded is None else _to_json(self.recorded),
            "rollout_dtype": self.rollout_dtype,
            "trainer_dtype": self.trainer_dtype,
        }

    @staticmethod
    def read(fields: Mapping[str, Any]) -> StepData:
        recorded = fields["recorded"]
        return StepData(
            _DIAGNOSIS.validate_python(fields["diagnosis"]),
            None if recorded is None else _from_json(recorded),
            fields["rollout_dtype"],
            fields["trainer_dtype"],
        )


def step_data(step: PushedStep, diagnosis: Diagnosis) -> StepData:
    return StepData(diagnosis, recorded_of(step), *step_dtypes(step.metadata))


def step_dtypes(metadata: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Of rollout and trainer, as the step says them."""
    return (
        short_dtype(metadata.get("rollout_dtype")),
        short_dtype(metadata.get("trainer_dtype")),
    )


def recorded_of(step: PushedStep) -> Recorded | None:
    """The first whole responses with their prompts; None where there is none."""
    ids, prompts = step.extras.token_ids, step.prompts
    if ids is None or prompts is None:
        return None
    chosen: list[int] = []
    total = 0
    for index in range(step.sequences):
        tokens = step.sequence(index)
        size = int(tokens.stop - tokens.start)
        # What was not sampled (a tool's output) has no value of the engine's own.
        if not size or not prompts[index].size or not step.mask[tokens].all():
            continue
        total += size + prompts[index].size
        if len(chosen) == MOST_SEQUENCES or total > MOST_TOKENS:
            break
        chosen.append(index)
    if not chosen:
        return None
    spans = [step.sequence(index) for index in chosen]
    return Recorded(
        Sequences(
            tuple(tuple(prompts[index].tolist()) for index in chosen),
            tuple(tuple(ids[span].tolist()) for span in spans),
        ),
        np.concatenate([step.rollout[span] for span in spans]).astype(np.float32),
        np.concatenate([step.trainer[span] for span in spans]).astype(np.float32),
    )


def _to_json(recorded: Recorded) -> dict[str, Any]:
    """Values as their bits: JSON has no NaN."""
    return {
        "prompts": recorded.sequences.prompts,
        "responses": recorded.sequences.responses,
        "rollout": recorded.rollout.view(np.uint32).tolist(),
        "trainer": recorded.trainer.view(np.uint32).tolist(),
    }


def _from_json(fields: Mapping[str, Any]) -> Recorded:
    return Recorded(
        Sequences(_tokens(fields["prompts"]), _tokens(fields["responses"])),
        _values(fields["rollout"]),
        _values(fields["trainer"]),
    )


def _tokens(lists: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(one) for one in lists)


def _values(bits: list[int]) -> NDArray[np.float32]:
    return np.array(bits, np.uint32).view(np.float32)
