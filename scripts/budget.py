"""Files, lines and tests per folder, against a base revision: information, which fails nothing.

Usage: python scripts/budget.py [--base REV]. Counts Python; other languages have one line each.
Needs Python and git only: continuous integration runs it before `make setup`.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROBES = "driftscope_probes"
#: Of these the third level is shown: service/driftscope_service/store.
PACKAGE_ROOTS = ("service", "probes", "kernels", "dashboards")
OTHER_LANGUAGES = {"C++": (".cpp", ".h"), "JS, CSS, templates": (".js", ".css", ".jinja")}
SUFFIXES = (".py", *(suffix for suffixes in OTHER_LANGUAGES.values() for suffix in suffixes))
TEST = re.compile(r"^\s*(?:async )?def test_", re.MULTILINE)

Files = dict[PurePosixPath, str]


@dataclass(frozen=True, slots=True)
class Size:
    """Of a folder; `tests` are functions, before pytest multiplies them."""

    files: int = 0
    lines: int = 0
    median: int = 0  # lines of a file
    tests: int = 0


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True)
    return done.stdout


def ours(path: PurePosixPath) -> bool:
    return path.suffix in SUFFIXES and "vendor" not in path.parts


def files_here() -> Files:
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode()
    paths = (PurePosixPath(name) for name in listed.split("\0") if name)
    return {
        path: Path(path).read_text(encoding="utf-8")
        for path in paths
        if ours(path) and Path(path).is_file()
    }


def files_at(revision: str) -> Files:
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", revision))) as archive:
        return {
            PurePosixPath(member.name): content.read().decode()
            for member in archive
            if ours(PurePosixPath(member.name)) and (content := archive.extractfile(member))
        }


def folder_of(path: PurePosixPath) -> str:
    depth = 3 if path.parts[0] in PACKAGE_ROOTS else 2
    return "/".join(path.parent.parts[:depth]) or "."


def size(texts: list[str]) -> Size:
    lines = [len(text.splitlines()) for text in texts]
    tests = sum(len(TEST.findall(text)) for text in texts)
    return Size(len(texts), sum(lines), round(statistics.median(lines or [0])), tests)


def sizes(files: Files) -> dict[str, Size]:
    """Python per folder, then per top folder and in all."""
    groups: dict[str, list[str]] = {}
    for path, text in files.items():
        if path.suffix == ".py":
            for group in {folder_of(path), f"{path.parts[0]} (all)", "all Python"}:
                groups.setdefault(group, []).append(text)
    for language, suffixes in OTHER_LANGUAGES.items():
        groups[language] = [text for path, text in files.items() if path.suffix in suffixes]
    return {group: size(texts) for group, texts in groups.items()}


def modules_of_compare(files: Files) -> int:
    """Modules of the probes that the module of compare() imports, itself and theirs included."""
    modules = {
        ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__"): text
        for path, text in files.items()
        if path.parts[:2] == ("probes", PROBES) and path.suffix == ".py"
    }
    exported = imported(modules.get(f"{PROBES}.mismatch", ""))
    waiting = {name.rpartition(".")[0] for name in exported if name.endswith(".compare")}
    seen: set[str] = set()
    while waiting:
        seen |= waiting
        names = {name for module in waiting for name in imported(modules.get(module, ""))}
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        waiting = (found & set(modules)) - seen
    return len(seen)


def imported(text: str) -> Iterator[str]:
    """`package.module.name` of every absolute import, wherever in the file."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def table(now: dict[str, Size], before: dict[str, Size]) -> Iterator[str]:
    yield f"{'folder':44}{'files':>13}{'lines':>16}{'median':>13}{'tests':>13}"
    for group in sorted({*now, *before}, key=order):
        here, there = now.get(group, Size()), before.get(group, Size())
        yield (
            f"{group:44}{change(here.files, there.files):>13}{change(here.lines, there.lines):>16}"
            f"{change(here.median, there.median):>13}{change(here.tests, there.tests):>13}"
        )


def order(group: str) -> tuple[bool, bool, str]:
    """Folders, then each top folder as a whole, then the languages."""
    return group == "all Python" or group in OTHER_LANGUAGES, group.endswith("(all)"), group


def change(now: int, before: int) -> str:
    return f"{now:,} ({now - before:+,})" if now != before else f"{now:,}       "


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="HEAD^", metavar="REV", help="default: HEAD^")
    base = parser.parse_args().base
    try:
        os.chdir(git("rev-parse", "--show-toplevel").decode().strip())
        here = files_here()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"budget: not a git checkout ({error})")
        return 0
    try:
        there, against = files_at(base), f"against {base}"
    except subprocess.CalledProcessError:
        there, against = here, f"without a comparison: {base} is not in this checkout"
    print(f"budget {against}")
    print(*table(sizes(here), sizes(there)), sep="\n")
    modules = change(modules_of_compare(here), modules_of_compare(there)).strip()
    print(f"modules of the probes that compare() imports, directly or not: {modules}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
