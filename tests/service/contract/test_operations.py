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
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL
from tests.service.crash.kill_rounds import free_port
from tests.service.crash.replicas import Replica, environment

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
#: Requests made up per operation and phase; 24 seconds with the number here.
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "6"))
#: The same requests each time, so that a failure is of what was changed; others with another seed.
SEED = int(os.environ.get("CONTRACT_SEED", "152271519960495040013860449666652149697"))
#: A hanging request fails; a machine that is busy with other tests was seen to take over 60.
ANSWER_WITHIN_S = 240
#: What breaks a document breaks it whatever the database; the broken requests are made up once.
PHASES = {
    "open": "examples,coverage,fuzzing",
    "keys": "examples,fuzzing",
    "postgresql": "examples,fuzzing",
}
#: Server-sent events end with the job, which a checker would wait for.
ENDLESS = "/events$"
#: Left out: what spells a value of the right type is taken for it (0 for false, "8" for 8), as
#: forms and command lines give it.
LAX = "negative_data_rejection"
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


@dataclass(frozen=True)
class Served:
    address: str
    key: str | None
    phases: str


@pytest.fixture(params=["open", "keys", "postgresql"])
def served(request: pytest.FixtureRequest, memory_path: Path) -> Iterator[Served]:
    url = key = None
    if request.param == "postgresql":
        found: URL = request.getfixturevalue("postgresql_url")
        url = found.render_as_string(hide_password=False)
    variables = environment(memory_path, url, None)
    service = Replica(free_port(), memory_path / "data", variables)
    if request.param == "keys":
        variables["DRIFTSCOPE_REQUIRE_KEYS"] = "true"
        key = _admin_key(service)
    service.start()
    try:
        yield Served(service.address, key, PHASES[request.param])
        assert service.process is not None and service.process.poll() is None, service.log_tail()
    finally:
        service.stop()


def _admin_key(service: Replica) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ADMIN_KEY, str(service.data_dir)],
        env={**os.environ, **service.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_api_keeps_what_its_document_says(served: Served, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        f"{served.address}/openapi.json",
        "--checks=all",
        f"--exclude-checks={LAX}",
        f"--phases={served.phases}",
        f"--max-examples={EXAMPLES}",
        f"--exclude-path-regex={ENDLESS}",
        f"--request-timeout={ANSWER_WITHIN_S}",
        f"--seed={SEED}",
        "--suppress-health-check=all",
        "--no-color",
    ]
    if served.key is not None:
        command += ["--header", f"Authorization: Bearer {served.key}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-12_000:]}{done.stderr}"
    assert re.search(r"Test cases:\s+[1-9]", done.stdout), done.stdout
