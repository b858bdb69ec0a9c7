from __future__ import annotations

from typing import Any

from driftscope_probes.mismatch.oddities import FaultyKinds
from driftscope_service.runs.step_words import (
    faulty_kinds,
    hygiene_sentences,
    place_sentence,
    unused_sentence,
)


def analysis(*kinds: tuple[str, str, float | None, bool], tokens: int = 3) -> dict[str, Any]:
    found = [
        {"side": side, "kind": kind, "value": value, "faulty": faulty, "sentence": f"{kind}."}
        for side, kind, value, faulty in kinds
    ]
    left = {"tokens": 7, "abs_diff_mean": 0.02594}
    return {"hygiene": {"found": found, "tokens": tokens, "without_them": left}}


def test_an_older_analysis_says_nothing() -> None:
    assert hygiene_sentences({}) == [] and place_sentence({}) is None
    assert unused_sentence({}) is None and faulty_kinds({}) == FaultyKinds()


def test_the_first_look_leaves_rounding_out_and_counts_the_rest() -> None:
    kinds = [("rollout", kind, None, True) for kind in ("nan", "zero", "sentinel", "positive")]
    of = analysis(*kinds, ("trainer", "grid", None, False))
    assert hygiene_sentences(of) == [
        *("nan.", "zero.", "sentinel."),
        "1 more kinds of odd values in --all.",
        "Without those 3 tokens mean |Δ| is 0.0259 nats.",
    ]
    assert "grid." in hygiene_sentences(of, every=True)


def test_kinds_that_only_the_whole_step_tells() -> None:
    of = analysis(
        ("rollout", "constant", 1.0, True),
        ("trainer", "zero", 0.0, True),
        ("rollout", "zero", 0.0, False),
    )
    assert faulty_kinds(of) == FaultyKinds((1.0, None), (False, True))


def test_unused_inputs_in_one_sentence() -> None:
    unused = {"unused": [{"name": "a", "why": "b"}, {"name": "c", "why": "d"}]}
    assert unused_sentence(unused) == "Used by nothing: a (b); c (d)."
