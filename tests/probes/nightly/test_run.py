"""Nights one after the other: what each of the planted changes gives, and that it is named."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from driftscope_probes.errors import RequestError
from driftscope_probes.nightly.history import ITEMS, REPORT, load_history
from driftscope_probes.progress import Progress

CHILDREN = Path(__file__).parent / "children"


def verdicts(result: Any) -> dict[str, str]:
    return {one.id.split("/", 1)[1].removesuffix("/fp32/t1"): one.verdict for one in result.items}


def test_two_nights_as_expected(nights: Any) -> None:
    first, second = nights.run(), nights.run()
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert [item.changed for item in first.items] == ["new"] * 4
    assert [item.changed for item in second.items] == [None] * 4
    assert first.alarms == second.alarms == ()
    assert second.changed_environment == ()
    # What is printed is what the history keeps.
    night = next(load_history(nights.history).finished())
    assert night.report == second


def test_a_verdict_that_changes_gives_1_once_if_it_is_then_expected(nights: Any) -> None:
    nights.run()
    nights.told["a/linear/two"]["verdict"] = "REFUTED"
    worse = nights.run()
    assert worse.exit_code == 1
    (alarm,) = worse.alarms
    assert alarm == (
        "kernel/a/linear/two/fp32/t1: REFUTED, expected PROVED; PROVED before, so it is worse now"
    )
    still = nights.run()
    assert still.exit_code == 1
    assert "the same as before" in still.alarms[0]
    nights.config += '[[kernels.override]]\nitems = "kernel/a/linear/two/*"\nexpected = "REFUTED"\n'
    assert nights.run().exit_code == 0
    nights.told["a/linear/two"]["verdict"] = "PROVED"
    better = nights.run()
    assert better.exit_code == 1
    assert "better now" in better.alarms[0]


def test_other_bits_give_1_once_and_are_named(nights: Any) -> None:
    nights.told["a/linear/two"]["bits"] = "a" * 64
    nights.told["b/mean/one"]["bits"] = "b" * 64
    nights.run()
    nights.told["a/linear/two"]["bits"] = "c" * 64
    other = nights.run()
    assert other.exit_code == 1
    (alarm,) = other.alarms
    assert alarm.startswith("bits: ") and alarm.endswith(": kernel/a/linear/two/fp32/t1")
    (change,) = other.changed_environment
    assert (change.kind, change.name) == ("bits", "bits of kernel/a/linear/two/fp32/t1")
    assert (change.before, change.after) == ("a" * 12, "c" * 12)
    assert [item.other_bits for item in other.items] == [False, True, False, False]
    assert nights.run().exit_code == 0
    nights.config = 'bits_change = "report"\n' + nights.config
    nights.told["a/linear/two"]["bits"] = "d" * 64
    reported = nights.run()
    assert reported.exit_code == 0
    assert "bits" in {change.kind for change in reported.changed_environment}


def test_an_expectation_that_was_altered_is_named(nights: Any) -> None:
    nights.run()
    nights.config = nights.config.replace('expected = "REFUTED"', 'expected = "PROVED"')
    result = nights.run()
    assert result.exit_code == 1
    (alarm,) = result.alarms
    assert "b/mean/two" in alarm and "REFUTED was expected then" in alarm
    named = {change.name for change in result.changed_environment}
    assert named == {"configuration", "kernel/b/mean/two/fp32/t1: expected"}


@pytest.mark.parametrize(
    ("part", "name", "before", "after"),
    [
        ("packages", "torch", "2.13.0", "2.14.0"),
        ("libraries", "oneDNN", "v3.12.0", "v3.13.0"),
        ("hardware", "cpu", "Some CPU", "Another CPU"),
    ],
)
def test_another_library_or_processor_gives_1_once_and_is_named(
    nights: Any, part: str, name: str, before: str, after: str
) -> None:
    nights.run()
    nights.environment[part][name] = after
    changed = nights.run()
    assert changed.exit_code == 1
    assert changed.alarms == (f"{name}: {before} last night, {after} now",)
    assert nights.run().exit_code == 0
    nights.config = 'environment_change = "report"\n' + nights.config
    nights.environment[part][name] = "third"
    reported = nights.run()
    assert reported.exit_code == 0
    assert name in {change.name for change in reported.changed_environment}


def test_a_version_altered_in_the_history_is_noticed(nights: Any) -> None:
    nights.run()
    (night,) = load_history(nights.history).nights
    report = json.loads((night.folder / REPORT).read_text(encoding="utf-8"))
    report["environment"]["packages"]["vllm"] = "0.31.0"
    (night.folder / REPORT).write_text(json.dumps(report), encoding="utf-8")
    result = nights.run()
    assert result.exit_code == 1
    assert result.alarms == ("vllm: 0.31.0 last night, 0.32.0 now",)


def test_each_machine_is_compared_with_itself(nights: Any) -> None:
    nights.run()
    nights.environment["hardware"]["cpu"] = "Another CPU"
    nights.run()
    nights.environment["hardware"]["cpu"] = "Some CPU"
    assert nights.run().exit_code == 0


def test_a_kernel_that_ends_the_process_costs_its_own_item_only(nights: Any) -> None:
    nights.told["a/linear/two"]["crash"] = True
    result = nights.run()
    assert result.exit_code == 2
    found = verdicts(result)
    assert found.pop("a/linear/two") == "NOT_RUN"
    assert set(found.values()) == {"PROVED", "REFUTED"}
    assert "SIGKILL" in result.items[1].detail["reason"]
    # The night after compares with the last one on which the item ran.
    del nights.told["a/linear/two"]["crash"]
    assert nights.run().exit_code == 0


def test_what_cannot_begin_is_not_run_and_says_why(nights: Any) -> None:
    nights.told["before all"] = {}
    result = nights.run()
    assert result.exit_code == 2
    assert set(verdicts(result).values()) == {"NOT_RUN"}
    reasons = {one.detail["reason"] for one in result.items}
    assert reasons == {"nothing can be loaded."}


def test_a_night_out_of_time_keeps_what_it_has_and_gives_2(nights: Any) -> None:
    nights.told["b/mean/one"]["sleep"] = 60
    result = nights.run(budget_s=8)
    assert result.exit_code == 2
    assert list(verdicts(result).values()) == ["PROVED", "PROVED", "NOT_RUN", "NOT_RUN"]
    assert "time budget" in result.items[2].detail["reason"]
    # It has ended: the next start is the next night.
    del nights.told["b/mean/one"]["sleep"]
    again = nights.run()
    assert (again.resumed, again.exit_code) == (0, 0)


def test_no_time_at_all_runs_nothing(nights: Any) -> None:
    result = nights.run(budget_s=0)
    assert result.exit_code == 2
    assert set(verdicts(result).values()) == {"NOT_RUN"}


def test_a_second_night_on_the_same_history_is_refused(nights: Any) -> None:
    nights.run()
    with FileLock(nights.history / ".lock"), pytest.raises(RequestError, match="another night"):
        nights.run()


@pytest.mark.parametrize("finished", [0, 1, 3, 4])
def test_an_interrupted_night_goes_on_from_the_last_finished_item(
    nights: Any, interrupting: Any, finished: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        nights.run(progress=interrupting(finished))
    (night,) = load_history(nights.history).nights
    kept = list(night.findings)
    assert len(kept) >= finished
    ran: list[str] = []

    def watch(step: Progress) -> None:
        ran.append(step.stage)

    result = nights.run(progress=watch)
    assert result.resumed == len(kept)
    assert result.exit_code == 0
    assert not {name.split("/fp32")[0].removeprefix("kernel/") for name in kept} & set(ran)
    assert len(load_history(nights.history).nights) == 1


@pytest.mark.parametrize("why", ["config", "version", "no resume"])
def test_another_night_is_begun_where_the_old_one_was_of_something_else(
    nights: Any, interrupting: Any, why: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        nights.run(progress=interrupting(2))
    if why == "config":
        nights.config += "\n# altered\n"
    elif why == "version":
        nights.environment["packages"]["torch"] = "2.14.0"
    assert nights.run(resume=why != "no resume").resumed == 0
    assert len(load_history(nights.history).nights) == 2


def test_pages_are_there_before_the_report(nights: Any) -> None:
    def fail(_: Any) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        nights.run(pages={"report.xml": fail})
    (night,) = load_history(nights.history).nights
    assert night.report is None
    # A night that has found everything and lacks its pages is only written.
    result = nights.run(pages={"report.xml": lambda result: str(result.exit_code)})
    assert result.resumed == 4
    assert (night.folder / "report.xml").read_text(encoding="utf-8") == "0"


# Seconds after the start, so that it hits the start, children, findings, pages and the end alike.
KILLED_AFTER = (0.05, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6)


def test_killed_at_any_moment_the_history_loads_and_the_next_start_goes_on(nights: Any) -> None:
    for told in nights.told.values():
        told["sleep"] = 0.2
    command = [sys.executable, str(CHILDREN / "stub_night.py"), str(nights.write())]
    before: dict[str, int] = {}
    for seconds in KILLED_AFTER:
        process = subprocess.Popen([*command, str(nights.history)], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        history = load_history(nights.history)
        assert all("half written" in note for note in history.notes), history.notes
        found = {night.folder.name: len(night.findings) for night in history.nights}
        assert all(found[name] >= count for name, count in before.items())
        # A night that did not end is gone on with: no other is begun beside it.
        assert [night.report is None for night in history.nights].count(True) <= 1
        before = found
    done = subprocess.run(
        [*command, str(nights.history)], capture_output=True, text=True, check=True
    )
    nights_after = load_history(nights.history).nights
    assert nights_after[0].report is not None
    assert nights_after[0].report.to_dict() == json.loads(done.stdout)
    assert [night.report.exit_code for night in nights_after if night.report] == [0] * len(
        nights_after
    )
    for night in nights_after:
        # Gone on with, not begun again: no item was recorded twice.
        lines = (night.folder / ITEMS).read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(night.findings) == 4


def test_killed_between_two_items_nothing_is_done_twice(nights: Any) -> None:
    for told in nights.told.values():
        told["sleep"] = 0.2
    command = [sys.executable, str(CHILDREN / "stub_night.py"), str(nights.write())]
    for finished in (1, 2, 3):
        process = subprocess.Popen([*command, str(nights.history)], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while _recorded(nights.history) < finished and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        (night,) = load_history(nights.history).nights
        assert len(night.findings) >= finished
    done = subprocess.run(
        [*command, str(nights.history)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["resumed"] >= 3
    assert _recorded(nights.history) == 4


def _recorded(history: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in history.glob(f"*/{ITEMS}"))
