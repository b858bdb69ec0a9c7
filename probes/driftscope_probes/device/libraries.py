"""Process entry: the libraries inside torch's binary that compute, which no package index lists.

    python -m driftscope_probes.device.libraries WORKDIR

Result: {"libraries": {"oneDNN": …, "MKL": …, "CPU capability": …}, "kernel_packages": {name:
version}}, the latter for packages that offer kernels to the checker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from driftscope_probes.children import child_main
from driftscope_probes.progress import ProgressSink

#: Lines of torch.__config__.show(), the only place where torch says what it is linked with.
LINES = {
    "oneDNN": r"MKL-DNN (v\S+ \(Git Hash \w+\))",
    "MKL": r"Math Kernel Library Version (\S+ \S+ \S+)",
    "OpenMP": r"OpenMP \d+ \(a\.k\.a\. OpenMP ([\d.]+)\)",
    "compiler of torch": r"- (GCC \S+|clang \S+|MSVC \S+)",
    "CPU capability of torch": r"CPU capability usage: (\S+)",
    "commit of torch": r"COMMIT_SHA=(\w+)",
}
KERNEL_ENTRY_POINTS = "driftscope.kernels"


def run(_: Mapping[str, Any], workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    import torch

    shown = torch.__config__.show()
    found = {name: re.search(pattern, shown) for name, pattern in LINES.items()}
    libraries = {name: match[1] for name, match in found.items() if match is not None}
    if torch.version.cuda is not None:
        libraries["CUDA of torch"] = torch.version.cuda
    return {"libraries": libraries, "kernel_packages": _kernel_packages()}


def _kernel_packages() -> dict[str, str]:
    found = (entry.dist for entry in entry_points(group=KERNEL_ENTRY_POINTS))
    return {dist.name: dist.version for dist in found if dist is not None}


if __name__ == "__main__":
    child_main(run)
