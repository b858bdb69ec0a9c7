"""Kill the service with SIGKILL under load, again and again, and look for what is lost.

    python -m tests.service.crash.kill_rounds --rounds 200
    python -m tests.service.crash.kill_rounds --rounds 50 --replicas 2 --database-url postgresql://…

Exit code 0: every promise held; 1: the report says which did not.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

import httpx
from tests.service.crash import invariants
from tests.service.crash.load import Acknowledged, Pusher
from tests.service.crash.replicas import PATIENCE_S, READY_WITHIN_S, Replica, environment

#: Of a kill after the load began or the service was ready again: from within the first push to
#: after jobs have started.
SOONEST_S, LATEST_S = 0.05, 4.0
RUNS: Final = 3
CHECK_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    rounds: int
    replicas: int
    database: str
    acknowledged_steps: int
    accepted_jobs: int
    violations: list[str]
    ready_s_median: float
    ready_s_highest: float
    starts_over_limit: int
    leaked_files: int | None  # that even a sweep leaves; None: not looked for on this database
    took_s: float


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def make_replicas(folder: Path, count: int, database_url: str | None) -> list[Replica]:
    locks = folder / "locks"
    locks.mkdir()
    storage = folder / "storage" if count > 1 else None
    if storage is not None:
        storage.mkdir()
    variables = environment(locks, database_url, storage)
    return [
        Replica(free_port(), folder / f"data-{number}", dict(variables)) for number in range(count)
    ]


def kill_rounds(
    folder: Path, rounds: int, replicas: int, database_url: str | None, seed: int = 0
) -> Outcome:
    began = time.monotonic()
    chance = random.Random(seed)
    services = make_replicas(folder, replicas, database_url)
    try:
        return _rounds(folder, rounds, services, database_url, chance, began)
    finally:
        for service in services:
            service.stop()


def _rounds(
    folder: Path,
    rounds: int,
    services: list[Replica],
    database_url: str | None,
    chance: random.Random,
    began: float,
) -> Outcome:
    for service in services:
        service.start()
    acknowledged, lock, stopping = Acknowledged(), threading.Lock(), threading.Event()
    addresses = [service.address for service in services]
    pushers = [Pusher(f"run-{n}", addresses, acknowledged, lock, stopping) for n in range(RUNS)]
    for pusher in pushers:
        pusher.start()
    violations: list[str] = []
    try:
        for number in range(rounds):
            time.sleep(chance.uniform(SOONEST_S, LATEST_S))
            victim = chance.choice(services)
            victim.kill()
            victim.start()
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                violations += _checked(victim, acknowledged, lock, folder)
                print(f"{number + 1} of {rounds} rounds", file=sys.stderr, flush=True)
    finally:
        stopping.set()
        for pusher in pushers:
            pusher.join()
    violations += _checked(services[0], acknowledged, lock, folder)
    with httpx.Client(base_url=services[0].address, timeout=PATIENCE_S) as client:
        runs = {f"run-{n}" for n in range(RUNS)}
        violations += invariants.half_steps(client, runs)
        violations += invariants.unfinished_jobs(client, acknowledged)
    violations += acknowledged.unexpected
    for service in services:
        service.stop()
    leaked = None
    if database_url is None:
        data = services[0].data_dir
        leaked = len(invariants.left_after_a_sweep(data))
    starts = [seconds for service in services for seconds in service.ready_s]
    return Outcome(
        rounds=rounds,
        replicas=len(services),
        database="SQLite" if database_url is None else "PostgreSQL",
        acknowledged_steps=len(acknowledged.steps) + len(acknowledged.sharded),
        accepted_jobs=len(acknowledged.jobs),
        violations=sorted(set(violations)),
        ready_s_median=round(median(starts), 2),
        ready_s_highest=round(max(starts), 2),
        starts_over_limit=sum(seconds > READY_WITHIN_S for seconds in starts),
        leaked_files=leaked,
        took_s=round(time.monotonic() - began, 1),
    )


def _checked(
    service: Replica, acknowledged: Acknowledged, lock: threading.Lock, folder: Path
) -> list[str]:
    with lock:  # what is acknowledged from here on is looked at next time
        known = Acknowledged(dict(acknowledged.steps), set(acknowledged.sharded))
    with httpx.Client(base_url=service.address, timeout=PATIENCE_S) as client:
        found = list(invariants.lost_steps(client, known))
    return found + list(invariants.two_owners(folder / "locks"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--database-url", help="PostgreSQL; without it SQLite in the data folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_rounds(
            Path(folder), options.rounds, options.replicas, options.database_url, options.seed
        )
    print(json.dumps(asdict(outcome), indent=2))
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
