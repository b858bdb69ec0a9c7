"""docs/client.md: its recipes run, and it says what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_client import answer, loggers
from driftscope_client import client as client_module
from driftscope_client.errors import RUN_VARIABLE
from driftscope_client.transport import PASSING, RetryPolicy
from driftscope_probes.push import read_step

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


def recipe(section: str) -> str:
    found = re.search(rf"## {section}\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_recipe_for_any_trainer(serve: Callable[..., Any], tmp_path: Path) -> None:
    code = recipe("Any trainer")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    stub = serve()
    sides = [np.array([-0.5, -1.0], np.float32), np.array([-2.0], np.float32)]
    batches = [(sides, [s - 1 for s in sides], [[1, 2], [3]])] * 2
    exec(code.replace("http://127.0.0.1:8321", stub.url), {"batches": batches})
    assert [path for path, _, _ in stub.requests] == [
        f"/v1/runs/my-run/steps/{number}/logprobs" for number in range(2)
    ]
    assert stub.puts == [("/v1/runs/my-run", {"state": "finished"})]
    (tmp_path / "s.safetensors").write_bytes(stub.requests[1][2])
    step = read_step(tmp_path / "s.safetensors")
    assert step.cu_seqlens.tolist() == [0, 2, 3]
    assert step.metadata["trainer_dtype"] == "fp32"


def test_the_names_for_a_logger_are_those_of_the_code() -> None:
    section = PAGE.partition("## Numbers in your own logger")[2].partition("\n## ")[0]
    listed = dict(
        re.findall(r"^\| `(driftscope/\w+)`(?: \(word\))? \| (.*) \|$", section, re.MULTILINE)
    )
    expected = {**answer.NUMBERS, **answer.WORDS}
    assert {name: text.replace("\\|", "|") for name, text in listed.items()} == expected


def test_the_functions_for_loggers_are_those_of_the_code() -> None:
    named = set(re.findall(r"`(to_\w+)\(", PAGE))
    assert named == {name for name in vars(loggers) if name.startswith("to_")}


@pytest.mark.parametrize(
    "stated",
    [
        f"At most {client_module.QUEUE_SIZE} steps or {client_module.QUEUE_BYTES // 2**30} GiB",
        f"`close_timeout_s` ({client_module.CLOSE_TIMEOUT_S:g} s)",
        f"`{client_module.URL_VARIABLE}` | address, default `{client_module.DEFAULT_URL}`",
        f"`{RUN_VARIABLE}`",
        f"`{client_module.KEY_VARIABLE}`",
        "429, 502, 503 and 504 are tried again, five times",
    ],
)
def test_what_the_page_states_is_so(stated: str) -> None:
    assert stated in PAGE
    assert RetryPolicy().attempts == 5
    assert {429, 502, 503, 504} == PASSING
