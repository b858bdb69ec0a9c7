"""Every axis on a stand-in engine: equal without a fault, found where one is planted."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from driftscope_probes.determinism.axes.registry import AXIS
from driftscope_probes.determinism.report import AxisReport
from driftscope_probes.determinism.request import AxisName, DeterminismRequest
from driftscope_probes.determinism.run import run_axes
from driftscope_probes.engines.sessions.question import Batch, Setup
from driftscope_probes.progress import discard

Probe = Callable[..., AxisReport]
Fault = Callable[[Setup, Batch, int], int]
ALL = get_args(AxisName)


def neighbours(batch: Batch) -> int:
    """Length of the longest row that is only company."""
    return max((len(row.prompt) for row in batch.rows if not row.key), default=0)


def last_arrival(batch: Batch) -> int:
    return max(row.arrival for row in batch.rows)


#: Axis -> (fault, last equal value, first differing one).
PLANTED: dict[str, list[tuple[Fault, Any, Any]]] = {
    "run_to_run": [
        (lambda s, b, i: b.run == 2 and len(b.rows) > 20 and i == 3, 20, 21),
        (lambda s, b, i: b.run == 1, None, 1),
    ],
    "batch_size": [
        (lambda s, b, i: len(b.rows) > 1, 1, 2),
        (lambda s, b, i: len(b.rows) >= 21 and i == 20, 20, 21),
    ],
    "position": [(lambda s, b, i: b.rows[i].key == "prompt 3" and i != 3, 0, 1)],
    "neighbours": [
        (lambda s, b, i: neighbours(b) > 100, 100, 101),
        (lambda s, b, i: b.rows[1].prompt[0] == 299, 192, "other content"),
    ],
    "arrival_order": [(lambda s, b, i: b.rows[0].key == "prompt 7", None, "reversed")],
    "staggered_arrival": [(lambda s, b, i: last_arrival(b) >= 3 * 7, 2, 3)],
    "decode_vs_prefill": [(lambda s, b, i: len(b.rows) == 1 and not b.rows[0].score, None, 1)],
    "seeded_sampling": [(lambda s, b, i: b.rows[i].seed is not None and len(b.rows) > 2, 2, 3)],
    "sglang_single": [(lambda s, b, i: len(b.rows) > 6 and i == 5, 6, 7)],
    "sglang_mixed": [(lambda s, b, i: len(b.rows) > 10, 10, 11)],
    "sglang_prefix": [(lambda s, b, i: len(b.rows) > 3 and len(b.rows[i].prompt) == 63, 3, 4)],
    "thinking_machines": [(lambda s, b, i: i == 17, None, 50)],
    "prefix_cache": [
        (lambda s, b, i: b.warm, None, "hot"),
        (lambda s, b, i: not s.engine.prefix_caching, None, "cold"),
    ],
    "chunked_prefill": [(lambda s, b, i: (s.engine.chunked_prefill_tokens or 0) <= 100, 101, 100)],
    "preemption": [(lambda s, b, i: s.cache_tokens is not None, None, "small")],
    "sleep_wake": [(lambda s, b, i: "sleep_wake" in b.before, None, "after")],
    "reload": [(lambda s, b, i: "reload" in b.before, None, "after")],
    "replica": [(lambda s, b, i: s.replica == 1, None, 1)],
    "fresh_process": [(lambda s, b, i: s.process == 1, None, 1)],
    "restart": [
        (lambda s, b, i: s.process == 1, None, 1),
        (lambda s, b, i: s.process == 2, None, 2),
    ],
    "threads": [(lambda s, b, i: s.engine.threads == 1, 2, 1)],
    "kv_split": [(lambda s, b, i: s.engine.attention_split_kv is not False, None, "on")],
    "compiled": [(lambda s, b, i: s.engine.compile, None, "compiled")],
}
CASES = [(axis, *case) for axis, cases in PLANTED.items() for case in cases]


def test_every_axis_has_a_planted_fault() -> None:
    assert set(PLANTED) == set(ALL) == set(AXIS)


@pytest.mark.parametrize("axis", ALL)
def test_without_a_fault_everything_is_equal(probe: Probe, fake_engine: Any, axis: str) -> None:
    result = probe(axis, fake_engine())
    assert result.verdict == "equal"
    assert result.onset is None and result.replay is None
    shown = result.to_dict()
    assert shown["bitwise_equal_tokens"] == shown["bitwise_equal_logprobs"] == 1.0
    assert shown["unique_outputs"] == shown["unique_bitwise"] == 1
    assert shown["max_ulps"] == 0 and shown["first_differing_logprob"] is None


@pytest.mark.parametrize(("axis", "fault", "equal", "differs"), CASES)
def test_a_planted_fault_is_found_at_its_onset(
    probe: Probe, fake_engine: Any, axis: str, fault: Fault, equal: Any, differs: Any
) -> None:
    result = probe(axis, fake_engine(fault=fault))
    assert result.verdict == "differs"
    assert result.onset is not None
    assert (result.onset.equal_up_to, result.onset.differs_from) == (equal, differs)
    shown = result.to_dict()
    assert shown["bitwise_equal_tokens"] == 1.0 > shown["bitwise_equal_logprobs"]
    assert (shown["unique_outputs"], shown["unique_bitwise"], shown["max_ulps"]) == (1, 2, 1)
    assert shown["first_differing_logprob"] is not None


@pytest.mark.parametrize(("axis", "fault", "equal", "differs"), CASES)
def test_the_replay_is_the_smallest_case_alone(
    probe: Probe, fake_engine: Any, axis: str, fault: Fault, equal: Any, differs: Any
) -> None:
    command = probe(axis, fake_engine(fault=fault)).replay
    assert command is not None
    words = command.split(" --values ")[1]
    given = words.replace("'", "").split(" --no-bisect")[0].split(",")
    values = [int(value) if value.isdecimal() else value for value in given]
    engine = fake_engine(fault=fault)
    again = probe(axis, engine, values=values, bisect=False)
    assert again.verdict == "differs"
    assert [cell.value for cell in again.cells] == [differs]
    assert again.replay == command


def test_every_row_is_compared(probe: Probe, fake_engine: Any) -> None:
    """A fault in any one row of the largest batch is seen."""
    for faulty in range(8):
        engine = fake_engine(fault=lambda s, b, i, row=faulty: len(b.rows) == 8 and i == row)
        result = probe("batch_size", engine, batch_sizes=[1, 8], bisect=False)
        assert result.tokens and result.first_differing_logprob is not None
        assert result.first_differing_logprob.sequence == f"prompt {faulty}"
        assert result.bitwise_equal_logprobs == 1 - 6 / result.tokens


def test_unique_completions_and_the_first_differing_token(probe: Probe, fake_engine: Any) -> None:
    engine = fake_engine(fault=lambda s, b, i: i % 5 == 4, flip_from=2)
    result = probe("thinking_machines", engine, samples=20).to_dict()
    assert (result["outputs"], result["unique_outputs"]) == (20, 2)
    assert result["first_differing_token"] == {"cell": 20, "sequence": TEXT_KEY, "token": 2}
    assert result["bitwise_equal_tokens"] == pytest.approx(1 - 4 * 4 / (20 * 6))


TEXT_KEY = "prompt 0 of 40 tokens"


def test_cells_of_the_halving_come_in_their_place(probe: Probe, fake_engine: Any) -> None:
    result = probe("batch_size", fake_engine(fault=lambda s, b, i: len(b.rows) > 10))
    assert [cell.value for cell in result.cells] == [2, 4, 8, 10, 11, 12, 16, 32]
    first = result.to_dict()["first_differing_logprob"]
    assert first == {"cell": 11, "sequence": "prompt 0", "token": 0}


def test_the_smallest_batch_size_is_the_reference(probe: Probe, fake_engine: Any) -> None:
    alone_differs = fake_engine(fault=lambda s, b, i: len(b.rows) == 1)
    assert probe("batch_size", alone_differs).verdict == "differs"
    assert probe("batch_size", alone_differs, batch_sizes=[4, 2, 9]).verdict == "equal"


@pytest.mark.parametrize("axis", ["preemption", "prefix_cache"])
def test_what_did_not_happen_is_not_called_equal(probe: Probe, fake_engine: Any, axis: str) -> None:
    result = probe(axis, fake_engine(preemptions=0, cached_tokens=0))
    assert result.verdict == "not_run"
    assert "the engine" in str(result.reason)
    assert result.to_dict()["bitwise_equal_tokens"] is None


@pytest.mark.parametrize("axis", ALL)
def test_the_hash_of_all_outputs_is_another_with_one_bit(
    probe: Probe, fake_engine: Any, axis: str
) -> None:
    """Though the verdict is the same: every row of every batch has moved by one place."""
    bits = probe(axis, fake_engine()).bits
    assert bits is not None and bits == probe(axis, fake_engine()).bits
    moved = probe(axis, fake_engine(fault=lambda s, b, i: 1))
    assert moved.verdict == "equal"
    assert moved.bits not in (bits, None)


def test_the_hash_covers_the_last_row(probe: Probe, fake_engine: Any) -> None:
    def bits(faulty: int) -> str | None:
        engine = fake_engine(fault=lambda s, b, i: len(b.rows) == 8 and i == faulty)
        return probe("batch_size", engine, batch_sizes=[1, 8], bisect=False).bits

    found = {bits(row) for row in range(8)}
    assert len(found) == 8


@pytest.mark.parametrize("axis", ["run_to_run", "replica", "fresh_process", "restart"])
def test_outputs_that_are_not_twice_the_same_have_no_hash(
    probe: Probe, fake_engine: Any, axis: str
) -> None:
    faults = {
        "run_to_run": lambda s, b, i: b.run == 1,
        "replica": lambda s, b, i: s.replica == 1,
        "fresh_process": lambda s, b, i: s.process == 1,
        "restart": lambda s, b, i: s.process,
    }
    engine = fake_engine(fault=faults[axis])
    assert (probe(axis, engine).verdict, probe(axis, engine).bits) == ("differs", None)


def test_a_launch_is_asked_again_while_it_is_up(probe: Probe, fake_engine: Any) -> None:
    """A launch that has ended cannot be had again: what is asked of the next one is not its."""
    engine = fake_engine(fault=lambda s, b, i: s.process)
    found = probe("restart", engine, runs=2)
    assert [(setup.process, batch.run) for setup, batch in engine.calls] == [
        (launch, run) for launch in range(3) for run in range(2)
    ]
    assert (found.verdict, found.unique_bitwise) == ("differs", 3)


def test_runs_of_one_batch_are_run_anew(probe: Probe, fake_engine: Any) -> None:
    engine = fake_engine()
    probe("run_to_run", engine, runs=4)
    asked = [(len(batch.rows), batch.run) for _, batch in engine.calls]
    assert asked == [(rows, run) for rows in (8, 32) for run in range(4)]


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({}, [8, 32]),
        ({"batch_sizes": [1, 44]}, [8, 44]),
        ({"batch_sizes": [1, 8]}, [8]),
        ({"run_rows": [64, 3]}, [3, 64]),
    ],
)
def test_the_rows_that_are_repeated(
    probe: Probe, fake_engine: Any, fields: dict[str, Any], rows: list[int]
) -> None:
    result = probe("run_to_run", fake_engine(), **fields)
    assert [cell.value for cell in result.cells] == rows


#: Axes whose own difference is a lack of repeatability.
REPEATING = {"run_to_run", "thinking_machines"}


@pytest.mark.parametrize("axis", sorted(set(ALL) - REPEATING))
def test_an_axis_is_not_blamed_for_what_is_no_repeatability(
    probe: Probe, fake_engine: Any, axis: str
) -> None:
    """Every call moves the bits anew, whatever is asked."""
    calls = iter(range(1, 10**6))
    result = probe(axis, fake_engine(fault=lambda s, b, i: next(calls) % 64))
    assert result.verdict == "not_repeatable"
    assert result.onset is not None and "asked again" in str(result.reason)


@pytest.mark.parametrize("side", ["reference", "variant"])
def test_either_side_of_a_difference_is_asked_again(
    probe: Probe, fake_engine: Any, side: str
) -> None:
    calls = iter(range(1, 10**6))
    rows = 1 if side == "reference" else 8
    engine = fake_engine(fault=lambda s, b, i: next(calls) if len(b.rows) == rows else 0)
    found = probe("batch_size", engine, batch_sizes=[1, 8], bisect=False)
    told = "the same row asked again" if rows == 1 else "the same 8 rows asked again"
    assert found.verdict == "not_repeatable" and told in str(found.reason)


def test_what_run_to_run_found_counts_for_the_axes_behind_it(fake_engine: Any) -> None:
    """A fault of one run in four: the control of two repeats would miss it."""
    engine = fake_engine(
        fault=lambda s, b, i: len(b.rows) > 20 and (b.run == 3 or len(b.rows) == 32)
    )
    asked = DeterminismRequest(
        model="fake", axes=["run_to_run", "batch_size"], runs=4, run_rows=[30], max_tokens=3
    )
    again, size = run_axes(asked, tuple(range(3, 500)), engine, discard)
    assert again.onset is not None and again.onset.differs_from == 21
    assert size.verdict == "not_repeatable" and size.onset is not None


def test_a_reference_shared_by_cells_is_run_once(probe: Probe, fake_engine: Any) -> None:
    engine = fake_engine()
    probe("batch_size", engine, batch_sizes=[1, 2, 4])
    assert sorted(len(batch.rows) for _, batch in engine.calls) == [1, 1, 1, 1, 2, 4]
