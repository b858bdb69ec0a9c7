"""The API against its own OpenAPI document, by schemathesis: all of its checks but one.

Requests are made up from the document, valid and broken in turn; each answer must have a documented
status, type, headers and body, and none may be a 5xx. With keys on, nothing is answered without
one. The command of the `failure` below repeats it with more requests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
#: Requests made up per operation and phase; 24 seconds with the number here.
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "6"))
#: Server-sent events end with the job, which a checker would wait for.
ENDLESS = "/events$"
#: Left out: what spells a value of the right type is taken for it (0 for false, "8" for 8), as
#: forms and command lines give it.
LAX = "negative_data_rejection"
SERVE = """
import sys
from driftscope_service.server import run_server
from driftscope_service.settings import load_settings
run_server(load_settings(port=0, data_dir=sys.argv[1]), probe_module="quick_probe")
"""
ADMIN_KEY = """
from driftscope_service.auth.key import Scope, new_key
from driftscope_service.auth.store import KeyRepository
from driftscope_service.service import shared_database
from driftscope_service.settings import load_settings
import sys
with shared_database(load_settings(data_dir=sys.argv[1])) as database:
    key = new_key()
    with database.write() as connection:
        KeyRepository(connection).add(key, name="contract", scopes=[Scope.ADMIN], expires_at=None)
print(key.token)
"""


class Served:
    def __init__(self, address: str, key: str | None) -> None:
        self.address = address
        self.key = key


@pytest.fixture(params=["open", "keys", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    paths = [ROOT / "tests/service/jobs/children", *(ROOT / part for part in ("service", "probes"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    key = None
    if request.param == "postgresql":
        url: URL = request.getfixturevalue("postgresql_url")
        environment["DRIFTSCOPE_DATABASE_URL"] = url.render_as_string(hide_password=False)
    if request.param == "keys":
        environment["DRIFTSCOPE_REQUIRE_KEYS"] = "true"
        key = _run(ADMIN_KEY, tmp_path / "data", environment).strip()
    log = (tmp_path / "service.log").open("w+b")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "data")], env=environment, stderr=log
    )
    try:
        yield Served(_address(tmp_path / "service.log", process), key)
        assert process.poll() is None, "the service ended"
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _run(code: str, data_dir: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(data_dir)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    while process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        if found is not None:
            return found[0]
    raise AssertionError(log.read_text(encoding="utf-8"))


def test_the_api_keeps_what_its_document_says(served: Served, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        f"{served.address}/openapi.json",
        "--checks=all",
        f"--exclude-checks={LAX}",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={EXAMPLES}",
        f"--exclude-path-regex={ENDLESS}",
        "--request-timeout=60",
        "--suppress-health-check=all",
        "--no-color",
    ]
    if served.key is not None:
        command += ["--header", f"Authorization: Bearer {served.key}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-12_000:]}{done.stderr}"
    assert re.search(r"Test cases:\s+[1-9]", done.stdout), done.stdout
