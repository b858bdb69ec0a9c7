"""`driftscope prometheus export DIR`: rules, dashboards and a scrape job, for who runs Prometheus.

They are those of this very version: dashboards/ of the sources, packed into the wheel. Their links
lead to the service and the Grafana that the options name, so that an alert is of use wherever it is
read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer
import yaml

from driftscope_probes.durable_file import write_whole
from driftscope_probes.errors import RequestError

app = typer.Typer(no_args_is_help=True)

#: Where the wheel holds dashboards/ (pyproject.toml, force-include).
_PACKED: Final = "observability"
#: As the files of the sources have them: the ports of docker-compose.yml.
SERVICE, GRAFANA = "http://127.0.0.1:8321", "http://127.0.0.1:3000"
PUBLIC_URL: Final = "DRIFTSCOPE_PUBLIC_URL"
#: What may stand in YAML, JSON and a template of Prometheus without quotes or escapes.
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-_~:\[\]/]+")
#: In the sources a path in the repository: Prometheus sends it as it is.
_RUNBOOK: Final = re.compile(r"(?m)^(\s*runbook_url: '?)docs/")
JOB: Final = "driftscope"
_SCRAPE_HEAD: Final = """\
# For Prometheus 2.43 or newer: name this file under scrape_config_files, or copy its job.
# Several replicas on one database: see docs/replicas.md, or every run appears once per replica.
"""


@dataclass(frozen=True, slots=True)
class Links:
    """Where the exported files lead to; no address ends with a slash."""

    service: str
    runbooks: str
    grafana: str


@app.callback()
def _prometheus() -> None:
    """Rules, dashboards and scrape configuration for a Prometheus of your own."""


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if need be.")],
    service_url: Annotated[
        str,
        typer.Option(envvar=PUBLIC_URL, help="Of the service: what is scraped and linked to."),
    ] = SERVICE,
    runbook_url: Annotated[
        str | None,
        typer.Option(help="Of the folder docs/.", show_default="the service's own pages, /docs"),
    ] = None,
    grafana_url: Annotated[
        str, typer.Option(help="Of Grafana, for links to dashboards.")
    ] = GRAFANA,
    key_file: Annotated[
        Path | None,
        typer.Option(help="On the machine of Prometheus: holds a key with the scope read."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what differs.")] = False,
) -> None:
    """Write rules/*.yml, dashboards/*.json and scrape.yml.

    Nothing that is there is overwritten without --force; what is the same already stays.
    """
    service = _address("--service-url", service_url)
    links = Links(
        service,
        _address("--runbook-url", runbook_url or f"{service}/docs"),
        _address("--grafana-url", grafana_url),
    )
    written = _write(folder, exported(links, key_file), force=force)
    for name in written:
        typer.echo(str(folder / name))
    typer.echo(f"{len(written)} files written. What to do with them: docs/prometheus.md")


def exported(links: Links, key_file: Path | None = None) -> dict[str, str]:
    """Contents by path within the folder. Raises RequestError without the packed files."""
    root = _source()
    return {
        **{f"rules/{name}": _linked(text, links) for name, text in _texts(root, RULES, ".yml")},
        **{f"dashboards/{name}": text.replace(SERVICE, links.service)
           for name, text in _texts(root, BOARDS, ".json")},
        "scrape.yml": _scrape(root.joinpath(*CONFIGURATION).read_text(encoding="utf-8"), links,
                              key_file),
    }  # fmt: skip


#: Below dashboards/ of the sources and _PACKED of the wheel alike.
RULES, BOARDS = ("prometheus", "rules"), ("grafana",)
CONFIGURATION = ("prometheus", "prometheus.yml")


def _source() -> Traversable:
    package = files("driftscope_service")
    packed = package / _PACKED
    if packed.is_dir():
        return packed
    # In a checkout, and where one is installed as editable.
    checkout = Path(str(package)).parents[1] / "dashboards"
    if not checkout.joinpath(*CONFIGURATION).is_file():
        raise RequestError(
            "this installation holds no rules and dashboards.",
            remedy="install driftscope from its wheel, or run it from a checkout.",
        )
    return checkout


def _texts(root: Traversable, place: tuple[str, ...], suffix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(root.joinpath(*place).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(suffix):
            yield entry.name, entry.read_text(encoding="utf-8")


def _linked(rules: str, links: Links) -> str:
    absolute = _RUNBOOK.sub(lambda found: f"{found[1]}{links.runbooks}/", rules)
    return absolute.replace(SERVICE, links.service).replace(GRAFANA, links.grafana)


def _scrape(configuration: str, links: Links, key_file: Path | None) -> str:
    """The job of docker-compose's Prometheus, with its limits, for one service at an address."""
    jobs = yaml.safe_load(configuration)["scrape_configs"]
    of_compose: Mapping[str, Any] = next(job for job in jobs if job["job_name"] == JOB)
    where = urlsplit(links.service)
    kept = ("sample_limit", "label_value_length_limit")
    job: dict[str, Any] = {
        "job_name": JOB,
        "scheme": where.scheme,
        "metrics_path": where.path + of_compose["metrics_path"],
        **{name: of_compose[name] for name in kept},
    }
    if key_file is not None:
        job["authorization"] = {"type": "Bearer", "credentials_file": str(key_file)}
    job["static_configs"] = [{"targets": [where.netloc]}]
    text: str = yaml.safe_dump({"scrape_configs": [job]}, sort_keys=False)
    return _SCRAPE_HEAD + text


def _address(option: str, given: str) -> str:
    address = given.rstrip("/")
    parts = urlsplit(address)
    if not _URL.fullmatch(address) or not parts.hostname:
        raise RequestError(
            f"{option} {given!r} is not accepted.",
            remedy="give an http or https address without user, query and fragment, such as "
            "https://driftscope.example.com.",
        )
    return address


def _write(folder: Path, contents: Mapping[str, str], *, force: bool) -> list[str]:
    """Names of what was written. Nothing is written where anything would be lost."""
    changed = [name for name, text in contents.items() if _held(folder / name) != text]
    lost = [name for name in changed if os.path.lexists(folder / name)]
    if lost and not force:
        raise RequestError(
            f"{folder} holds {', '.join(lost)} with other contents.",
            remedy="give another folder, or --force to overwrite them.",
        )
    try:
        for name in changed:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, contents[name])
    except OSError as error:
        raise RequestError(
            f"{folder} cannot be written to: {error.strerror or error}.",
            remedy="give a folder that this user may write to.",
        ) from error
    return changed


def _held(path: Path) -> str | None:
    """None: nothing, or nothing that could be read as text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
