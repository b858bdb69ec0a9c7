"""What could have changed a verdict: hardware, versions, settings, our code; between nights.

In: two environments as `night_environment` gives them. Out: changes by name, before, after.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from driftscope_probes.children import ChildProcess, Crash
from driftscope_probes.device.environment import environment
from driftscope_probes.errors import ProbeError
from driftscope_probes.record import Record

LIBRARIES_MODULE = "driftscope_probes.device.libraries"
OWN = "driftscope"
GIT_TIMEOUT_S = 10.0
#: Memory differs by a page from boot to boot and chooses no kernel.
LEFT_OUT = ("memory_gib", "gpu_driver")

ChangeKind = Literal[
    "hardware", "version", "own", "platform", "variable", "config", "setting", "bits"
]
#: A night after one of these is another experiment; the report says so even if all verdicts hold.
ALARMING: tuple[ChangeKind, ...] = ("hardware", "version")


class Change(Record):
    kind: str  # a ChangeKind; a later version may know more
    name: str
    before: Any  # JSON values; None: it was not there
    after: Any


def night_environment() -> tuple[dict[str, Any], tuple[str, ...]]:
    """As `environment()`, and "libraries", "kernel_packages", "commit"; with notes."""
    found = environment()
    notes: tuple[str, ...] = ()
    inside: Mapping[str, Any] = {"libraries": {}, "kernel_packages": {}}
    if "torch" in found["packages"]:
        try:
            inside = _libraries()
        except ProbeError as error:
            notes = (f"the libraries inside torch could not be read: {error.message}",)
    return {**found, **inside, "commit": _commit()}, notes


def _libraries() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="driftscope-") as work:
        child = ChildProcess(LIBRARIES_MODULE, {}, Path(work), explain_crash=_explain_crash)
        return child.wait()


def _explain_crash(crash: Crash) -> ProbeError:
    how = crash.signal_name or crash.last_line
    return ProbeError(f"importing torch ended with {how}", remedy="repair the installation.")


def _commit() -> str | None:
    """Commit of the checkout that contains these sources; None where they are installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def key_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a night ran on: nights with the same key are comparable without notes."""
    hardware = found["hardware"]
    versions = {"python": found["python"], **found["packages"], **found["libraries"]}
    versions |= found["kernel_packages"]
    if "gpu_driver" in hardware:
        versions["GPU driver"] = hardware["gpu_driver"]
    return {
        "hardware": {name: hardware[name] for name in hardware if name not in LEFT_OUT},
        "versions": {name: version for name, version in versions.items() if name != OWN},
    }


def compare_environments(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    changes: list[Change] = []
    for kind, old, new in (
        ("hardware", key_of(before)["hardware"], key_of(after)["hardware"]),
        ("version", key_of(before)["versions"], key_of(after)["versions"]),
        ("own", _own(before), _own(after)),
        ("platform", {"platform": before["platform"]}, {"platform": after["platform"]}),
        ("variable", before["variables"], after["variables"]),
    ):
        changes += differences(kind, old, new)
    return tuple(changes)


def differences(
    kind: Any, before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[Change]:
    """Names of either side whose values are not the same."""
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            sides = {"before": before.get(name), "after": after.get(name)}
            yield Change(kind=kind, name=prefix + name, **sides)


def _own(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"driftscope": found["packages"].get(OWN), "driftscope commit": found.get("commit")}
