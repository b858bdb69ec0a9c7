"""/docs: every page of docs/, with links that work here, and nothing of it as raw HTML."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from subprocess import run
from sys import executable
from typing import Any

import pytest

from driftscope_service.pages.docs_search import search
from driftscope_service.pages.documentation import _document as rendered
from driftscope_service.pages.documentation import documents, images, link

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
HTML = {"accept": "text/html"}


def test_every_page_and_picture_of_the_folder_is_there() -> None:
    found = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert {f"{name}.md" for name in documents()} == found
    assert set(images()) == {
        str(path.relative_to(DOCS)) for kind in ("*.png", "*.svg") for path in DOCS.rglob(kind)
    }


def test_every_link_between_pages_leads_to_a_page_and_a_heading(running: Any) -> None:
    targets = {
        target
        for one in documents().values()
        for target in re.findall(r'(?:href|src)="(/[^"]*)"', one.html)
    }
    assert len(targets) > 100
    answers = {
        path: running.client.get(path, headers=HTML)
        for path in {target.partition("#")[0] for target in targets}
    }
    for target in targets:
        path, _, fragment = target.partition("#")
        assert answers[path].status_code == 200, target
        assert not fragment or f'id="{fragment}"' in answers[path].text, target


@pytest.mark.parametrize(
    ("target", "folder", "expected"),
    [
        ("limits.md#verl", "", "/docs/limits#verl"),
        ("../limits.md", "runbooks", "/docs/limits"),
        ("README.md", "", "/docs"),
        ("causes/README.md", "", "/docs/causes"),
        ("runbooks", "", "/docs/runbooks"),
        ("images/a.png", "", "/docs/images/a.png"),
        ("openapi.json", "", "/openapi.json"),
        ("#below", "", "#below"),
        ("https://arxiv.org/abs/1", "", "https://arxiv.org/abs/1"),
        ("../service/x.py", "", "https://github.com/driftscope/driftscope/blob/main/service/x.py"),
        (
            "nightly/a.service",
            "",
            "https://github.com/driftscope/driftscope/blob/main/docs/nightly/a.service",
        ),
    ],
)
def test_a_link_of_the_sources_becomes_one_of_the_service(
    target: str, folder: str, expected: str
) -> None:
    assert link(target, folder) == expected


def test_no_html_goes_through() -> None:
    text = '# T <b>\n\n<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror="y">\n'
    page = rendered("t", text)
    assert "<script" not in page.html and "<img" not in page.html and "<b>" not in page.html
    assert 'href="javascript' not in page.html
    assert "&lt;script&gt;" in page.html


def test_headings_that_come_twice_have_two_addresses() -> None:
    page = rendered("t", "# A\n\n## B c\n\none\n\n## B c\n\ntwo\n")
    assert [one.anchor for one in page.sections] == ["a", "b-c", "b-c-1"]
    assert re.findall(r'id="([^"]+)"', page.html) == ["a", "b-c", "b-c-1"]


def test_a_search_needs_every_word_and_puts_headings_first(running: Any) -> None:
    known = documents().values()
    assert search(known, "") == []
    assert search(known, "pearson zzzz") == []
    hits = search(known, "martingale")
    assert hits[0].path == "/docs/limits#martingale"
    shown = running.client.get("/docs", params={"q": "martingale"}, headers=HTML).text
    assert 'href="/docs/limits#martingale"' in shown
    odd = running.client.get("/docs", params={"q": "<script>"}, headers=HTML).text
    assert "<script>" not in odd.split("<main", 1)[1]


def test_what_is_not_there_is_said(running: Any) -> None:
    for path in ("/docs/nothing", "/docs/images/nothing.png", "/docs/../pyproject.toml"):
        assert running.client.get(path, headers=HTML).status_code == 404


@pytest.mark.slow
def test_the_wheel_holds_the_documentation(tmp_path: Path) -> None:
    build = [executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if "/documentation/" in name}
    prefix = "driftscope_service/documentation/"
    assert {prefix + str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} <= held
