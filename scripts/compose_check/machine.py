"""What the check needs of the machine: root, a few of Debian's packages, free ports, disk."""

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
#: What docker-compose.yml publishes on loopback, but for Grafana.
PORTS = (8321, 9090, 9093)
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
    taken = [port for port in PORTS if not _is_free(port)]
    if taken:
        ports = ", ".join(map(str, taken))
        return f"ports in use on 127.0.0.1: {ports}. Stop what listens there"
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
