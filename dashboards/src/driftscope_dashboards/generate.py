"""Write the boards as JSON: python -m driftscope_dashboards.generate [FOLDER].

The JSON is committed, so that users need neither this package nor the SDK; a test compares both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from driftscope_dashboards.attribution import attribution
from driftscope_dashboards.determinism import determinism
from driftscope_dashboards.run_health import run_health
from driftscope_dashboards.service_board import service_board

FOLDER = Path(__file__).parents[2] / "grafana"
BOARDS: dict[str, Callable[[], Dashboard]] = {
    "run-health": run_health,
    "attribution": attribution,
    "determinism": determinism,
    "service": service_board,
}


def as_json(make: Callable[[], Dashboard]) -> str:
    board = make().build()
    # Stable numbers: links to a panel (viewPanel=ID) and a reviewer's diff rely on them.
    for number, panel in enumerate(board.panels or [], start=1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, make in BOARDS.items():
        (folder / f"{name}.json").write_text(as_json(make), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
