"""Every error is problem+json, whatever raised it."""

from __future__ import annotations

from typing import Any

import pytest

from driftscope_service.http.problem_kinds import KINDS

BODY = {"model": "tiny-random-llama", "prompts": 1}


def check(answer: Any, status: int, slug: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == problem["status"] == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{slug}"
    assert problem["title"] and problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_nothing_there(running: Any) -> None:
    problem = check(running.client.get("/v1/nothing"), 404, "not-found")
    assert "/v1/nothing" in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/jobs/no", "/v1/reports/no", "/reports/no", "/problems/no"])
def test_no_such_resource(running: Any, path: str) -> None:
    check(running.client.get(path), 404, "not-found")


def test_a_method_that_is_not_there(running: Any) -> None:
    answer = running.client.delete("/v1/jobs")
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"model": "\\ud800"}']
)
def test_a_body_that_is_no_request(running: Any, content: bytes) -> None:
    answer = running.client.post(
        "/v1/probes/paired", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    slug = "malformed-request" if answer.status_code == 400 else "invalid-request"
    check(answer, answer.status_code, slug)


def test_a_form_of_another_site_is_no_request(running: Any) -> None:
    """What a page may send without asking first: text/plain."""
    answer = running.client.post(
        "/v1/probes/paired",
        content=b'{"model": "tiny-random-llama"}',
        headers={"content-type": "text/plain"},
    )
    check(answer, 422, "invalid-request")


def test_many_wrong_fields_give_a_short_answer(running: Any) -> None:
    wrong = {**BODY, **{"x" * 1000 + str(index): index for index in range(500)}}
    problem = check(running.client.post("/v1/probes/paired", json=wrong), 422, "invalid-request")
    assert problem["detail"].startswith("500 fields")
    assert len(str(problem)) < 20_000


def test_a_pointer_escapes_what_json_pointer_escapes(running: Any) -> None:
    answer = running.client.post("/v1/probes/paired", json={**BODY, "a/b~c": 1})
    assert answer.json()["errors"][0]["pointer"] == "/a~1b~0c"


def test_a_database_that_fails_is_503_and_says_when_to_try_again(running: Any) -> None:
    with running.service.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
    answer = running.client.get("/v1/jobs")
    check(answer, 503, "storage-unavailable")
    assert int(answer.headers["retry-after"]) > 0
    with running.service.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO jobs")
    assert running.client.get("/v1/jobs").status_code == 200


def test_a_bug_is_500_without_its_traceback(running: Any, caplog: pytest.LogCaptureFixture) -> None:
    report = running.finished_report()
    (running.data_dir / "reports" / report / "report.json").write_text("{secret")
    problem = check(running.client.get(f"/reports/{report}"), 500, "internal-error")
    assert "secret" not in str(problem) and "JSONDecodeError" not in str(problem)
    assert problem["request_id"] in caplog.text
    assert "JSONDecodeError" in caplog.text


def test_every_type_is_explained_by_the_service(running: Any) -> None:
    assert len({kind.slug for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        page = running.client.get(kind.type)
        assert page.status_code == 200
        assert kind.title in page.text and kind.meaning in page.text
