"""The probe over made-up places: rows that fail, planted differences, what the report says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.matrix.places.base import LocalDefinition, PlaceError
from driftscope_probes.matrix.report import MatrixReport
from driftscope_probes.matrix.request import MatrixRequest
from driftscope_probes.matrix.run import chosen_places, run_matrix
from driftscope_probes.matrix.work import Answer
from driftscope_probes.progress import discard

from .made_up import LOGPROBS, TOKENS, MadeUp, answer, environment, greedy, moved, scores

REQUEST = MatrixRequest(
    model="tiny-random-llama",
    engine="hf",
    trainer_dtypes=["fp32"],
    prompts=2,
    max_tokens=3,
)
LOST = PlaceError("the node was lost.", remedy="look at it.")


def report(
    tiny_llama: Path, tmp_path: Path, places: Mapping[str, Answer | ProbeError | bytes]
) -> MatrixReport:
    made = [MadeUp(name, outcome) for name, outcome in places.items()]
    return run_matrix(REQUEST, made, tmp_path, discard, tiny_llama)


def test_places_that_agree(tiny_llama: Path, tmp_path: Path) -> None:
    found = report(tiny_llama, tmp_path, {"a": answer(), "b": answer()})
    assert found.verdict == "equal" and found.classes == (("a", "b"),)
    assert found.sentence == "2 places agree bit for bit in all that was computed."
    assert all(subject.pairs == () for subject in found.subjects)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert MatrixReport.read(found.to_dict()) == found


def test_a_planted_difference_is_found_where_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    """One unit in the last place, of one token, of one score, at one place."""
    planted = LOGPROBS.copy()
    planted[1, 0] = np.nextafter(planted[1, 0], np.float32(0))
    places = {"a": answer(), "b": answer(prefill=scores(planted)), "c": answer()}
    found = report(tiny_llama, tmp_path, places)
    assert found.verdict == "differs" and found.classes == (("a", "c"), ("b",))
    verdicts = {subject.words: subject.verdict for subject in found.subjects}
    assert verdicts == {
        "engine bf16 prefill": "differs",
        "engine bf16 greedy": "equal",
        "trainer fp32": "equal",
    }
    (pair,) = found.subjects[0].pairs
    assert (pair.first, pair.second) == ("a", "b") and pair.first_difference is not None
    assert (pair.first_difference.sequence, pair.first_difference.token) == (1, 0)
    assert "a and c agree bit for bit; b differs from a in 1 of 3 scores" in found.sentence


def test_other_greedy_tokens_are_counted(tiny_llama: Path, tmp_path: Path) -> None:
    tokens = TOKENS.copy()
    tokens[0, 2] = 77
    places = {"a": answer(), "b": answer(greedy=greedy(LOGPROBS, tokens))}
    found = report(tiny_llama, tmp_path, places)
    assert found.subjects[1].pairs[0].differing_tokens == 1
    assert "1 other token" in found.sentence


def test_a_place_that_does_not_repeat_itself(tiny_llama: Path, tmp_path: Path) -> None:
    unsteady = answer(forward=scores(LOGPROBS, again=moved(0.1)))
    found = report(tiny_llama, tmp_path, {"a": answer(), "b": unsteady})
    assert found.verdict == "not_repeatable"
    assert found.subjects[2].not_repeatable == ("b",)
    assert found.sentence == "b gave other bits when asked again."


@pytest.mark.parametrize("lost", [LOST, b"nonsense"], ids=["error", "malformed"])
def test_a_place_that_fails_is_a_row(
    tiny_llama: Path, tmp_path: Path, lost: ProbeError | bytes
) -> None:
    """Also where it is the first, which was to sample the tokens."""
    found = report(tiny_llama, tmp_path, {"gone": lost, "a": answer(), "b": answer()})
    assert [place.state for place in found.places] == ["failed", "ran", "ran"]
    assert found.places[0].reason and found.places[0].remedy
    assert found.classes == (("a", "b"),) and "gone could not be run." in found.sentence


def test_all_score_the_tokens_of_the_first(tiny_llama: Path, tmp_path: Path) -> None:
    places = [MadeUp("a", LOST), MadeUp("b", answer()), MadeUp("c", answer(), beside_others=True)]
    run_matrix(REQUEST, places, tmp_path, discard, tiny_llama)
    assert [place.asked[0].responses for place in places] == [None, None, ((1, 2, 3), (4, 5, 6))]


def test_one_answer_is_no_matrix(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the node was lost") as caught:
        report(tiny_llama, tmp_path, {"a": answer(), "b": LOST})
    assert caught.value.remedy == "look at it."


def test_the_environment_stands_beside_the_classes(tiny_llama: Path, tmp_path: Path) -> None:
    other = answer(environment(hardware={"cpu": "B"}), forward=scores(moved(0.5)))
    found = report(tiny_llama, tmp_path, {"a": answer(), "b": other})
    assert [fact.name for fact in found.facts] == ["cpu"]
    assert found.subjects[2].goes_with[0].makes_difference is True
    assert "cpu is the only difference found between a and b" in found.subjects[2].sentence
    assert found.subjects[0].goes_with[0].relation == "within"


def chosen(request: dict[str, Any], known: dict[str, Any]) -> list[str]:
    definitions = {name: LocalDefinition(**one) for name, one in known.items()}
    asked = MatrixRequest(model="m", **request)
    return [place.name for place in chosen_places(asked, definitions, None)]


def test_places_by_name() -> None:
    known = {"avx": {"variables": {"ONEDNN_MAX_CPU_ISA": "AVX"}}}
    assert chosen({}, {}) == ["here", "here"]
    assert chosen({}, known) == ["here", "avx"]
    assert chosen({"places": ["avx", "avx"]}, known) == ["avx", "avx"]
    with pytest.raises(RequestError, match="no place 'sse'"):
        chosen({"places": ["here", "sse"]}, known)
    with pytest.raises(RequestError, match="1 places were named"):
        chosen({"places": ["here"]}, known)


@pytest.mark.parametrize(
    "definition",
    [
        {"variables": {"PATH": "/tmp"}},
        {"variables": {"OMP_NUM_THREADS": "1\n"}},
        {"variables": {"omp": "1"}},
        {"python": "bin/python"},
        {"command": "sh"},
    ],
)
def test_definitions_that_are_refused(definition: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accept|absolute|permitted"):
        LocalDefinition(**definition)
