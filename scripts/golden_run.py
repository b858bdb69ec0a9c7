"""A golden run: what driftscope answers to recorded inputs, to be compared between two revisions.

    python scripts/golden_run.py record OUT_DIR [--tree DIR]
    python scripts/golden_run.py compare A B

`record` drives the tree as users and scripts do (command line, HTTP, files) and writes every answer
as text, volatile values replaced. `compare` prints what differs: exit 0 equal, 1 different.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import golden_cases as cases
import golden_http as http
import golden_normal as normal
from golden_inputs import bad_inputs, good_inputs
from golden_tree import Run, new_run

LINES_SHOWN = 40


def write_inputs(work: Path) -> None:
    (work / "bad").mkdir()
    (work / "out-table").mkdir()
    for name, body in good_inputs().items():
        (work / name).write_bytes(body)
    for name, body in bad_inputs().items():
        (work / "bad" / name).write_bytes(body)
    shutil.copy(work / "basic.safetensors", work / "unknown.suffix")
    (work / "nightly.toml").write_text(cases.NIGHTLY)
    (work / "kernels.toml").write_text(cases.KERNELS_NIGHTLY)
    (work / "bad.toml").write_text(cases.BAD_NIGHTLY)


def engines(run: Run) -> None:
    """What loads a model or a kernel, one after the other."""
    run.cli("engines/models-before", ["model", "list", "--json"])
    run.cli("engines/fetch", ["model", "fetch", cases.MODEL, "--json"])
    run.cli("engines/models-after", ["model", "list", "--json"])
    run.cli("engines/kernels", ["kernels", "list", "--json"])
    for name, arguments in cases.ENGINE_COMMANDS.items():
        run.cli(f"engines/{name}", arguments)
    for path in sorted(path for path in run.work.glob("out-*/**/*") if path.is_file()):
        told = "<file>\n"
        if path.suffix == ".html":
            told = normal.page(path.read_text(), run.places)[0]
        elif path.suffix in (".json", ".jsonl", ".md", ".xml"):
            told = normal.maybe_json(path.read_text(), run.places)
        run.write("files/" + normal.text(str(path.relative_to(run.work)), run.places), told)


def record(out: Path, tree: Path, jobs_at_once: int) -> None:
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} is not empty")
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        run = new_run(out, tree.resolve(), Path(folder))
        write_inputs(run.work)
        with ThreadPoolExecutor(jobs_at_once) as pool:
            waiting = [pool.submit(engines, run), pool.submit(http.service, run)]
            waiting.append(pool.submit(run.short_commands, cases.short_commands()))
            for one in waiting:
                one.result()


def compare(first: Path, second: Path) -> Iterator[str]:
    names = {p.relative_to(root) for root in (first, second) for p in root.rglob("*.txt")}
    for name in sorted(names):
        sides = [
            (root / name).read_text() if (root / name).exists() else "" for root in (first, second)
        ]
        if sides[0] != sides[1]:
            lines = [side.splitlines() for side in sides]
            told = list(
                difflib.unified_diff(
                    lines[0], lines[1], f"{first / name}", f"{second / name}", n=1, lineterm=""
                )
            )
            yield "\n".join(told[:LINES_SHOWN])
            if len(told) > LINES_SHOWN:
                yield f"… and {len(told) - LINES_SHOWN} lines more"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    ways = parser.add_subparsers(dest="way", required=True)
    recording, comparing = ways.add_parser("record"), ways.add_parser("compare")
    recording.add_argument("out", type=Path)
    recording.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    recording.add_argument("--jobs", type=int, default=2, help="processes at once")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    given = parser.parse_args()
    if given.way == "record":
        record(given.out.absolute(), given.tree, given.jobs)
        return 0
    if not all(folder.is_dir() and any(folder.iterdir()) for folder in (given.first, given.second)):
        raise SystemExit("nothing is recorded there")
    different = 0
    for told in compare(given.first, given.second):
        print(told)
        different = 1
    return different


if __name__ == "__main__":
    sys.exit(main())
