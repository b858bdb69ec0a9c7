"""What every test may ask for: demo models, built once per machine; a service; quiet engines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from driftscope_probes.models.fetch import fetch

from .service_process import service_process

ROOT = Path(__file__).parents[1]
# Read when torch is loaded, here and in every process that a test starts. Threads that spin while
# they wait take six times the processor time where two processes share two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
WARM_START = ROOT / "tests" / "warm_start"
#: As warm_start/sitecustomize.py has it.
NURSERY = "NURSERY_OF_OUR_TESTS"
#: A database and the files of some hundred small steps, several times over.
MEMORY_NEEDED_BYTES = 2**30
#: One child process runs all kernels of this folder that are interpreted: see its conftest.py.
ONE_UNIT = "triton_kernels"


class FilesInOrder(LoadFileScheduling):  # type: ignore[misc]
    """Gives files to the processes in the order of collection, not those of most tests first."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        folder = PurePath(nodeid.split("::", 1)[0]).parent
        return str(folder) if folder.name == ONE_UNIT else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesInOrder | None:
    return FilesInOrder(config, log) if config.option.dist == "loadfile" else None


#: Its slow tests drive vLLM, and many state what its build for AVX-512 computes bit for bit: the
#: one for AVX2 fuses and adds otherwise, and has no FP8 cache. Others are marked one by one.
OF_AVX512 = ROOT / "tests" / "probes"


def has_avx512() -> bool:
    try:
        return " avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True  # not Linux: nothing is excused


def excuse_older_cpus(items: list[pytest.Item]) -> None:
    """Not run there: a test that may fail shows nothing, and these take a third of the time."""
    reason = "states the bits of vLLM with AVX-512, which this CPU does not have"
    for item in items:
        drives_vllm = item.path.is_relative_to(OF_AVX512) and item.get_closest_marker("slow")
        if drives_vllm or item.get_closest_marker("avx512"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first; the short ones then fill what is left of either process."""
    if not has_avx512():
        excuse_older_cpus(items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_configure(config: pytest.Config) -> None:
    """One nursery for all processes of a test run: see warm_start/nursery.py."""
    if hasattr(config, "workerinput") or not sys.platform.startswith("linux"):
        return
    folder = Path(tempfile.mkdtemp(prefix="driftscope-nursery-"))
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(WARM_START / "nursery.py"), str(folder / "socket")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    os.environ[NURSERY] = str(folder / "socket")
    paths = [str(WARM_START), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)

    def close() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder)

    config.add_cleanup(close)


@pytest.fixture
def plain_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of probes start as they do for users, imports included."""
    monkeypatch.delenv(NURSERY, raising=False)


@pytest.fixture(autouse=True)
def _one_thread_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two OpenMP teams on two cores fight; the hub must not be asked behind a test's back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one, for databases under load that no power cut threatens.

    Each commit waits for the disk, and other tests write to the same one.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < MEMORY_NEEDED_BYTES:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="driftscope-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny_llama() -> Path:
    return fetch("tiny-random-llama").path


@pytest.fixture(scope="session")
def tiny_moe() -> Path:
    return fetch("tiny-random-moe").path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return fetch("smollm2-135m").path


@pytest.fixture(scope="session")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`driftscope serve` on a free port; its address."""
    data_dir = tmp_path_factory.mktemp("service")
    roots = os.pathsep.join(str(ROOT / root) for root in ("service", "probes", "kernels"))
    command = "from driftscope_service.cli.main import main; main()"
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir)]
    environment = {**os.environ, "PYTHONPATH": roots}
    with service_process([sys.executable, "-c", command, *arguments], environment) as started:
        yield started.address
