"""Engine processes: shared where they can be, replaced where they must, explained when they die."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from driftscope_probes.determinism.request import DeterminismRequest
from driftscope_probes.determinism.run import run_axes
from driftscope_probes.engines.sessions.question import Batch, Row, Setup
from driftscope_probes.engines.sessions.runners import EngineRunner
from driftscope_probes.engines.settings import EngineSettings
from driftscope_probes.errors import EngineError, RequestError
from driftscope_probes.progress import discard

CHILDREN = Path(__file__).parent / "children"
SETUP = Setup("bf16", EngineSettings(threads=1, prefix_caching=True), context=64)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineRunner]:
    monkeypatch.setenv("PYTHONPATH", str(CHILDREN), prepend=os.pathsep)
    runner = EngineRunner(tmp_path / "model", tmp_path / "work", module="stand_in_session")
    yield runner
    runner.close()


def batch(*prompts: int) -> Batch:
    rows = [Row(f"row {index}", (first, 7)) for index, first in enumerate(prompts)]
    return Batch(tuple(rows), max_tokens=4)


def test_outputs_come_in_the_order_of_the_rows(runner: EngineRunner) -> None:
    answer = runner.run(SETUP, batch(5, 9))
    assert [output.token_ids.tolist() for output in answer.outputs] == [[5, 7], [9, 7]]
    assert answer.cached_tokens is None


def test_a_process_is_shared_until_its_environment_changes(runner: EngineRunner) -> None:
    setups = [
        SETUP,
        SETUP.changed(prefix_caching=False),
        replace(SETUP, cache_tokens=256),
        SETUP.changed(threads=2),
        SETUP.changed(threads=2, attention_split_kv=False),
        replace(SETUP, process=1),
    ]
    for setup in (setup for setup in setups for _ in range(2)):
        runner.run(setup, batch(5))
    assert [engine["process"] for engine in runner.engines] == [1, 1, 1, 2, 3, 4]
    assert [engine["threads"] for engine in runner.engines] == ["1", "1", "1", "2", "2", "1"]
    pids = [engine["pid"] for engine in runner.engines]
    alive = [pid for pid in pids if psutil.pid_exists(pid)]
    assert alive == pids[-1:]
    runner.close()
    assert not psutil.pid_exists(pids[-1])


def test_a_replica_runs_beside_the_first_until_something_else_is_asked(
    runner: EngineRunner,
) -> None:
    for setup in (replace(SETUP, replica=1), SETUP, replace(SETUP, replica=1)):
        runner.run(setup, batch(5))
    first, second = (engine["pid"] for engine in runner.engines)
    assert first != second and psutil.pid_exists(first) and psutil.pid_exists(second)
    runner.run(SETUP.changed(prefix_caching=False), batch(5))
    assert psutil.pid_exists(first) and not psutil.pid_exists(second)


def test_an_engine_is_opened_anew_after_an_event(runner: EngineRunner) -> None:
    """In the same process: what a sleep or a reload did ends with the engine."""
    reloaded = replace(batch(5), before=("reload",))
    for asked in (batch(5), reloaded, reloaded, batch(5), batch(9)):
        runner.run(SETUP, asked)
    assert [engine["process"] for engine in runner.engines] == [1, 1]


def test_a_refusal_leaves_the_engine_up(runner: EngineRunner) -> None:
    with pytest.raises(RequestError, match="unlucky"):
        runner.run(SETUP, batch(13))
    assert runner.run(SETUP, batch(5)).outputs
    assert runner.processes == 1


def test_a_killed_engine_is_explained_and_the_next_one_starts(runner: EngineRunner) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        runner.run(SETUP, batch(66))
    assert runner.run(SETUP, batch(5)).outputs
    assert runner.processes == 2


def test_bits_survive_the_way_between_processes(runner: EngineRunner) -> None:
    (output,) = runner.run(SETUP, batch(2_143_289_345)).outputs  # a NaN with a payload
    assert output.logprobs.view("uint32").tolist() == [2_143_289_345, 7]


LIFE = ["sleep_wake", "reload", "replica", "restart", "fresh_process"]


@pytest.mark.parametrize(("first", "differing"), [(5, []), (77, LIFE[1:])])
def test_axes_of_an_engines_life_on_real_processes(
    runner: EngineRunner, first: int, differing: list[str]
) -> None:
    """77: every launch has bits of its own, which it repeats, and which a reload changes."""
    asked = DeterminismRequest(model="m", axes=LIFE, threads=1, max_tokens=2)
    found = run_axes(asked, (first,) * 500, runner, discard)
    assert {axis.axis: axis.verdict for axis in found} == {
        axis: "differs" if axis in differing else "equal" for axis in LIFE
    }
    assert found[3].unique_bitwise == (3 if differing else 1)
    # The first, the replica beside it, and two more launches; fresh_process shares the second.
    assert runner.processes == 4
