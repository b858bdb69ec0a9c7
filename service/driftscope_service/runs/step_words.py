"""What a step's analysis says of its values, places and inputs, as sentences.

In: a stored or fresh analysis. Out: sentences; none of what an older version did not look at. The
terminal and the page of a step show the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftscope_probes.mismatch.oddities import FaultyKinds
from driftscope_service.numbers.metric_words import number

#: Odd values that a first look names; the page and --all have the rest.
MOST_NAMED: Final = 3


def hygiene_sentences(analysis: Mapping[str, Any], *, every: bool = False) -> list[str]:
    """Faulty values, the most frequent first, and what is left without them; with `every` also
    what is mere rounding."""
    hygiene = analysis.get("hygiene")
    if hygiene is None:
        return []
    found = [one["sentence"] for one in hygiene["found"] if every or one["faulty"]]
    shown = found if every else found[:MOST_NAMED]
    if len(found) > len(shown):
        shown.append(f"{len(found) - len(shown)} more kinds of odd values in --all.")
    left = hygiene["without_them"]
    if hygiene["tokens"] and left["abs_diff_mean"] is not None:
        count = hygiene["tokens"]
        those = "that token" if count == 1 else f"those {count:,} tokens"
        shown.append(f"Without {those} mean |Δ| is {number(left['abs_diff_mean'])} nats.")
    return shown


def faulty_kinds(analysis: Mapping[str, Any]) -> FaultyKinds:
    """The repeated constants, and whether zeros are placeholders, of both sides."""
    found = (analysis.get("hygiene") or {}).get("found", [])
    faulty = [one for one in found if one["faulty"]]
    constants = {one["side"]: one["value"] for one in faulty if one["kind"] == "constant"}
    zeros = {one["side"] for one in faulty if one["kind"] == "zero"}
    return FaultyKinds(
        (constants.get("rollout"), constants.get("trainer")),
        ("rollout" in zeros, "trainer" in zeros),
    )


def place_sentence(analysis: Mapping[str, Any]) -> str | None:
    """Where the differences lie; None where no place stands out or nobody looked."""
    sentence: str | None = (analysis.get("profiles") or {}).get("sentence")
    return sentence


def unused_sentence(analysis: Mapping[str, Any]) -> str | None:
    """What the step brought and nothing reads."""
    unused = analysis.get("unused") or []
    if not unused:
        return None
    told = "; ".join(f"{one['name']} ({one['why']})" for one in unused)
    return f"Used by nothing: {told}."
