"""WeightsDigest: what one look at the weights of trainer and engine found, and its text form.

In: names and kinds. Out: the metadata entry `weights_digest` of a pushed step, one line of JSON
within the limits of push-format.md, and back. Free of torch: the service reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal[
    "equal",  # every tensor has the same bits
    "rounded_masters",  # the same after the trainer's wider weights were rounded to the engine's
    "stale",  # the engine holds an older version as a whole
    "tensor_not_sent",  # some tensors are those of an older version
    "tied_head_stale",  # lm_head multiplies with an older copy of the tied embedding
    "experts_stale",  # experts are those of an older version
    "adapter_not_merged",  # the engine holds the base model's weights, without the adapter
    "weights_lost",  # all bits are 0, as memory that was given back and not written since
    "unknown",  # none of these
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
#: The engine computes with what the trainer has.
MATCHING: Final = frozenset({"equal", "rounded_masters"})
#: Name of the metadata entry.
ENTRY: Final = "weights_digest"
#: A metadata entry has 1,024 characters: 6 of 100, in quotes, leave 400 for the rest.
MOST_NAMED: Final = 6
LONGEST_NAME: Final = 100
DIGEST_CHARACTERS: Final = 16
#: A step number has at most 15 digits.
LARGEST_NUMBER: Final = 10**15


@dataclass(frozen=True, slots=True)
class WeightsDigest:
    version: int  # optimiser steps done: the trainer's weights that were looked at
    trainer: str  # 16 hexadecimal digits over all tensors, in the engine's dtype
    engine: str  # the same of what the engine computes with
    differing: tuple[str, ...]  # as the trainer names them; the first MOST_NAMED
    kind: Kind
    differing_tensors: int = 0
    unseen_tensors: int = 0  # of which the engine shows no plain value
    versions_behind: int | None = None  # syncs since what the engine holds; None: not known
    function_diff: float | None = None  # largest |Δ| of known tokens, nats; None: not asked

    @property
    def matches(self) -> bool:
        return self.kind in MATCHING

    def __str__(self) -> str:
        """The value of the metadata entry."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "version": self.version,
            "rollout": self.engine,
            "trainer": self.trainer,
            "differing": [_short(name) for name in self.differing[:MOST_NAMED]],
            "differing_tensors": self.differing_tensors,
            "unseen_tensors": self.unseen_tensors,
            "versions_behind": self.versions_behind,
            "function_diff": self.function_diff,
        }
        return json.dumps(found, separators=(",", ":"))


def of_metadata(metadata: Mapping[str, str]) -> WeightsDigest | None:
    """Of a pushed step."""
    return read_text(metadata.get(ENTRY, ""))


def read_text(text: str) -> WeightsDigest | None:
    """None where it is not what `str` of a WeightsDigest gives: it then counts as not said."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        return None
    names = found.get("differing", [])
    sides = (found.get("trainer"), found.get("rollout"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    if not all(isinstance(side, str) and len(side) <= DIGEST_CHARACTERS for side in sides):
        return None
    version, count = _whole(found.get("version")), _whole(found.get("differing_tensors", 0))
    if version is None or count is None:
        return None
    return WeightsDigest(
        version=version,
        trainer=str(sides[0]),
        engine=str(sides[1]),
        differing=tuple(_short(name) for name in names[:MOST_NAMED]),
        kind=found["kind"],
        differing_tensors=max(count, len(names)),
        unseen_tensors=_whole(found.get("unseen_tensors")) or 0,
        versions_behind=_whole(found.get("versions_behind")),
        function_diff=_size(found.get("function_diff")),
    )


def _short(name: str) -> str:
    """The end of a name says more than its beginning. Printable ASCII, as metadata have to be."""
    plain = "".join(one if " " <= one <= "~" and one not in '"\\' else "?" for one in name)
    return plain if len(plain) <= LONGEST_NAME else f"...{plain[3 - LONGEST_NAME :]}"


def _whole(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_NUMBER
    return value if whole and isinstance(value, int) else None


def _size(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0.0 <= value < float("inf") else None
