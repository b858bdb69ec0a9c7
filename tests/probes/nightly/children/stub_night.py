"""A night of its own process with stub children: argv are the configuration and the history."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from driftscope_probes.nightly import run, work
from driftscope_probes.nightly.request import read_config
from driftscope_probes.progress import discard

ENVIRONMENT = {
    "python": "3.11.0",
    "platform": "Linux",
    "packages": {"torch": "2.13.0", "driftscope": "0.1.0"},
    "hardware": {"cpu": "Some CPU", "cores": 2},
    "variables": {},
    "libraries": {"oneDNN": "3.12"},
    "kernel_packages": {},
    "commit": "abc",
}

if __name__ == "__main__":
    work.KERNEL_MODULE = "stub_items"
    # What a night is of must not differ between its starts: importing torch would cost seconds.
    setattr(run, "night_environment", lambda: (ENVIRONMENT, ()))  # noqa: B010
    config = read_config(Path(sys.argv[1]))
    pages = {"report.xml": lambda result: f"<testsuites exit='{result.exit_code}'/>"}
    result = run.run_nightly(config, Path(sys.argv[2]), discard, pages=pages)
    print(json.dumps(result.to_dict()))
