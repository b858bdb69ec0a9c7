"""docs/push-api.md against the service: its commands run, its tables name what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from driftscope_service.http.problem_kinds import KINDS
from driftscope_service.settings import PREFIX, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "push-api.md").read_text(encoding="utf-8")
BASE = "http://127.0.0.1:8321"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("curl")]


def run(client: Any, command: list[str], files: dict[str, bytes]) -> Any:
    """What curl would send."""
    method, url, headers, content = None, None, {}, None
    words = iter(command[1:])
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            content = next(words).encode()
        elif word == "--data-binary":
            content = files[next(words).removeprefix("@")]
        elif not word.startswith("-"):
            url = word
    assert url is not None and url.startswith(BASE)
    return client.request(
        method or ("GET" if content is None else "POST"),
        url.removeprefix(BASE),
        headers=headers,
        content=content,
    )


def test_the_commands_do_what_they_say(pushing: Any) -> None:
    files = {
        "step-12.safetensors": pushing.body(),
        "step-41.safetensors": pushing.body(seed=3),
        "rank-0.safetensors": pushing.body(seed=1),
        "rank-1.safetensors": pushing.body(seed=2),
    }
    answers = [run(pushing.client, command, files) for command in commands()]
    assert [answer.status_code for answer in answers] == [201, 201, 200, 201, 201, 201, 201, 201]
    assert list(answers[2].json()["steps"][0]["values"]) == ["kl_k3", "abs_diff_mean"]
    assert answers[-1].json()["shards"] == 2


def test_the_routes_are_the_documented_ones(running: Any) -> None:
    document = running.client.get("/openapi.json").json()
    there = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        if path.startswith("/v1/runs")
        for method in operations
    }
    documented = re.findall(r"^\| `((?:PUT|GET|POST|DELETE) /v1\S+)` \|", PAGE, re.MULTILINE)
    assert set(documented) == there


def test_the_errors_are_the_documented_ones(running: Any) -> None:
    slugs = {kind.slug: kind.status for kind in KINDS}
    rows = re.findall(r"^\| (\d{3}) \| ([a-z-]+) \|", PAGE, re.MULTILINE)
    assert rows
    assert {slug: int(status) for status, slug in rows}.items() <= slugs.items()
    document = running.client.get("/openapi.json").json()
    listed: set[str] = set()
    for path, operations in document["paths"].items():
        if "/steps/{step}/" in path:
            for operation in operations.values():
                listed |= {status for status in operation["responses"] if status.isdigit()}
    keys = {"401", "403"}
    assert listed - keys - {"200", "201"} == {status for status, _ in rows}


@pytest.mark.parametrize("name", re.findall(rf"`{PREFIX}(\w+)`", PAGE))
def test_the_settings_exist(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_the_limits_are_the_defaults() -> None:
    fields = Settings.model_fields
    assert fields["max_upload_bytes"].default == 512 * 2**20
    assert fields["upload_idle_timeout_seconds"].default == 30
    assert fields["max_concurrent_uploads"].default == 8
    assert fields["min_free_disk_bytes"].default == 256 * 2**20
    assert fields["token_ring_steps"].default == 32
    assert fields["token_budget_bytes"].default == 20 * 2**30
    assert fields["analysis_processes"].default == 2


def test_a_step_takes_the_space_that_the_page_says(running: Any, pushing: Any) -> None:
    assert pushing.push(pushing.body([200] * 8)).status_code == 201
    with running.service.database.read() as connection:
        columns = "length(analysis) + length(series) + length(metadata)"
        size = connection.exec_driver_sql(f"SELECT {columns} FROM steps").scalar_one()
    assert 2500 < size < 7500  # about 5 KB
