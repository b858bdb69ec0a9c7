from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

import driftscope_probes
from driftscope_probes.mismatch.fused import compiled

FACTOR = 2.0

SCRIPT = """
from numba import njit
from driftscope_probes.mismatch.fused.compiled import SOURCES, kept_on_disk
from driftscope_probes.mismatch.fused.block_counts import fine_bucket

def entry(sources):
    @kept_on_disk
    def of_one():
        return fine_bucket(1.0), sources
    return of_one

of_one = entry(SOURCES)
print(of_one()[0], sum(of_one.stats.cache_hits.values()))
"""


def entry() -> Callable[[float], float]:
    factor = FACTOR

    def multiplied(value: float) -> float:
        return factor * value

    return multiplied


def test_nowhere_to_keep_the_code_is_a_warning_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real: Callable[..., Any] = numba.njit

    def without_cache(**options: Any) -> Callable[..., Any]:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        decorator: Callable[..., Any] = real(**options)
        return decorator

    monkeypatch.setattr(compiled, "njit", without_cache)
    with pytest.warns(RuntimeWarning, match="NUMBA_CACHE_DIR"):
        multiplied = compiled.kept_on_disk(entry())
    assert multiplied(1.5) == 3.0


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A root with a copy of the package, and an entry of its own that is never edited."""
    package = Path(driftscope_probes.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "driftscope_probes", ignore=ignored)
    (tmp_path / "entry.py").write_text(SCRIPT)
    return tmp_path


def bucket_and_hits(root: Path) -> tuple[int, int]:
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": str(root / "kept")}
    command = [sys.executable, "-m", "entry"]
    done = subprocess.run(
        command, cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    bucket, hits = done.stdout.split()
    return int(bucket), int(hits)


def test_an_edit_of_any_source_compiles_anew(copied: Path) -> None:
    first, hits = bucket_and_hits(copied)
    assert hits == 0
    assert bucket_and_hits(copied) == (first, 1)
    layouts = copied / "driftscope_probes" / "mismatch" / "fused" / "layouts.py"
    edited = layouts.read_text().replace("BITS_IN_BUCKET = 6", "BITS_IN_BUCKET = 5")
    layouts.write_text(edited)
    bucket, hits = bucket_and_hits(copied)
    assert hits == 0
    assert bucket < first


@pytest.mark.parametrize("name", [*compiled.NUMBERS_FROM, "fused/exp_log.py"])
def test_the_fingerprint_covers_the_file(name: str, copied: Path) -> None:
    mismatch = copied / "driftscope_probes" / "mismatch"
    before = compiled.sources_fingerprint(mismatch / "fused")
    assert before == compiled.SOURCES
    with (mismatch / name).open("a") as file:
        file.write("# edited\n")
    assert compiled.sources_fingerprint(mismatch / "fused") != before


def test_no_numbers_come_from_elsewhere() -> None:
    """What fused/ imports from outside is covered by the fingerprint, or declares types only."""
    types_only = {"number.py", "tokens.py"}
    outside = set()
    for file in compiled.FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("driftscope_probes") and ".fused" not in module:
                outside.add(module.rpartition(".")[2] + ".py")
    assert outside == types_only | set(compiled.NUMBERS_FROM)


def test_what_is_kept_on_disk_closes_over_the_fingerprint() -> None:
    from driftscope_probes.mismatch.fused import sequences
    from driftscope_probes.mismatch.fused.wanted_values import gather

    framework_loops = ("summed", "binary_kl", "totalled", "mixture", "squares")
    kept_functions: list[Any] = [sequences.add_sequences, sequences.count_beyond, gather]
    kept_functions += [getattr(sequences, f"write_{name}") for name in framework_loops]
    for kept in kept_functions:
        closure = kept.py_func.__closure__
        assert [cell.cell_contents for cell in closure] == [compiled.SOURCES]
