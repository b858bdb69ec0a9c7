"""What the check needs of the machine: root, a few of Debian's packages, disk, free ports."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from scripts.compose_check.engine import STORAGE, run

#: Debian package → a program of it that shows whether it is there.
PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "catatonit": "/usr/libexec/podman/catatonit",  # behind `init: true`
    "netavark": "/usr/lib/podman/netavark",  # bridge networks
    "aardvark-dns": "/usr/lib/podman/aardvark-dns",  # services find each other by name
    "iptables": "iptables",
}
#: Variable of docker-compose.yml → the port on loopback that it has by itself; but for Grafana.
PORTS = {"SERVICE_PORT": 8321, "PROMETHEUS_PORT": 9090, "ALERTMANAGER_PORT": 9093}
#: Seen: 7 GB for images, layers and their build cache; twice that while a layer is committed.
FREE_BYTES = 20 * 10**9
APT_SECONDS = 900.0


class MachineUnfit(RuntimeError):
    """The check cannot run here; the message says what would let it."""


@dataclass(frozen=True)
class Missing:
    packages: tuple[str, ...]


def missing() -> Missing:
    absent = [
        package
        for package, program in PACKAGES.items()
        if shutil.which(program) is None and not Path(program).is_file()
    ]
    return Missing(tuple(absent))


def why_not() -> str | None:
    """Why the check cannot run on this machine, or None."""
    if os.geteuid() != 0:
        return "it needs root: debootstrap and bridge networks do. Run it as root"
    if shutil.which("apt-get") is None:
        return "it needs Debian's apt-get: base images are made from Debian's packages"
    free = shutil.disk_usage(_existing(STORAGE)).free
    if free < FREE_BYTES:
        return f"{free / 1e9:.0f} GB free below {STORAGE}; {FREE_BYTES / 1e9:.0f} GB are needed"
    return None


def prepare(log: Path) -> tuple[str, ...]:
    """Install what is missing; returns its names."""
    reason = why_not()
    if reason:
        raise MachineUnfit(reason)
    packages = missing().packages
    if packages:
        print(f"compose-check: installing {', '.join(packages)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], seconds=APT_SECONDS, environment=environment, log=log)
        run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            seconds=APT_SECONDS, environment=environment, log=log,
        )  # fmt: skip
    return packages


def ports() -> dict[str, int]:
    """As the file has them; in place of one that something else listens on, any free one."""
    return {name: port if _is_free(port) else _any_free() for name, port in PORTS.items()}


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
