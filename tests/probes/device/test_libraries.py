"""Libraries inside torch's binary, as torch names them; asked in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from driftscope_probes.device.libraries import LINES, run
from driftscope_probes.progress import discard


def test_every_library_is_named_as_torch_shows_it(tmp_path: Path) -> None:
    libraries = run({}, tmp_path, discard)["libraries"]
    shown = torch.__config__.show()
    assert libraries.keys() <= {*LINES, "CUDA of torch"}
    assert "CPU capability of torch" in libraries
    assert all(libraries[name] in shown for name in libraries.keys() & LINES.keys())


def test_the_module_imports_no_torch() -> None:
    code = (
        "import sys, driftscope_probes.device.libraries as module; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
