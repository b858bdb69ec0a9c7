"""Where a probe of the command line leaves its report: whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from driftscope_probes.errors import ProbeError, RequestError
from driftscope_probes.models.cache import home

DEFAULT_ROOT = Path("driftscope-reports")


def default_folder(model: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return DEFAULT_ROOT / f"{stamp}-{Path(model).name}"


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """Yield a work folder beside `target`; it becomes `target` only when the block succeeds.

    On failure nothing is left but a copy of the logs under $DRIFTSCOPE_HOME/logs/last-failure.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestError(
            f"{target} exists already.", remedy="give --out a folder that is new or empty."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    work.chmod(0o755)
    try:
        yield work
        if target.exists():
            target.rmdir()
        work.replace(target)
    except ProbeError as error:
        error.remedy += f"\nLogs: {_keep_logs(work)}"
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep_logs(work: Path) -> Path:
    kept = home() / "logs" / "last-failure"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in work.rglob("log.txt"):
        name = "-".join(log.relative_to(work).parts)
        shutil.copyfile(log, kept / name)
    return kept
