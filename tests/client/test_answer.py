"""What a trainer hears of the diagnosis: the callback, the log, its own metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from driftscope_client import DriftscopeClient
from driftscope_client.answer import (
    HEADLINE,
    LOGGED,
    NUMBERS,
    PREFIX,
    VERDICTS,
    WORDS,
    StepDiagnosis,
    diagnosis_of,
)
from driftscope_probes.verdicts import COMPARISON_RANK
from driftscope_service.numbers import metric_words

Serve = Callable[..., Any]
Connect = Callable[..., DriftscopeClient]
PATIENCE_S = 30.0
DTYPES = {"rollout_dtype": "bf16", "trainer_dtype": "bf16"}


def analysis(step: int, verdict: str, cause: str | None, excess: float | None = 8.0) -> Any:
    causes = [] if cause is None else [{"name": cause, "confidence": 0.9}]
    told = {"verdict": verdict, "sentence": f"{verdict} by {cause}.", "excess": excess}
    body = {"state": "complete", "step": step, "diagnosis": {**told, "causes": causes}}
    return 201, body, {}


def test_verdicts_are_ordered_as_the_service_orders_them() -> None:
    assert {word: rank for rank, word in enumerate(VERDICTS)} == COMPARISON_RANK
    assert set(LOGGED) <= set(VERDICTS)


def test_the_callback_gets_the_diagnosis(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    answers: list[dict[str, Any]] = []
    told = analysis(1, "bug_like", "off_by_one")
    client = connect(serve(told).url, on_result=answers.append)
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    assert answers == [json.loads(json.dumps(told[1]))]
    assert client.last_diagnosis == StepDiagnosis(
        1, "bug_like", "bug_like by off_by_one.", 8.0, "off_by_one", 0.9
    )
    assert client.metrics() == {
        "driftscope/step": 1.0,
        "driftscope/verdict": 3.0,
        "driftscope/excess": 8.0,
        "driftscope/confidence": 0.9,
    }


def test_a_bad_verdict_is_logged_once_per_change(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    said = [
        ("at_floor", "bf16_rounding_tail"),
        *[("bug_like", "off_by_one")] * 3,
        *[("bug_like", "stale_engine_weights")] * 2,
        ("at_floor", "bf16_rounding_tail"),
        ("bug_like", "stale_engine_weights"),
        ("not_comparable", None),
    ]
    stub = serve(*(analysis(number, *one) for number, one in enumerate(said)))
    client = connect(stub.url, queue_size=len(said))
    with caplog.at_level(logging.WARNING, logger="driftscope_client"):
        for number in range(len(said)):
            client.push(number, metadata=DTYPES, **step)
            assert client.flush(PATIENCE_S)
    assert [record.getMessage() for record in caplog.records] == [
        "run r step 1: bug_like by off_by_one.",
        "run r step 4: bug_like by stale_engine_weights.",
        "run r step 7: bug_like by stale_engine_weights.",
        "run r step 8: not_comparable by None.",
    ]


def test_an_answer_that_comes_late_does_not_pass_for_the_newest(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    stub = serve(analysis(5, "bug_like", "off_by_one"), analysis(3, "at_floor", None, 0.5))
    client = connect(stub.url)
    client.push_now(5, **step)
    client.push_now(3, **step)
    assert client.last_diagnosis is not None and client.last_diagnosis.step == 5
    assert client.metrics()["driftscope/excess"] == 8.0


def test_the_headline_is_that_of_the_pages() -> None:
    assert HEADLINE == metric_words.HEADLINE
    assert {f"{PREFIX}{name}" for name in HEADLINE} < set(NUMBERS)
    assert all(name.startswith(PREFIX) for name in (*NUMBERS, *WORDS))


def test_a_logger_gets_every_number_and_word_in_one_flat_mapping(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    status, body, headers = analysis(1, "bug_like", "off_by_one")
    numbers = {name: 0.5 + place for place, name in enumerate(HEADLINE)}
    body["comparison"] = {**numbers, "tokens": 6, "intervals": {}}
    heard: list[dict[str, float | str]] = []
    client = connect(serve((status, body, headers)).url, on_metrics=heard.append)
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    (logged,) = heard
    assert set(logged) == {*NUMBERS, *WORDS}
    assert logged["driftscope/verdict_name"] == "bug_like"
    assert logged["driftscope/cause"] == "off_by_one"
    assert logged["driftscope/kl_k3"] == numbers["kl_k3"]
    floats = {name: value for name, value in logged.items() if name in NUMBERS}
    assert client.metrics() == floats
    assert {type(value) for value in floats.values()} == {float}


def test_what_is_undefined_is_left_out(
    serve: Serve, connect: Connect, step: dict[str, Any]
) -> None:
    status, body, headers = analysis(1, "not_comparable", None, None)
    body["comparison"] = {"prob_pearson": None, "abs_diff_mean": 2, "kl_k3": float("inf")}
    client = connect(serve((status, body, headers)).url)
    client.push_now(1, **step)
    assert client.metrics() == {
        "driftscope/step": 1.0,
        "driftscope/verdict": 4.0,
        "driftscope/abs_diff_mean": 2.0,
    }


def test_a_logger_that_raises_costs_nothing_but_a_warning(
    serve: Serve, connect: Connect, step: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no run is active")

    results: list[Any] = []
    options = {"on_result": results.append, "on_metrics": broken}
    client = connect(serve(analysis(1, "at_floor", None)).url, **options)
    client.push(1, metadata=DTYPES, **step)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed, len(results)) == (1, 0, 1)
    assert "on_metrics raised RuntimeError for step 1: no run is active" in caplog.text
    assert str(client.last_error) == "no run is active"


@pytest.mark.parametrize(
    "answer",
    [
        {"state": "open", "step": 1, "missing": [0]},
        {"state": "complete", "step": 1, "diagnosis": None},
    ],
)
def test_without_a_diagnosis_nothing_is_said(
    serve: Serve, connect: Connect, step: dict[str, Any], answer: dict[str, Any]
) -> None:
    client = connect(serve((201, answer, {})).url)
    client.push(1, **step)
    assert client.flush(PATIENCE_S)
    assert client.last_diagnosis is None and client.metrics() == {}
    assert client.failed == 0


def test_a_verdict_of_a_newer_service_is_no_number() -> None:
    found = diagnosis_of(analysis(1, "something_new", None, None)[1])
    assert found is not None and found.metrics() == {"driftscope/step": 1.0}
    assert found.words() == {"driftscope/verdict_name": "something_new"}
