"""Which column of a file each of ours is read from: own names, names of frameworks, or as told.

In: the names in a file, and what the user mapped (`--columns ours=theirs,…`). Out: ours → theirs,
or PushError with the names that are there. Names of frameworks are those of their sources: verl 0.9
(DataProto: rollout_log_probs, old_log_probs, response_mask, responses), slime and miles
(rollout_data: rollout_log_probs, log_probs, loss_masks), TRL 1.16 (GRPOTrainer:
sampling_per_token_logps, old_per_token_logps, completion_mask, completion_ids), NeMo-RL (grpo.py:
generation_logprobs, prev_logprobs, token_loss_mask), prime-rl (token_export.py: inference_logprobs,
loss_mask), OpenRLHF and SkyRL (experience: action_log_probs, action_mask), AReaL (ppo/actor.py:
prox_logp).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, Literal

from driftscope_probes.push.rules import (
    NAMES_ELSEWHERE,
    REQUIRED,
    RULES,
    PushError,
    UnknownColumns,
    rename_remedy,
)

Side = Literal["rollout", "trainer"]
COLUMN_OF: Final[Mapping[Side, str]] = dict(zip(("rollout", "trainer"), REQUIRED, strict=True))

#: As well as those of NAMES_ELSEWHERE, which an error names.
_MORE: Final[Mapping[str, tuple[str, ...]]] = {
    "rollout_logprobs": (
        *("sampling_logprobs", "sampler_logprobs", "behavior_logprobs", "engine_logprobs"),
        *("vllm_logprobs", "sglang_logprobs"),
    ),
    "trainer_logprobs": (
        *("action_log_probs", "old_logprobs", "prox_logp", "train_logprobs"),
        *("training_logprobs",),
    ),
    "mask": ("loss_masks", "action_mask", "token_loss_mask", "token_mask"),
    "token_ids": ("response_ids",),
}
#: Ours → what else it is called, where our own name is not there.
ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    ours: (*(name for name, known in NAMES_ELSEWHERE.items() if known == ours), *more)
    for ours, more in _MORE.items()
}
#: Of a file that holds one side, also names that do not say whose it is.
EITHER: Final = ("logprobs", "log_probs", "logps", "logp", "per_token_logps", "token_logprobs")
#: Describes a sample and is no per-token number: left out. Anything else may be a misspelt name.
BESIDE: Final = frozenset(
    "reward rewards raw_reward score scores prompt prompts completion completions text content "
    "input output gts ground_truth label answer question step idx index id uid sample_id "
    "request_id group_id group_index sample_index task task_name data_source finish_reason "
    "stop_reason acc rollout_id input_lengths response_lengths total_lengths".split()
)
#: Says, in a table with one token per row, to which sequence a row belongs.
SEQUENCE: Final = "sequence"
SEQUENCE_ELSEWHERE: Final = (
    *("sequence_id", "seq", "seq_id", "sequence_index", "sample", "sample_id", "sample_index"),
    *("response_id", "request_id", "idx", "id", "uid"),
)
#: In a message: more would not be read.
MAX_SHOWN: Final = 24
MAX_SHOWN_CHARACTERS: Final = 40
#: As close as this to a name that is accepted, a name is a slip rather than another thing.
SLIP: Final = 0.8


@dataclass(frozen=True, slots=True)
class ColumnNames:
    given: Mapping[str, str] = field(default_factory=dict)  # ours → theirs, as the user mapped them
    side: Side | None = None  # the file holds this one only, and it is read as both

    def knows(self, names: Iterable[str]) -> bool:
        """Whether a side's log-probabilities may be among these names."""
        sides = (name for side in REQUIRED for name in (side, *ELSEWHERE[side]))
        known = {*sides, *self.given.values(), *(EITHER if self.side is not None else ())}
        return any(name in known for name in names)

    def chosen(
        self, names: Iterable[str], accepted: Sequence[str], what: str = "there is a column"
    ) -> dict[str, str]:
        """Ours → theirs, of those to read; what is accepted is what the format can hold."""
        there = list(names)
        if self.side is not None:
            return self._of_one_side(there, accepted)
        if self.given:
            return self._as_told(there, accepted)
        found, doubtful = _recognised(there, accepted)
        foreign = any(found.get(name, name) != name for name in REQUIRED)
        taken = set(found.values())
        for name in there:
            if name in taken or name in BESIDE:
                continue
            if not foreign or name in doubtful or _slip(name, accepted):
                neither = not any(side in found for side in REQUIRED) and not doubtful
                if neither:
                    raise _neither_side(there, what, [one for one in there if one not in taken])
                raise _unknown(f"{what} {name[:80]!r}", name, accepted, doubtful)
        return found

    def _as_told(self, there: Sequence[str], accepted: Sequence[str]) -> dict[str, str]:
        """What is not mapped is read where its name is known, and left out where it is not."""
        for ours, theirs in self.given.items():
            if theirs not in there:
                raise UnknownColumns(
                    f"{ours} was to be read from {theirs[:80]!r}, which is not there; there are "
                    f"{shown(there)}.",
                    remedy=f"give --columns {ours}=NAME with one of these.",
                )
        taken = set(self.given.values())
        rest, _ = _recognised([name for name in there if name not in taken], accepted)
        return {**rest, **{ours: name for ours, name in self.given.items() if ours in accepted}}

    def _of_one_side(self, there: Sequence[str], accepted: Sequence[str]) -> dict[str, str]:
        assert self.side is not None, "asked for one side only"
        ours = COLUMN_OF[self.side]
        told = self.given.get(ours)
        candidates = (told,) if told else (ours, *ELSEWHERE[ours], *EITHER)
        theirs = next((name for name in candidates if name in there), None)
        if theirs is None:
            raise UnknownColumns(
                f"no column of it is the {self.side}'s log-probabilities; it has {shown(there)}.",
                remedy=f"call it {ours}, or say which it is: --columns {ours}=NAME.",
            )
        others = ColumnNames({k: v for k, v in self.given.items() if k not in REQUIRED})
        rest = [name for name in there if name != theirs]
        found = others._as_told(rest, accepted)
        return {**found, **dict.fromkeys(REQUIRED, theirs)}


AS_THEY_ARE: Final = ColumnNames()


def parse_columns(text: str) -> dict[str, str]:
    """`rollout_logprobs=gen_logp,trainer_logprobs=old_logp` → ours → theirs."""
    found: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not equals or not theirs or ours in found:
            raise PushError(
                f"--columns {part.strip()[:80]!r} is not OURS=THEIRS, each name once.",
                remedy="write --columns rollout_logprobs=gen_logp,trainer_logprobs=old_logp.",
            )
        if ours not in RULES and ours != SEQUENCE:
            raise PushError(
                f"--columns maps {ours[:80]!r}, which is none of ours: {', '.join(RULES)} and, of "
                f"tables with one token per row, {SEQUENCE}.",
                remedy="write our name first: --columns rollout_logprobs=gen_logp.",
            )
        found[ours] = theirs
    return found


def shown(names: Iterable[str]) -> str:
    listed = [f"{name[:MAX_SHOWN_CHARACTERS]}" for name in names]
    more = f" and {len(listed) - MAX_SHOWN} more" if len(listed) > MAX_SHOWN else ""
    return (", ".join(listed[:MAX_SHOWN]) or "none") + more


def _recognised(
    there: Sequence[str], accepted: Sequence[str]
) -> tuple[dict[str, str], Mapping[str, str]]:
    """Ours → theirs; and names that might be one of ours as well → ours."""
    found = {name: name for name in accepted if name in there}
    doubtful: dict[str, str] = {}
    for ours, elsewhere in ELSEWHERE.items():
        others = [name for name in elsewhere if name in there and ours in accepted]
        if ours not in found and len(others) == 1:
            found[ours] = others[0]
        else:
            doubtful |= dict.fromkeys(others, ours)
    return found, doubtful


def missing(name: str, add: str, where: str = "there is") -> UnknownColumns:
    """One of the two sides is not there."""
    side = next(side for side, column in COLUMN_OF.items() if column == name)
    option = (
        "" if side == "rollout" else "; where the trainer's are in another file, --trainer FILE"
    )
    return UnknownColumns(
        f"{where} no {name}.",
        remedy=f"add {name}: {add}; or say which column it is, --columns {name}=NAME{option}.",
    )


def _slip(name: str, accepted: Sequence[str]) -> bool:
    return bool(get_close_matches(name, accepted, cutoff=SLIP))


def _neither_side(there: Sequence[str], what: str, unknown: Sequence[str]) -> UnknownColumns:
    first, second = (*unknown, "NAME")[:2]
    return UnknownColumns(
        f"{what} {first[:80]!r}, and none that is known as a side's log-probabilities; there are "
        f"{shown(there)}.",
        remedy="say which column is which: --columns "
        f"{REQUIRED[0]}={first[:80]},{REQUIRED[1]}={second[:80]}",
    )


def _unknown(
    found: str, name: str, accepted: Sequence[str], doubtful: Mapping[str, str]
) -> UnknownColumns:
    message = f"{found}; accepted are {', '.join(accepted)}."
    ours = doubtful.get(name)
    remedy = rename_remedy(name)
    if ours is not None:
        remedy = f"say which column is {ours}: --columns {ours}={name}; the others are left out."
    return UnknownColumns(message, remedy=remedy)
