"""Pool: healthy pairs and conversations, sampled once per setting and broken many times.

In: a lab and a setting. Out: what the engine sampled and what the trainer says of it. Sampling is
what takes the time of a drill; a fault in the data, or on the trainer's side, needs no new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Setting
from driftscope_probes.diagnosis.drill.lab import Lab, Prompts, Sampled, Sampling, Scored

#: A pool of 512 sequences with 2,048 tokens holds 20 MB; a drill uses about 60 settings.
MOST_KEPT = 64
Value = TypeVar("Value")
_KEPT: dict[Hashable, Any] = {}


def kept(lab: Lab, key: Hashable, make: Callable[[], Value]) -> Value:
    """`make()`, once for this model, its dtypes and seed, and `key`."""
    whole = (lab.model_folder, lab.rollout_dtype, lab.trainer_dtype, lab.seed, key)
    if whole not in _KEPT:
        while len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT)))  # the oldest
        _KEPT[whole] = make()
    value: Value = _KEPT[whole]
    return value


def sampling_of(setting: Setting) -> Sampling:
    return Sampling(
        setting.max_tokens, setting.temperature, setting.top_p, setting.top_k, setting.min_p
    )


def rollout(lab: Lab, setting: Setting) -> Sampled:
    """By the engine as it is."""
    return kept(
        lab,
        ("rollout", setting),
        lambda: lab.roll_out(
            lab.engine(),
            lab.prompts(setting.sequences, setting.seed, setting.context),
            sampling_of(setting),
            processed=setting.processed,
            batch=setting.batch,
            seed=setting.seed,
        ),
    )


def scores(
    lab: Lab, setting: Setting, sampled: Sampled, temperature: float | None = None
) -> Scored:
    """By the trainer as it is, at the temperature that fits the reported log-probabilities."""
    fitting = setting.temperature if sampled.processed else 1.0
    return lab.score(
        lab.trainer(),
        sampled,
        temperature=fitting if temperature is None else temperature,
        microbatch=setting.microbatch,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    sampled: Sampled
    scored: Scored

    @property
    def limits(self) -> NDArray[np.int64]:
        """[sequences + 1] of the packed tokens."""
        return np.concatenate([[0], np.cumsum([len(ids) for ids in self.sampled.responses])])


def pair(lab: Lab, setting: Setting) -> Pair:
    """A healthy one, the same at each call."""
    sampled = rollout(lab, setting)
    return Pair(sampled, kept(lab, ("scores", setting), lambda: scores(lab, setting, sampled)))


def chosen(count: int, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """At least one of `count` rows, about `fraction` of them, in order."""
    most = min(count, max(1, round(fraction * count)))
    return np.sort(rng.choice(count, most, replace=False))


def between(low: float, high: float, severity: float) -> float:
    """`low` at severity 0, `high` at 1."""
    return low + (high - low) * severity


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One turn of all conversations. observations: what follows it, tokens that nobody sampled."""

    sampled: Sampled  # its prompts are the whole context so far
    observations: Prompts  # empty ones after the last turn


def conversation(
    lab: Lab, setting: Setting, turns: int, observations: Callable[[int], Prompts]
) -> tuple[Turn, ...]:
    """The setting's tokens in `turns` turns; `observations(i)` answers turn i, a row each."""

    def make() -> tuple[Turn, ...]:
        contexts = lab.prompts(setting.sequences, setting.seed, setting.context)
        sampling = replace(sampling_of(setting), max_tokens=max(2, setting.max_tokens // turns))
        made: list[Turn] = []
        for index in range(turns):
            sampled = lab.roll_out(
                lab.engine(),
                contexts,
                sampling,
                processed=setting.processed,
                batch=setting.batch,
                seed=setting.seed + index,
            )
            last = index + 1 == turns
            answers = tuple(() for _ in contexts) if last else observations(index)
            made.append(Turn(sampled, answers))
            contexts = tuple(
                before + response + answer
                for before, response, answer in zip(
                    contexts, sampled.responses, answers, strict=True
                )
            )
        return tuple(made)

    return kept(lab, ("conversation", setting, turns), make)


class Recorder:
    """Stands for a model while a lab scores, and keeps its logits, one tensor per microbatch."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.logits: list[Tensor] = []

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        self.logits.append(output.logits)
        return output


def logits_of(lab: Lab, model: Any, sampled: Sampled, microbatch: int) -> list[Tensor]:
    """Per sequence [len(response), vocabulary], in the model's dtype."""
    recorder = Recorder(model)
    lab.score(recorder, sampled, microbatch=microbatch)
    rows = [row for part in recorder.logits for row in part]
    return [
        row[len(prompt) - 1 : len(prompt) - 1 + len(response)]
        for row, prompt, response in zip(rows, sampled.prompts, sampled.responses, strict=True)
    ]
