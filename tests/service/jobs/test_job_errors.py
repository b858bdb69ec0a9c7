"""Words for a job that died: every kind of probe has them."""

from __future__ import annotations

import pytest

from driftscope_probes.children import Crash
from driftscope_service.experiments.kind import Kind
from driftscope_service.experiments.registry import load_kinds
from driftscope_service.jobs.job import explain_crash


@pytest.mark.parametrize("kind", load_kinds().values(), ids=lambda kind: kind.name)
def test_a_probe_killed_by_a_signal_says_how_to_make_it_smaller(kind: Kind) -> None:
    error = explain_crash(kind.smaller, Crash("driftscope_probes.run_probe", -9, ""))
    assert "SIGKILL" in str(error)
    assert "ran out of memory" in str(error)
    assert kind.smaller in str(error)


def test_a_probe_that_ended_by_itself_leaves_its_last_line() -> None:
    error = explain_crash(
        "ask for less.", Crash("driftscope_probes.run_probe", 3, "first\nlast words\n")
    )
    assert "exit code 3: last words" in str(error)
