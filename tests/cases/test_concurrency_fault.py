"""Repeatability that ends under load (vLLM, issue 51187), and what a server's JSON holds for NaN
and −inf: the probes ask a real HTTP server that answers as vLLM's does.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..completion_server import CompletionServer, serving
from .command_line import printed, run

#: More requests in flight than that are answered with other bits each time.
THRESHOLD = 20
#: Long enough for all requests of a batch to be in flight together on a busy machine.
IN_FLIGHT_S = 0.3
#: Of 961 ids that the tiny model has.
VOCABULARY = 300


@dataclass(frozen=True)
class Fault:
    threshold: int | None = None  # None: every request repeats
    null_at: int | None = None  # index of the log-probability that is null
    floored: bool = False  # one in 40 log-probabilities is −9999.0, as vLLM sends −inf


def drawn(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


class Server(CompletionServer):
    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault
        self.counting = threading.Lock()
        self.in_flight = 0
        self.noise = itertools.count()
        self.floored: set[tuple[int, ...]] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        noisy = self._under_load()
        context, tokens, logprobs = tuple(body["prompt"]), [], []
        for index in range(body["max_tokens"]):
            seed = body.get("seed") if body["temperature"] else None
            token = drawn("token", context, seed) % VOCABULARY
            logprob: float | None = -1e-4 - drawn("logprob", context, token) % 100_000 / 40_000
            if noisy and logprob is not None:
                logprob += (next(self.noise) % 7) * 1e-4
            if self.fault.floored and drawn("floor", context) % 40 == 0:
                logprob = -9999.0
                self.floored.add(context)
            tokens.append(token)
            logprobs.append(None if index == self.fault.null_at else logprob)
            context += (token,)
        return {"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": logprobs}}]}

    def _under_load(self) -> bool:
        if self.fault.threshold is None:
            return False
        with self.counting:
            self.in_flight += 1
        time.sleep(IN_FLIGHT_S)
        with self.counting:
            busy = self.in_flight
        # Nobody leaves before all of the batch have counted.
        time.sleep(IN_FLIGHT_S)
        with self.counting:
            self.in_flight -= 1
        return busy > self.fault.threshold


def determinism(server: Server, *arguments: str) -> list[str]:
    chosen = ["--model", "tiny-random-llama", "--engine", "vllm-server"]
    chosen += ["--server-url", server.address, "--max-tokens", "4", *arguments]
    return ["probe", "determinism", *chosen]


def paired(server: Server, *arguments: str) -> list[str]:
    chosen = ["--model", "tiny-random-llama", "--engine", "vllm-server"]
    chosen += ["--server-url", server.address, "--engine-dtypes", "bf16"]
    chosen += ["--trainer-dtypes", "fp32", "--prompts", "4", "--max-tokens", "20", "--threads"]
    chosen += ["1", "--no-headroom", "--no-chat-template", "--resamples", "0", *arguments]
    return ["probe", "paired", *chosen]


@pytest.mark.slow
def test_it_is_repeatability_that_ends_at_21_rows_not_the_batch_size(tmp_path: Path) -> None:
    with serving(Server(Fault(threshold=THRESHOLD))) as server:
        asked = ("--axes", "run_to_run,batch_size", "--batch-sizes", "1,8,44", "--runs", "2")
        report = printed(*determinism(server, *asked), cwd=tmp_path, code=1)
        again, size = report["axes"]
        assert (again["axis"], again["verdict"]) == ("run_to_run", "differs")
        assert (again["onset"]["equal_up_to"], again["onset"]["differs_from"]) == (20, 21)
        assert {cell["value"] for cell in again["cells"]} >= {8, 44}
        assert (size["axis"], size["verdict"]) == ("batch_size", "not_repeatable")
        assert "asked again" in size["reason"] and "batch size is not" in size["reason"]

        few = ("--axes", "run_to_run", "--run-rows", "3,20")
        (asked_few,) = printed(*determinism(server, *few), cwd=tmp_path)["axes"]
        assert asked_few["verdict"] == "equal"
        assert [cell["value"] for cell in asked_few["cells"]] == [3, 20]

        words = ("--axes", "run_to_run", "--run-rows", "8,44", "--no-bisect", "--runs", "2")
        shown = run(*determinism(server, *words), cwd=tmp_path).stdout
        assert "run_to_run (bf16, stock) differs from 44 rows on, equal up to 8" in shown


def test_the_batch_size_is_blamed_where_requests_repeat(tmp_path: Path) -> None:
    """The other way round: what is sent repeats, whatever the load."""
    with serving(Server(Fault())) as server:
        asked = ("--axes", "run_to_run,batch_size", "--batch-sizes", "1,44", "--runs", "2")
        report = printed(*determinism(server, *asked), cwd=tmp_path)
        assert [axis["verdict"] for axis in report["axes"]] == ["equal", "equal"]


@pytest.mark.slow
def test_null_is_counted_and_the_probe_goes_on(tmp_path: Path) -> None:
    with serving(Server(Fault(null_at=3))) as server:
        report = printed(*paired(server), cwd=tmp_path)
        (cell,) = report["grid"]
        assert cell["comparison"]["rollout_nonfinite"] == 4
        assert cell["comparison"]["tokens"] == 4 * 20 - 4
        (said,) = [note for note in report["notes"] if "null" in note]
        assert "4 times: prompt 0, token 3; prompt 1, token 3" in said
        places = cell["rollout"]["settings"]["sent_not_finite"]
        assert places[0] == {"what": "null", "sequence": "prompt 0", "index": 3}

        engine = printed(*determinism(server, "--axes", "run_to_run"), cwd=tmp_path)
        assert engine["axes"][0]["verdict"] == "equal"
        assert any("null" in note and "prompt 0, token 3" in note for note in engine["notes"])


@pytest.mark.slow
def test_vllms_floor_is_read_as_minus_infinity(tmp_path: Path) -> None:
    with serving(Server(Fault(floored=True))) as server:
        report = printed(*paired(server), cwd=tmp_path)
        (cell,) = report["grid"]
        assert server.floored, "the fault was not planted"
        assert cell["comparison"]["rollout_nonfinite"] == len(server.floored)
        # The made-up server's numbers are off by some nats, not by thousands.
        assert cell["comparison"]["abs_diff_mean"] < 20
        assert any("-9999.0" in note and "-inf" in note for note in report["notes"])
