"""/v1/reports: handed in from elsewhere, known again, refused with the place, listed, deleted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from driftscope_service.demo import load
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.experiments.reports_api import MAX_REPORT_BYTES
from driftscope_service.http import problem_kinds

KINDS = load_kinds()
ORIGIN = {"host": "trainer-3", "command": "driftscope probe paired --model m"}
HTML = {"accept": "text/html"}


def recorded(kind: str) -> dict[str, Any]:
    return load.recorded_report(KINDS[kind], KINDS[kind].recordings[-1])


def add(running: Any, report: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = running.client.post("/v1/reports", json=report)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_report_of_every_kind_is_taken_and_shown_with_where_it_was_made(
    running: Any, kind: str
) -> None:
    body = add(running, {**recorded(kind), "origin": ORIGIN})
    assert body["kind"] == kind and body["origin"] == ORIGIN
    stored = running.client.get(body["links"]["self"]).json()
    assert "origin" not in stored
    for path in (body["links"]["page"], f"/probes?kind={kind}"):
        assert running.client.get(path, headers=HTML).status_code == 200, path
    listed = running.client.get("/probes", headers=HTML).text
    assert "trainer-3" in listed and "driftscope probe paired --model m" in listed
    job = running.client.get(body["links"]["job"].removeprefix("/v1"), headers=HTML).text
    assert "From the command line on trainer-3" in job


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_content_again_changes_nothing(running: Any, kind: str) -> None:
    report = recorded(kind)
    first = add(running, report)
    turned = dict(reversed(list(report.items())))
    assert add(running, {**turned, "origin": ORIGIN}, status=200)["id"] == first["id"]
    assert len(running.client.get("/v1/reports").json()["reports"]) == 1


def test_a_job_s_own_report_is_known_as_well(running: Any) -> None:
    report_id = running.finished_report()
    own = running.client.get(f"/v1/reports/{report_id}").json()
    assert add(running, own, status=200)["id"] == report_id


def test_files_that_did_not_come_along_are_not_named(running: Any) -> None:
    report = recorded("paired")
    report["grid"][0]["pair_file"] = "../../driftscope.db"
    body = add(running, report)
    stored = running.client.get(body["links"]["self"]).json()
    assert {cell["pair_file"] for cell in stored["grid"]} == {None}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"kind": "unknown"}, "/kind"),
        ({"kind": 7}, "/kind"),
        ({"grid": [{}]}, "/grid/0"),
        ({"grid": []}, ""),
        ({"model": {}}, ""),
        ({"reading": None}, "/reading"),
        ({"origin": {"host": ""}}, "/origin/host"),
        ({"origin": {"host": "h", "command": "c", "more": 1}}, "/origin/more"),
    ],
)
def test_what_is_no_report_is_refused_at_its_place_and_leaves_nothing(
    running: Any, change: dict[str, Any], pointer: str
) -> None:
    answer = add(running, {**recorded("paired"), **change}, status=422)
    assert answer["errors"][0]["pointer"].startswith(pointer), answer
    assert answer["remedy"]
    assert running.client.get("/v1/reports").json()["reports"] == []
    assert list((running.data_dir / "reports").glob("*")) == []
    assert running.client.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"kind": NaN}', b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object_is_refused(running: Any, body: bytes) -> None:
    answer = running.client.post("/v1/reports", content=body)
    assert answer.status_code == 422 and answer.json()["remedy"]


def test_markup_in_a_handed_in_report_is_text(running: Any) -> None:
    report = recorded("paired")
    report["reading"]["sentence"] = "<script>alert(1)</script>"
    origin = {"host": "<b>h</b>", "command": "<script>alert(2)</script>"}
    body = add(running, {**report, "origin": origin})
    for path in (body["links"]["page"], "/probes", f"/probes/{body['id']}/delete"):
        page = running.client.get(path, headers=HTML).text
        assert "<script>alert" not in page and "<b>h</b>" not in page, path


def test_the_list_is_cut_into_pages(running: Any) -> None:
    for name in ("nightly-1", "nightly-2"):
        add(running, load.recorded_report(KINDS["nightly"], name))
    paired = add(running, recorded("paired"))
    first = running.client.get("/v1/reports?limit=1").json()
    assert [one["id"] for one in first["reports"]] == [paired["id"]]
    rest = running.client.get("/v1/reports", params={"cursor": first["next_cursor"]}).json()
    assert len(rest["reports"]) == 2 and rest["next_cursor"] is None
    nights = running.client.get("/v1/reports?kind=nightly").json()["reports"]
    assert {one["kind"] for one in nights} == {"nightly"} and len(nights) == 2
    assert running.client.get("/v1/reports?kind=none").status_code == 422


def test_a_deleted_report_is_gone_with_its_files_and_its_job(running: Any) -> None:
    body = add(running, recorded("paired"))
    assert running.client.delete(body["links"]["self"]).status_code == 204
    for path in (body["links"]["self"], body["links"]["job"], body["links"]["page"]):
        assert running.client.get(path).status_code == 404, path
    assert not (running.data_dir / "reports" / body["id"]).exists()
    assert running.client.delete(body["links"]["self"]).status_code == 404
    add(running, recorded("paired"))


@pytest.mark.parametrize(("kind", "words"), [("kernels", "kernels"), ("nightly", "night")])
def test_a_report_whose_verdicts_are_shown_goes_only_with_them(
    running: Any, kind: str, words: str
) -> None:
    body = add(running, recorded(kind))
    refused = running.client.delete(body["links"]["self"])
    assert refused.status_code == 409
    assert refused.json()["type"] == problem_kinds.IN_USE.type
    assert words in refused.json()["detail"] and "verdicts=true" in refused.json()["remedy"]
    page = running.client.get(f"/probes/{body['id']}/delete", headers=HTML).text
    assert words in page and 'name="verdicts"' in page
    gone = running.client.delete(body["links"]["self"], params={"verdicts": "true"})
    assert gone.status_code == 204
    assert running.client.get("/kernels", headers=HTML).status_code == 200
    assert running.client.get("/nightly", headers=HTML).status_code == 200
    assert running.client.get("/v1/nightly").json()["nights"] == []


def test_deleting_from_the_page_asks_first_and_says_so_after(running: Any) -> None:
    report_id = running.finished_report()
    listed = running.client.get("/probes", headers=HTML).text
    assert f'href="/probes/{report_id}/delete"' in listed
    asked = running.client.get(f"/probes/{report_id}/delete", headers=HTML).text
    assert report_id in asked and "go for good" in asked
    assert running.client.get(f"/v1/reports/{report_id}").status_code == 200
    done = running.client.post(f"/probes/{report_id}/delete", follow_redirects=False)
    assert done.status_code == 303
    after = running.client.get(done.headers["location"], headers=HTML).text
    assert f"{report_id}</code> is deleted" in after
    assert running.client.get(f"/v1/reports/{report_id}").status_code == 404


def test_a_job_is_deleted_when_it_has_ended_and_left_no_report(running: Any) -> None:
    asleep = running.start("sleep")
    running.wait(asleep, "running")
    early = running.client.delete(f"/v1/jobs/{asleep}")
    assert (early.status_code, early.json()["type"]) == (409, "/problems/job-unfinished")
    running.client.post(f"/v1/jobs/{asleep}/cancel")
    running.wait(asleep)
    assert running.client.get(f"/jobs/{asleep}/delete", headers=HTML).status_code == 200
    assert running.client.delete(f"/v1/jobs/{asleep}").status_code == 204
    assert running.client.get(f"/v1/jobs/{asleep}").status_code == 404
    assert not (running.data_dir / "jobs" / asleep).exists()
    report_id = running.finished_report()
    job = running.client.get("/v1/jobs").json()["jobs"][0]["id"]
    held = running.client.delete(f"/v1/jobs/{job}")
    assert held.status_code == 409 and report_id in held.json()["detail"]
    assert "It stays" in running.client.get(f"/jobs/{job}/delete", headers=HTML).text


def test_large_bodies_are_refused_before_they_are_read(running: Any) -> None:
    answer = running.client.post(
        "/v1/reports", content=b"x", headers={"content-length": str(MAX_REPORT_BYTES + 1)}
    )
    assert answer.status_code == 413
    assert json.loads(answer.text)["type"] == "/problems/content-too-large"


def test_what_make_demo_measured_is_the_first_report_on_the_page(running: Any) -> None:
    """The probe of the command comes first there, the recorded reports after it."""
    own = recorded("paired")
    own["created_at"] = "2026-11-29T09:00:00+00:00"
    made = add(running, {**own, "origin": ORIGIN})
    for kind in KINDS.values():
        for name in kind.recordings:
            load.add_report(kind, name, running.service)
    page = running.client.get("/probes", headers=HTML).text
    first = re.search(r'<th scope="row"><a href="/probes/([^"]+)"', page)
    assert first is not None and first[1] == made["id"]
    kinds = [one["kind"] for one in running.client.get("/v1/reports?limit=50").json()["reports"]]
    assert kinds.count("paired") == 1 and set(kinds) == set(KINDS)
