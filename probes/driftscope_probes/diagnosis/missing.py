"""Missing: what was not pushed, and what it would have told.

In: an Examination and its verdict. Out: sentences, the most useful first.
"""

from __future__ import annotations

from driftscope_probes.diagnosis.body import FEW_TOKENS
from driftscope_probes.diagnosis.cause import ComparisonVerdict
from driftscope_probes.diagnosis.examination import Examination

FLOOR = "a calibrated floor (driftscope floor --model MODEL): the prior is that of other models"


def missing_data(
    seen: Examination, verdict: ComparisonVerdict, *, sure: bool = False
) -> tuple[str, ...]:
    """Nothing but the floor where there is no fault to tell, or it is told (`sure`)."""
    signals, extras, observed = seen.signals, seen.signals.extras, seen.observed
    if signals.unmasked == 0:
        return ("unmasked tokens: every token is masked",)
    found = []
    if signals.body.tokens < FEW_TOKENS:
        found.append(
            f"more tokens: {signals.body.tokens} with two log-probabilities, shapes need "
            f"{FEW_TOKENS}"
        )
    if verdict not in ("bitwise_equal",) and seen.floor.source == "prior":
        found.append(FLOOR)
    if seen.floor.assumed:
        found.append(f"metadata {' and '.join(seen.floor.assumed)}: bf16 was assumed")
    if verdict in ("bitwise_equal", "at_floor"):
        return tuple(found)
    if sure:
        return tuple(found)  # nothing that is asked for would change the answer
    versions = extras.behavior_version
    if versions is None:
        versions = extras.token_behavior_version
    wanted = (
        (extras.token_ids, "token_ids: whether equal contexts and equal tokens differ alike"),
        (
            observed.rollout_token_ids,
            "rollout_token_ids: whether the trainer scored the tokens that were sampled",
        ),
        (
            observed.advantages,
            "advantages: whether the trainer has moved along its own gradient (older weights)",
        ),
        (
            extras.position_ids if extras.position_ids is not None else extras.prompt_lengths,
            "position_ids or prompt_lengths: whether it begins at one absolute position, or with "
            "padding",
        ),
        (extras.entropy, "entropy: whether one temperature explains the difference"),
        (extras.turn_ids, "turn_ids: whether whole turns differ"),
        (versions, "behavior_version: whether it grows with the lag"),
        (extras.rank, "rank: whether one trainer rank differs"),
        (extras.replica, "replica: whether one engine replica differs"),
        (extras.cached_tokens, "cached_tokens: whether only cached prefixes differ"),
    )
    found += [text for value, text in wanted if value is None]
    return tuple(found)
