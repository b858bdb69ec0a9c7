"""Prompts of a plan, the cases of every axis, and the axes that an engine does not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from driftscope_probes.determinism.axes import (
    batch,
    lifecycle,
    memory,
    process,
    protocols,
    repeat,
)
from driftscope_probes.determinism.axes.base import Job, choice, integer
from driftscope_probes.determinism.axes.registry import AXIS
from driftscope_probes.determinism.batch import NEED_A_SCHEDULER, NEED_OUR_ENGINE, Plan
from driftscope_probes.determinism.batch import not_applicable as why_not
from driftscope_probes.determinism.request import AXES, DeterminismRequest
from driftscope_probes.determinism.run_axis import NotExercised, outwards, run_job
from driftscope_probes.engines.sessions.question import Answer, Batch, Row, Setup
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import RequestError

TEXT: Final = tuple(range(3, 500))


def plan(**engine: Any) -> Plan:
    asked = DeterminismRequest(model="m", max_tokens=4)
    return Plan(asked, Setup("bf16", EngineSettings(**engine), context=1024), TEXT)


def keys(jobs: tuple[Job, ...]) -> set[str]:
    return {row.key for job in jobs for row in job.batch.rows if row.key}


def test_every_axis_that_is_written_can_be_asked_for() -> None:
    written = [
        value
        for module in (batch, lifecycle, memory, process, protocols, repeat)
        for value in vars(module).values()
        if isinstance(value, type)
        and hasattr(value, "case")
        and not value.__name__.startswith("_")
        and value.__module__ == module.__name__
    ]
    assert sorted(AXIS) == sorted(AXES)
    assert {type(axis) for axis in AXIS.values()} == set(written) and len(written) == len(AXES)


@pytest.mark.parametrize("name", AXES)
def test_every_variant_has_its_reference(name: Any) -> None:
    """Rows of one key are asked the same thing, wherever they are."""
    given, axis = plan(threads=2), AXIS[name]
    reference, *others = axis.values(given)
    assert others
    for value in others:
        case = axis.case(given, reference, value)
        assert keys(case.variant) and keys(case.variant) <= keys(case.reference)
        rows = [row for job in case.reference + case.variant for row in job.batch.rows]
        for key in keys(case.variant):
            asked = {(row.prompt, row.seed) for row in rows if row.key == key}
            assert len(asked) == 1, key


def test_a_prompt_is_the_same_in_every_batch() -> None:
    given = plan()
    assert given.rows(20)[:8] == given.rows(8) == tuple(given.row(index) for index in range(8))
    assert len({row.prompt[:4] for row in given.rows(20)}) == 20
    for length in (1, len(TEXT), 3 * len(TEXT)):
        assert len(given.prompt(3, length)) == length


def test_axes_that_cannot_be_tried_are_told() -> None:
    server = plan(kind="vllm-server", server_url="http://h", server_model="m")
    assert {axis for axis in AXES if why_not(axis, server)} == NEED_OUR_ENGINE
    assert {axis for axis in AXES if why_not(axis, plan(kind="hf"))} == NEED_A_SCHEDULER
    assert {axis for axis in AXES if why_not(axis, plan(threads=1))} == {"kv_split"}
    assert not any(why_not(axis, plan(threads=2)) for axis in AXES)


@pytest.mark.parametrize("size", range(1, 40))
def test_batches_of_protocols_and_arrivals(size: int) -> None:
    kinds = [Row(key, (1,)) for key in "abc"]
    rows = protocols.mixed(kinds, size)
    assert rows == protocols.mixed(kinds, size) and len(rows) == size and set(rows) <= set(kinds)
    apart = batch.apart(rows, 3)
    assert [row.arrival for row in apart] == list(range(0, 3 * size, 3))
    assert [row.key for row in apart] == [row.key for row in rows]


def test_values_are_checked() -> None:
    assert (integer(2, "batch size", 1, 2), choice("on", "mode", ("on",))) == (2, "on")
    for wrong in (0, 3, "2"):
        with pytest.raises(RequestError, match="whole numbers from 1 to 2"):
            integer(wrong, "batch size", 1, 2)
    with pytest.raises(RequestError, match="choose of: on"):
        choice("off", "mode", ("on",))


@pytest.mark.parametrize(
    ("demand", "counted"), [("preemption", "preemptions"), ("cached", "cached_tokens")]
)
def test_equal_bits_of_what_did_not_happen_do_not_count(
    demand: Any, counted: str, fake_engine: Callable[..., Any]
) -> None:
    job = Job(plan().setup, Batch((Row("a", (1,)), Row("", (2,))), 4), demand=demand)
    for seen in (None, 0):
        with pytest.raises(NotExercised):
            run_job(fake_engine(**{counted: seen}), job)
    ((key, output),) = run_job(fake_engine(**{counted: 1}), job)
    assert key == "a" and len(output.token_ids) == 4
    assert isinstance(fake_engine().run(job.setup, job.batch), Answer)


def test_cells_are_shown_from_the_reference_outwards() -> None:
    cells: Any = dict.fromkeys([1, 32, "other", 8, 16, 2])
    assert list(outwards(cells, 8)) == [8, 2, 1, 16, 32, "other"]
