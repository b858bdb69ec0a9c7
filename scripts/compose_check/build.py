"""Our image from the real Dockerfile, with pip configured in the build as it is on the machine."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.compose_check.engine import BUILD_SECONDS, Engine

IMAGE_DOCKERFILE = "service/docker/cpu.Dockerfile"
#: One line of `pip config list`: where the value comes from, its name, the value in quotes.
SETTING = re.compile(r"(?P<section>[^.\s]+)\.(?P<name>[^=\s]+)='(?P<value>.*)'")
#: Files by which pip and apt in the build trust the machine's own proxy, where it has one.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class PipSettings:
    """pip's configuration of this machine, and the files on it that the configuration names."""

    options: dict[str, str]
    paths: tuple[Path, ...]

    def file(self) -> str:
        config = configparser.RawConfigParser()
        config["global"] = self.options
        lines = [f"{name} = {value}" for name, value in config["global"].items()]
        return "\n".join(["[global]", *lines, ""])


def read_pip_settings(listing: str) -> PipSettings:
    """From the lines of `pip config list`; variables of the environment come before files."""
    options: dict[str, str] = {}
    for line in listing.splitlines():
        found = SETTING.fullmatch(line.strip())
        if found is None:
            continue
        name = found["name"].lstrip(".").replace("_", "-")
        if found["section"] == ":env:" or name not in options:
            options[name] = found["value"]
    words = [word for value in options.values() for word in value.split()]
    paths = {path for word in words if (path := _local_path(word)) is not None}
    roots = {_root(path) for path in paths}
    return PipSettings(options, tuple(sorted(roots)))


def build(engine: Engine, log: Path) -> str:
    """The name of the image, as the compose file has it; unchanged layers come from the cache."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    pip = read_pip_settings(listing)
    config = engine.folder / "pip.conf"
    config.write_text(pip.file())
    mounts = {config: "/etc/pip.conf", **{path: str(path) for path in pip.paths if path.exists()}}
    if CERTIFICATES.is_file():
        mounts[CERTIFICATES] = str(CERTIFICATES)
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    index = os.environ.get("TORCH_CPU_INDEX")  # as `make setup` has it
    arguments = [f"--build-arg=TORCH_CPU_INDEX={index}"] if index else []
    name = image_name(engine.repository)
    engine.remove_unfinished_builds()
    before = engine.image_id(f"localhost/{name}")
    engine.podman(
        "build", "--pull=never", "--layers", "--network=host", *volumes, *arguments,
        "-t", f"localhost/{name}", "-f", str(engine.repository / IMAGE_DOCKERFILE),
        str(engine.repository), seconds=BUILD_SECONDS, log=log,
    )  # fmt: skip
    if before not in (None, engine.image_id(f"localhost/{name}")):
        engine.podman("rmi", str(before))  # gigabytes that no later check would use
    return name


def image_name(repository: Path) -> str:
    found = re.search(r"^    image: (driftscope:\S+)$", _compose(repository), re.M)
    assert found is not None
    return found[1]


def _compose(repository: Path) -> str:
    return (repository / "docker-compose.yml").read_text()


def _local_path(word: str) -> Path | None:
    parts = urlsplit(word)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(word) if word.startswith("/") else None


def _root(path: Path) -> Path:
    """An index in a folder links to files beside it: the folder above is mounted with it."""
    return path.parent if path.name == "simple" else path
