"""Runs the test modules that say INTERPRETED in one child process whose Triton interprets kernels.

Triton decides when it is imported, so this process, whose other tests compile, cannot do both. Such
a module also runs by itself: TRITON_INTERPRET=1 pytest tests/kernels/triton_kernels/test_norm.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

OUTCOMES = "DRIFTSCOPE_INTERPRETED_OUTCOMES"  # the file in which the child writes what came of it
STASH = pytest.StashKey[dict[str, str]]()
OUTPUT_TAIL = 3000
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
SPECIAL = (0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-40, 6e-8, 65504.0, 3e38)

SameBits = Callable[[object, object], None]
Numbers = Callable[..., Tensor]


def _is_interpreted(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "module", None), "INTERPRETED", False))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if os.environ.get("TRITON_INTERPRET") == "1" or not _is_interpreted(pyfuncitem):
        return None
    failure = _outcomes(pyfuncitem.session)[pyfuncitem.nodeid]
    if failure:
        pytest.fail(failure, pytrace=False)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if OUTCOMES in os.environ and (report.failed or report.when == "call"):
        line = json.dumps([report.nodeid, report.longreprtext if report.failed else ""])
        with Path(os.environ[OUTCOMES]).open("a") as file:
            file.write(line + "\n")


def _outcomes(session: pytest.Session) -> dict[str, str]:
    """Test → why it failed, or nothing; the child runs at the first call."""
    if STASH not in session.config.stash:
        session.config.stash[STASH] = _run_child(session)
    return session.config.stash[STASH]


def _run_child(session: pytest.Session) -> dict[str, str]:
    names = [item.nodeid for item in session.items if _is_interpreted(item)]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"interpreted-{os.getpid()}.jsonl"
    path.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
        cwd=session.config.rootpath,
        env={**os.environ, "TRITON_INTERPRET": "1", OUTCOMES: str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    missing = (
        "the child process ended before this test:\n" + (done.stdout + done.stderr)[-OUTPUT_TAIL:]
    )
    return dict.fromkeys(names, missing) | dict(json.loads(line) for line in lines)


@pytest.fixture(scope="session")
def same_bits() -> SameBits:
    """Tensors, or tuples of them, equal bit for bit: −0 is not +0, NaN is NaN."""

    def check(a: object, b: object) -> None:
        if isinstance(a, tuple) and isinstance(b, tuple):
            for left, right in zip(a, b, strict=True):
                check(left, right)
            return
        assert isinstance(a, Tensor) and isinstance(b, Tensor)
        assert a.dtype == b.dtype and a.shape == b.shape
        view = BITS.get(a.dtype, a.dtype)
        assert a.contiguous().view(view).equal(b.contiguous().view(view))

    return check


@pytest.fixture(scope="session")
def numbers() -> Numbers:
    """Random numbers of many magnitudes, with special values among them if asked."""

    def make(*shape: int, dtype: torch.dtype, seed: int, special: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=generator)
        x = x * 2.0 ** torch.randint(-4, 4, shape, generator=generator)
        if special:
            places = torch.randperm(x.numel(), generator=generator)[: len(SPECIAL)]
            x.view(-1)[places] = torch.tensor(SPECIAL)[: len(places)]
        return x.to(dtype)

    return make
