"""Work folder of a job: DATA_DIR/jobs/<id>, where its probe runs and leaves its logs."""

from __future__ import annotations

from pathlib import Path

LOG_NAME = "log.txt"
#: What stays when the job is over: small, and enough to see why it failed.
KEPT_NAMES = (LOG_NAME, "request.json", "error.json")
#: Bytes kept of each log; the whole may be larger than a client wants.
LOG_TAIL_BYTES = 65_536


class JobFolder:
    def __init__(self, data_dir: Path, job_id: str) -> None:
        self.path = data_dir / "jobs" / job_id

    def logs(self) -> str:
        """The end of every log, oldest first: the probe's, then those of the engines it started."""
        if not self.path.is_dir():
            return ""
        logs = sorted(self.path.rglob(LOG_NAME), key=lambda log: (log.stat().st_mtime, log))
        return "".join(f"== {log.relative_to(self.path)} ==\n{_tail(log)}\n" for log in logs)

    def tidy(self) -> None:
        """Drop traces and results: they can be gigabytes, and the report has what matters."""
        for path in sorted(self.path.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.name not in KEPT_NAMES:
                path.unlink()


def _tail(log: Path) -> str:
    with open(log, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return text if size <= LOG_TAIL_BYTES else f"[… {size - LOG_TAIL_BYTES} bytes before]\n{text}"
