"""Child process of `explain --dumps`: reads both folders and compares them.

    python -m driftscope_probes.explain.dumps.comparing WORKDIR

request.json: left, right (folders). Result: an ExplainReport but for its environment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from driftscope_probes.children import child_main
from driftscope_probes.dtypes import TORCH_NAMES, Dtype
from driftscope_probes.explain.dumps.alignment import Aligned, aligned
from driftscope_probes.explain.dumps.base import LOGPROB, RawDump, dtype_name
from driftscope_probes.explain.dumps.comparison import Comparison, Pair, compare
from driftscope_probes.explain.dumps.findings import (
    compared_of,
    first_of,
    first_sentence,
    growth_of,
    ops_of,
    ops_sentence,
    unjudged_sentence,
    verdict_of,
)
from driftscope_probes.explain.dumps.reading import read_dump
from driftscope_probes.explain.dumps.rows import Dump
from driftscope_probes.explain.dumps.statistics import compare_statistics
from driftscope_probes.explain.dumps.weights import alignment_of
from driftscope_probes.explain.report import Alignment, Check, ExplainReport, Gap, Verdict
from driftscope_probes.explain.request import ExplainRequest
from driftscope_probes.plural import counted
from driftscope_probes.progress import Progress, ProgressSink, scaled

SCHEMA_VERSION: Final = "1"
#: A longer path would not fit the request; its end tells folders apart.
NAME_LENGTH: Final = 500
LIMIT_OF_DUMPS: Final = (
    "Two dumps hold each run as it was. Behind the first difference most inputs differ, so an op "
    "there is judged on the tokens whose inputs are still equal; `explain --model` runs both sides "
    "and judges every op on equal inputs."
)


def run(request: dict[str, Any], workdir: Path, progress: ProgressSink) -> Mapping[str, Any]:
    left, right = Path(request["left"]), Path(request["right"])
    progress(Progress("reading the dumps", 0.0))
    raw = read_dump(left), read_dump(right)
    writer = _Writer((left, right), raw, time.monotonic())
    if not all(one.steps for one in raw) and all(one.statistics for one in raw):
        return writer.statistics().to_dict()
    dumps = Dump(raw[0]), Dump(raw[1])
    for one, other in (dumps, dumps[::-1]):
        one.learn(other.widths)
    rows = aligned(*dumps)
    if rows.problem is not None:
        return writer.not_comparable(rows).to_dict()
    pair = Pair(*dumps, rows)
    comparison = compare(pair, scaled(progress, 0.05, 1.0))
    return writer.compared(pair, comparison).to_dict()


class _Writer:
    def __init__(
        self, folders: tuple[Path, Path], raw: tuple[RawDump, RawDump], started: float
    ) -> None:
        self._folders, self._raw, self._started = folders, raw, started

    def compared(self, pair: Pair, comparison: Comparison) -> ExplainReport:
        if not comparison.seen:
            return self._report(
                "not_comparable",
                "The dumps have no tensor in common.",
                alignment=alignment_of(pair.rows.checks, pair.left, pair.right),
                remedy="capture the same modules on both sides; `uncovered` lists what each has.",
                uncovered=comparison.uncovered,
            )
        equal = all(seen.equality.exact for seen in comparison.seen.values())
        first, ops = first_of(comparison, pair), ops_of(comparison, pair)
        tensors = counted(len(comparison.seen), "tensor")
        tokens = counted(pair.rows.facts.rows, "token")
        if equal:
            sentence = f"All {tensors} of {tokens} are bitwise equal."
        elif first is not None:
            parts = (
                first_sentence(first, comparison.steps),
                ops_sentence(ops),
                unjudged_sentence(comparison),
            )
            sentence = " ".join(part for part in parts if part)
        else:
            unequal = [p.key for p, seen in comparison.seen.items() if not seen.equality.exact]
            sentence = f"Of {tensors} of {tokens} these differ: {', '.join(unequal[:8])}."
        return self._report(
            verdict_of(ops, comparison),
            sentence,
            alignment=alignment_of(pair.rows.checks, pair.left, pair.right),
            gap=_gap(pair, comparison),
            first=first,
            ops=ops,
            compared=compared_of(comparison),
            growth=growth_of(comparison),
            uncovered=comparison.uncovered,
            notes=[] if equal else [LIMIT_OF_DUMPS],
            rounded=comparison.rounded,
            dtypes=(_dtypes(pair.left), _dtypes(pair.right)),
        )

    def not_comparable(self, rows: Aligned) -> ExplainReport:
        return self._report(
            "not_comparable",
            rows.problem or "",
            alignment=alignment_of(rows.checks, None, None),
            remedy=rows.remedy,
        )

    def statistics(self) -> ExplainReport:
        found = compare_statistics(self._raw[0].statistics, self._raw[1].statistics)
        verdict: Verdict = "not_comparable"
        if found.differing:
            verdict = "unexplained"
        elif found.hashed:
            verdict = "equal"
        checks = [
            Check(what=f"statistics of {place.key}", equal=place not in found.differing, says=how)
            for place in found.places
            for how in ("differ" if place in found.differing else "equal",)
        ]
        return self._report(
            verdict,
            found.sentence,
            alignment=alignment_of(checks, None, None),
            remedy='dump both with msprobe\'s task "tensor" and convert them (docs/capture.md).',
            uncovered=[
                *found.unequal_shapes,
                *(f"A: {name}" for name in self._raw[0].uncovered),
                *(f"B: {name}" for name in self._raw[1].uncovered),
            ],
            notes=["Bits cannot be compared: at least one dump holds statistics only."],
        )

    def _report(
        self,
        verdict: Verdict,
        sentence: str,
        *,
        alignment: Alignment,
        remedy: str | None = None,
        uncovered: Sequence[str] = (),
        notes: Sequence[str] = (),
        rounded: Sequence[str] = (),
        dtypes: tuple[Counter[str], Counter[str]] = (Counter(), Counter()),
        **found: Any,
    ) -> ExplainReport:
        names = [str(folder)[-NAME_LENGTH:] for folder in self._folders]
        said = [
            f"Dtypes differ: {how} before they were compared; equal means equal after that."
            for how in (f"{one} was rounded" for one in rounded)
        ]
        empty: dict[str, Any] = {
            "gap": None,
            "first": None,
            "ops": [],
            "compared": [],
            "growth": [],
        }
        return ExplainReport(
            schema_version=SCHEMA_VERSION,
            kind="explain",
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            model=self._facts(0, dtypes[0]),
            trainer_model=self._facts(1, dtypes[1]),
            request=ExplainRequest(
                model=names[0],
                trainer_model=names[1],
                engine_dtype=_dtype(dtypes[0]),
                trainer_dtype=_dtype(dtypes[1]),
                backward=False,
            ),
            verdict=verdict,
            equal=verdict == "equal",
            sentence=sentence,
            remedy=remedy,
            alignment=alignment,
            verified=None,
            full_vocabulary=None,
            uncovered=list(uncovered),
            ran={},
            notes=[*said, *notes],
            environment={},
            timing={"compare_s": time.monotonic() - self._started},
            **(empty | found),
        )

    def _facts(self, side: int, dtypes: Counter[str]) -> dict[str, Any]:
        raw = self._raw[side]
        return {
            "name": self._folders[side].name,
            "form": raw.form,
            "forward_passes": len(raw.steps),
            "dtypes": dict(dtypes),
        }


def _gap(pair: Pair, comparison: Comparison) -> Gap | None:
    seen = comparison.seen.get(LOGPROB)
    if seen is None:
        return None
    a, b = (value.double() for value in pair.read(LOGPROB))
    gap = (a - b).abs()
    return Gap(
        tokens=len(gap),
        abs_diff_mean=float(gap.mean()) if len(gap) else 0.0,
        abs_diff_max=float(gap.max()) if len(gap) else 0.0,
        equal_fraction=seen.equality.fraction,
    )


def _dtypes(dump: Dump) -> Counter[str]:
    """Tensors by dtype."""
    return Counter(dtype_name(dump.dtype(place)) for place in dump.places)


def _dtype(found: Counter[str]) -> Dtype:
    """The one that most tensors have, of those that a request knows."""
    names: dict[str, Dtype] = {torch_name: name for name, torch_name in TORCH_NAMES.items()}
    known = [names[name] for name, _ in found.most_common() if name in names]
    return known[0] if known else "fp32"


if __name__ == "__main__":
    child_main(run)
