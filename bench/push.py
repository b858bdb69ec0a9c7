"""A large push over loopback against a POST of the same bytes to an endpoint that only reads them.

Both servers are real processes under uvicorn, the bytes and the client are the same, and the ways
alternate. The analysis is what the service says it took (Server-Timing). In pushes of their own:
what /healthz takes meanwhile.

    python -m bench.push [--json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from bench.served import PATIENCE_S, SERVICE, served
from safetensors.numpy import save

#: A large step of one trainer.
SEQUENCES, LENGTH = 512, 8192
VOCABULARY = 151_936
#: Reads a body and says that it did; same server, same framework.
EMPTY = """
import socket, sys
import uvicorn
from fastapi import FastAPI, Request

app = FastAPI()

@app.post("/")
async def read(request: Request) -> dict[str, int]:
    return {"bytes": sum([len(chunk) async for chunk in request.stream()])}

listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""
WATCH = """
import json, sys, threading, time
import httpx

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
took_ms = []
with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
    client.get("/healthz")
    print("begun", flush=True)
    while not stop.wait(0.01):
        start = time.perf_counter()
        client.get("/healthz").raise_for_status()
        took_ms.append(1000 * (time.perf_counter() - start))
print(json.dumps(took_ms))
"""


@dataclass(frozen=True, slots=True)
class Row:
    tokens: int
    body_bytes: int
    empty_s: float  # medians
    push_s: float
    analysis_s: float
    ratio: float  # (push - analysis) / empty, median over pairs
    ratio_lowest: float
    ratio_highest: float
    health_ms_median: float  # of /healthz during pushes
    health_ms_highest: float


def make_body(options: argparse.Namespace) -> bytes:
    random = np.random.default_rng(0)
    tokens = options.sequences * options.length
    rollout = np.log(random.beta(3, 1, tokens)).astype(np.float32)
    tensors = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": (rollout + random.normal(0, 0.01, tokens)).astype(np.float32),
        "token_ids": random.integers(0, VOCABULARY, tokens, dtype=np.int32),
        "mask": np.ones(tokens, dtype=np.uint8),
        "cu_seqlens": np.arange(0, tokens + 1, options.length),
    }
    return save(tensors, {"model": "bench", "rollout_dtype": "bf16", "trainer_dtype": "fp32"})


@contextmanager
def server(source: str, *arguments: str) -> Iterator[httpx.Client]:
    with (
        served(source, *arguments) as running,
        httpx.Client(base_url=running.address, timeout=PATIENCE_S) as client,
    ):
        yield client


def timed_post(client: httpx.Client, path: str, body: bytes) -> tuple[float, float]:
    """The whole in seconds, and the analysis within it."""
    start = time.perf_counter()
    answer = client.post(path, content=body, headers={"content-type": "application/octet-stream"})
    elapsed = time.perf_counter() - start
    assert answer.is_success, answer.text
    timing = answer.headers.get("server-timing", "analysis;dur=0")
    return elapsed, float(timing.rpartition("=")[2]) / 1000


@contextmanager
def watched_health(address: httpx.URL, took_ms: list[float]) -> Iterator[None]:
    """Ask /healthz all the time; from a process of its own, which no upload holds up."""
    command = [sys.executable, "-c", WATCH, str(address)]
    watch = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    watch.stdout.readline()  # it has begun
    yield
    printed, _ = watch.communicate()
    took_ms.extend(json.loads(printed))


def settled(data_dir: Path) -> None:
    """Until the last push has become Parquet: what it takes must not slow the next way down."""
    while list(data_dir.glob("steps/*.raw")):
        time.sleep(0.05)


def measure(options: argparse.Namespace) -> Row:
    body = make_body(options)
    pairs: list[tuple[float, float, float]] = []
    health: list[float] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data_dir = Path(folder) / "data"
        with server(EMPTY) as empty, server(SERVICE, str(data_dir)) as service:
            timed_post(empty, "/", body)
            timed_post(service, "/v1/runs/bench/steps/0/logprobs", body)
            for step in range(1, options.repeats + 1):
                settled(data_dir)
                read_s, _ = timed_post(empty, "/", body)
                push = timed_post(service, f"/v1/runs/bench/steps/{step}/logprobs", body)
                pairs.append((read_s, *push))
            for step in range(options.repeats + 1, 2 * options.repeats + 1):
                with watched_health(service.base_url, health):
                    timed_post(service, f"/v1/runs/bench/steps/{step}/logprobs", body)
    ratios = [(push_s - analysis_s) / read_s for read_s, push_s, analysis_s in pairs]
    return Row(
        tokens=options.sequences * options.length,
        body_bytes=len(body),
        empty_s=median(read_s for read_s, _, _ in pairs),
        push_s=median(push_s for _, push_s, _ in pairs),
        analysis_s=median(analysis_s for _, _, analysis_s in pairs),
        ratio=median(ratios),
        ratio_lowest=min(ratios),
        ratio_highest=max(ratios),
        health_ms_median=median(health),
        health_ms_highest=max(health),
    )


def show(row: Row) -> None:
    print(f"{row.tokens:,} tokens, {row.body_bytes / 1e6:.1f} MB")
    print(
        f"empty endpoint {row.empty_s:.3f} s, push {row.push_s:.3f} s, "
        f"of which analysis {row.analysis_s:.3f} s"
    )
    print(
        f"(push - analysis) / empty: {row.ratio:.2f} "
        f"({row.ratio_lowest:.2f} to {row.ratio_highest:.2f})"
    )
    print(
        f"/healthz meanwhile: median {row.health_ms_median:.1f} ms, "
        f"highest {row.health_ms_highest:.1f} ms"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where the data folder is made, on the disk to measure")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    row = measure(options)
    if options.json:
        print(json.dumps(asdict(row)))
    else:
        show(row)


if __name__ == "__main__":
    main()
