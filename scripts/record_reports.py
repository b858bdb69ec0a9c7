"""Reports of real probes and nights as the demo carries them: one JSON file each.

    python scripts/record_reports.py NAME=REPORT.json …

NAME: one of the recordings that a Kind names. The files are what the commands
write: report.json of `probe paired` and `probe determinism --out`, report.json of a night, the
report of a kernels job. Token files stay behind, long lists of proofs are cut.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from driftscope_service.experiments.registry import load_kinds

RECORDINGS = {
    name: Path(str(files(kind.package))) / "recordings"
    for kind in load_kinds().values()
    for name in kind.recordings
}


def main(arguments: list[str]) -> None:
    for argument in arguments:
        name, _, file = argument.partition("=")
        if name not in RECORDINGS or not Path(file).is_file():
            sys.exit(f"{argument}: give NAME=FILE with NAME one of {', '.join(RECORDINGS)}")
        report = trimmed(json.loads(Path(file).read_text()))
        text = json.dumps(report, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        (RECORDINGS[name] / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def trimmed(report: dict[str, Any]) -> dict[str, Any]:
    for cell in report.get("grid", ()):
        cell["pair_file"] = None
    for verdict in report.get("verdicts", ()):
        verdict.pop("proof", None)
    cut: dict[str, Any] = without_paths(report)
    return cut


def without_paths(value: Any) -> Any:
    """Folders of the machine that recorded are nobody's business."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    if isinstance(value, str) and value.startswith(str(Path.home())):
        return "~" + value.removeprefix(str(Path.home()))
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
