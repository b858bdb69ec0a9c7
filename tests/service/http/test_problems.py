"""Problems in the OpenAPI document: kinds of one status share a response."""

from __future__ import annotations

from driftscope_service.http.errors import Problem, get_problem_type, problems
from driftscope_service.http.problem_kinds import KINDS


def test_every_kind_is_under_its_status_once() -> None:
    responses = problems(*KINDS)
    assert responses.keys() == {kind.status for kind in KINDS}
    for status, response in responses.items():
        titles = [kind.title for kind in KINDS if kind.status == status]
        assert response["description"].split("; or: ") == titles
        assert list(response["content"]) == ["application/problem+json"]
    assert problems() == {}


def test_every_kind_has_a_page() -> None:
    pages = [bytes(get_problem_type(kind.slug).body).decode() for kind in KINDS]
    for kind, page in zip(KINDS, pages, strict=True):
        assert page.startswith(f"{kind.title} (HTTP {kind.status})") and kind.meaning in page
    assert len(set(pages)) == len(KINDS)


def test_what_is_documented_is_what_every_problem_has() -> None:
    required = Problem.model_json_schema()["required"]
    assert required == ["type", "title", "status", "detail", "request_id"]
