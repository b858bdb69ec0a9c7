"""Process entry: fetches one model and tells the caller about it in JSON lines on stdout.

In: a name and options. Out: {"stage", "fraction"} lines, then {"path", "model"} with exit code 0,
or {"error": {"error", "message", "remedy"}} with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from typing import Any, get_args

from driftscope_probes.errors import ProbeError
from driftscope_probes.models.fetch import fetch
from driftscope_probes.models.safetensors_file import MasterDtype

TERMINATED = 128 + signal.SIGTERM  # the shell's exit code for a process ended by SIGTERM


def main(argv: Sequence[str]) -> int:
    """Exit code of `run_fetch NAME [--master-dtype bf16|fp32] [--force]`."""
    parser = argparse.ArgumentParser(prog="run_fetch", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--master-dtype", choices=get_args(MasterDtype))
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args(argv)
    try:
        model = fetch(
            options.name,
            master_dtype=options.master_dtype,
            force=options.force,
            progress=lambda stage, fraction: _say({"stage": stage, "fraction": fraction}),
        )
    except ProbeError as error:
        _say({"error": error.to_dict()})
        return 1
    _say({"path": str(model.path), "model": model.to_dict()})
    return 0


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _stop(number: int, frame: object) -> None:
    # As an exception, so that the build's own clean-up runs.
    sys.exit(TERMINATED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))
