"""The catalogue with causes of other packages: what is taken, what is refused, what they may do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from driftscope_probes.diagnosis import catalogue as module
from driftscope_probes.diagnosis.catalogue import MOST_OFFERED, CauseError, catalogue, check_cause
from driftscope_probes.diagnosis.cause import Evidence, Finding, Plot
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.examination import Examination
from driftscope_probes.diagnosis.families.base import Cause
from driftscope_probes.diagnosis.families.registry import CAUSES

from .made_up_policy import MadeUpPolicy


def sure(seen: Examination) -> Finding:
    return Finding(0.97, (Evidence("tokens", seen.signals.body.tokens, "none"),))


ACME = Cause(
    name="acme_fault",
    title="a fault of Acme's",
    level="comparable",
    mechanism="It comes about.",
    signature="It looks odd.",
    remedy="Mend it.",
    next_control="Run it once without.",
    detect=sure,
    plot=lambda seen: None,
)
#: Loaded by entry points below.
SEVERAL = (ACME, replace(ACME, name="acme_other", page="https://acme.example/other"))
TOO_MANY = tuple(replace(ACME, name=f"acme_{number}") for number in range(MOST_OFFERED + 1))


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    def offer(**values: str) -> None:
        entries = [EntryPoint(name, value, module.GROUP) for name, value in values.items()]
        monkeypatch.setattr(module, "entry_points", lambda group: entries)
        catalogue.cache_clear()

    yield offer
    monkeypatch.undo()
    catalogue.cache_clear()


def test_without_packages_it_is_ours(install: Install) -> None:
    install()
    assert (catalogue().causes, catalogue().refused) == (CAUSES, ())


def test_several_of_one_entry_are_taken_and_named(install: Install) -> None:
    install(acme=f"{__name__}:SEVERAL")
    assert [cause.name for cause in catalogue().causes[len(CAUSES) :]] == [
        "acme_fault",
        "acme_other",
    ]
    assert catalogue().by_name["acme_fault"].doc == "package ?"  # an entry of no distribution
    assert catalogue().by_name["acme_other"].doc == "https://acme.example/other"
    first = diagnose(MadeUpPolicy(3).pair().observed(bare=True)).causes[0]
    assert (first.name, first.plot, first.evidence[0].what) == ("acme_fault", None, "tokens")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
        (f"{__name__}:NOTHING", "cannot be loaded: AttributeError"),
        (f"{__name__}:sure", "of type function"),
        (f"{__name__}:TOO_MANY", f"more than {MOST_OFFERED}"),
    ],
)
def test_what_brings_no_cause_is_refused_with_its_name(
    install: Install, caplog: pytest.LogCaptureFixture, value: str, reason: str
) -> None:
    install(good=f"{__name__}:ACME", bad=value)
    with caplog.at_level(logging.WARNING, "driftscope"):
        assert [cause.name for cause in catalogue().causes[len(CAUSES) :]] == ["acme_fault"]
    (refused,) = catalogue().refused
    assert refused.entry == f"bad = {value}" and reason in refused.reason
    assert str(refused) in caplog.text


def test_two_of_one_name_are_not_both_taken(install: Install) -> None:
    install(first=f"{__name__}:ACME", second=f"{__name__}:SEVERAL")
    assert len(catalogue().causes) == len(CAUSES) + 1
    assert "acme_fault is taken" in catalogue().refused[0].reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Acme fault"}, "its name is 'Acme fault'"),
        ({"name": "off_by_one"}, "off_by_one is taken"),
        ({"name": "unexplained"}, "unexplained is taken"),
        ({"remedy": " "}, "remedy is not a text"),
        ({"title": "x" * 1001}, "title is not a text"),
        ({"level": "gateway"}, "is not one of comparable, alignment"),
        ({"detect": None}, "have to be functions"),
        ({"healthy": True}, "healthy is kept for rounding"),
        ({"alike": (3,)}, "alike is not a tuple of names"),
        ({"alike": 3}, "alike is not a tuple of names"),
        ({"page": 3}, "page 3 is not"),
        ({"page": "javascript:alert(1)"}, "is not an http or https address"),
    ],
)
def test_a_faulty_cause_is_told_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CauseError, match=said):
        check_cause(replace(ACME, **changes))
    check_cause(ACME)


def raises(seen: Examination) -> Finding:
    raise ZeroDivisionError("by nothing")


BAD_ANSWERS: dict[str, tuple[Any, str]] = {
    "raises": (raises, "by nothing"),
    "text": (lambda seen: "acme", "returned str"),
    "nan": (lambda seen: Finding(float("nan"), ()), "confidence is nan"),
    "two": (lambda seen: Finding(2.0, ()), "confidence is 2.0"),
    "list": (lambda seen: Finding(0.9, []), "not a tuple"),  # type: ignore[arg-type]
    "item": (lambda seen: Finding(0.9, ("odd",)), "not an Evidence"),  # type: ignore[arg-type]
    "value": (lambda seen: Finding(0.9, (Evidence("x", float("inf"), "0"),)), "no finite int"),
}
ANSWERS = {name: replace(ACME, detect=detect) for name, (detect, _) in BAD_ANSWERS.items()}
RAISES, TEXT, NAN, TWO, LIST, ITEM, VALUE = ANSWERS.values()
PLOTS = replace(ACME, plot=lambda seen: Plot("line", "t", "x", "y", (1.0, 2.0), (1.0,)))


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_faulty_detector_is_not_heard_and_said_once(
    install: Install, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    install(acme=f"{__name__}:{name.upper()}")
    module._say_once.cache_clear()
    observed = MadeUpPolicy(3).pair().observed(bare=True)
    with caplog.at_level(logging.WARNING, "driftscope"):
        answers = [diagnose(observed), diagnose(observed)]
    assert all("acme_fault" not in [one.name for one in answer.causes] for answer in answers)
    assert answers[0].verdict == "at_floor"
    (record,) = caplog.records
    assert "acme_fault of ? is not heard" in record.message
    assert BAD_ANSWERS[name][1] in record.message


def test_a_faulty_picture_is_left_out(install: Install) -> None:
    install(acme=f"{__name__}:PLOTS")
    first = diagnose(MadeUpPolicy(3).pair().observed(bare=True)).causes[0]
    assert (first.name, first.plot) == ("acme_fault", None)


def test_what_the_page_shows_is_taken_and_named(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "add-a-cause.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    shown = ModuleType("acme_causes_of_the_page")
    exec(code, vars(shown))
    monkeypatch.setitem(sys.modules, shown.__name__, shown)
    install(acme_gateway_prompt=f"{shown.__name__}:GATEWAY")
    policy = MadeUpPolicy(3)
    logits = policy.trainer_logits()
    pair = policy.pair(logits=logits + 0.5 * policy.rng.standard_normal(logits.shape))
    pair.metadata["acme_gateway"] = "2.3"
    first = diagnose(pair.observed(bare=True)).cause
    assert first is not None and first.name == "acme_gateway_prompt"
