"""POST …/logprobs and …/complete: every encoding, repetition, conflict, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import zstandard
from safetensors.numpy import save

SAFETENSORS = "application/vnd.safetensors"


def test_a_step_is_analysed_and_stored(pushing: Any) -> None:
    body = pushing.body(metadata={"model": "m", "rollout_dtype": "bf16"})
    answer = pushing.push(body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/runs/r/steps/1"
    step = answer.json()
    assert (step["run"], step["step"], step["state"]) == ("r", 1, "complete")
    assert step["content_sha256"] == hashlib.sha256(body).hexdigest()
    assert (step["tokens"], step["sequences"], step["size_bytes"]) == (18, 4, len(body))
    assert (step["shards"], step["metadata"]["rollout_dtype"]) == (1, "bf16")
    assert step["diagnosis"]["verdict"] == "at_floor" and step["tokens_kept"] is True
    assert step["aliases"] and step["presets"]
    assert pushing.client.get(answer.headers["location"]).json() == step
    assert pushing.incoming() == []


def test_the_same_bytes_are_no_error_and_other_bytes_are_a_new_attempt(
    pushing: Any, eventually: Any
) -> None:
    first = pushing.push(pushing.same())
    again = pushing.push(pushing.same())
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() and first.json()["attempt"] == 1
    other = pushing.push(pushing.same(seed=1))
    assert (other.status_code, other.json()["attempt"]) == (201, 2)
    assert (pushing.rows(), pushing.incoming()) == (3, [])
    # The tokens of the first are not kept: it crossed no limit, and is not in the series.
    eventually(lambda: len(pushing.files()) == 1)


@pytest.mark.parametrize("encoding", ["zstd", "identity", "ZSTD"])
def test_a_content_coding_changes_nothing_but_the_way(pushing: Any, encoding: str) -> None:
    body = pushing.body()
    sent = zstandard.compress(body) if encoding.lower() == "zstd" else body
    pushed = pushing.push(sent, headers={"content-encoding": encoding})
    assert pushed.status_code == 201, pushed.text
    assert pushed.json()["content_sha256"] == hashlib.sha256(body).hexdigest()
    assert pushing.push(body).status_code == 200


def test_json_gives_the_same_numbers(pushing: Any) -> None:
    tensors = {
        "rollout_logprobs": [[-0.5, -1.25], [-0.02]],
        "trainer_logprobs": [[-0.5, -1.5], [-0.021]],
    }
    flat = {
        name: np.array([x for one in lists for x in one], dtype=np.float32)
        for name, lists in tensors.items()
    }
    as_json = pushing.push(
        json.dumps(tensors), step=1, headers={"content-type": "application/json; charset=utf-8"}
    )
    packed = pushing.push(
        save({**flat, "cu_seqlens": np.array([0, 2, 3])}),
        step=2,
        headers={"content-type": "application/octet-stream"},
    )
    assert as_json.status_code == packed.status_code == 201, as_json.text
    assert as_json.json()["comparison"] == packed.json()["comparison"]


def test_arrow_gives_the_same_numbers(pushing: Any) -> None:
    import pyarrow as pa

    columns = {"rollout_logprobs": [[-0.5, -1.25], [-0.02]], "trainer_logprobs": [[-0.5, -1], [-1]]}
    table = pa.table({name: pa.array(x, pa.list_(pa.float32())) for name, x in columns.items()})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    arrow = pushing.push(
        stream.getvalue(), headers={"content-type": "application/vnd.apache.arrow.stream"}
    )
    plain = pushing.push(json.dumps(columns), step=2, headers={"content-type": "application/json"})
    assert arrow.status_code == 201, arrow.text
    assert arrow.json()["comparison"] == plain.json()["comparison"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-pickle"},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
        {"content-encoding": "zstd, zstd"},
    ],
)
def test_what_is_not_read_here(pushing: Any, headers: dict[str, str]) -> None:
    answer = pushing.push(b"x", headers=headers)
    assert answer.status_code == 415
    assert answer.json()["type"] == "/problems/unsupported-media-type"
    assert pushing.nothing_left()


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/runs/-r/steps/1/logprobs", "path/run"),
        (f"/v1/runs/{'r' * 129}/steps/1/logprobs", "path/run"),
        ("/v1/runs/r/steps/-1/logprobs", "path/step"),
        (f"/v1/runs/r/steps/{2**53}/logprobs", "path/step"),
        ("/v1/runs/r/steps/x/logprobs", "path/step"),
        ("/v1/runs/r/steps/1/logprobs?shard=0", "query/shards"),
        ("/v1/runs/r/steps/1/logprobs?shards=2", "query/shard"),
        ("/v1/runs/r/steps/1/logprobs?shard=2&shards=2", "query/shard"),
        ("/v1/runs/r/steps/1/logprobs?shard=0&shards=1025", "query/shards"),
        ("/v1/runs/-/steps/1/complete", "path/run"),
    ],
)
def test_a_wrong_parameter_is_pointed_at(pushing: Any, path: str, pointer: str) -> None:
    answer = pushing.client.post(path, content=b"x", headers={"content-type": SAFETENSORS})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert pushing.nothing_left()


def test_a_body_over_the_limit(run_service: Any, pushing_to: Any) -> None:
    with run_service(max_upload_bytes=4096, max_body_bytes=1024) as running:
        pushing = pushing_to(running)
        fits = pushing.body([100] * 2)
        assert 1024 < len(fits) <= 4096
        assert pushing.push(fits).status_code == 201
        large = pushing.body([2000])
        zeros = np.zeros(1000, np.float32)
        small = pushing.body([1000], rollout_logprobs=zeros, trainer_logprobs=zeros)
        packed = zstandard.compress(small)
        assert len(packed) < 1024
        zstd = {"content-encoding": "zstd"}
        for body, headers in ((large, {}), (iter([large]), {}), (packed, zstd)):
            answer = pushing.push(body, step=2, headers=headers)
            assert answer.status_code == 413
            assert answer.headers["content-type"] == "application/problem+json"
        assert (pushing.rows(), pushing.incoming()) == (2, [])


def test_json_has_a_limit_of_its_own(pushing: Any) -> None:
    body = b'{"rollout_logprobs": [' + b" " * 2**24 + b"]}"
    answer = pushing.push(body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert pushing.nothing_left()


def test_no_room_on_the_disk(run_service: Any, pushing_to: Any) -> None:
    with run_service(min_free_disk_bytes=2**60) as running:
        pushing = pushing_to(running)
        answer = pushing.push(pushing.body())
        assert answer.status_code == 507
        assert answer.json()["type"] == "/problems/storage-full"
        assert pushing.nothing_left()


def test_equal_uploads_at_once_become_one_step(pushing_at_url: Any, eventually: Any) -> None:
    pushing = pushing_at_url
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: pushing.push(pushing.body()), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.text for answer in answers}) == 1
    assert (pushing.rows(), pushing.incoming()) == (2, [])
    eventually(lambda: len(pushing.files()) == 1)  # first the upload, then the Parquet file


def test_different_uploads_at_once_in_one_attempt_leave_one(
    pushing_at_url: Any, eventually: Any
) -> None:
    pushing = pushing_at_url
    assert pushing.client.post("/v1/runs/r/attempts", json={"id": "a"}).status_code == 201

    def push(seed: int) -> Any:
        return pushing.push(pushing.body(seed=seed), params={"attempt": "a"})

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(push, range(3)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert (pushing.rows(), pushing.incoming()) == (2, [])
    eventually(lambda: len(pushing.files()) == 1)  # first the upload, then the Parquet file


def test_different_uploads_at_once_without_an_attempt_are_attempts(pushing_at_url: Any) -> None:
    pushing = pushing_at_url
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda seed: pushing.push(pushing.body(seed=seed)), range(3)))
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert sorted(answer.json()["attempt"] for answer in answers) == [1, 2, 3]


def test_more_uploads_than_slots(run_service: Any, pushing_to: Any) -> None:
    with run_service(max_concurrent_uploads=1) as running:
        pushing = pushing_to(running)
        with running.service.intake.slots.hold(0):
            answer = pushing.push(pushing.body())
            assert answer.status_code == 503
            assert answer.json()["type"] == "/problems/too-many-uploads"
            assert int(answer.headers["retry-after"]) > 0
            assert pushing.nothing_left()
        assert pushing.push(pushing.body()).status_code == 201


def test_shards_make_the_step_that_one_upload_makes(pushing: Any) -> None:
    tensors = pushing.tensors([4, 6, 2])
    names = ("rollout_logprobs", "trainer_logprobs")
    parts = [
        save({name: tensors[name][cut] for name in names} | {"cu_seqlens": limits}, {"model": "m"})
        for cut, limits in ((slice(4), np.array([0, 4])), (slice(4, None), np.array([0, 6, 8])))
    ]
    late = pushing.push(parts[1], params={"shard": 1, "shards": 2})
    assert late.status_code == 201, late.text
    assert (late.json()["received"], late.json()["missing"]) == ([1], [0])
    complete = late.json()["links"]["complete"]
    early = pushing.client.post(complete)
    assert early.status_code == 409
    assert early.json()["type"] == "/problems/shards-missing"
    assert early.json()["missing"] == [0]
    first = pushing.push(parts[0], params={"shard": 0, "shards": 2})
    assert (first.json()["received"], first.json()["tokens"]) == ([0, 1], 4)
    done = pushing.client.post(complete)
    assert done.status_code == 201, done.text
    again = pushing.client.post(complete)
    assert (again.status_code, again.json()) == (200, done.json())
    one = pushing.push(save(tensors, {"model": "m"}), step=2)
    assert done.json()["comparison"] == one.json()["comparison"]
    assert (done.json()["tokens"], done.json()["shards"]) == (12, 2)


def test_shards_are_idempotent_and_agree(pushing: Any) -> None:
    of = {"attempt": "a"}
    here = {"shard": 0, "shards": 2, **of}
    assert pushing.client.post("/v1/runs/r/attempts", json={"id": "a"}).status_code == 201
    assert pushing.push(pushing.body(), params=here).status_code == 201
    assert pushing.push(pushing.body(), params=here).status_code == 200
    for body, params in (
        (pushing.body(seed=1), here),
        (pushing.body(seed=2), {"shard": 1, "shards": 3, **of}),
        (pushing.body(), of),
    ):
        answer = pushing.push(body, params=params)
        assert answer.status_code == 409, answer.text
        assert answer.json()["type"] == "/problems/step-conflict"
    assert (pushing.rows(), len(pushing.files()), pushing.incoming()) == (2, 1, [])


def test_shards_of_a_complete_step(pushing: Any) -> None:
    of = {"attempt": "a"}
    assert pushing.client.post("/v1/runs/r/attempts", json={"id": "a"}).status_code == 201
    assert pushing.push(pushing.body(), params=of).status_code == 201
    late = pushing.push(pushing.body(), params={"shard": 0, "shards": 2, **of})
    assert late.status_code == 409
    assert pushing.push(pushing.body(), step=2, params={"shard": 0, "shards": 1}).is_success
    assert pushing.client.post("/v1/runs/r/steps/2/complete").status_code == 201
    same = pushing.push(pushing.body(), step=2, params={"shard": 0, "shards": 1})
    assert same.status_code == 200  # the answer to the first time may have been lost


def test_shards_that_do_not_fit_are_refused_and_stay(pushing: Any) -> None:
    for shard, more in enumerate([{}, {"advantages": np.ones(18, np.float32)}]):
        params = {"shard": shard, "shards": 2}
        assert pushing.push(pushing.body(**more), params=params).status_code == 201
    answer = pushing.client.post("/v1/runs/r/steps/1/complete")
    assert answer.status_code == 400
    assert "advantages" in answer.json()["detail"]
    assert pushing.client.get("/v1/runs/r/steps/1").status_code == 404


def test_completing_what_is_not_there(pushing: Any) -> None:
    assert pushing.client.post("/v1/runs/r/steps/1/complete").status_code == 404
    assert pushing.push(pushing.body()).status_code == 201
    assert pushing.client.post("/v1/runs/r/steps/2/complete").status_code == 404
    assert pushing.client.post("/v1/runs/r/steps/1/complete").status_code == 200


def test_values_that_are_no_numbers_are_counted(pushing: Any) -> None:
    values = np.array([-1, np.nan, -np.inf, 0, 0.5, -2], np.float32)
    answer = pushing.push(pushing.body([6], rollout_logprobs=values))
    assert answer.status_code == 201, answer.text
    step = answer.json()
    assert step["comparison"]["rollout_nonfinite"] == 2
    assert step["comparison"]["rollout_zero"] == 1
    assert step["comparison"]["rollout_positive"] == 1
    assert "nonfinite_tokens" in [limit["metric"] for limit in step["crossed_limits"]]


def test_dtypes_of_the_run_hold_where_the_step_names_none(pushing: Any) -> None:
    pushing.client.put("/v1/runs/exact", json={"rollout_dtype": "fp32", "trainer_dtype": "fp32"})
    crossed = {}
    for run in ("exact", "unknown"):
        step = pushing.push(pushing.body(), run=run).json()
        crossed[run] = {limit["metric"] for limit in step["crossed_limits"]}
    assert crossed["unknown"] < crossed["exact"]


def test_an_analysis_process_that_dies_is_replaced(pushing: Any) -> None:
    assert pushing.push(pushing.body()).status_code == 201
    for child in psutil.Process().children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
            child.wait(10)
    answer = pushing.push(pushing.body(), step=2)
    if answer.status_code != 201:  # the pool may have noticed by itself
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/analysis-failed"
        assert pushing.incoming() == []
    assert pushing.push(pushing.body(), step=2).status_code in (200, 201)


def test_a_client_that_goes_away_leaves_nothing(pushing_at_url: Any, eventually: Any) -> None:
    pushing = pushing_at_url
    body = pushing.body([40_000])

    def half() -> Any:
        yield body[: len(body) // 2]  # more than what is looked at before there is a file
        eventually(lambda: len(pushing.incoming()) == 1)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pushing.push(half())
    eventually(pushing.nothing_left)
    assert pushing.push(body).status_code == 201


def test_a_body_that_stops_arriving(run_service: Any, serving: Any, pushing_to: Any) -> None:
    with run_service(upload_idle_timeout_seconds=0.2) as running, serving(running) as url:
        with httpx.Client(base_url=url, timeout=30) as client:
            pushing = pushing_to(running, client)

            def slow() -> Any:
                yield b"x" * 100
                time.sleep(1.5)
                yield b"x"

            answer = pushing.push(slow())
            assert answer.status_code == 408
            assert answer.json()["type"] == "/problems/upload-timeout"
            assert answer.headers["connection"] == "close"
            assert pushing.nothing_left()
            assert pushing.push(pushing.body()).status_code == 201
