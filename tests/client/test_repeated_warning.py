from __future__ import annotations

import pytest

from driftscope_client.background_queue import RepeatedWarning


def test_one_line_per_interval_with_the_number_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    warning = RepeatedWarning(interval_s=60.0, clock=lambda: now[0])
    for moment in (0.0, 1.0, 59.0, 60.0, 61.0):
        now[0] = moment
        warning.warn("kind", f"at {moment:g}")
    assert [record.getMessage() for record in caplog.records] == [
        "at 0",
        "at 60 (2 more such warnings since the last one)",
    ]
