"""The HTTP server: what a push costs with each parser, and what attacks on connections cost.

The first part is paired: the same bodies to a small application under uvicorn with h11 (pure
Python, with a limit of headers of its own) and with our limited protocol around llhttp, in turn.
The second starts the service itself and attacks it: memory, and what /healthz takes meanwhile.

    python -m bench.http_server [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from statistics import median
from urllib.parse import urlsplit

import httpx
import psutil
from bench.served import SERVICE, served

#: A request without a body, a small step (64 sequences of 512 tokens), a large one.
SIZES = ((10, 200), (430_000, 60), (54_000_000, 8))
#: In the second part; the first kinds of connections are held while /healthz is asked.
HALF_OPEN = 1000
DESCRIPTORS = 256
ENDLESS_BYTES = 256 * 2**20
FILLER = b"y" * 2**16
FIELD = b"X-Field: " + FILLER[:1000] + b"\r\n"
MIB = 2**20

APPLICATION = """
import socket, sys, uvicorn
from driftscope_service.http.connection_limits import ConnectionLimits, Connections
from driftscope_service.http.protocol import limited_protocol

async def app(scope, receive, send):
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

http = sys.argv[1]
if http == "limited":
    http = limited_protocol(Connections(ConnectionLimits()))
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
config = uvicorn.Config(app, log_level="error", lifespan="off", http=http)
uvicorn.Server(config).run(sockets=[listener])
"""


@dataclass(frozen=True, slots=True)
class Parsed:
    body_bytes: int
    h11_ms: float
    httptools_ms: float
    limited_ms: float
    h11_ratio: float  # over limited, median of pairs
    httptools_ratio: float


@dataclass(frozen=True, slots=True)
class Attacked:
    attack: str
    sent_mib: float
    grown_mib: float  # resident memory at its highest over that before
    health_ms_median: float
    health_ms_highest: float


def measure_parsers() -> list[Parsed]:
    names = ("h11", "httptools", "limited")
    rows = []
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(
                httpx.Client(
                    base_url=stack.enter_context(served(APPLICATION, name)).address, timeout=120
                )
            )
            for name in names
        }
        for size, count in SIZES:
            body = b"x" * size
            took: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(count):
                # Each is the first one as often as the others.
                for name in names[turn % 3 :] + names[: turn % 3]:
                    client = clients[name]
                    start = time.perf_counter()
                    client.post("/", content=body).raise_for_status()
                    took[name].append(1000 * (time.perf_counter() - start))
            rows.append(
                Parsed(
                    size,
                    median(took["h11"]),
                    median(took["httptools"]),
                    median(took["limited"]),
                    median(a / b for a, b in zip(took["h11"], took["limited"], strict=True)),
                    median(a / b for a, b in zip(took["httptools"], took["limited"], strict=True)),
                )
            )
    return rows


def endless(
    address: tuple[str, int],
    head: bytes = b"",
    piece: bytes = b"X-Field: " + FILLER[:1000] + b"\r\n",
) -> int:
    """A head without end on one connection; bytes that were taken."""
    sent = 0
    with socket.create_connection(address) as client, suppress(OSError):
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head)
        while sent < ENDLESS_BYTES:
            client.sendall(piece)
            sent += len(piece)
    return sent


def one_field(address: tuple[str, int]) -> int:
    return endless(address, b"X: ", FILLER)


def four_endless(address: tuple[str, int]) -> int:
    sent = []
    threads = [threading.Thread(target=lambda: sent.append(endless(address))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(sent)


def half_open(address: tuple[str, int]) -> int:
    """Many, held for as long as some questions take."""
    held = []
    with ExitStack() as stack:
        for _ in range(HALF_OPEN):
            with suppress(OSError):
                client = socket.create_connection(address, timeout=5)
                stack.callback(client.close)
                client.sendall(b"GET / HT")
                held.append(client)
        time.sleep(2)
    return 0


ATTACKS: dict[str, Callable[[tuple[str, int]], int]] = {
    "four connections with endless headers": four_endless,
    "one field of 256 MiB": one_field,
    f"{HALF_OPEN} half-open connections, {DESCRIPTORS} descriptors": half_open,
}


def measure_attacks() -> list[Attacked]:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        served(SERVICE, folder, descriptors=DESCRIPTORS) as running,
    ):
        url, place = running.address, urlsplit(running.address)
        assert place.hostname and place.port
        address = (place.hostname, place.port)
        process = psutil.Process(running.pid)
        _health(url)
        for name, attack in ATTACKS.items():
            rows.append(_attacked(name, attack, process, url, address))
    return rows


def _attacked(
    name: str,
    attack: Callable[[tuple[str, int]], int],
    process: psutil.Process,
    url: str,
    address: tuple[str, int],
) -> Attacked:
    before = highest = process.memory_info().rss
    sent: list[int] = []
    thread = threading.Thread(target=lambda: sent.append(attack(address)))
    thread.start()
    took = []
    while thread.is_alive():
        took.append(_health(url))
        highest = max(highest, process.memory_info().rss)
        time.sleep(0.02)
    took.append(_health(url))
    return Attacked(name, sent[0] / MIB, (highest - before) / MIB, median(took), max(took))


def _health(url: str) -> float:
    """On a connection of its own each time, as an orchestrator asks."""
    start = time.perf_counter()
    httpx.get(f"{url}/healthz", timeout=60).raise_for_status()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    parsed, attacked = measure_parsers(), measure_attacks()
    if options.json:
        print(json.dumps({"parsers": [asdict(row) for row in parsed],
                          "attacks": [asdict(row) for row in attacked]}))  # fmt: skip
        return
    for row in parsed:
        print(
            f"{row.body_bytes:>11,} bytes: h11 {row.h11_ms:.2f} ms, httptools "
            f"{row.httptools_ms:.2f}, limited {row.limited_ms:.2f}; h11 {row.h11_ratio:.2f} × "
            f"limited, httptools {row.httptools_ratio:.2f} ×"
        )
    for attack in attacked:
        print(
            f"{attack.attack}: {attack.sent_mib:.1f} MiB taken, memory +{attack.grown_mib:.1f} MiB,"
            f" /healthz {attack.health_ms_median:.0f} ms, at most {attack.health_ms_highest:.0f}"
        )


if __name__ == "__main__":
    main()
