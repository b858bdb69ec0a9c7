"""The last verdict on every kernel as a matrix: groups of one operation, columns dtype · threads.

In: StoredVerdicts. Out: KernelMatrix, its state in words, PlotData.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_service.experiments.kernels.html import ORDER
from driftscope_service.experiments.kernels.store import SUBJECT, StoredVerdict
from driftscope_service.pages.plot_data import PlotData
from driftscope_service.pages.words import RunState

Column = tuple[str, int]  # dtype, threads
#: This many refuted kernels are named; the rest are counted.
NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class MatrixRow:
    target: str
    implementation: str
    cells: Mapping[Column, StoredVerdict]


@dataclass(frozen=True, slots=True)
class KernelMatrix:
    columns: list[Column]
    groups: Mapping[str, list[MatrixRow]]  # by operation

    @property
    def dtypes(self) -> dict[str, int]:
        """How many columns each dtype has."""
        found = [dtype for dtype, _ in self.columns]
        return {dtype: found.count(dtype) for dtype in found}


def kernel_matrix(verdicts: Sequence[StoredVerdict]) -> KernelMatrix:
    columns = sorted({(one.dtype, one.threads) for one in verdicts})
    groups: dict[str, dict[tuple[str, str], dict[Column, StoredVerdict]]] = {}
    for one in sorted(verdicts, key=lambda one: (one.op, one.target, one.implementation)):
        rows = groups.setdefault(one.op, {})
        cells = rows.setdefault((one.target, one.implementation), {})
        cells[one.dtype, one.threads] = one
    return KernelMatrix(
        columns,
        {
            op: [MatrixRow(*name, cells) for name, cells in rows.items()]
            for op, rows in groups.items()
        },
    )


def subject(verdict: StoredVerdict) -> str:
    """As the URL names it."""
    return "/".join(str(getattr(verdict, name)) for name in SUBJECT)


def verdict_word(verdict: str) -> str:
    return verdict.replace("_", " ").lower()


def kernels_state(verdicts: Sequence[StoredVerdict], missed: Sequence[str]) -> RunState:
    """`missed`: planted faults that the last check did not find."""
    counts = {name: sum(one.verdict == name for one in verdicts) for name in ORDER}
    said = ", ".join(f"{n} {verdict_word(name)}" for name, n in counts.items() if n)
    sentence = f"{len(verdicts)} verdicts: {said}."
    if missed:
        missed_text = ", ".join(missed)
        sentence += f" The last check missed planted faults ({missed_text}): do not rely on it."
        return RunState("bad", "check failed", sentence)
    if counts["REFUTED"]:
        names = sorted({f"{v.target}/{v.op}" for v in verdicts if v.verdict == "REFUTED"})
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        sentence += f" With another batch the bits change in {', '.join(names[:NAMED])}{more}."
        return RunState("watch", "batch-dependent", sentence)
    return RunState("good", "none refuted", sentence)


def verdicts_data(verdicts: Sequence[StoredVerdict]) -> PlotData:
    columns = (*SUBJECT, "verdict", "report_id")
    rows = [[getattr(one, name) for name in columns] for one in verdicts]
    return PlotData(columns, rows, {"empty": "No kernel has been checked."})
