"""Base images without a registry: Debian's packages under the names that our files ask for.

The names are read from docker-compose.yml and the Dockerfile, so that a tag moved there moves here.
What such an image holds is Debian's version, not the one that the tag says: the report tells both.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from scripts.compose_check.engine import NICE, Engine, run

STAND_INS = Path(__file__).parent / "stand_ins"
BASE = "localhost/driftscope-check/debian:base"
#: Beside minbase. The headers are in the official Python image too: kernels are compiled with them.
INCLUDED = "python3,python3-venv,libpython3-dev,ca-certificates"
#: As in the tags of the official images.
SUITE = "bookworm"
#: Repository of an image → its stand-in and the command that says which version it really holds.
VERSIONS = {
    "python": ("python", ("python3", "--version")),
    "prom/prometheus": ("prometheus", ("prometheus", "--version")),
    "prom/alertmanager": ("alertmanager", ("prometheus-alertmanager", "--version")),
    "postgres": ("postgres", ("postgres", "--version")),
}
#: Neither Debian nor a package index has it; its profile is left off.
NOT_TO_BE_HAD = "grafana/grafana"
#: Built here from our own Dockerfiles.
OURS = ("driftscope", "driftscope-gpu")
DEBOOTSTRAP_SECONDS = 1200.0
#: debootstrap mounts the machine's /proc in its folder. In a namespace of its own the mount goes
#: with it, also when it is stopped halfway; the folder must never be removed with /proc in it.
UNSHARED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
LABEL = "driftscope.recipe"


@dataclass(frozen=True)
class BaseImage:
    name: str  # as our files ask for it
    holds: str  # what its program says of itself
    made: bool  # false: it was there from an earlier check


def asked_for(repository: Path) -> list[str]:
    """Every image that the compose file or our Dockerfile takes from a registry."""
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    names = {str(service["image"]) for service in services.values()}
    dockerfile = (repository / "service/docker/cpu.Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.M))
    names |= set(re.findall(r"^FROM (\S+)", dockerfile, re.M)) - stages
    return sorted(name for name in names if _repository(name) not in (*OURS, NOT_TO_BE_HAD))


def make(engine: Engine, log: Path) -> list[BaseImage]:
    names = asked_for(engine.repository)
    unknown = [name for name in names if _repository(name) not in VERSIONS]
    if unknown:
        raise RuntimeError(
            f"no stand-in for {', '.join(unknown)}: add one to {STAND_INS} and to VERSIONS"
        )
    if _label(engine, BASE) != _base_recipe():
        _make_base(engine, log)
    return [_make_one(engine, name, log) for name in names]


def _make_base(engine: Engine, log: Path) -> None:
    with tempfile.TemporaryDirectory(dir=engine.folder) as folder:
        root = Path(folder) / "root"
        run(
            [*UNSHARED, "nice", "-n", str(NICE), "debootstrap", "--variant=minbase",
             f"--include={INCLUDED}", SUITE, str(root), _mirror()],
            seconds=DEBOOTSTRAP_SECONDS, log=log,
        )  # fmt: skip
        archive = Path(folder) / "root.tar"
        run(["tar", "--numeric-owner", "-C", str(root), "-cf", str(archive), "."], log=log)
        engine.podman(
            "import", "--change", f"LABEL {LABEL}={_base_recipe()}",
            "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            str(archive), BASE, log=log,
        )  # fmt: skip


def _make_one(engine: Engine, name: str, log: Path) -> BaseImage:
    stand_in, version = VERSIONS[_repository(name)]
    reference, recipe = f"docker.io/{_qualified(name)}", _recipe(stand_in)
    made = _label(engine, reference) != recipe
    if made:
        engine.podman(
            "build", "--pull=never", "--network=host", "--label", f"{LABEL}={recipe}",
            "-t", reference, "-f", str(STAND_INS / f"{stand_in}.Containerfile"), str(STAND_INS),
            seconds=DEBOOTSTRAP_SECONDS, log=log,
        )  # fmt: skip
    program, *arguments = version
    said = engine.podman(
        "run", "--rm", "--network=none", "--entrypoint", program, reference, *arguments
    )
    return BaseImage(name, said.splitlines()[0].split(" (branch")[0], made)


def _repository(name: str) -> str:
    return name.partition(":")[0]


def _qualified(name: str) -> str:
    return name if "/" in name else f"library/{name}"


def _label(engine: Engine, reference: str) -> str | None:
    if not engine.image_exists(reference):
        return None
    template = f'{{{{index .Labels "{LABEL}"}}}}'
    return engine.podman("image", "inspect", "--format", template, reference).strip()


def _base_recipe() -> str:
    return hashlib.sha256(f"{INCLUDED} {SUITE}".encode()).hexdigest()[:16]


def _recipe(stand_in: str) -> str:
    files = sorted(STAND_INS.glob(f"{stand_in}*"))
    text = _base_recipe() + "".join(file.read_text() for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _mirror() -> str:
    """Where this machine's own apt gets the suite from."""
    form = "$(CODENAME) $(COMPONENT) $(REPO_URI)"
    lines = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"]).splitlines()
    for line in lines:
        codename, component, address = line.split(" ", 2)
        if (codename, component) == (SUITE, "main"):
            return address
    raise RuntimeError(
        f"apt on this machine knows no mirror with {SUITE} main: add one to its sources"
    )
