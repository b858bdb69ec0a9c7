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
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
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
from driftscope_service.store.storage.opening import parse_storage_url

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
    "DRIFTSCOPE_VLLM_LOADABLE": "`1`: weights can be written into a vLLM with stock kernels",
    "DRIFTSCOPE_VLLM_FORCE": "`1`: the vLLM plugin accepts a vLLM version it was not tested with",
    "DRIFTSCOPE_MEM_LIMIT": "docker-compose: memory of the service's container",
    "DRIFTSCOPE_SECRETS_DIR": "docker-compose: folder of the secrets",
    "DRIFTSCOPE_GPU_PUBLIC_URL": "docker-compose: public address of the second service",
    "DRIFTSCOPE_PROGRESS_FD": "set by driftscope for a child: the pipe for its progress",
    "DRIFTSCOPE_JOB_ID": "set by driftscope for a child: the job it works for",
    "DRIFTSCOPE_JOB_ATTEMPT": "set by driftscope for a child: which attempt at the job",
}
#: Valid in a URL, a metric label and a folder name alike.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Of CUDA_VISIBLE_DEVICES: a number, or what nvidia-smi -L prints. A comma gives a probe several.
DEVICE = re.compile(r"[A-Za-z0-9/:,-]{1,200}")
#: Of the limits on requests: what is beyond is no limit.
MOST_PER_MINUTE = 1_000_000
MOST_AT_ONCE = 10_000
#: What may stand in a link of a chat, in YAML and in JSON without quotes or escapes.
PUBLIC_ADDRESS = re.compile(r"https?://[A-Za-z0-9\[][A-Za-z0-9.\-_~:\[\]/]*")
#: Of the webhook's secret; what is shorter can be guessed from one signed request.
LEAST_SECRET = 16
#: SQLite's file within the data folder.
DATABASE_NAME = "driftscope.db"
#: RFC 1123 section 2.1, and underscores, which container networks use.
HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9_-]{0,62})(\.[a-z0-9]([a-z0-9_-]{0,62}))*")

#: Of a node of the cluster, or of Ray's client server; a host name, or an address in brackets.
RAY_ADDRESS = re.compile(r"(ray://)?([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")


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
    storage_url: str = Field(
        default="",
        description="files of steps and reports: s3://BUCKET/PREFIX or file:///FOLDER; empty: the "
        "data folder",
    )
    require_keys: bool = Field(
        default=False, description="API keys on loopback as well; elsewhere always"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names under which the service may be called, beside its addresses"
    )
    requests_per_minute_per_key: int = Field(
        default=12_000,
        ge=1,
        le=MOST_PER_MINUTE,
        description="requests of one key in a minute at most, unless the key has its own number",
    )
    concurrent_requests_per_key: int = Field(
        default=256,
        ge=1,
        le=MOST_AT_ONCE,
        description="requests of one key at once at most, unless the key has its own number",
    )
    requests_per_minute_per_address: int = Field(
        default=0,
        ge=0,
        le=MOST_PER_MINUTE,
        description="without keys: requests of one client address in a minute at most; 0: any",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="addresses or networks of proxies whose X-Forwarded-Proto and "
        "X-Forwarded-For are believed",
    )
    max_connections: int = Field(
        default=512, ge=16, le=65_536, description="open connections at most"
    )
    max_connections_per_address: int = Field(
        default=128,
        ge=8,
        le=65_536,
        description="open connections of one address at most; trusted proxies have no limit",
    )
    header_timeout_seconds: float = Field(
        default=10.0, gt=0.0, description="time for the head of a request to arrive at most"
    )
    keep_alive_timeout_seconds: int = Field(
        default=5, ge=1, le=3600, description="time that an idle connection is kept"
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="lines of the log: `text`, or `json`, one object each"
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
    executor: Literal["local", "ray"] = Field(
        default="local",
        description="where probes run and large steps are analysed: on this machine, or on a Ray "
        "cluster",
    )
    ray_address: str = Field(
        default="",
        description="of an existing cluster: HOST:PORT or auto (with a node of it on this "
        "machine), or ray://HOST:PORT",
    )
    ray_token_file: Path | None = Field(
        default=None, description="file that holds the token of the cluster"
    )
    ray_without_token: bool = Field(
        default=False, description="accept a cluster beyond loopback that asks for no token"
    )
    ray_cpus_per_job: float = Field(
        default=1.0, ge=0.0, le=1024.0, description="CPUs that a job reserves on a node"
    )
    ray_gpus_per_job: float = Field(
        default=0.0, ge=0.0, le=64.0, description="GPUs that a job reserves on a node"
    )
    ray_memory_bytes_per_job: int = Field(
        default=0, ge=0, description="memory that a job reserves on a node; 0: none"
    )
    ray_accelerator_type: str | None = Field(
        default=None, max_length=64, description="GPU of the node as Ray names it, such as H100"
    )
    ray_resources: dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        default_factory=dict,
        description='further resources of the cluster that a job reserves: {"name": amount}',
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
        default=14_400.0,
        gt=0.0,
        description="wall-clock time after which a probe, or a large step on a Ray cluster, is "
        "stopped",
    )
    job_total_time_limit_seconds: float = Field(
        default=43_200.0, gt=0.0, description="what all attempts at a job may take together"
    )
    max_probe_memory_gib: float | None = Field(
        default=None,
        gt=0.0,
        description="memory of all processes of a probe at most; default: no limit but the machine",
    )
    devices: tuple[str, ...] = Field(
        default=(),
        description='devices, one for each running probe as its CUDA_VISIBLE_DEVICES: ["0", "1"]',
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
        default=8, ge=1, le=256, description="pushed steps received or analysed at once at most"
    )
    upload_idle_timeout_seconds: float = Field(
        default=30.0, gt=0.0, description="time between two pieces of a body at most"
    )
    upload_total_timeout_seconds: float = Field(
        default=600.0, gt=0.0, description="time for a whole body to arrive at most"
    )
    upload_min_bytes_per_second: float = Field(
        default=4096.0,
        ge=0.0,
        description="least rate of a body, over any ten seconds; 0: no least rate",
    )
    # The second starts with the first step that finds the first one busy.
    analysis_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="processes that analyse pushed steps; large steps on a Ray cluster at once",
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
    keep_job_days: float | None = Field(
        default=None, gt=0.0, description="days after which a finished job without a report goes"
    )
    keep_report_days: float | None = Field(
        default=None,
        gt=0.0,
        description="days after which a report goes, unless a verdict rests on it or it is the "
        "last of its kind and model",
    )
    keep_reports: int | None = Field(
        default=None, ge=1, description="reports of every kind and model that are kept"
    )
    keep_night_days: float | None = Field(
        default=None, gt=0.0, description="days after which a night and its report go"
    )
    keep_nights: int | None = Field(
        default=None, ge=1, description="nights of every nightly configuration that are kept"
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
    public_url: str = Field(
        default="",
        description="address under which people reach the service, for links in what it sends and "
        "in what `prometheus export` writes; empty: its own",
    )
    webhook_url: SecretStr = Field(
        default=SecretStr(""),
        description="http or https address that is told of a new verdict or cause of a run; empty: "
        "nobody is told",
    )
    webhook_format: Literal["json", "slack"] = Field(
        default="json", description="body that is sent: `json`, or `slack`, which chats take"
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="at least 16 characters, by which what is sent is signed; `json` needs it",
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

    @field_validator("devices")
    @classmethod
    def _one_each(cls, devices: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        probes = info.data.get("max_concurrent_probes", 1)
        if devices and len(devices) < probes:
            raise ValueError(
                f"{len(devices)} named for {probes} probes at once: name one for each, or lower "
                "max_concurrent_probes"
            )
        if not all(DEVICE.fullmatch(name) for name in devices) or len({*devices}) < len(devices):
            raise ValueError(
                f"{list(devices)!r} is not accepted: give each device once, as "
                'CUDA_VISIBLE_DEVICES has it, such as "0" or "GPU-8932f937-d72c"'
            )
        return devices

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(
                    f"{network[:80]!r} is neither an IP address nor a network like 10.0.0.0/8"
                ) from None
        return networks

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

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str) -> str:
        address = url.rstrip("/")
        if address and not PUBLIC_ADDRESS.fullmatch(address):
            raise ValueError(
                f"{url[:80]!r} is not an http or https address without user, query and fragment"
            )
        return address

    @field_validator("webhook_url")
    @classmethod
    def _webhook(cls, url: SecretStr) -> SecretStr:
        """What was given is not repeated: it may hold a secret."""
        try:
            parts = urlsplit(url.get_secret_value())
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            usable = usable and not parts.fragment and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if url.get_secret_value() and not usable:
            raise ValueError("it is not an http or https address")
        return url

    @field_validator("webhook_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < LEAST_SECRET:
            raise ValueError(f"it has fewer than {LEAST_SECRET} characters")
        return secret

    @model_validator(mode="after")
    def _signed(self) -> Self:
        sends_json = self.webhook_url.get_secret_value() and self.webhook_format == "json"
        if sends_json and not self.webhook_secret.get_secret_value():
            raise ValueError(
                "DRIFTSCOPE_WEBHOOK_URL needs DRIFTSCOPE_WEBHOOK_SECRET: without a signature the "
                "receiver cannot tell who sent it; a chat that checks none takes "
                "DRIFTSCOPE_WEBHOOK_FORMAT=slack"
            )
        return self

    @field_validator("storage_url")
    @classmethod
    def _storage(cls, url: str) -> str:
        return parse_storage_url(url)

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

    @field_validator("ray_address")
    @classmethod
    def _cluster(cls, address: str) -> str:
        if address and address != "auto" and not RAY_ADDRESS.fullmatch(address):
            raise ValueError(f"{address[:80]!r} is none of HOST:PORT, ray://HOST:PORT and auto")
        return address

    @field_validator("ray_token_file")
    @classmethod
    def _token(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"{path} is not a file")
        return None if path is None else path.resolve()

    @model_validator(mode="after")
    def _whole_cluster(self) -> Self:
        if self.executor != "ray":
            return self
        if not self.ray_address:
            raise ValueError("the executor ray needs DRIFTSCOPE_RAY_ADDRESS or --ray-address")
        if self.probe_python is not None:
            raise ValueError(
                "DRIFTSCOPE_PROBE_PYTHON is for the executor local: a node of a cluster runs "
                "probes with the Python that Ray runs in there"
            )
        host = self.ray_address.removeprefix("ray://").rpartition(":")[0].strip("[]")
        if self.ray_token_file is None and not is_loopback(host) and not self.ray_without_token:
            raise ValueError(
                f"whoever reaches the cluster at {self.ray_address} may run code on it unless it "
                "asks for a token: start it with RAY_AUTH_MODE=token and give "
                "DRIFTSCOPE_RAY_TOKEN_FILE, or, where its network lets nobody else in, "
                "DRIFTSCOPE_RAY_WITHOUT_TOKEN=true"
            )
        return self

    @property
    def database(self) -> DatabaseAddress:
        url = self.database_url.get_secret_value()
        return parse_url(url) if url else self.data_dir / DATABASE_NAME

    @property
    def address_for_people(self) -> str:
        """Without a slash at the end."""
        if self.public_url:
            return self.public_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

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
        said = entry["msg"].removeprefix("Value error, ")
        parts.append(f"{name}: {said}" if name else said)
    return "; ".join(parts) + "."
