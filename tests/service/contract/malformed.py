"""Thousands of malformed bodies against a real service: nothing breaks, leaks or grows.

    python -m tests.service.contract.malformed --bodies 10000

Bodies are valid steps of each format with bits flipped, pieces cut, doubled or swapped, and junk
for every other route that takes a body. Exit code 0: every answer was documented and none a 5xx,
no file is left that no row names, and memory stayed flat.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import psutil
import pyarrow as pa
import zstandard
from safetensors.numpy import save
from tests.service.crash.invariants import leaked_files
from tests.service.crash.kill_rounds import free_port
from tests.service.crash.replicas import ROOT, Replica, environment

#: Of resident memory, between the first tenth of the bodies and the end: more than the noise of an
#: allocator (2 %), far less than a leak of one body per request.
MOST_GROWTH: Final = 0.05
SAFETENSORS, ARROW = "application/vnd.safetensors", "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
TYPES: Final = (SAFETENSORS, ARROW, JSON, "application/octet-stream", "text/plain", "")
JUNK: Final = (
    b"", b"{", b"null", b"[]", b"[" * 5000, b'{"a":' * 2000, b"\xff\xfe", b'"\\u0000"', b"1e999",
    b'{"model":"\\ud800"}', b'{"model":null,"prompts":-1}', b'{"id":"\\u0000","labels":{"":""}}',
    b'{"kind":"paired","grid":[{}]}', b"NaN", b'{"cron":"* * * * *","job":{"kind":"?"}}',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    bodies: int
    by_status: dict[str, int]
    undocumented: list[str]
    server_errors: list[str]
    leaked_files: int
    rss_mib_early: float
    rss_mib_end: float

    @property
    def sound(self) -> bool:
        return not (self.undocumented or self.server_errors or self.leaked_files) and (
            self.rss_mib_end <= self.rss_mib_early * (1 + MOST_GROWTH)
        )


@dataclass(frozen=True, slots=True)
class Attack:
    method: str
    template: str  # as the OpenAPI document has the path
    path: str
    body: bytes
    headers: Mapping[str, str]


def valid_bodies() -> dict[str, bytes]:
    rollout = np.linspace(-3, -0.1, 24, dtype=np.float32)
    limits = np.array([0, 5, 9, 24])
    tensors = {"rollout_logprobs": rollout, "trainer_logprobs": rollout, "cu_seqlens": limits}
    lists = [rollout[a:b].tolist() for a, b in zip(limits, limits[1:], strict=False)]
    table = pa.table({"rollout_logprobs": lists, "trainer_logprobs": lists})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    text = json.dumps({"rollout_logprobs": lists, "trainer_logprobs": lists}).encode()
    return {SAFETENSORS: save(tensors, {"model": "m"}), ARROW: sink.getvalue(), JSON: text}


def broken(body: bytes, chance: random.Random) -> bytes:
    """One to four changes; now and then none that matters."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(data) + 1)
        end = min(len(data), start + chance.randint(1, 32))
        match chance.randrange(6):
            case 0 if data:
                data[start % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end]
            case 3:
                data[start:start] = chance.randbytes(chance.randint(1, 64))
            case 4:
                del data[start:]
            case _:
                data[start:end] = bytes(end - start)
    return bytes(data)


def attacks(chance: random.Random, count: int, document: Mapping[str, Any]) -> Iterator[Attack]:
    valid = valid_bodies()
    others = [
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation and not path.endswith("/logprobs")
    ]
    push = "/v1/runs/{run}/steps/{step}/logprobs"
    for number in range(count):
        if number % 4 == 3:
            method, path = chance.choice(others)
            filled = path.replace("{run}", "r").replace("{name}", "n")
            yield Attack(method, path, filled, chance.choice(JUNK), {"content-type": JSON})
            continue
        kind = chance.choice((SAFETENSORS, ARROW, JSON))
        body = broken(valid[kind], chance)
        headers = {"content-type": kind if chance.random() < 0.9 else chance.choice(TYPES)}
        if chance.random() < 0.2:
            packed = zstandard.compress(body)
            body = packed if chance.random() < 0.3 else broken(packed, chance)
            headers["content-encoding"] = "zstd"
        query = chance.choice(("", "", "?shard=0&shards=2", "?shard=1&shards=2"))
        filled = f"/v1/runs/r{number % 7}/steps/{number}/logprobs{query}"
        yield Attack("POST", push, filled, body, headers)


def attacked(folder: Path, bodies: int, seed: int = 0) -> Outcome:
    chance = random.Random(seed)
    locks = folder / "locks"
    locks.mkdir()
    service = Replica(free_port(), folder / "data", environment(locks, None, None))
    service.start()
    try:
        return _attacked(service, bodies, chance)
    finally:
        service.stop()


def _attacked(service: Replica, bodies: int, chance: random.Random) -> Outcome:
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    statuses: Counter[str] = Counter()
    undocumented: set[str] = set()
    failed: list[str] = []
    early = 0.0
    with httpx.Client(base_url=service.address, timeout=60) as client:
        document = client.get("/openapi.json").json()
        for number, attack in enumerate(attacks(chance, bodies, document)):
            answer = client.request(
                attack.method, attack.path, content=attack.body, headers=attack.headers
            )
            status = str(answer.status_code)
            statuses[status] += 1
            known = document["paths"][attack.template][attack.method.lower()]["responses"]
            if status not in known and "default" not in known:
                undocumented.add(f"{status} of {attack.method} {attack.template}")
            if answer.status_code >= 500 and answer.status_code != 503:
                failed.append(f"{status} of {attack.method} {attack.path}: {answer.text[:300]}")
            if number == bodies // 10:
                early = process.memory_info().rss / 2**20
        end = process.memory_info().rss / 2**20
    service.stop()
    data = service.data_dir
    left = leaked_files(data, data / "driftscope.db")
    left += [path.name for path in data.glob("incoming/*")]
    return Outcome(
        bodies, dict(sorted(statuses.items())), sorted(undocumented), failed, len(left),
        round(early, 1), round(end, 1),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        outcome = attacked(Path(folder), options.bodies, options.seed)
    print(json.dumps(asdict(outcome), indent=2))
    return 0 if outcome.sound else 1


if __name__ == "__main__":
    sys.exit(main())
