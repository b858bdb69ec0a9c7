"""Steps pushed at a constant rate for minutes: latencies, errors, memory and sizes over time.

The service is a real process on SQLite or PostgreSQL, the clients are processes of this machine and
share its cores. Requests leave on time whatever the answers take (an open loop), and a latency
counts from the moment at which the request was due, so that a service that falls behind shows it.

    python -m bench.soak --rate 50 --seconds 600 [--json] [--page docs/sizing.md]
    python -m bench.soak --search [--seconds 30]      the highest rate that holds
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import psutil
from bench.served import PATIENCE_S, SERVICE, served
from safetensors.numpy import save

SEQUENCES, LENGTH = 64, 512
#: Bodies that are sent in turn; a service that caches by content would show it.
BODIES: Final = 8
RUNS: Final = 4
#: Each holds one connection and waits for its answer; together they send at the rate asked for.
CLIENTS: Final = 8
#: Memory is compared from here on: imports, compiled code and pools have settled.
SETTLED_S: Final = 60.0
SAMPLE_EVERY_S: Final = 5.0
#: A rate holds if nothing fails, the last latency is like the first and all steps are answered
#: within this time at the 99th percentile.
HOLDS_P99_S: Final = 1.0
RATES: Final = (100, 80, 60, 50, 40, 30, 20, 10)
PAGE: Final = """\
# Sizing: what one service holds

Measured {today} on {machine}: `{command}`, {pushes:,} pushes
of {sequences} sequences × {length} tokens ({tokens:,} tokens), SQLite. A latency counts from the
moment at which the push was due.

| | |
|---|---|
{table}

## What follows

- **Rate.** A trainer pushes once per training step, which takes seconds to minutes: one service
  on two cores holds hundreds of runs. Analysis is most of the work and grows with the tokens;
  `DRIFTSCOPE_ANALYSIS_PROCESSES` takes further cores.
- **Memory.** The service, and one analysis process for each that is allowed; an analysis takes
  some 100 bytes per token of its step on top.
- **Disk.** The database keeps every step's numbers: {per_step:.1f} KiB each, so {per_thousand:.0f}
  MiB for a thousand steps. Tokens stay within `DRIFTSCOPE_TOKEN_BUDGET_BYTES`.
- **More than one machine.** Several replicas on one PostgreSQL: docs/replicas.md. Writes take
  turns, so that the commit time of the database bounds the sum of all replicas.
"""


@dataclass(frozen=True, slots=True)
class Answered:
    due_s: float  # since the start
    took_s: float  # from the moment it was due to its answer
    status: int  # 0: no answer


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    rss_mib: float  # of the service and its processes
    service_rss_mib: float  # of the service alone
    database_mib: float
    tokens_mib: float  # files of steps


@dataclass(frozen=True, slots=True)
class Soak:
    machine: str
    rate: float  # pushes asked for, per second
    seconds: float
    tokens_per_push: int
    answered: int
    errors: dict[str, int]  # by status
    achieved_rate: float
    latency_ms: dict[str, float]  # p50, p90, p99, p99.9, max
    rss_growth: float  # fraction, from the settled minute to the end; service alone
    cpu_cores: float  # used by the service, mean
    samples: list[Sample]

    @property
    def holds(self) -> bool:
        return not self.errors and self.latency_ms["p99"] <= 1000 * HOLDS_P99_S


def bodies() -> list[bytes]:
    random = np.random.default_rng(0)
    made = []
    for _ in range(BODIES):
        rollout = np.log(random.beta(3, 1, SEQUENCES * LENGTH)).astype(np.float32)
        noise = random.normal(0, 0.01, rollout.size).astype(np.float32)
        tensors = {
            "rollout_logprobs": rollout,
            "trainer_logprobs": rollout + noise,
            "cu_seqlens": np.arange(0, rollout.size + 1, LENGTH),
        }
        made.append(save(tensors, {"model": "soak", "rollout_dtype": "bf16"}))
    return made


def client(
    number: int, address: str, rate: float, seconds: float, began: float, out: Queue[list[Answered]]
) -> None:
    """Every CLIENTS-th push, when it is due or as soon as the one before was answered."""
    own = bodies()
    host = urlsplit(address).netloc
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
    answers: list[Answered] = []
    for push in range(number, int(rate * seconds), CLIENTS):
        due = push / rate
        time.sleep(max(0.0, began + due - time.monotonic()))
        path = f"/v1/runs/soak-{push % RUNS}/steps/{push // RUNS}/logprobs"
        headers = {"content-type": "application/vnd.safetensors"}
        try:
            connection.request("POST", path, own[push % BODIES], headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        answers.append(Answered(due, time.monotonic() - began - due, status))
    out.put(answers)


def sample(process: psutil.Process, data_dir: Path, began: float) -> Sample:
    own = process.memory_info().rss
    family = own + sum(child.memory_info().rss for child in process.children(recursive=True))
    database = sum(file.stat().st_size for file in data_dir.glob("driftscope.db*"))
    tokens = 0
    for file in data_dir.glob("steps/*"):
        try:
            tokens += file.stat().st_size
        except FileNotFoundError:
            continue  # converted or dropped at this moment
    mib = 2.0**20
    return Sample(
        round(time.monotonic() - began, 1),
        *(round(size / mib, 1) for size in (family, own, database, tokens)),
    )


def warm_up(address: str) -> None:
    """Until a push is answered: a new analysis process compiles and loads what it needs first."""
    body = bodies()[0]
    status = 0
    while status not in (200, 201):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE_S)
        headers = {"content-type": "application/vnd.safetensors"}
        connection.request("POST", "/v1/runs/warm-up/steps/0/logprobs", body, headers)
        status = connection.getresponse().status
        connection.close()


def soak(rate: float, seconds: float, folder: str | None) -> Soak:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        data_dir = Path(made) / "data"
        with served(SERVICE, str(data_dir)) as running:
            address, process = running.address, psutil.Process(running.pid)
            warm_up(address)
            out: Queue[list[Answered]] = context.Queue()
            began = time.monotonic() + 3.0  # until every client has made its bodies
            clients = [
                context.Process(target=client, args=(n, address, rate, seconds, began, out))
                for n in range(CLIENTS)
            ]
            for one in clients:
                one.start()
            time.sleep(max(0.0, began - time.monotonic()))
            busy = _cpu(process)
            samples = [sample(process, data_dir, began)]
            answers: list[Answered] = []
            for _ in clients:
                answers += _until(out, process, data_dir, began, samples)
            took = time.monotonic() - began
            cores = (_cpu(process) - busy) / took
            samples.append(sample(process, data_dir, began))
    return _summary(rate, seconds, answers, samples, took, cores)


def _until(
    out: Queue[list[Answered]],
    process: psutil.Process,
    data_dir: Path,
    began: float,
    samples: list[Sample],
) -> list[Answered]:
    while True:
        with suppress(Empty):
            return out.get(timeout=SAMPLE_EVERY_S)
        samples.append(sample(process, data_dir, began))


def _cpu(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _summary(
    rate: float,
    seconds: float,
    answers: Sequence[Answered],
    samples: list[Sample],
    took: float,
    cores: float,
) -> Soak:
    latencies = np.array([1000 * one.took_s for one in answers])
    errors: dict[str, int] = {}
    for one in answers:
        if one.status not in (200, 201):
            errors[str(one.status)] = errors.get(str(one.status), 0) + 1
    shares = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}
    settled = [one.service_rss_mib for one in samples if one.at_s >= SETTLED_S]
    first = settled[0] if settled else samples[0].service_rss_mib
    return Soak(
        machine=f"{_cpu_name()}, {os.cpu_count()} cores, driver included",
        rate=rate,
        seconds=seconds,
        tokens_per_push=SEQUENCES * LENGTH,
        answered=len(answers),
        errors=errors,
        achieved_rate=round(len(answers) / took, 1),
        latency_ms={
            name: round(float(np.percentile(latencies, share)), 1) for name, share in shares.items()
        },
        rss_growth=round(samples[-1].service_rss_mib / first - 1, 4),
        cpu_cores=round(cores, 2),
        samples=samples,
    )


def _cpu_name() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found else platform.machine()


def search(seconds: float, folder: str | None) -> Soak:
    """The first of RATES, from above, that holds."""
    for rate in RATES:
        result = soak(rate, seconds, folder)
        print(f"{rate}/s: {result.latency_ms}, errors {result.errors}", file=sys.stderr)
        if result.holds:
            return result
    return result


def page(soaked: Soak) -> str:
    """docs/sizing.md: how much one service takes, from one soak."""
    last, ms = soaked.samples[-1], soaked.latency_ms
    pushes = soaked.answered
    per_step = 1024 * (last.database_mib - soaked.samples[0].database_mib) / pushes
    rows = [
        ("pushes asked for, per second", f"{soaked.rate:g}"),
        ("pushes answered, per second", f"{soaked.achieved_rate:g}"),
        ("errors", str(sum(soaked.errors.values()))),
        ("latency, ms: median", f"{ms['p50']:g}"),
        ("latency, ms: 90 %", f"{ms['p90']:g}"),
        ("latency, ms: 99 %", f"{ms['p99']:g}"),
        ("latency, ms: 99.9 %", f"{ms['p99.9']:g}"),
        ("cores used by the service", f"{soaked.cpu_cores:g}"),
        ("memory of the service, MiB", f"{last.service_rss_mib:g}"),
        ("memory with its analysis processes, MiB", f"{last.rss_mib:g}"),
        ("memory grown after the first minute", f"{100 * soaked.rss_growth:.1f} %"),
        ("database per step, KiB", f"{per_step:.1f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return PAGE.format(
        today=date.today().isoformat(),
        machine=soaked.machine,
        command=_command(soaked),
        pushes=pushes,
        sequences=SEQUENCES,
        length=LENGTH,
        tokens=soaked.tokens_per_push,
        table=table,
        per_step=per_step,
        per_thousand=per_step / 1024 * 1000,
    )


def _command(soaked: Soak) -> str:
    return f"python -m bench.soak --rate {soaked.rate:g} --seconds {soaked.seconds:g}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--search", action="store_true", help="the highest rate that holds")
    parser.add_argument("--folder", help="where the data folder is made, on the disk to measure")
    parser.add_argument("--page", type=Path, help="write docs/sizing.md there")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if options.search:
        soaked = search(options.seconds, options.folder)
    else:
        soaked = soak(options.rate, options.seconds, options.folder)
    if options.page is not None:
        options.page.write_text(page(soaked), encoding="utf-8")
    if options.json:
        print(json.dumps(asdict(soaked)))
    else:
        print(f"{soaked.rate:g}/s for {soaked.seconds:g} s: {soaked.latency_ms} ms")
        print(f"answered {soaked.answered}, errors {soaked.errors or 'none'}")
        print(f"memory of the service grew {100 * soaked.rss_growth:.1f} % after the first minute")


if __name__ == "__main__":
    main()
