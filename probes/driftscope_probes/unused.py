"""Unused: what a step brought and no number, plot or diagnosis looks at; nobody need wait for it.

In: PushedStep. Out: UnusedInput, with what would make it count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from driftscope_probes.diagnosis.observed import countable_version
from driftscope_probes.diagnosis.settings import NAMES
from driftscope_probes.push.pushed_step import PushedStep

#: Read beside the settings: names of environments, the format itself, and what pages and reports
#: show of who made the step.
OTHER_NAMES: Final = frozenset(
    {"schema_version", "environments", "framework", "engine", "engine_version", "tokenizer"}
)
READ_NAMES: Final = frozenset(chain.from_iterable(NAMES.values())) | OTHER_NAMES


@dataclass(frozen=True, slots=True)
class UnusedInput:
    name: str  # of a tensor, or `metadata NAME`
    why: str  # a clause: what is missing for it to count

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "why": self.why}


def unused_inputs(step: PushedStep) -> tuple[UnusedInput, ...]:
    extras, found = step.extras, []
    versions = {
        "behavior_version": extras.behavior_version,
        "token_behavior_version": extras.token_behavior_version,
    }
    if not countable_version(step.metadata):
        why = "lags need the trainer's own step as the metadata entry weights_version"
        found += [UnusedInput(name, why) for name, own in versions.items() if own is not None]
    if step.rollout_token_ids is not None and extras.token_ids is None:
        why = "it is compared with token_ids, which were not pushed"
        found.append(UnusedInput("rollout_token_ids", why))
    if extras.environment is not None and extras.environment.size:
        names = step.metadata.get("environments", "").split(",")
        idle = sorted(set(range(len(names))) - set(extras.environment.tolist()))
        if idle and names != [""]:
            shown = ", ".join(names[number] for number in idle)
            found.append(UnusedInput("metadata environments", f"no sequence is of {shown}"))
    for name in sorted(step.metadata):
        if name.lower() not in READ_NAMES:
            found.append(UnusedInput(f"metadata {name}", "kept and shown, read by no number"))
    return tuple(found)
