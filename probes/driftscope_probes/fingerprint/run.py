"""A fingerprint, in a process of its own: every path read one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.device.environment import night_environment
from driftscope_probes.device.versions import installed
from driftscope_probes.fingerprint.device_paths import device_paths
from driftscope_probes.fingerprint.functions import read_functions
from driftscope_probes.fingerprint.host_paths import host_paths
from driftscope_probes.fingerprint.report import FingerprintReport, FunctionReading
from driftscope_probes.fingerprint.request import HOST, FingerprintRequest
from driftscope_probes.fingerprint.simulated import PACKAGE
from driftscope_probes.progress import Progress, ProgressSink, scaled

#: Of the whole, as measured on two cores: what paths and functions take.
PATHS_UNTIL, FUNCTIONS_UNTIL = 0.85, 0.95


def run_probe(asked: Mapping[str, Any], _workdir: Path, progress: ProgressSink) -> dict[str, Any]:
    request = FingerprintRequest.model_validate(asked["request"])
    return fingerprint(request, progress).to_dict()


def fingerprint(request: FingerprintRequest, progress: ProgressSink) -> FingerprintReport:
    """Raises RequestError."""
    device = request.device
    functions: list[FunctionReading] = []
    if device != HOST:
        paths = device_paths(device, scaled(progress, 0.0, PATHS_UNTIL))
    else:
        paths = host_paths(scaled(progress, 0.0, PATHS_UNTIL))
        functions = read_functions(scaled(progress, PATHS_UNTIL, FUNCTIONS_UNTIL))
    progress(Progress("environment", FUNCTIONS_UNTIL))
    environment, notes = night_environment()
    simulator = installed(PACKAGE) if device != HOST else None
    if simulator is not None:
        environment["packages"][PACKAGE] = simulator
    return FingerprintReport.of(device, paths, functions, environment, notes)
