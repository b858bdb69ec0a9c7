"""The table of controls in docs/diagnose.md, as the registry has them.

    python -m driftscope_probes.diagnosis.control_table docs/diagnose.md

In: the page. Out: the page with the table between its two marks as it is now.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from driftscope_probes.diagnosis.controls.base import Control
from driftscope_probes.diagnosis.controls.registry import CONTROLS

BEGIN: Final = "<!-- controls: begin -->"
END: Final = "<!-- controls: end -->"
HEAD: Final = (
    "| control | what is done | what it separates | healthy | seconds | speaks for a cause |\n"
    "|---|---|---|---|---|---|"
)


def table(controls: Sequence[Control] = CONTROLS) -> str:
    return "\n".join([HEAD, *map(_row, controls)])


def _row(control: Control) -> str:
    cells = (
        f"`{control.name}`",
        control.title,
        control.separates,
        control.null,
        f"{control.cost_s:g}",
        control.positive,
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def with_table(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
