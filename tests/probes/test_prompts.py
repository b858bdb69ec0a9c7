from pathlib import Path

import pytest

from driftscope_probes.prompts import (
    DEMO_PROMPTS,
    PromptBatch,
    demo_prompts,
    read_prompts,
    write_prompts,
)


def test_a_batch_survives_the_disk(tmp_path: Path) -> None:
    batch = PromptBatch.from_lists([[5, 6], [7], [8, 9, 10]])
    write_prompts(batch, tmp_path / "p.safetensors")
    again = read_prompts(tmp_path / "p.safetensors")
    assert [again.ids(i) for i in range(len(again))] == [[5, 6], [7], [8, 9, 10]]
    assert again.longest == 3


def test_a_batch_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        PromptBatch.from_lists([[1]]).token_ids[0] = 2


def test_demo_prompts_are_distinct_and_repeat_beyond_their_number() -> None:
    assert len(set(DEMO_PROMPTS)) == len(DEMO_PROMPTS)
    many = demo_prompts(len(DEMO_PROMPTS) + 1)
    assert many[0] == many[-1]
