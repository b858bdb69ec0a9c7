from __future__ import annotations

import httpx
import pytest

from driftscope_client.transport import LONGEST_WAIT_S, RetryPolicy

POLICY = RetryPolicy(attempts=4, first_wait_s=1.0)


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_waits_double_and_end() -> None:
    waits = [POLICY.wait_s(failures, None) for failures in (1, 2, 3, 4)]
    for wait, whole in zip(waits[:3], (1.0, 2.0, 4.0), strict=True):
        assert wait is not None and whole / 2 <= wait <= whole
    assert waits[3] is None


def test_ranks_do_not_return_together() -> None:
    assert len({POLICY.wait_s(1, None) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("status", "again"), [(503, True), (429, True), (409, False), (500, False)]
)
def test_only_what_passes_is_tried_again(status: int, again: bool) -> None:
    assert (POLICY.wait_s(1, answer(status)) is not None) == again


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [("7", 7, 7), ("99999", LONGEST_WAIT_S, LONGEST_WAIT_S), ("soon", 0.5, 1), ("-1", 0.5, 1)],
)
def test_the_service_may_say_how_long(said: str, least: float, most: float) -> None:
    wait = POLICY.wait_s(1, answer(503, retry_after=said))
    assert wait is not None and least <= wait <= most
