"""Settings of libraries that change the arithmetic of this machine, read in processes of their own.

What a setting does depends on the processor. Where one does nothing, the fingerprint must not
differ; where the same inputs give other bits, the diff must name the library that was set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from driftscope_probes.fingerprint.difference import difference
from driftscope_probes.fingerprint.report import FingerprintReport

#: One small shape of one path, to stay short; docs/fingerprint.md has what others change.
SCRIPT = """
import json
from dataclasses import replace
from driftscope_probes.device.environment import night_environment
from driftscope_probes.fingerprint.host_paths import PATHS, host_paths
from driftscope_probes.fingerprint.report import FingerprintReport
from driftscope_probes.progress import discard
small = ((16, 64, 256),)
chosen = [path for path in PATHS if path.name == "torch.mm"]
paths = [replace(path, dtypes=("fp32",), shapes=small, threaded=()) for path in chosen]
read = host_paths(discard, tuple(paths))
environment, notes = night_environment()
report = FingerprintReport.of("cpu", read, (), environment, notes)
print(json.dumps(report.to_dict()))
"""
SETTINGS = {
    "MKL_CBWR=COMPATIBLE": "MKL",
}


def read_with(setting: str) -> FingerprintReport:
    name, _, value = setting.partition("=")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    if name:
        variables[name] = value
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return FingerprintReport.read(json.loads(done.stdout))


@pytest.fixture(scope="module")
def reports() -> dict[str, FingerprintReport]:
    with ThreadPoolExecutor(2) as pool:
        asked = ["", *SETTINGS]
        return dict(zip(asked, pool.map(read_with, asked), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_changes_bits_is_named(
    reports: dict[str, FingerprintReport], setting: str
) -> None:
    plain, changed = reports[""], reports[setting]
    found = difference(plain, changed)
    same = [each.bits for each in plain.paths] == [each.bits for each in changed.paths]
    assert found.equal or not same
    if not same:
        assert SETTINGS[setting] in {each.library for each in found.suspects}
        assert {each.what for each in found.mechanisms} & {"order", "fused multiply-add", "bits"}
