"""podman and podman-compose, told to keep this check's images and containers apart from others.

Images, containers and networks lie in a storage of the check's own: the stand-ins bear the names
of official images, and nothing else on the machine must ever run one of them for the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Every container, volume and network of the check begins with it; a deployment's do not.
PROJECT = "driftscope-check"
STORAGE = Path("/var/lib/driftscope-compose-check")
#: Niceness of what takes long: a developer's machine stays usable.
NICE = 10
#: A build with every wheel fetched anew; the longest command there is.
BUILD_SECONDS = 3600.0
#: Seconds on an idle machine; minutes where a test run takes every core.
COMMAND_SECONDS = 600.0
#: What podman needs to end a build's own processes before it goes.
TERMINATE_SECONDS = 20.0
#: runc where crun fails (it needs cgroups of one kind), and limits that root without
#: CAP_SYS_RESOURCE can set; the default asks for more than it has.
CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "{storage}/networks"
"""
STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{storage}/images"
runroot = "/run/driftscope-compose-check"
"""


class CommandFailed(RuntimeError):
    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"{' '.join(command)[:300]} ended with {code}:\n{output[-3000:]}")
        self.code, self.output = code, output


def run(
    command: Sequence[str],
    *,
    seconds: float = COMMAND_SECONDS,
    environment: dict[str, str] | None = None,
    given: str | None = None,
    log: Path | None = None,
) -> str:
    """Standard output; or, with `log`, both streams go there while it runs."""
    if log is None:
        with _started(
            command, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            output, errors = _communicated(command, process, seconds, given)
        if process.returncode != 0:
            raise CommandFailed(command, process.returncode, output + errors)
        return output
    with (
        log.open("a") as stream,
        _started(
            command, environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        ) as process,
    ):
        _communicated(command, process, seconds, None)
    if process.returncode != 0:
        raise CommandFailed(command, process.returncode, log.read_text())
    return ""


@contextmanager
def _started(
    command: Sequence[str], environment: dict[str, str] | None, **streams: Any
) -> Iterator[subprocess.Popen[str]]:
    """Ended by SIGTERM whatever happens: killed, podman leaves what its build runs behind."""
    # Ctrl-C in a terminal reaches this group alone; what to end, and when, is decided here.
    with subprocess.Popen(command, env=environment, process_group=0, **streams) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(TERMINATE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _communicated(
    command: Sequence[str], process: subprocess.Popen[str], seconds: float, given: str | None
) -> tuple[str, str]:
    try:
        output, errors = process.communicate(given, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(command, -1, f"not done in {seconds:.0f} s") from error
    return output or "", errors or ""


@dataclass(frozen=True)
class Engine:
    repository: Path
    folder: Path  # of this check: configuration, secrets, logs
    environment: dict[str, str]

    @classmethod
    def prepared(cls, repository: Path, folder: Path, variables: dict[str, str]) -> Engine:
        STORAGE.mkdir(parents=True, exist_ok=True, mode=0o700)
        containers, storage = folder / "containers.conf", folder / "storage.conf"
        containers.write_text(CONTAINERS_CONF.format(storage=STORAGE))
        storage.write_text(STORAGE_CONF.format(storage=STORAGE))
        environment = {
            **os.environ,
            **variables,
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
        }
        if not Path("/run/systemd/system").is_dir():
            # podman's timers for health checks need systemd: here the check itself is the timer.
            environment["DISABLE_HC_SYSTEMD"] = "true"
        return cls(repository, folder, environment)

    def podman(
        self,
        *arguments: str,
        seconds: float = COMMAND_SECONDS,
        given: str | None = None,
        log: Path | None = None,
    ) -> str:
        command = ["nice", "-n", str(NICE), "podman", *arguments]
        return run(command, seconds=seconds, environment=self.environment, given=given, log=log)

    def compose(self, *arguments: str, profiles: Sequence[str] = ()) -> str:
        """The repository's docker-compose.yml under this check's project name."""
        file = self.repository / "docker-compose.yml"
        chosen = [part for profile in profiles for part in ("--profile", profile)]
        command = [
            sys.executable, "-m", "podman_compose", "--in-pod", "false", "-p", PROJECT,
            "-f", str(file), *chosen, *arguments,
        ]  # fmt: skip
        return run(command, environment=self.environment)

    def container(self, service: str) -> str:
        return f"{PROJECT}_{service}_1"

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("inspect", self.container(service)))
        assert isinstance(found, dict)
        return found

    def remove_unfinished_builds(self) -> None:
        """Working containers of a build that was stopped: podman keeps them, with their layers."""
        left = self.podman("ps", "-a", "--external", "--format", "{{.ID}} {{.Names}}").splitlines()
        for identity, _, name in (line.partition(" ") for line in left):
            if name.endswith("-working-container"):
                self.podman("rm", "-f", identity)

    def image_exists(self, name: str) -> bool:
        return self.image_id(name) is not None

    def image_id(self, name: str) -> str | None:
        """None where there is no such image."""
        return self.podman("images", "--no-trunc", "--quiet", name).strip() or None

    def check_health(self, service: str) -> bool:
        """Run the container's own health check once, as the engine's timer would."""
        try:
            self.podman("healthcheck", "run", self.container(service))
        except CommandFailed:
            return False
        return True

    def wait_healthy(self, service: str, seconds: float) -> float:
        """How long it took; an error with the end of the container's log where it does not."""
        began = time.monotonic()
        while not self.check_health(service):
            if time.monotonic() - began > seconds:
                late = f"not healthy in {seconds:.0f} s\n{self.logs(service)}"
                raise CommandFailed(["healthcheck", service], 1, late)
            time.sleep(1.0)
        return time.monotonic() - began

    def logs(self, service: str) -> str:
        command = ["podman", "logs", "--tail", "60", self.container(service)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        return done.stdout + done.stderr
