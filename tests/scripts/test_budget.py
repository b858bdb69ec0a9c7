"""The budget against a small repository of known size; it never stops continuous integration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISMATCH = "probes/driftscope_probes/mismatch"
PACKAGE = MISMATCH.removeprefix("probes/").replace("/", ".")


def git(repository: Path, *arguments: str) -> None:
    names = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *names, *arguments], cwd=repository, check=True, capture_output=True)


def write(repository: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text, encoding="utf-8")


def budget(folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, str(ROOT / "scripts" / "budget.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    write(
        tmp_path,
        {
            f"{MISMATCH}/__init__.py": f"from {PACKAGE}.comparison import compare\n",
            f"{MISMATCH}/comparison.py": f"from {PACKAGE} import sums\n\n\ndef compare(): ...\n",
            f"{MISMATCH}/sums.py": f"from {PACKAGE}.number import Number\n",
            f"{MISMATCH}/number.py": "Number = float\n",
            f"{MISMATCH}/profiles.py": "x = 1\n",
            "tests/probes/test_sums.py": "def test_a(): ...\n\n\nasync def test_b(): ...\n",
            "service/static/vendor/echarts.js": "1\n",
            "kernels/driftscope_kernels/csrc/a.cpp": "1\n2\n",
        },
    )
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "before")
    return tmp_path


def test_sizes_stand_beside_their_change(repository: Path) -> None:
    (repository / MISMATCH / "profiles.py").unlink()
    write(repository, {f"{MISMATCH}/sums.py": "x = 1\n", "tests/probes/test_c.py": "\n\n"})
    printed = budget(repository / MISMATCH, "--base", "HEAD")
    assert f"{MISMATCH} 4 (-1) 7 (-1) 1 0" in printed
    assert "tests/probes 2 (+1) 6 (+2) 3 (-1) 2" in printed
    assert "C++ 1 2 2 0" in printed
    assert "JS, CSS, templates 0 0 0 0" in printed  # vendored scripts are not ours
    assert printed[-1].endswith("compare() imports, directly or not: 2 (-1)")


@pytest.mark.parametrize("revision", ["HEAD^", "no-such-revision"])
def test_without_the_base_it_still_counts(repository: Path, revision: str) -> None:
    printed = budget(repository, "--base", revision)
    assert printed[0] == f"budget without a comparison: {revision} is not in this checkout"
    assert "all Python 6 12 1 2" in printed


def test_outside_of_a_checkout_it_says_so(tmp_path: Path) -> None:
    (line,) = budget(tmp_path)
    assert line.startswith("budget: not a git checkout")
