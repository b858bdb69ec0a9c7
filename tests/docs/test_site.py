"""The site builds without a warning, a planted fault is found, the reference is the code's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from driftscope_service.reference_pages import PAGES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8") == PAGES[name]()


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    config = docs.parent / "mkdocs.yml"
    hook = str(ROOT / "scripts" / "docs_site.py")
    text = (ROOT / "mkdocs.yml").read_text("utf-8").replace("scripts/docs_site.py", hook)
    config.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site],
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_the_site_is_built_and_opens_without_a_network(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    done = build(tmp_path / "docs", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "limits.html").read_text("utf-8")
    assert "fonts.googleapis.com" not in page
    assert 'href="causes/index.html"' in (tmp_path / "site" / "index.html").read_text("utf-8")
    assert (tmp_path / "site" / "search" / "search_index.json").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("[there](nowhere.md)", "nowhere.md"),
        ("[there](other.md#not-there)", "does not contain an anchor '#not-there'"),
    ],
)
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, fault: str, told: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "other.md").write_text("# Other\n\n## There\n")
    row = "| [Other](other.md) | a page |\n"
    (docs / "README.md").write_text(f"# Docs\n\n## Reference: all\n\n{row}\n{fault}\n")
    done = build(docs, tmp_path / "site")
    assert done.returncode == 1 and told in done.stderr
