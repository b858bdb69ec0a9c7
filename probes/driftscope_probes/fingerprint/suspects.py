"""Which change of the environment can explain other arithmetic: by what each library computes.

Free of torch. In: changed mechanisms and the changes between two environments. Out: suspects.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from driftscope_probes.device.environment import Change


@dataclass(frozen=True, slots=True)
class Library:
    name: str
    variables: tuple[str, ...]  # beginnings of the names of variables that steer it
    versions: tuple[str, ...]  # what the environment calls it
    computes: tuple[str, ...]  # beginnings of the paths that it may compute
    functions: bool = False  # exp, log, … as well


_OF_TORCH: Final = ("torch", "Tensor")
LIBRARIES: Final = (
    Library("MKL", ("MKL_",), ("MKL",), _OF_TORCH),
    Library("oneDNN", ("ONEDNN_", "DNNL_"), ("oneDNN",), _OF_TORCH),
    Library(
        "torch's own kernels",
        ("ATEN_", "TORCH_", "PYTORCH_"),
        ("torch", "CPU capability of torch", "commit of torch", "compiler of torch"),
        _OF_TORCH,
        functions=True,
    ),
    Library("OpenMP", ("OMP_", "KMP_"), ("OpenMP",), (*_OF_TORCH, "driftscope_kernels")),
    Library("numpy's OpenBLAS", ("OPENBLAS_", "NPY_"), ("numpy",), ("numpy",)),
    Library(
        *("driftscope's kernels", ("DRIFTSCOPE_KERNELS",), ("driftscope", "driftscope commit")),
        ("driftscope_kernels",),
    ),
    Library("the simulator", (), ("mmasim",), ("simulated:",)),
)
#: Everything may depend on these.
ANYTHING: Final = ("hardware", "platform")


@dataclass(frozen=True, slots=True)
class Suspect:
    change: str  # "variable MKL_CBWR: – → COMPATIBLE"
    library: str
    explains: int  # how many of the mechanisms
    of: int

    @property
    def sentence(self) -> str:
        return f"{self.change} can explain {self.explains} of {self.of}: it is of {self.library}"


def suspects(
    places: Sequence[str], functions: Collection[str], changes: Sequence[Change]
) -> tuple[Suspect, ...]:
    """`places`: of every mechanism its path or function; `functions`: which of them are functions.
    Those that explain most come first; a change that explains nothing is left out."""
    found = []
    for change in changes:
        said = f"{change.kind} {change.name}: {_shown(change.before)} → {_shown(change.after)}"
        if change.kind in ANYTHING:
            found.append(Suspect(said, "this machine", len(places), len(places)))
            continue
        for library in LIBRARIES:
            if _is_of(change, library):
                explained = [each for each in places if _may(library, each, functions)]
                found.append(Suspect(said, library.name, len(explained), len(places)))
    return tuple(sorted((s for s in found if s.explains), key=lambda s: -s.explains))


def _is_of(change: Change, library: Library) -> bool:
    if change.kind == "variable":
        return change.name.startswith(library.variables or ("\0",))
    return change.name in library.versions


def _may(library: Library, place: str, functions: Collection[str]) -> bool:
    return library.functions if place in functions else place.startswith(library.computes)


def _shown(value: object) -> str:
    return "–" if value is None else str(value)
