"""A step that is too large for one process: analysed shard by shard, with the numbers of the whole.

The limit is lowered; the shards and the processes that analyse them are real.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def completed(pushing: Any, push_shards: Any, complete: Any) -> Any:
    def push(run: str, most: int) -> dict[str, Any]:
        push_shards(pushing, run, [pushing.body(seed=seed) for seed in (1, 2, 3)], most)
        answer = complete(pushing, run)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    return push


def test_the_numbers_are_those_of_the_whole(completed: Any) -> None:
    whole, sharded = completed("whole", 10**6), completed("sharded", 10)
    assert whole["tokens"] == sharded["tokens"]
    for name in ("kl_k3", "abs_diff_mean", "abs_diff_max", "ess_ratio_token", "sequences"):
        assert sharded["comparison"][name] == whole["comparison"][name]
    assert sharded["comparison"]["abs_diff_p99"] is None
    assert "in shards" in sharded["comparison"]["undefined"]["abs_diff_p99"]
    assert any("analysed in 3 shards" in note for note in sharded["notes"])


def test_its_tokens_are_not_kept_and_its_page_is_shown(pushing: Any, completed: Any) -> None:
    completed("r", 10)
    assert pushing.files() == []
    page = pushing.client.get("/runs/r/steps/1", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "analysed in 3 shards" in page.text
