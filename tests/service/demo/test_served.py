"""A service for as long as a block lasts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from driftscope_service.demo.load import last_sentence, served
from driftscope_service.service import open_service
from driftscope_service.settings import Settings


def test_it_answers_until_the_block_ends_even_by_an_error(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0)
    with open_service(settings) as service:
        with pytest.raises(KeyError), served(service, settings) as url:
            assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
            raise KeyError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0)).close()


def test_what_the_loader_says_of_a_run_is_what_its_last_step_says(
    running: Any, pushing: Any
) -> None:
    for step in (1, 2):
        answer = pushing.push(pushing.body(seed=step), run="r", step=step).json()
    assert answer["diagnosis"]["sentence"]
    assert last_sentence(running.client, "r") == f"r: {answer['diagnosis']['sentence']}"
