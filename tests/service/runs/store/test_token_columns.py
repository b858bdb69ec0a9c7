"""Reading a part of a token file gives what reading the whole gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftscope_probes.push.pushed_step import PushedStep, pushed_step
from driftscope_service.runs.store import token_columns, token_files
from driftscope_service.runs.store.token_columns import file_blocks, file_sequence, step_sequence
from driftscope_service.runs.store.token_files import TokenFileError, write_tokens

LABELS = ("rank", "replica", "cached_tokens", "prompt_lengths", "environment")


def _step(**more: Any) -> PushedStep:
    random = np.random.default_rng(3)
    lengths = np.array([5, 0, 40, 7, 90, 1, 30])
    tokens = int(lengths.sum())
    tensors: dict[str, Any] = {
        "rollout_logprobs": random.normal(size=tokens).astype(np.float32),
        "trainer_logprobs": random.normal(size=tokens).astype(np.float32),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "mask": random.random(tokens) < 0.8,
    }
    return pushed_step(tensors | more, {})


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, PushedStep]:
    """In several row groups."""
    monkeypatch.setattr(token_files, "GROUP_TOKENS", 50)
    monkeypatch.setattr(token_columns, "BLOCK_TOKENS", 20)
    labels = {name: np.arange(7, dtype=np.int32) + place for place, name in enumerate(LABELS)}
    step = _step(token_ids=np.arange(173, dtype=np.int32), **labels)
    write_tokens(tmp_path / "step.parquet", step)
    return tmp_path / "step.parquet", step


def test_blocks_are_the_step(written: tuple[Path, PushedStep]) -> None:
    path, step = written
    # An empty sequence counts as a token.
    blocks = list(file_blocks(path, step.tokens + 1))
    assert len(blocks) > 2
    np.testing.assert_array_equal(
        np.concatenate([block.rollout for block, _ in blocks]), step.rollout
    )
    masks = [block.takes_part for block, _ in blocks]
    np.testing.assert_array_equal(np.concatenate(masks), step.mask)
    lengths = np.concatenate([np.diff(block.cu_seqlens) for block, _ in blocks])
    np.testing.assert_array_equal(lengths, np.diff(step.cu_seqlens))
    before = np.cumsum([0, *(block.sequences for block, _ in blocks[:-1])])
    assert [first for _, first in blocks] == before.tolist()


def test_a_large_step_is_sampled_by_row_groups(written: tuple[Path, PushedStep]) -> None:
    path, step = written
    every = list(file_blocks(path, step.tokens + 1))
    some = list(file_blocks(path, step.tokens // 2))
    assert 0 < len(some) < len(every)
    assert {first for _, first in some} < {first for _, first in every}


def test_every_sequence_by_itself(written: tuple[Path, PushedStep]) -> None:
    path, step = written
    for sequence in range(step.sequences):
        found, expected = file_sequence(path, sequence), step_sequence(step, sequence)
        assert found.extras.token_ids is not None and expected.extras.token_ids is not None
        np.testing.assert_array_equal(found.extras.token_ids, expected.extras.token_ids)
        for name in LABELS:
            whole = getattr(step.extras, name)
            for part in (found, expected):
                assert getattr(part.extras, name).tolist() == [whole[sequence]], name
        np.testing.assert_array_equal(found.trainer, expected.trainer)
        np.testing.assert_array_equal(found.takes_part, expected.takes_part)
    for outside in (-1, step.sequences):
        with pytest.raises(IndexError):
            file_sequence(path, outside)
        with pytest.raises(IndexError):
            step_sequence(step, outside)


def test_without_token_ids_and_labels(tmp_path: Path) -> None:
    write_tokens(tmp_path / "step.parquet", _step())
    found = file_sequence(tmp_path / "step.parquet", 0).extras
    assert found.token_ids is None and found.rank is None


@pytest.mark.parametrize("cut", [10, 400])
def test_a_damaged_file_is_told(cut: int, written: tuple[Path, PushedStep]) -> None:
    path, _ = written
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(TokenFileError, match="damaged"):
        list(file_blocks(path, 1000))
    with pytest.raises(TokenFileError, match="damaged"):
        file_sequence(path, 0)
