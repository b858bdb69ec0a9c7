"""A whole service on a temporary folder: real database, real executor, probes as real processes."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import numpy as np
import psutil
import pytest
import uvicorn
from safetensors.numpy import save
from sqlalchemy import URL, func, make_url, select, text
from starlette.testclient import TestClient
from ulid import ULID

from driftscope_probes.diagnosis.cause import Diagnosis, Evidence, NamedCause, Plot
from driftscope_probes.diagnosis.floor import Floor
from driftscope_service.app import create_app
from driftscope_service.jobs.executors.local import JOB_VARIABLE
from driftscope_service.server import listen
from driftscope_service.service import Service, open_service
from driftscope_service.settings import PREFIX, Settings
from driftscope_service.store import migrate, tables
from driftscope_service.store.database import Database, DatabaseAddress

QUICK_PROBE = "quick_probe"
ROOT = Path(__file__).parents[2]
CHILDREN = Path(__file__).parent / "jobs" / "children"
#: Nothing here takes longer than a start of Python; a busy machine may be ten times slower.
PATIENCE_S = 30.0
MODEL = "tiny-random-llama"


DEBIAN_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class MakeSettings(Protocol):
    def __call__(self, **given: Any) -> Settings: ...


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's; children find our probe."""
    clean(monkeypatch)


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    roots = [str(ROOT / root) for root in ("probes", "service", "kernels")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHILDREN), *roots]))


@pytest.fixture
def make_settings(clean_environment: None, tmp_path: Path) -> MakeSettings:
    def make(**given: Any) -> Settings:
        return Settings(**{"data_dir": tmp_path / "data", **given})

    return make


class Running:
    """A service that runs, a client of it, and the few steps that tests repeat."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service = service
        self.client = client

    @property
    def data_dir(self) -> Path:
        return self.service.settings.data_dir

    def post(self, act: str, **fields: Any) -> Any:
        body = {
            "model": MODEL,
            "prompts": [act],
            "engine_dtypes": ["bf16"],
            "trainer_dtypes": ["bf16"],
            **fields,
        }
        return self.client.post("/v1/probes/paired", json=body)

    def start(self, act: str, **fields: Any) -> str:
        response = self.post(act, **fields)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def post_kernels(self, act: str = "torch", **fields: Any) -> Any:
        """A kernel check; the quick probe does what its first target says."""
        body = {"targets": [act], "ops": ["linear"], "dtypes": ["fp32"], "threads": [1], **fields}
        return self.client.post("/v1/probes/kernels", json=body)

    def finished_kernels_report(self, act: str = "torch", **fields: Any) -> str:
        answer = self.post_kernels(act, **fields)
        assert answer.status_code == 202, answer.text
        job = self.wait(answer.json()["id"])
        assert job["state"] == "succeeded", job
        return str(job["links"]["report"].rsplit("/", 1)[1])

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return body

    def wait(self, job_id: str, *states: str) -> dict[str, Any]:
        """Until the job is in one of `states`, by default any final one."""
        wanted = states or ("succeeded", "failed", "cancelled")
        eventually(lambda: self.job(job_id)["state"] in wanted)
        return self.job(job_id)

    def finished_report(self, act: str = "succeed", **fields: Any) -> str:
        job = self.wait(self.start(act, **fields))
        assert job["state"] == "succeeded", job
        return str(job["links"]["report"].rsplit("/", 1)[1])


Serving = Callable[[Running], AbstractContextManager[str]]


class Run(Protocol):
    def __call__(self, **settings: Any) -> AbstractContextManager[Running]: ...


@pytest.fixture
def run_service(make_settings: MakeSettings) -> Run:
    """As a context manager, for tests that start the service more than once."""

    return lambda **given: opened(make_settings(**given))


@contextmanager
def opened(settings: Settings) -> Iterator[Running]:
    with open_service(settings, probe_module=QUICK_PROBE) as service:
        # A bug must arrive as a response, as it does for a real client.
        client = TestClient(
            create_app(service),
            base_url="http://127.0.0.1:8321",
            raise_server_exceptions=False,
        )
        with client:
            yield Running(service, client)


@contextmanager
def replicas(url: URL, folder: Path, number: int = 2) -> Iterator[list[Running]]:
    """Several services on one PostgreSQL database, each with a data folder of its own, in which the
    folders of steps and reports are the same: what a shared storage is."""
    with ExitStack() as stack:
        started = []
        for replica in range(number):
            data_dir = folder / f"replica-{replica}"
            for shared in ("steps", "reports"):
                (folder / shared).mkdir(exist_ok=True)
                data_dir.mkdir(exist_ok=True)
                if not (data_dir / shared).exists():
                    (data_dir / shared).symlink_to(folder / shared)
            settings = Settings(
                data_dir=data_dir, database_url=url.render_as_string(hide_password=False)
            )
            started.append(stack.enter_context(opened(settings)))
        yield started


@pytest.fixture
def run_replicas(clean_environment: None, tmp_path: Path) -> Callable[..., Any]:
    return lambda url, number=2: replicas(url, tmp_path, number)


@pytest.fixture(scope="module")
def two_replicas(
    own_postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Running]]:
    """For tests that use runs of their own: two services take a while to start."""
    folder = tmp_path_factory.mktemp("replicas")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean(monkeypatch)
        with replicas(emptied(own_postgresql.url), folder) as started:
            yield started


@pytest.fixture
def running(run_service: Run) -> Iterator[Running]:
    with run_service() as running:
        yield running


#: Parquet files of tokens on their way: each goes away by itself.
KEPT_LATER = "*.parquet*"


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], None]:
    return eventually


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Whether a process has ended; a zombie that nobody has collected yet counts."""

    def gone(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    return gone


@pytest.fixture
def serving(make_settings: MakeSettings) -> Serving:
    """A running service, reachable over a real port as well."""

    @contextmanager
    def serve(running: Running) -> Iterator[str]:
        listener = listen(make_settings(port=0))
        config = uvicorn.Config(create_app(running.service), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
        listener.close()

    return serve


@pytest.fixture
def url(running: Running, serving: Serving) -> Iterator[str]:
    with serving(running) as url:
        yield url


@pytest.fixture
def processes_of() -> Callable[[str], list[int]]:
    """Every process that carries the mark of a job."""

    def find(job_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(JOB_VARIABLE) == job_id:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    return find


def step_tensors(lengths: Sequence[int] = (5, 3, 9, 1), seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    rollout = np.log(random.beta(3, 1, sum(lengths))).astype(np.float32)
    return {
        "rollout_logprobs": rollout,
        "trainer_logprobs": (rollout + random.normal(0, 0.01, rollout.size)).astype(np.float32),
        "cu_seqlens": np.cumsum([0, *lengths]),
    }


class Pushing:
    """A client that pushes steps, and a look at what the service then has."""

    def __init__(self, running: Running, client: Any) -> None:
        self._running = running
        self.client = client

    tensors = staticmethod(step_tensors)

    @property
    def data_dir(self) -> Path:
        return self._running.data_dir

    @staticmethod
    def body(
        lengths: Sequence[int] = (5, 3, 9, 1),
        seed: int = 0,
        metadata: dict[str, str] | None = None,
        **tensors: Any,
    ) -> bytes:
        """A step as safetensors; `tensors` replace or add."""
        return save({**step_tensors(lengths, seed), **tensors}, metadata or {"model": "m"})

    def same(self, seed: int = 0) -> bytes:
        """A step on which both sides agree: it crosses no limit."""
        logprobs = step_tensors(seed=seed)["rollout_logprobs"]
        return self.body(seed=seed, trainer_logprobs=logprobs)

    def push(self, body: Any, *, run: str = "r", step: int = 1, **options: Any) -> Any:
        headers = {"content-type": "application/vnd.safetensors", **options.pop("headers", {})}
        path = f"/v1/runs/{run}/steps/{step}/logprobs"
        return self.client.post(path, content=body, headers=headers, **options)

    def incoming(self) -> list[str]:
        """Of uploads. Tokens of answered steps are written there too, and go on being."""
        folder = self._running.data_dir / "incoming"
        eventually(lambda: not any(folder.glob(KEPT_LATER)))
        return sorted(path.name for path in folder.glob("*") if not path.match(KEPT_LATER))

    def files(self) -> list[str]:
        return sorted(path.name for path in self._running.data_dir.glob("steps/*"))

    def rows(self) -> int:
        """Of every table that a push writes."""
        with self._running.service.database.read() as connection:
            counts = [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (tables.runs, tables.steps, tables.shards)
            ]
        return sum(counts)

    def nothing_left(self) -> bool:
        return not (self.incoming() or self.files() or self.rows())


@pytest.fixture
def pushing_body() -> Callable[..., bytes]:
    return Pushing.body


@pytest.fixture
def pushing_to() -> Callable[..., Pushing]:
    def make(running: Running, client: Any = None) -> Pushing:
        return Pushing(running, client or running.client)

    return make


@pytest.fixture
def pushing(running: Running) -> Pushing:
    return Pushing(running, running.client)


@pytest.fixture
def pushing_at_url(running: Running, url: str) -> Iterator[Pushing]:
    """Through a socket: for clients that go away, and several at once."""
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield Pushing(running, client)


@dataclass(frozen=True)
class Diagnoses:
    """One of each sort that pages, terminals and metrics tell apart, as a detector may give it."""

    bug_like: Diagnosis
    at_floor: Diagnosis
    unexplained: Diagnosis
    not_comparable: Diagnosis

    @staticmethod
    def stored(diagnosis: Diagnosis) -> dict[str, Any]:
        """Through JSON, as a step holds it."""
        read: dict[str, Any] = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
        return read


def named_cause(name: str, confidence: float, plot: Plot | None = None) -> NamedCause:
    values: tuple[float | int | str, ...] = (0.6123456, 12_345, "from token 512 on", 1e-9, 7)
    return NamedCause(
        name=name,
        title=f"The {name.replace('_', ' ')} is wrong",
        confidence=confidence,
        evidence=tuple(
            Evidence(f"{name} evidence {place}", value, "none <of this>")
            for place, value in enumerate(values)
        ),
        remedy=f"Set what {name} names to the same value on both sides.",
        next_control=f"Score the same tokens with {name} switched off.",
        doc=f"docs/causes/{name}.md",
        plot=plot,
    )


@pytest.fixture(scope="session")
def diagnoses() -> Diagnoses:
    floor = Floor(0.07, "prior", "bf16", "bf16", assumed=("trainer_dtype",))
    line = Plot(
        "line", "Δ by log p", "log p (nats)", "Δ (nats)", (-3.0, -2.0, -1.0), (0.4, None, 0.1)
    )
    first = named_cause("temperature_semantics", 0.931, line)
    return Diagnoses(
        bug_like=Diagnosis(
            verdict="bug_like",
            sentence="The rollout sampled at temperature 0.61 & the trainer scored at 1.",
            excess=11.24,
            sigma=0.787,
            floor=floor,
            causes=(first, named_cause("rope_config", 0.04), named_cause("norm_eps", 0.011)),
            unexplained=False,
            stood_out=(Evidence("slope of Δ over log p", 0.63, "0 within 0.01"),),
            missing=("entropy", "rank", "routed_experts", "cached_tokens"),
        ),
        at_floor=Diagnosis(
            verdict="at_floor",
            sentence="Rounding alone explains the difference.",
            excess=0.93,
            sigma=0.065,
            floor=Floor(0.07, "calibrated", "bf16", "bf16", model="m"),
            causes=(named_cause("bf16_rounding_tail", 0.97),),
            unexplained=False,
            stood_out=(),
            missing=(),
        ),
        unexplained=Diagnosis(
            verdict="above_floor",
            sentence="Rounding does not explain the difference, and no known cause does.",
            excess=3.4,
            sigma=0.24,
            floor=floor,
            causes=(named_cause("lm_head_precision", 0.31),),
            unexplained=True,
            stood_out=(Evidence("mean of Δ over its error", 9.1, "within 3 of 0"),),
            missing=("entropy",),
        ),
        not_comparable=Diagnosis(
            verdict="not_comparable",
            sentence="The sides hold different tokens from token 3 of sequence 0 on.",
            excess=None,
            sigma=None,
            floor=floor,
            causes=(named_cause("retokenization_drift", 0.99),),
            unexplained=False,
            stood_out=(),
            missing=(),
        ),
    )


def binary(name: str) -> str:
    found = shutil.which(name)
    if found is None and DEBIAN_BINARIES:
        found = shutil.which(name, path=str(DEBIAN_BINARIES[-1]))
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package: postgresql)")
    return found


class PostgresqlServer:
    """A server on a free port of loopback, without durability, that a test may stop and start."""

    def __init__(self) -> None:
        self._initdb, self._pg_ctl = binary("initdb"), binary("pg_ctl")
        self._folder = Path(tempfile.mkdtemp(prefix="driftscope-postgresql-"))
        # The server refuses to run as root; Debian's package brings an account for it.
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if account is not None:
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        self._user = None if account is None else account.pw_name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._data = str(self._folder / "data")
        initdb = (self._initdb, "-D", self._data, "-U", "driftscope", "--auth=trust", "-E", "UTF8")
        self._run(*initdb, "--no-sync")

    @property
    def url(self) -> URL:
        return make_url(f"postgresql://driftscope@127.0.0.1:{self.port}/postgres")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        log = str(self._folder / "log")
        self._run(self._pg_ctl, "-D", self._data, "-w", "-o", options, "-l", log, "start")

    def stop(self, mode: str = "immediate") -> None:
        """immediate: as if its machine had lost power; fast: it ends every session."""
        self._run(self._pg_ctl, "-D", self._data, "-w", "-m", mode, "stop")

    def copy_to(self, other: PostgresqlServer) -> None:
        """What a standby has that got everything; both are stopped."""
        self._run("cp", "-a", f"{self._data}/.", other._data)

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def _run(self, *command: str) -> None:
        subprocess.run(command, user=self._user, check=True, capture_output=True, cwd=self._folder)


@contextmanager
def started_postgresql() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """The server that the tests of this session share."""
    with started_postgresql() as server:
        yield server.url


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A server for tests that stop it."""
    with started_postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> URL:
    """An empty database: everything that the test before left is dropped."""
    return emptied(postgresql_server)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseAddress:
    """Every database system that the store runs on: SQLite files and a real PostgreSQL server."""
    if request.param == "sqlite":
        return tmp_path / "test.db"
    url: URL = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def database(address: DatabaseAddress) -> Iterator[Database]:
    """At the newest schema, without rows."""
    migrate.upgrade(address)
    database = Database(address)
    yield database
    database.dispose()


def emptied(url: URL) -> URL:
    database = Database(url)
    with database.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.dispose()
    return url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real server of the S3 protocol on loopback; its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket of it, as DRIFTSCOPE_STORAGE_URL names one."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{str(ULID()).lower()}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/driftscope"
