"""Whatever a stored analysis looks like, what is read of it is what a whole reading gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftscope_service.runs.run_states import DiagnosedNumbers, stored_numbers

COMPACT = (",", ":")
CROSSED = [{"metric": "kl_k3", "value": None}, {"metric": "kl_k1", "value": 1.0}]
DOCUMENT: dict[str, Any] = {
    "comparison": {"kl_k1": 1.0, "intervals": {"kl_k1": [0.5, 2.0]}},
    "diagnosis": None,
    "aliases": {"verl": {"a": 1.0}},
    "presets": {},
    "crossed_limits": CROSSED,
    "profiles": {"abs_diff_histogram": {"zero": 3}},
}


def written(document: dict[str, Any], separators: tuple[str, str] = COMPACT) -> bytes:
    return json.dumps(document, separators=separators).encode()


@pytest.mark.parametrize("separators", [COMPACT, (", ", ": ")])
def test_numbers_limits_and_histogram(separators: tuple[str, str]) -> None:
    found = stored_numbers(written(DOCUMENT, separators))
    assert found.comparison == DOCUMENT["comparison"]
    assert found.abs_diff_histogram == {"zero": 3}
    assert found.overflowed == {"kl_k3"}


def test_the_middle_of_what_the_intake_writes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    loads = json.loads

    def counted(text: str) -> Any:
        read.append(len(text))
        return loads(text)

    monkeypatch.setattr(json, "loads", counted)
    document = DOCUMENT | {"aliases": {"verl": {"a" * 1000: 1.0}}}
    assert stored_numbers(written(document)) == stored_numbers(written(DOCUMENT))
    assert max(read) < 200


@pytest.mark.parametrize("separators", [COMPACT, (", ", ": ")])
def test_the_diagnosis_in_numbers(diagnoses: Any, separators: tuple[str, str]) -> None:
    document = DOCUMENT | {"diagnosis": diagnoses.stored(diagnoses.bug_like)}
    document["diagnosis"]["causes"].append({"name": "router_replay_corrupt", "confidence": 0.0})
    found = stored_numbers(written(document, separators))
    assert found.diagnosis == DiagnosedNumbers(
        "bug_like",
        11.24,
        {"temperature_semantics": 0.931, "rope_config": 0.04, "norm_eps": 0.011},
        False,
    )
    assert found.overflowed == {"kl_k3"}
    assert stored_numbers(written(DOCUMENT, separators)).diagnosis is None


@pytest.mark.parametrize("missing", [["profiles"], ["crossed_limits", "profiles"], [*DOCUMENT]])
def test_a_step_of_an_older_version(missing: list[str]) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name not in missing}
    found = stored_numbers(written(document))
    assert found.comparison == document.get("comparison", {})
    assert found.abs_diff_histogram is None
    assert found.overflowed == ({"kl_k3"} if "crossed_limits" in document else set())


TRICKS = st.sampled_from(
    [
        "crossed_limits",
        ',"crossed_limits":[]',
        ',"crossed_limits":[]}',
        "comparison",
        "profiles",
        "a",
    ]
)
VALUES: Any = st.recursive(
    st.none() | TRICKS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKS, inner, max_size=4),
    max_leaves=12,
)
NESTED: Any = st.dictionaries(TRICKS, VALUES, max_size=4)


@given(NESTED, NESTED, NESTED, st.permutations([*DOCUMENT]), st.integers(0, 6))
def test_names_within_names_mislead_nobody(
    comparison: Any, aliases: Any, profiles: Any, order: list[str], left: int
) -> None:
    document = DOCUMENT | {
        "comparison": comparison,
        "aliases": aliases,
        "profiles": profiles | {"abs_diff_histogram": {"zero": 1}},
    }
    # In the order of the intake, and in any other.
    for names in ([*DOCUMENT], order[:left], [*DOCUMENT][:left]):
        part = {name: document[name] for name in names}
        found = stored_numbers(written(part))
        assert found.comparison == part.get("comparison", {})
        assert found.abs_diff_histogram == part.get("profiles", {}).get("abs_diff_histogram")
        assert found.overflowed == ({"kl_k3"} if "crossed_limits" in part else set())
