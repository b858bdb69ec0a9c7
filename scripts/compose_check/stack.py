"""The containers of docker-compose.yml, started one after the other, and removed at the end."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.compose_check import machine
from scripts.compose_check.base_images import asked_for
from scripts.compose_check.engine import PROJECT, CommandFailed, Engine

#: In the order in which each needs the ones before it. podman before 4.6 cannot wait for a
#: healthy dependency, so the check does what `depends_on` says.
SERVICES = ("postgres", "service", "alertmanager", "prometheus")
PROFILES = ("postgres", "alerts")
#: The service's first start makes the schema; the others are there within seconds.
#: Seen: 60 s for the service, at a load of 15 on two cores.
HEALTHY_SECONDS = 600.0
#: Without the engine's own restart, the container is gone.
RESTART_SECONDS = 180.0
RECEIVER = f"{PROJECT}_receiver_1"
RECEIVER_PORT = 9095
#: Prints what Alertmanager sends, one line a request: the log of the container is the inbox.
RECEIVER_PROGRAM = f"""
import http.server
class Inbox(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(200); self.end_headers()
    def log_message(self, *arguments): pass
http.server.HTTPServer(("", {RECEIVER_PORT}), Inbox).serve_forever()
"""


@dataclass(frozen=True)
class Access:
    """What a client of the running stack needs."""

    service: str
    prometheus: str
    alertmanager: str
    key: str = field(repr=False)

    @classmethod
    def by(cls, environment: Mapping[str, str], key: str) -> Access:
        def at(port: str) -> str:
            return f"http://127.0.0.1:{environment[port]}"

        return cls(at("SERVICE_PORT"), at("PROMETHEUS_PORT"), at("ALERTMANAGER_PORT"), key)


@dataclass
class Stack:
    engine: Engine
    seconds: dict[str, float] = field(default_factory=dict)  # from `up` to healthy

    def start_all(self, folder: Path) -> Access:
        write_secret(folder, "prometheus_key", "")
        write_secret(folder, "alert_webhook_url", f"http://receiver:{RECEIVER_PORT}/")
        self.start("postgres")
        access = Access.by(self.engine.environment, self.new_key("ops", "admin"))
        write_secret(folder, "prometheus_key", self.new_key("prometheus", "read"))
        self.start_receiver()
        for service in SERVICES[1:]:
            self.start(service)
        return access

    def start(self, service: str) -> None:
        began = time.monotonic()
        self.engine.compose("up", "-d", "--no-deps", service, profiles=PROFILES)
        self.engine.wait_healthy(service, HEALTHY_SECONDS)
        self.seconds[service] = time.monotonic() - began

    def new_key(self, name: str, scope: str) -> str:
        """As docs/deploy-compose.md makes keys: in a container of its own, before the service."""
        said = self.engine.compose(
            "run", "--rm", "-T", "--no-deps", "service",
            "keys", "create", "--name", name, "--scope", scope, profiles=PROFILES,
        )  # fmt: skip
        return said.strip().splitlines()[-1]

    def start_receiver(self) -> None:
        (python,) = [name for name in asked_for(self.engine.repository) if "python" in name]
        self.engine.podman(
            "run", "-d", "--name", RECEIVER, "--network", f"{PROJECT}_default",
            "--network-alias", "receiver", "--read-only", "--user", "65534:65534",
            "--cap-drop", "ALL", f"docker.io/library/{python}", "python", "-c", RECEIVER_PROGRAM,
        )  # fmt: skip

    def received(self) -> list[str]:
        return self.engine.podman("logs", RECEIVER).splitlines()

    def remove(self) -> None:
        """Containers, volumes and network of the check; images stay, as the cache of the next."""
        for service in (*reversed(SERVICES), "receiver"):
            self._try("rm", "-f", "-t", "2", "--ignore", self.engine.container(service))
        left = self.engine.podman("ps", "-aq", "--filter", f"name=^{PROJECT}").split()
        if left:
            self._try("rm", "-f", "-t", "2", *left)
        volumes = self.engine.podman("volume", "ls", "-q", "--filter", f"name=^{PROJECT}").split()
        if volumes:
            self._try("volume", "rm", "-f", *volumes)
        self._try("network", "rm", "-f", f"{PROJECT}_default")

    def _try(self, *arguments: str) -> None:
        """The next removal matters more than the error of this one; what is left is reported."""
        try:
            self.engine.podman(*arguments)
        except CommandFailed as error:
            if "not found" not in error.output and "no such" not in error.output:
                print(f"compose-check: {error}", flush=True)


def variables(folder: Path) -> Mapping[str, str]:
    """What a user puts into .env, with passwords drawn for this check, and the secrets' folder."""
    password = secrets.token_hex(16)
    return {
        **{name: str(port) for name, port in machine.ports().items()},
        "COMPOSE_PROFILES": "",
        "DRIFTSCOPE_SECRETS_DIR": str(folder / "secrets"),
        "DRIFTSCOPE_DATABASE_URL": f"postgresql://driftscope:{password}@postgres:5432/driftscope",
        "POSTGRES_PASSWORD": password,
        "GRAFANA_ADMIN_PASSWORD": secrets.token_hex(16),
    }


def write_secret(folder: Path, name: str, value: str) -> None:
    """Readable by the containers' users; the folder above is private to who runs the check."""
    secret = folder / "secrets" / name
    secret.parent.mkdir(mode=0o755, exist_ok=True)
    secret.write_text(value)
    secret.chmod(0o644)


@contextmanager
def removed_at_the_end(engine: Engine, folder: Path) -> Iterator[Stack]:
    """An empty stack, and nothing of it left whatever happens, Ctrl-C included."""
    stack = Stack(engine)
    stack.remove()  # what a check that was killed has left
    try:
        yield stack
    finally:
        # A second Ctrl-C would leave containers that restart for ever.
        earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for service in SERVICES:
            (folder / f"{service}.log").write_text(engine.logs(service))
        stack.remove()
        signal.signal(signal.SIGINT, earlier)
