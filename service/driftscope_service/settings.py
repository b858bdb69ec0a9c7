"""Every setting of the service, from DRIFTSCOPE_* variables or the command line.

Read once where the service starts, then passed down. A wrong value or an unknown variable is an
error that names it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from driftscope_probes.engines.settings import available_cores
from driftscope_probes.errors import ProbeError
from driftscope_probes.matrix.places.base import LocalDefinition
from driftscope_probes.matrix.request import HERE
from driftscope_probes.models import catalogue
from driftscope_probes.push.rules import MAX_FILE_BYTES
from driftscope_service.store.database import DatabaseAddress
from driftscope_service.store.dialects.postgresql import parse_url

PREFIX = "DRIFTSCOPE_"
#: Variables that other parts of driftscope read: the service accepts and ignores them.
OTHER_VARIABLES = {
    "DRIFTSCOPE_HOME": "folder of cached models, compiled kernels and the nightly history",
    "DRIFTSCOPE_URL": "service that the client and the command line call",
    "DRIFTSCOPE_API_KEY": "key that they send",
    "DRIFTSCOPE_RUN": "run name that the client pushes to",
    "DRIFTSCOPE_ATTEMPT": "name of this start of training, the same on all ranks",
    "DRIFTSCOPE_KERNELS": "`portable`: batch-invariant kernels without a C++ compiler",
    "DRIFTSCOPE_VLLM_KERNELS": "`invariant`: the vLLM plugin routes layers to our kernels",
    "DRIFTSCOPE_VLLM_ROUNDING": "whose rounding points the vLLM plugin takes",
    "DRIFTSCOPE_VLLM_FORCE": "`1`: the vLLM plugin accepts a vLLM version it was not tested with",
    "DRIFTSCOPE_MEM_LIMIT": "docker-compose: memory of the service's container",
    "DRIFTSCOPE_SECRETS_DIR": "docker-compose: folder of the secrets",
    "DRIFTSCOPE_PROGRESS_FD": "set by driftscope for a child: the pipe for its progress",
    "DRIFTSCOPE_JOB_ID": "set by driftscope for a child: the job it works for",
}
#: Valid in a URL, a metric label and a folder name alike.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: SQLite's file within the data folder.
DATABASE_NAME = "driftscope.db"
#: RFC 1123 section 2.1, and underscores, which container networks use.
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9_-]{0,62})(\.[a-z0-9]([a-z0-9_-]{0,62}))*")


class SettingsError(ProbeError):
    """A setting is unknown or has a value that is not accepted."""


class EngineEndpoint(BaseModel):
    """A running vLLM server that clients may name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="base URL, http or https")
    model: str = Field(min_length=1, description="model name the server answers to")

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http or https URL")
        if parts.username or parts.password or parts.query:
            # The URL is recorded in every report, which clients read.
            raise ValueError("the URL must hold no user, password or query")
        return url


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True
    )

    host: str = Field(
        default="127.0.0.1",
        description="address to listen on; beyond loopback an API key has to exist",
    )
    port: int = Field(default=8321, ge=0, le=65535, description="0: any free port")
    data_dir: Path = Field(
        default=Path("driftscope-data"), description="database, jobs and reports"
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="postgresql://USER:PASSWORD@HOST:PORT/NAME; empty: SQLite in the data folder",
    )
    require_keys: bool = Field(
        default=False, description="API keys on loopback as well; elsewhere always"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names under which the service may be called, beside its addresses"
    )
    models: dict[str, Path] = Field(
        default_factory=dict, description='further models clients may name: {"name": "folder"}'
    )
    engine_endpoints: dict[str, EngineEndpoint] = Field(
        default_factory=dict,
        description='vLLM servers clients may name: {"name": {"url": …, "model": …}}',
    )
    probe_python: Path | None = Field(
        default=None, description="interpreter that runs probes; default: the service's own"
    )
    matrix_places: dict[str, LocalDefinition] = Field(
        default_factory=dict,
        description="interpreters and variables that a matrix probe may be run with: "
        '{"name": "/path/to/python"} or {"name": {"python": …, "variables": {…}}}',
    )
    matrix_ray_address: str | None = Field(
        default=None, description="Ray cluster whose nodes a matrix probe may be run on"
    )
    nightly_config: Path | None = Field(
        default=None, description="what a nightly job checks; default: the file shipped for a CPU"
    )
    max_concurrent_probes: int = Field(
        default=1, ge=1, le=64, description="probes running at once; they share cores and memory"
    )
    max_queued_jobs: int = Field(default=16, ge=1, le=10_000, description="jobs waiting at most")
    job_time_limit_seconds: float = Field(
        default=14_400.0, gt=0.0, description="wall-clock time after which a probe is stopped"
    )
    max_response_tokens: int = Field(
        default=65_536, ge=1, description="prompts × max_tokens of one probe at most"
    )
    max_resamples: int = Field(default=20_000, ge=0, description="resamples of one probe at most")
    max_threads: int | None = Field(
        default=None, ge=1, description="threads a probe may ask for; default: the cores available"
    )
    max_kv_cache_gib: float = Field(default=16.0, gt=0.0, description="cache a probe may ask for")
    max_body_bytes: int = Field(
        default=1_048_576, ge=1024, description="size of a request body at most"
    )
    max_upload_bytes: int = Field(
        default=536_870_912,
        ge=1024,
        le=MAX_FILE_BYTES,
        description="size of a pushed step or shard at most, compressed and decoded",
    )
    max_concurrent_uploads: int = Field(
        default=4, ge=1, le=256, description="pushed steps received or analysed at once at most"
    )
    upload_idle_timeout_seconds: float = Field(
        default=30.0, gt=0.0, description="time between two pieces of a body at most"
    )
    analysis_processes: int = Field(
        default=1, ge=1, le=64, description="processes that analyse pushed steps"
    )
    token_ring_steps: int = Field(
        default=32, ge=0, description="latest steps of each run whose tokens are kept"
    )
    token_budget_bytes: int = Field(
        default=21_474_836_480, ge=0, description="disk space for the tokens of all runs"
    )
    open_step_seconds: float = Field(
        default=86_400.0,
        gt=0.0,
        description="time after which a step whose shards stopped coming is forgotten",
    )
    metrics_max_runs: int = Field(
        default=50, ge=0, le=500, description="active runs with series in /metrics at most"
    )
    metrics_idle_seconds: float = Field(
        default=21_600.0,
        gt=0.0,
        description="time after its last step at which a run has no more series in /metrics",
    )
    min_free_disk_bytes: int = Field(
        default=268_435_456,
        ge=0,
        description="free space below which /readyz fails and no upload is accepted",
    )

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host != "localhost" and not _is_address(host):
            raise ValueError(
                f"{host[:80]!r} is not an IP address. Use 127.0.0.1, ::1 or localhost, or 0.0.0.0 "
                "or :: for every address of this machine, which needs an API key"
            )
        return host

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not HOST_NAME.fullmatch(name):
                raise ValueError(
                    f"{name[:80]!r} is not a host name: give names as they stand in a URL, in "
                    "lower case and without port or wildcard"
                )
        return names

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        return folder.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            parse_url(url.get_secret_value())
        return url

    @field_validator("matrix_places", mode="before")
    @classmethod
    def _interpreters(cls, places: Any) -> Any:
        """A path alone is the interpreter of a place without variables."""
        if not isinstance(places, dict):
            return places
        return {
            name: {"python": place} if isinstance(place, str) else place
            for name, place in places.items()
        }

    @field_validator("matrix_places")
    @classmethod
    def _here_is_taken(cls, places: dict[str, LocalDefinition]) -> dict[str, LocalDefinition]:
        if HERE in places:
            raise ValueError(f"the place {HERE!r} is the service's own interpreter as it is")
        return places

    @field_validator("models", "engine_endpoints", "matrix_places")
    @classmethod
    def _plain_names(cls, entries: dict[str, Any]) -> dict[str, Any]:
        for name in entries:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"the name {name[:80]!r} is not accepted: 1 to 64 letters, digits, dots, "
                    "underscores or hyphens, beginning with a letter or digit"
                )
        return entries

    @field_validator("models")
    @classmethod
    def _model_folders(cls, models: dict[str, Path]) -> dict[str, Path]:
        for name, folder in models.items():
            if catalogue.find(name):
                raise ValueError(f"model {name!r}: the name is taken by the catalogue")
            if not folder.is_dir():
                raise ValueError(f"model {name!r}: {folder} is not a folder")
        return {name: folder.resolve() for name, folder in models.items()}

    @field_validator("nightly_config")
    @classmethod
    def _file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not a file")
        return None if path is None else path.resolve()

    @field_validator("probe_python")
    @classmethod
    def _executable(cls, python: Path | None) -> Path | None:
        if python is not None and not os.access(python, os.X_OK):
            raise ValueError(f"{python} is not an executable file")
        return python

    @property
    def database(self) -> DatabaseAddress:
        url = self.database_url.get_secret_value()
        return parse_url(url) if url else self.data_dir / DATABASE_NAME

    @property
    def listens_on_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def keys_required(self) -> bool:
        return self.require_keys or not self.listens_on_loopback

    @property
    def model_names(self) -> list[str]:
        """What clients may name: also the only values of the label `model` in /metrics."""
        return [model.name for model in catalogue.CATALOGUE] + sorted(self.models)

    @property
    def threads_allowed(self) -> int:
        return self.max_threads or available_cores()


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def load_settings(environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """`given` (the command line) takes precedence over the environment; None means not given."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | set(OTHER_VARIABLES)
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}.",
            remedy=f"unset it, or use one of: {', '.join(sorted(known - set(OTHER_VARIABLES)))}.",
        )
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_describe(error), remedy="correct the value and start again.") from None
    except SourceError as error:
        raise SettingsError(
            f"{error}.", remedy="dictionaries are given as JSON, for example "
            'DRIFTSCOPE_MODELS=\'{"my-model": "/models/my-model"}\'.'
        ) from None  # fmt: skip


def _describe(error: ValidationError) -> str:
    parts = []
    for entry in error.errors():
        name = ".".join(str(part) for part in entry["loc"])
        parts.append(f"{name}: {entry['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts) + "."
