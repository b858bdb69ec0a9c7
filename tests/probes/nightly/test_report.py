"""What counts as a change, in which direction, and which exit code follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from driftscope_probes.device.environment import Change
from driftscope_probes.nightly.item import EngineItem, Finding, Item, KernelItem
from driftscope_probes.nightly.report import (
    Earlier,
    JudgedItem,
    NightConfig,
    NightKey,
    NightlyReport,
    alarms,
    changed_environment,
    comparable,
    exit_code,
    judge,
)


def kernel(expected: str = "PROVED") -> Item:
    return KernelItem("a/linear/one", "fp32", 1, None, True, 0, expected)


def engine(expected: str = "equal", **settings: Any) -> Item:
    return EngineItem("m", "vllm", "stock", "bf16", "batch_size", None, settings, expected)


def judged(item: Item, verdict: str, before: str | None = None) -> JudgedItem:
    earlier = before and Earlier(before, item.expected, item.settings, "2026-11-21")
    return JudgedItem(item, Finding(verdict, 1.0, {}, None), earlier or None)


@pytest.mark.parametrize(
    ("item", "verdict", "before", "changed", "code"),
    [
        (kernel(), "PROVED", None, "new", 0),
        (kernel(), "PROVED", "PROVED", None, 0),
        (kernel(), "PROVED", "REFUTED", "better", 1),
        (kernel(), "PROVED", "NOT_REFUTED", "better", 1),
        (kernel(), "REFUTED", "PROVED", "worse", 1),
        (kernel(), "INCONCLUSIVE", "PROVED", "worse", 1),
        (kernel(), "REFUTED", "REFUTED", None, 1),
        (kernel(), "REFUTED", None, "new", 1),
        (kernel("REFUTED"), "PROVED", "REFUTED", "better", 1),
        (kernel("REFUTED"), "REFUTED", "REFUTED", None, 0),
        (kernel(), "NOT_RUN", "PROVED", None, 2),
        (engine(), "equal", "equal", None, 0),
        (engine(), "differs", "equal", "worse", 1),
        (engine("differs"), "equal", "differs", "better", 1),
        (engine(), "not_run", None, None, 2),
    ],
)
def test_direction_and_exit_code(
    item: Item, verdict: str, before: str | None, changed: str | None, code: int
) -> None:
    one = judged(item, verdict, before)
    assert one.changed == changed
    assert one.report().as_expected == (verdict == item.expected)
    found = reasons(one)
    assert exit_code([one], found) == code
    assert all(item.id in reason for reason in found)


def test_what_was_found_outweighs_what_was_not_run() -> None:
    both = [judged(kernel(), "REFUTED", "PROVED"), judged(engine(), "not_run")]
    assert exit_code(both, list(alarms(both, [], fail_on_environment=True, fail_on_bits=True))) == 1


@pytest.mark.parametrize(
    ("kind", "alarming"),
    [("hardware", True), ("version", True), ("own", False), ("variable", False), ("config", False)],
)
def test_only_hardware_and_versions_are_a_reason_of_their_own(kind: Any, alarming: bool) -> None:
    change = Change(kind=kind, name="torch", before="2.12", after="2.13")
    found = list(alarms([], [change], fail_on_environment=True, fail_on_bits=True))
    assert found == (["torch: 2.12 last night, 2.13 now"] if alarming else [])
    assert list(alarms([], [change], fail_on_environment=False, fail_on_bits=True)) == []


def computing(
    bits: str | None, axis: str | None = None, verdict: str = "PROVED", name: str = "one"
) -> JudgedItem:
    """Computed `abc` before; now `bits`."""
    item = KernelItem(f"a/linear/{name}", "fp32", 1, axis, True, 0, "PROVED")
    earlier = Earlier("PROVED", "PROVED", item.settings, "2026-11-21", "abc")
    return JudgedItem(item, Finding(verdict, 1.0, {"bits": bits}, None), earlier)


def reasons(*judged: JudgedItem, fail_on_bits: bool = True) -> list[str]:
    return list(alarms(judged, [], fail_on_environment=True, fail_on_bits=fail_on_bits))


def test_other_bits_are_a_reason_though_the_verdict_holds() -> None:
    assert reasons(computing("abc")) == reasons(computing(None)) == []
    other = computing("abd"), computing("abd", "batch_size")
    assert reasons(*other) == [
        "bits: other than on the last night while verdicts hold: kernel/a/linear/one/fp32/t1"
    ]
    assert reasons(*other, fail_on_bits=False) == []
    # A verdict that changed says more.
    (worse,) = reasons(computing("abd", verdict="REFUTED"), computing("abd", "batch_size"))
    assert worse.startswith("kernel/a/linear/one/fp32/t1: REFUTED")


def test_bits_of_another_question_are_not_compared() -> None:
    one = computing("abd")
    assert one.earlier is not None
    asked = replace(one.earlier, settings={"quick": False, "seed": 0})
    assert not replace(one, earlier=asked).other_bits
    assert not replace(one, earlier=replace(one.earlier, bits=None)).other_bits
    assert not replace(one, earlier=None).other_bits


def test_many_other_bits_are_one_line() -> None:
    ones = [computing("abd", name=str(number)) for number in range(8)]
    (line,) = reasons(*ones)
    assert line.count("kernel/") == 5 and line.endswith("a/linear/4/fp32/t1 and 3 more")


def report(hardware: str, night: str, **more: Any) -> NightlyReport:
    key = NightKey(hardware={"cpu": hardware})
    fields: dict[str, Any] = {"started_at": night, "key": key, "items": (), **more}
    return NightlyReport.model_construct(**fields)


def test_the_last_night_on_which_an_item_ran_counts() -> None:
    item = kernel()
    found = [judged(item, verdict).report() for verdict in ("NOT_RUN", "REFUTED", "PROVED")]
    reports = [report("x", f"night {n}", items=(old,)) for n, old in enumerate(found)]
    (one,) = judge([item], {item.id: Finding("PROVED", 1.0, {}, None)}, reports)
    assert one.earlier is not None
    assert (one.earlier.verdict, one.earlier.night, one.changed) == ("REFUTED", "night 1", "better")


def test_nights_of_other_hardware_count_only_where_there_is_no_other() -> None:
    reports = [report("other", "2"), report("same", "1")]
    assert comparable(reports, {"cpu": "same"}) == [reports[1]]
    assert comparable(reports, {"cpu": "third"}) == reports


def test_settings_and_expectations_that_changed_are_named() -> None:
    environment: dict[str, Any] = {
        **{"python": "3", "platform": "Linux", "commit": None, "variables": {}, "packages": {}},
        **{"hardware": {}, "libraries": {}, "kernel_packages": {}},
    }
    item = engine(attention_split_kv=True)
    earlier = Earlier("equal", "differs", {"attention_split_kv": False}, "night")
    one = JudgedItem(item, Finding("equal", 1.0, {}, None), earlier)
    config = NightConfig(name="stub", sha256="a")
    last = report("x", "night", environment=environment, config=config)
    found = changed_environment(last, environment, "b", [one])
    assert [(change.name, change.before, change.after) for change in found] == [
        ("configuration", "a", "b"),
        (f"{item.id}: expected", "differs", "equal"),
        (f"{item.id}: attention_split_kv", False, True),
    ]
    assert changed_environment(None, environment, "b", [one]) == ()
