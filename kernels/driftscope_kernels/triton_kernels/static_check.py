"""Whether the compiled code of a Triton op can depend on the batch: read, not run; no GPU needed.

In: a function that makes the op's launches for any number of rows, an architecture. Out:
StaticVerdict. `python -m driftscope_kernels.triton_kernels.static_check` checks all of ours and
prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from driftscope_kernels.options import VerdictName
from driftscope_kernels.triton_kernels.aot import (
    TARGETS,
    Binary,
    Specialisation,
    compiled,
    specialisation,
)
from driftscope_kernels.triton_kernels.cases import CASES, Case, Inputs, results
from driftscope_kernels.triton_kernels.launch import Launch, recording
from driftscope_kernels.triton_kernels.registered import FUNCTIONS

# Every size to one above 16, and the neighbourhoods of two block sizes: what specialisation by
# value (1) and by divisibility (16) and a choice of blocks by size would tell apart.
BATCH_SIZES = (*range(1, 18), 31, 32, 33, 127, 128, 129)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Arguments that may follow the batch: how many rows or blocks there are, to know where they end.
COUNTS = ("rows", "rows_summed", "blocks", "count")
#: What the verdict STATIC rests on; printed with every one.
ASSUMPTIONS = (
    "the result of a row does not depend on the program that computes it, only on its code",
    f"arguments named {', '.join(COUNTS)} say where rows end and nothing else",
    "for the shapes and batch sizes listed; tensors below 2 GiB, inputs aligned to 16 bytes (ours "
    "are copied where they are not)",
    "by this version of Triton; not run on a GPU",
)

Op = Callable[[int], Any]  # makes the launches for so many rows


@dataclass(frozen=True, slots=True)
class StaticVerdict:
    """STATIC: no atomics, and one binary and the same numbers per launch for every batch size, but
    for counts of rows. Else REFUTED.
    """

    name: str
    arch: str
    verdict: VerdictName
    reasons: tuple[str, ...]  # why it was refuted
    binaries: tuple[Binary, ...]
    batch_sizes: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "assumptions": list(ASSUMPTIONS)}


class NothingLaunchedError(ValueError):
    """An op that starts no kernel: there is no code to read, and no verdict on it."""


@dataclass(slots=True)
class _Place:
    """One launch of an op, over all batch sizes: the specialisations seen and at which sizes, and
    the numbers that it was given.
    """

    kernel: str
    seen: dict[str, tuple[Specialisation, list[int]]]
    numbers: dict[str, set[float]]

    def add(self, launch: Launch, arch: str, rows: int) -> None:
        one = specialisation(launch, arch)
        self.seen.setdefault(one.key, (one, []))[1].append(rows)
        for name, value in launch.arguments.items():
            if isinstance(value, int | float):
                self.numbers.setdefault(name, set()).add(value)


def static_verdict(
    name: str, op: Op, arch: str, batch_sizes: Iterable[int] = BATCH_SIZES
) -> StaticVerdict:
    """Compile what `op` would launch at every batch size, and compare the binaries."""
    if arch not in TARGETS:
        raise ValueError(f"architecture {arch!r}: choose one of {', '.join(TARGETS)}")
    sizes = tuple(batch_sizes)
    places, reasons = _places(op, arch, sizes)
    binaries: dict[str, Binary] = {}
    for place in places:
        found = [(compiled(one), rows) for one, rows in place.seen.values()]
        binaries |= {binary.sha256: binary for binary, _ in found}
        reasons += [*_reasons(place.kernel, found), *_followers(place)]
    verdict: VerdictName = "REFUTED" if reasons else "STATIC"
    return StaticVerdict(name, arch, verdict, tuple(reasons), tuple(binaries.values()), sizes)


def _places(op: Op, arch: str, sizes: tuple[int, ...]) -> tuple[list[_Place], list[str]]:
    places: list[_Place] = []
    for rows in sizes:
        with recording() as launches:
            op(rows)
        names = [launch.kernel.__name__ for launch in launches]
        if not names:
            raise NothingLaunchedError(f"no kernel is launched at {rows} rows")
        places = places or [_Place(name, {}, {}) for name in names]
        if names != [place.kernel for place in places]:
            return [], [f"other kernels at {rows} rows ({names}) than at {sizes[0]}"]
        for place, launch in zip(places, launches, strict=True):
            place.add(launch, arch, rows)
    return places, []


def _followers(place: _Place) -> Iterator[str]:
    """A split that one binary reads from an argument shows in that argument."""
    for name, values in place.numbers.items():
        if len(values) > 1 and name not in COUNTS:
            shown = ", ".join(map(str, sorted(values)))
            yield f"{place.kernel}: argument {name} follows the batch size ({shown})"


def _reasons(kernel: str, found: list[tuple[Binary, list[int]]]) -> Iterator[str]:
    sizes: dict[str, list[int]] = {}
    for binary, rows in found:
        sizes.setdefault(binary.sha256, []).extend(rows)
        if binary.atomics:
            yield f"{kernel}: atomic instructions {', '.join(binary.atomics)}"
    if len(sizes) > 1:
        examples = ", ".join(f"{sha[:8]} at {min(rows)} rows" for sha, rows in sizes.items())
        yield f"{kernel}: {len(sizes)} binaries, chosen by batch size ({examples})"


def case_op(case: Case, dtype: torch.dtype) -> Op:
    """The launches of one of our ops on CPU tensors that nothing is computed on."""
    function = {f.__name__: f for f in FUNCTIONS}[case.op]

    def op(rows: int) -> Any:
        inputs = Inputs(dtype, slice(0, rows), rows, torch.device("cpu"))
        return results(function, case.arguments(inputs))

    return op


def static_verdicts(
    names: Iterable[str], dtypes: Iterable[str], arches: Iterable[str]
) -> Iterator[StaticVerdict]:
    """Verdicts on our own ops; a name is that of a case, and "<case>/<dtype>" in the verdict."""
    for arch in arches:
        for name in names:
            for dtype in dtypes:
                op = case_op(CASES[name], DTYPES[dtype])
                yield static_verdict(f"{name}/{dtype}", op, arch)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 if anything is refuted."""
    parser = argparse.ArgumentParser(
        prog="python -m driftscope_kernels.triton_kernels.static_check"
    )
    parser.add_argument("--op", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES), help="default: all")
    parser.add_argument("--arch", action="append", choices=list(TARGETS), help="default: all")
    given = parser.parse_args(arguments)
    verdicts = list(
        static_verdicts(given.op or CASES, given.dtype or DTYPES, given.arch or TARGETS)
    )
    report = {"verdicts": [verdict.to_dict() for verdict in verdicts]}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(any(verdict.verdict == "REFUTED" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
