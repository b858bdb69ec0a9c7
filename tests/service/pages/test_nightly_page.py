"""/nightly: items over nights, the last night in words, what else changed, schedules, data."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect

from driftscope_probes.nightly.report import NightConfig
from driftscope_service.experiments.nightly.matrix import night_matrix, night_state
from driftscope_service.experiments.nightly.store import nights_of
from driftscope_service.schedule.store import Missed, ScheduleRepository

HTML = {"accept": "text/html"}
LOUD = "kernel/vllm/rms_norm/bf16/t2"


def html(running: Any, path: str, status: int = 200) -> str:
    answer = running.client.get(path, headers=HTML)
    assert answer.status_code == status, answer.text
    return str(answer.text)


def store_nights(running: Any, reports: Any, first: int, past: int) -> list[str]:
    return [reports.store(running.service, reports.night(n)) for n in range(first, past)]


def test_before_the_first_night(running: Any) -> None:
    page = html(running, "/nightly")
    assert "No night in this data folder yet" in page
    assert "driftscope nightly" in page


def test_what_changed_last_stands_first(running: Any, reports: Any) -> None:
    store_nights(running, reports, 0, 14)
    with running.service.database.read() as connection:
        nights = nights_of(connection, "cpu", 14)
    matrix = night_matrix(nights)
    assert matrix.loud[0].item in (LOUD, "engine/smollm2-135m/vllm/invariant/bf16/batch_size")
    loud = {row.item: row for row in matrix.loud}
    # Newest first: mended on night 11, worse on 9, "unexpected" while it stays so.
    states = [one.state for one in loud[LOUD].outcomes if one]
    assert states[2:5] == ["better", "unexpected", "worse"]
    assert [one.state for one in loud["kernel/vllm/silu_and_mul/bf16/t2"].outcomes if one].count(
        "not run"
    ) == 1
    assert len(loud) == 3 and len(matrix.quiet) == 7
    added = next(row for row in matrix.quiet if row.item.endswith("prefix_cache"))
    assert [one is None for one in added.outcomes] == [False] * 5 + [True] * 9
    assert night_state(nights[0]).tone == "good"
    assert night_state(nights[2]).word == "better"
    assert (night_state(nights[4]).tone, night_state(nights[4]).word) == ("bad", "worse")
    assert night_state(nights[9]).word == "incomplete"


def test_a_quiet_last_night(running: Any, reports: Any) -> None:
    ids = store_nights(running, reports, 0, 14)
    page = html(running, "/nightly")
    assert "All 10 items were as expected in the last night, " in page
    for report in ids:
        assert f'href="/reports/{report}"' in page
    assert "worse: REFUTED, NOT_REFUTED expected" in page
    assert "2.12.0" in page and "2.13.0" in page
    assert page.count("<td>torch <small>version</small></td>") == 1
    assert "nothing here starts by itself" in page


def test_a_night_whose_items_hold_and_whose_library_changed(running: Any, reports: Any) -> None:
    held = reports.night(13).model_copy(
        update={"exit_code": 1, "alarms": ("torch: 2.12.0 last night, 2.13.0 now",)}
    )
    reports.store(running.service, held)
    with running.service.database.read() as connection:
        (night,) = nights_of(connection, "cpu", 1)
    found = night_state(night)
    assert (found.tone, found.word) == ("watch", "changed")
    assert found.sentence.startswith("All 10 items were as expected")
    assert found.sentence.endswith("; something else changed.")


def test_a_night_that_got_worse_shows_the_replay(running: Any, reports: Any) -> None:
    store_nights(running, reports, 0, 10)
    page = html(running, "/nightly")
    assert "Something changed in the last night, " in page and "2 worse" in page
    assert "REFUTED, NOT_REFUTED expected; the night before NOT_REFUTED." in page
    assert f"driftscope nightly --only &#39;{LOUD}&#39;" in page


def test_an_item_that_was_not_run_says_why(running: Any, reports: Any) -> None:
    store_nights(running, reports, 3, 5)
    page = html(running, "/nightly")
    assert "Something could not be run" in page
    assert "The budget of the night was used up." in page


def test_nights_of_another_configuration(running: Any, reports: Any) -> None:
    store_nights(running, reports, 0, 2)
    other = reports.night(2).model_copy(update={"config": NightConfig(name="gpu", sha256="1" * 64)})
    newest = reports.store(running.service, other)
    page = html(running, "/nightly")
    assert "1 night" in page and newest in page
    assert '<option value="cpu"' in page
    assert newest not in html(running, "/nightly?config=cpu")
    html(running, "/nightly?config=tpu", 422)


def test_earlier_nights(running: Any, reports: Any) -> None:
    ids = store_nights(running, reports, 0, 5)
    first = html(running, "/nightly?nights=2")
    assert ids[4] in first and ids[2] not in first
    earlier = re.search(r'href="(/nightly\?cursor=[^"]+)"', first)
    assert earlier is not None
    second = html(running, earlier.group(1).replace("&amp;", "&"))
    assert ids[2] in second and ids[1] in second and ids[4] not in second
    html(running, "/nightly?cursor=none", 422)
    html(running, "/nightly?nights=0", 422)


def test_a_report_that_is_gone_leaves_its_night(running: Any, reports: Any) -> None:
    gone = store_nights(running, reports, 9, 10)[0]
    (running.data_dir / "reports" / gone / "report.json").unlink()
    page = html(running, "/nightly")
    assert "<td>?</td>" in page
    assert "Nothing that is recorded" in page


def test_outcomes_as_data(running: Any, reports: Any) -> None:
    store_nights(running, reports, 8, 10)
    data = running.client.get("/nightly/plots/outcomes.json").json()
    table = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    assert len(table) == 9 + 10
    worse = [row["item"] for row in table if row["state"] == "worse"]
    assert LOUD in worse and len(worse) == 2
    lines = running.client.get("/nightly/plots/outcomes.csv", params={"nights": 1}).text
    assert len(lines.splitlines()) == 1 + 10
    empty = running.client.get("/nightly/plots/outcomes.json", params={"config": "x"}, headers=HTML)
    assert empty.status_code == 422


def test_schedules_with_their_next_moment(running: Any, reports: Any) -> None:
    put_schedule(running.service)
    page = html(running, "/nightly")
    assert "No night in this data folder yet" in page
    assert "30 3 * * *" in page
    assert "2099-01-02 03:30:00 UTC" in page
    assert "left out" in page


def put_schedule(service: Any) -> None:
    with service.database.write() as connection:
        ScheduleRepository(connection).put(
            "every-night",
            cron="30 3 * * *",
            kind="nightly",
            request={},
            missed=Missed.SKIP,
            next_at=datetime(2099, 1, 2, 3, 30, tzinfo=UTC),
        )


def test_markup_in_an_item_is_text(running: Any, reports: Any) -> None:
    night = reports.night(4)
    told = {"id": "<script>alert(1)</script>", "verdict": "REFUTED"}
    hostile = (night.items[0].model_copy(update=told),)
    reports.store(running.service, night.model_copy(update={"items": hostile}))
    assert "<script>alert" not in html(running, "/nightly")


@pytest.fixture
def nights(site: Any, stored_reports: dict[str, str]) -> None:
    put_schedule(site.service)


@pytest.mark.slow
def test_fewer_nights_by_a_choice(nights: None, look: Any) -> None:
    page = look().at("/nightly")
    expect(page.locator(".nights thead th")).to_have_count(15)
    page.select_option("#nights", "7")
    expect(page).to_have_url(re.compile("nights=7"))
    expect(page.locator(".nights thead th")).to_have_count(8)
    page.locator("a.outcome.bad").first.click()
    expect(page).to_have_url(re.compile("/reports/report_"))


@pytest.mark.slow
def test_on_a_phone_and_without_a_script(nights: None, look: Any) -> None:
    small = {"width": 390, "height": 800}
    page = look(viewport=small).at("/nightly")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    plain = look(java_script_enabled=False).at("/nightly")
    plain.select_option("#nights", "7")
    plain.get_by_role("button", name="Show").click()
    expect(plain.locator(".nights thead th")).to_have_count(8)
