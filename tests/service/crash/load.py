"""Clients that push steps and start jobs, and remember what the service acknowledged.

What was not acknowledged may or may not be there; a client sends it again, with the same bytes.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final

import httpx
import numpy as np
from safetensors.numpy import save

#: A request that a kill has cut off ends at once; only a hanging service takes this long.
TIMEOUT_S: Final = 20.0
#: Between two tries against a service that is down.
RETRY_S: Final = 0.05
#: Every so many steps come in shards, and so many pushes are one job.
SHARDED_EVERY, JOB_EVERY = 5, 12
SHARDS: Final = 3
HEADERS: Final = {"content-type": "application/vnd.safetensors"}
MODEL: Final = "tiny-random-llama"


@dataclass(slots=True)
class Acknowledged:
    """What the service answered for, and so must never lose."""

    steps: dict[tuple[str, int], str] = field(default_factory=dict)  # SHA-256 of whole ones
    sharded: set[tuple[str, int]] = field(default_factory=set)  # completed
    jobs: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)  # answers that no promise allows


def body_of(run: str, step: int, part: int = 0) -> bytes:
    """The same bytes at every try."""
    seed = int.from_bytes(sha256(f"{run}/{step}/{part}".encode()).digest()[:4], "big")
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 40, size=8)
    rollout = np.log(generator.beta(3, 1, int(lengths.sum()))).astype(np.float32)
    noise = generator.normal(0, 0.01, rollout.size).astype(np.float32)
    tensors = {
        "rollout_logprobs": rollout,
        "trainer_logprobs": rollout + noise,
        "cu_seqlens": np.cumsum([0, *lengths]),
    }
    return save(tensors, {"model": "m"})


class Pusher:
    """One trainer: its steps in order, each until it is acknowledged."""

    def __init__(
        self,
        run: str,
        addresses: Sequence[str],
        acknowledged: Acknowledged,
        lock: threading.Lock,
        stopping: threading.Event,
    ) -> None:
        self._run = run
        self._addresses = addresses
        self._acknowledged = acknowledged
        self._lock = lock
        self._stopping = stopping
        self._random = random.Random(run)
        self._client = httpx.Client(timeout=TIMEOUT_S)
        self._thread = threading.Thread(target=self._work, name=f"pusher-{run}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        self._client.close()

    def _work(self) -> None:
        for step in itertools.count():
            if self._stopping.is_set():
                return
            if step % JOB_EVERY == JOB_EVERY - 1:
                self._start_job()
            if step % SHARDED_EVERY == SHARDED_EVERY - 1:
                self._push_shards(step)
            else:
                self._push(step)

    def _push(self, step: int) -> None:
        body = body_of(self._run, step)
        if self._until_done(lambda: self._post(self._path(step), body)) is not None:
            with self._lock:
                self._acknowledged.steps[self._run, step] = sha256(body).hexdigest()

    def _push_shards(self, step: int) -> None:
        for shard in range(SHARDS):
            if self._until_done(partial(self._push_shard, step, shard)) is None:
                return
        path = f"/v1/runs/{self._run}/steps/{step}/complete"
        if self._until_done(lambda: self._post(path, b"")) is not None:
            with self._lock:
                self._acknowledged.sharded.add((self._run, step))

    def _push_shard(self, step: int, shard: int) -> httpx.Response:
        query = f"?shard={shard}&shards={SHARDS}"
        return self._post(self._path(step) + query, body_of(self._run, step, shard))

    def _start_job(self) -> None:
        body = {
            "model": MODEL,
            "prompts": ["hold"],
            "engine_dtypes": ["bf16"],
            "trainer_dtypes": ["bf16"],
        }
        try:
            answer = self._client.post(f"{self._address()}/v1/probes/paired", json=body)
        except httpx.HTTPError:
            return  # it may have been accepted: nobody was told
        with self._lock:
            if answer.status_code == httpx.codes.ACCEPTED:
                self._acknowledged.jobs.append(answer.json()["id"])
            elif answer.status_code not in (429, 503):
                self._acknowledged.unexpected.append(f"job: {answer.status_code} {answer.text}")

    def _path(self, step: int) -> str:
        return f"/v1/runs/{self._run}/steps/{step}/logprobs"

    def _address(self) -> str:
        return self._random.choice(self._addresses)

    def _post(self, path: str, body: bytes) -> httpx.Response:
        return self._client.post(f"{self._address()}{path}", content=body, headers=HEADERS)

    def _until_done(self, post: Callable[[], httpx.Response]) -> Any:
        """The answer, or None where the load ended before."""
        while not self._stopping.is_set():
            try:
                answer = post()
            except httpx.HTTPError:
                time.sleep(RETRY_S)
                continue
            if answer.is_success:
                return answer
            if answer.status_code not in (429, 503):
                with self._lock:
                    self._acknowledged.unexpected.append(
                        f"push: {answer.status_code} {answer.text}"
                    )
            time.sleep(RETRY_S)
        return None
