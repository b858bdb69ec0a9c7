"""The client against the service as it is run: what it answers is what the trainer gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from driftscope_client import DriftscopeClient, DriftscopeError

ROOT = Path(__file__).parents[2]
COMMAND = "from driftscope_service.cli.main import main; main()"
PATIENCE_S = 60.0

Connect = Callable[..., DriftscopeClient]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`driftscope serve` on a free port; its address."""
    data_dir = tmp_path_factory.mktemp("service")
    roots = os.pathsep.join(str(ROOT / root) for root in ("service", "probes", "kernels"))
    arguments = ["serve", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**os.environ, "PYTHONPATH": roots},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    printed = ""
    for line in process.stderr:
        printed += line
        if address := re.search(r"http://\S+", line):
            return address[0]
    raise AssertionError(printed)


def test_the_answer_is_the_analysis(service: str, connect: Connect, step: dict[str, Any]) -> None:
    client = connect(service, run="a")
    answer = client.push_now(1, metadata={"model": "m"}, **step)
    assert (answer["state"], answer["tokens"], answer["sequences"]) == ("complete", 6, 2)
    assert answer["comparison"]["abs_diff_mean"] == pytest.approx(0.01, rel=1e-5)
    assert answer["metadata"]["model"] == "m"
    again = client.push_now(1, metadata={"model": "m"}, **step)
    assert again["content_sha256"] == answer["content_sha256"]
    with pytest.raises(DriftscopeError) as error:
        client.push_now(1, metadata={"model": "other"}, **step)
    assert error.value.status == 409


def test_a_run_ends_with_its_last_step(
    service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(service, run="ended")
    client.push(1, **step)
    assert client.finish()
    known = httpx.get(f"{service}/v1/runs/ended").json()
    assert (known["state"], known["steps"]) == ("finished", 1)


def test_in_the_background_in_every_layout(service: str, connect: Connect) -> None:
    rollout = [[-0.5, -1.0], [-2.0]]
    trainer = [[-0.5, -1.25], [-2.5]]
    padded, mask = torch.zeros(2, 2, dtype=torch.bfloat16), torch.tensor([[1, 1], [1, 0]])
    padded[mask.bool()] = torch.tensor([-0.5, -1.0, -2.0], dtype=torch.bfloat16)
    answers: list[dict[str, Any]] = []
    client = connect(service, run="b", on_result=answers.append)
    client.push(1, rollout_logprobs=rollout, trainer_logprobs=trainer)
    client.push(2, rollout_logprobs=padded, trainer_logprobs=padded - 0.25, mask=mask)
    assert client.flush(PATIENCE_S)
    assert (client.pushed, client.failed) == (2, 0), client.last_error
    assert [answer["comparison"]["abs_diff_mean"] for answer in answers] == [0.25, 0.25]


def test_what_the_service_refuses_the_trainer_survives(
    service: str, connect: Connect, step: dict[str, Any]
) -> None:
    client = connect(service, run="c")
    client.push(1, **step, rollout_token_ids=np.arange(6) + 1)
    assert client.flush(PATIENCE_S)
    assert client.failed == 1
    assert "token ids differ" in str(client.last_error)


def test_ranks_in_any_order_are_one_step(
    service: str, connect: Connect, step: dict[str, Any]
) -> None:
    ranks = [connect(service, run="d") for _ in range(3)]
    for place in (2, 0, 1):
        ranks[place].push_shard(7, place, 3, **step)
    assert all(rank.flush(PATIENCE_S) for rank in ranks)
    assert [(rank.pushed, rank.failed) for rank in ranks] == [(1, 0)] * 3
    stored = httpx.get(f"{service}/v1/runs/d/steps/7").json()
    assert (stored["shards"], stored["sequences"], stored["tokens"]) == (3, 6, 18)
    assert ranks[0].complete(7)["content_sha256"] == stored["content_sha256"]
