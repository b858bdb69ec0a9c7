"""What pages show of a diagnosis: its parts as text, and the plot of its answer alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from driftscope_probes.verdicts import COMPARISON_VERDICTS
from driftscope_service.numbers.diagnosis_words import cause_name, excess_words, read_diagnosis
from driftscope_service.pages.diagnosis import TONES, diagnosis_view, plot_rows, shown_plot


def test_every_verdict_has_a_tone() -> None:
    assert TONES.keys() == COMPARISON_VERDICTS.keys()


@pytest.mark.parametrize("sort", ["bug_like", "at_floor", "unexplained", "not_comparable"])
def test_a_stored_diagnosis_is_read_as_it_was(diagnoses: Any, sort: str) -> None:
    diagnosis = getattr(diagnoses, sort)
    read = read_diagnosis(diagnoses.stored(diagnosis))
    assert read is not None and read.to_dict() == diagnosis.to_dict()
    # Whole numbers stay whole: 12,345 is no 12345.0.
    for before, after in zip(diagnosis.causes[0].evidence, read.causes[0].evidence, strict=True):
        assert (after.value, type(after.value)) == (before.value, type(before.value))
    assert read_diagnosis(None) is None and diagnosis_view(None) is None


def test_the_answer_and_the_candidates_stand_apart(diagnoses: Any) -> None:
    view = diagnosis_view(diagnoses.bug_like)
    assert view is not None and view.cause is not None
    assert (view.tone, view.word, view.cause.confidence) == ("bad", "bug-like", "0.93")
    assert [one.value for one in view.cause.evidence][:3] == [
        "0.612", "12,345", "from token 512 on",
    ]  # fmt: skip
    assert [one.name for one in view.others] == ["rope_config", "norm_eps"]
    assert view.plot is not None
    assert plot_rows(view.plot) == [("-3.00", "0.400"), ("-2.00", "–"), ("-1.00", "0.100")]


def test_a_candidate_shows_no_plot_and_is_no_answer(diagnoses: Any) -> None:
    cause = dataclasses.replace(diagnoses.bug_like.causes[0], confidence=0.4)
    unsure = dataclasses.replace(diagnoses.bug_like, causes=(cause,), unexplained=True)
    view = diagnosis_view(unsure)
    assert view is not None and view.cause is None and view.plot is None
    assert shown_plot(unsure) is None
    assert [one.name for one in view.others] == ["temperature_semantics"]
    assert cause_name(unsure) == "unexplained"


def test_where_nothing_has_to_be_explained_there_is_no_word_for_it(diagnoses: Any) -> None:
    plain = dataclasses.replace(diagnoses.at_floor, causes=())
    assert cause_name(plain) is None
    assert cause_name(diagnoses.at_floor) == "bf16_rounding_tail"


def test_which_floor_it_is_held_against(diagnoses: Any) -> None:
    assert excess_words(diagnoses.at_floor) == (
        "0.930 times the calibrated floor (bf16 × bf16, σ 0.0700 nats)"
    )
    assert excess_words(diagnoses.bug_like).endswith("nats; trainer dtype assumed)")
    assert excess_words(diagnoses.not_comparable) == "nothing that could be held against a floor"
    far = dataclasses.replace(diagnoses.bug_like, excess=3e9)
    assert excess_words(far).startswith("more than a million times the prior floor")
