"""Axes, dtypes and kernels together; what cannot be run says why; and requests that are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from driftscope_probes.determinism.request import AXES, DeterminismRequest
from driftscope_probes.determinism.run import run_axes
from driftscope_probes.engines.sessions.question import Answer, Batch, Setup
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.progress import Progress, discard

TEXT = tuple(range(3, 500))


class Broken:
    """An engine that does not start with some settings."""

    def __init__(self, good: Any) -> None:
        self._good = good

    def run(self, setup: Setup, batch: Batch) -> Answer:
        if self._good is None or setup.cache_tokens is not None:
            raise EngineError("no room for the cache.", remedy="give more.")
        answer: Answer = self._good.run(setup, batch)
        return answer


def request(**fields: Any) -> DeterminismRequest:
    return DeterminismRequest(**{"model": "fake", "max_tokens": 3, "threads": 2, **fields})


def test_every_combination_in_order(fake_engine: Any) -> None:
    asked = request(axes=["position", "run_to_run"], engine_dtypes=["bf16", "fp32"], kernels="both")
    results = run_axes(asked, TEXT, fake_engine(), discard)
    assert [(result.dtype, result.kernels, result.axis) for result in results] == [
        (dtype, kernels, axis)
        for dtype in ("bf16", "fp32")
        for kernels in ("stock", "invariant")
        for axis in ("run_to_run", "position")
    ]


def test_an_axis_that_fails_leaves_the_others(fake_engine: Any) -> None:
    asked = request(axes=["preemption", "position"])
    position, preemption = run_axes(asked, TEXT, Broken(fake_engine()), discard)
    assert position.verdict == "equal"
    assert (preemption.verdict, preemption.reason) == ("not_run", "no room for the cache.")


def test_an_engine_that_never_starts_is_an_error() -> None:
    with pytest.raises(EngineError, match="no room"):
        run_axes(request(), TEXT, Broken(None), discard)


@pytest.mark.parametrize(
    ("fields", "axis", "told"),
    [
        ({"engine": "hf"}, "arrival_order", "transformers has no scheduler"),
        ({"engine": "vllm-server", "server_url": "http://x"}, "threads", "behind a URL"),
        ({"threads": 1}, "kv_split", "one thread"),
        ({"kernels": "invariant"}, "compiled", "eagerly"),
    ],
)
def test_what_does_not_apply_says_why(
    fake_engine: Any, fields: dict[str, Any], axis: str, told: str
) -> None:
    engine = fake_engine()
    (result,) = run_axes(request(axes=[axis], **fields), TEXT, engine, discard)
    assert result.verdict == "not_run" and told in str(result.reason)
    assert engine.calls == []


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"axes": ["batch_size"], "batch_sizes": [1, 2]}, 32),
        ({"axes": ["batch_size"], "batch_sizes": [1, 64]}, 64),
        ({"axes": ["sglang_single"], "values": [1, 50]}, 50),
        ({"axes": ["neighbours"], "values": [16, 200]}, 32),
    ],
)
def test_the_engine_has_room_for_the_largest_batch(
    fake_engine: Any, fields: dict[str, Any], rows: int
) -> None:
    engine = fake_engine()
    run_axes(request(**fields), TEXT, engine, discard)
    assert {setup.engine.batch_size for setup, _ in engine.calls} == {rows}
    assert all(len(batch.rows) <= rows for _, batch in engine.calls)


def test_progress_never_goes_back(fake_engine: Any) -> None:
    seen: list[Progress] = []
    engine = fake_engine(fault=lambda setup, batch, index: len(batch.rows) > 20)
    run_axes(request(), TEXT, engine, seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions) and fractions[-1] <= 1.0
    assert {progress.stage.split()[-1] for progress in seen} == set(AXES) - {"compiled"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"axes": ["colour"]}, "run_to_run"),
        ({"axes": []}, "at least 1"),
        ({"axes": ["position", "position"]}, "twice"),
        ({"values": [1, 2]}, "name that axis alone"),
        ({"axes": ["position"], "values": [0]}, "at least 2"),
        ({"axes": ["position"], "values": [0, -1]}, "greater than or equal to 0"),
        ({"batch_sizes": [2]}, "at least 2"),
        ({"batch_sizes": [1, 5000]}, "1024"),
        ({"engine_dtypes": ["int8"]}, "bf16"),
        ({"engine": "hf", "kernels": "both"}, "for engine vllm"),
        ({"engine": "vllm-server"}, "server_url"),
        ({"engine": "vllm-server", "server_url": "http://me:secret@host"}, "leave it out"),
        ({"max_tokens": 0}, "greater than or equal to 1"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_requests_that_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        request(**fields)


def test_a_prompt_beyond_the_engines_length(fake_engine: Any) -> None:
    with pytest.raises(RequestError, match="4000 tokens and 3 more"):
        run_axes(request(axes=["neighbours"], values=[16, 4000]), TEXT, fake_engine(), discard)
    asked = request(axes=["neighbours"], values=[16, 400], prompt_tokens=[24, 400])
    (result,) = run_axes(asked, TEXT, fake_engine(), discard)
    assert result.verdict == "equal"


@pytest.mark.parametrize(
    ("axis", "values"),
    [("position", [0, 99]), ("prefix_cache", ["off", "warm"]), ("batch_size", ["one", 2])],
)
def test_a_value_that_the_axis_does_not_have(
    fake_engine: Any, axis: str, values: list[Any]
) -> None:
    with pytest.raises(RequestError, match="is no"):
        run_axes(request(axes=[axis], values=values), TEXT, fake_engine(), discard)
