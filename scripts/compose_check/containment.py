"""What the running containers may do: read from the engine and from inside, not from the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from scripts.compose_check.engine import CommandFailed, Engine
from scripts.compose_check.report import Report
from scripts.compose_check.stack import SERVICES

VARIABLE = re.compile(r"\$\{(\w+):-(\w+)\}")
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
#: Written by root alone in every container that is not read-only.
FORBIDDEN_FILE = "/usr/driftscope-was-here"
NO_CAPABILITIES = "0000000000000000"


@dataclass(frozen=True)
class Expected:
    """What docker-compose.yml asks for, in the engine's units."""

    user: str
    memory: int
    ports: dict[str, str]  # "8321/tcp" → "127.0.0.1:8321"

    @classmethod
    def of(cls, service: dict[str, Any], variables: Mapping[str, str]) -> Expected:
        def given(text: object) -> str:
            return VARIABLE.sub(lambda found: variables.get(found[1]) or found[2], str(text))

        memory = given(service["mem_limit"])
        ports = {}
        for entry in service.get("ports", []):
            address, outside, inside = given(entry).rsplit(":", 2)
            ports[f"{inside}/tcp"] = f"{address}:{outside}"
        return cls(str(service["user"]), int(memory[:-1]) * UNITS[memory[-1]], ports)


def check_containment(engine: Engine, report: Report) -> None:
    services = yaml.safe_load((engine.repository / "docker-compose.yml").read_text())["services"]
    for name in SERVICES:
        _check_one(engine, name, Expected.of(services[name], engine.environment), report)


def _check_one(engine: Engine, name: str, expected: Expected, report: Report) -> None:
    found = engine.inspect(name)
    host = found["HostConfig"]
    report.say(name, f"user {expected.user}", found["Config"]["User"] == expected.user,
               found["Config"]["User"])  # fmt: skip
    report.say(name, "read-only root", host["ReadonlyRootfs"] is True, host["ReadonlyRootfs"])
    report.say(name, "memory limit", host["Memory"] == expected.memory, host["Memory"])
    report.say(name, "no new privileges", "no-new-privileges" in str(host["SecurityOpt"]),
               host["SecurityOpt"])  # fmt: skip
    ports = _published(found)
    report.say(name, f"ports {expected.ports or 'none'}", ports == expected.ports, ports)
    status = found["State"].get("Health", found["State"].get("Healthcheck", {}))
    report.say(name, "healthy", status.get("Status") == "healthy", status.get("Status"))
    _check_inside(engine, name, expected, report)


def _published(found: dict[str, Any]) -> dict[str, str]:
    bound = found["NetworkSettings"]["Ports"] or {}
    return {
        inside: f"{outside['HostIp']}:{outside['HostPort']}"
        for inside, places in bound.items()
        for outside in places or []
    }


def _check_inside(engine: Engine, name: str, expected: Expected, report: Report) -> None:
    """Of the program itself, in the host's /proc, and by an attempt to write."""
    processes = _own_processes(engine.inspect(name)["State"]["Pid"])
    fields = [_status(process) for process in processes]
    users = {status["Uid"].split()[0] for status in fields}
    capabilities = {status["CapEff"] for status in fields} | {status["CapBnd"] for status in fields}
    report.say(name, "every process has that user", users == {expected.user.split(":")[0]}, users)
    report.say(name, "no capability", capabilities == {NO_CAPABILITIES}, capabilities)
    report.say(name, "cannot write below /usr", not _writes(engine, name), FORBIDDEN_FILE)


def _writes(engine: Engine, name: str) -> bool:
    try:
        engine.podman("exec", engine.container(name), "sh", "-c", f": > {FORBIDDEN_FILE}")
    except CommandFailed:
        return False
    return True


def _own_processes(first: int) -> list[int]:
    """The container's first process and all below it."""
    # Of every thread: a program's children are not always those of its first one.
    threads = Path(f"/proc/{first}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return [first, *(process for child in children for process in _own_processes(int(child)))]


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
