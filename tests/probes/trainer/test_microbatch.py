from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driftscope_probes.errors import TrainerError
from driftscope_probes.prompts import PromptBatch
from driftscope_probes.trace import Trace, TraceMeta
from driftscope_probes.trainer.microbatch import MicroBatch, input_tokens, micro_batches
from driftscope_probes.trainer.settings import TrainerSettings


def make(lengths: list[tuple[int, int]]) -> tuple[PromptBatch, Trace]:
    """Every token of the batch has its own id, so that a mix-up cannot go unseen."""
    ids = iter(range(1, 10_000))
    prompts, responses = [], []
    for prompt, response in lengths:
        prompts.append([next(ids) for _ in range(prompt)])
        responses.append([next(ids) for _ in range(response)])
    flat = np.array([token for response in responses for token in response], np.int32)
    cu_seqlens = np.cumsum([0, *map(len, responses)]).astype(np.int64)
    trace = Trace(
        flat,
        np.zeros(flat.size, np.float32),
        cu_seqlens,
        np.ones(flat.size, np.bool_),
        TraceMeta("rollout", "m", "bf16", "hf", "0"),
    )
    return PromptBatch.from_lists(prompts), trace


layouts = st.builds(
    TrainerSettings,
    micro_batch=st.integers(1, 5),
    batching=st.sampled_from(["padded", "packed"]),
    padding_side=st.sampled_from(["left", "right"]),
)
ragged = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=9)


@settings(max_examples=60)
@given(lengths=ragged, layout=layouts)
def test_every_response_token_is_predicted_from_its_own_past(
    lengths: list[tuple[int, int]], layout: TrainerSettings
) -> None:
    prompts, rollout = make(lengths)
    order: list[int] = []
    for batch in micro_batches(prompts, rollout, layout):
        flat = batch.input_ids.flatten()
        # The hidden state at a row predicts the token one place on, which stands in the input.
        assert torch.equal(flat[batch.rows + 1], batch.targets)
        assert torch.equal(batch.targets, torch.tensor(rollout.token_ids[batch.tokens].tolist()))
        order += list(range(batch.tokens.start, batch.tokens.stop))
    assert order == list(range(rollout.token_ids.size))


@settings(max_examples=60)
@given(lengths=ragged, layout=layouts)
def test_positions_count_from_the_start_of_each_sequence(
    lengths: list[tuple[int, int]], layout: TrainerSettings
) -> None:
    prompts, rollout = make(lengths)
    whole = [
        prompts.ids(index) + rollout.token_ids[rollout.sequence(index)].tolist()
        for index in range(rollout.sequences)
    ]
    expected = {token: place for ids in whole for place, token in enumerate(ids)}
    for batch in micro_batches(prompts, rollout, layout):
        for token, place in zip(
            batch.input_ids.flatten().tolist(), batch.position_ids.flatten().tolist(), strict=True
        ):
            assert token == 0 or expected[token] == place


def only(lengths: list[tuple[int, int]], layout: TrainerSettings) -> MicroBatch:
    (batch,) = micro_batches(*make(lengths), layout)
    return batch


def test_padding_fills_the_named_side() -> None:
    lengths = [(2, 3), (1, 1)]
    right = only(lengths, TrainerSettings(micro_batch=2))
    left = only(lengths, TrainerSettings(micro_batch=2, padding_side="left"))
    assert right.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]]
    assert left.input_ids.tolist() == [[1, 2, 3, 4, 5], [0, 0, 0, 6, 7]]
    assert right.attention_mask is not None and left.attention_mask is not None
    assert right.attention_mask.tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert left.attention_mask.tolist() == [[1] * 5, [0, 0, 0, 1, 1]]
    assert left.position_ids[1, 3:].tolist() == [0, 1]


def test_packing_makes_one_row_without_a_mask() -> None:
    batch = only([(2, 3), (1, 1)], TrainerSettings(micro_batch=2, batching="packed"))
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert batch.attention_mask is None


def test_micro_batches_hold_as_many_sequences_as_asked() -> None:
    prompts, rollout = make([(2, 3)] * 5)
    batches = list(micro_batches(prompts, rollout, TrainerSettings(micro_batch=2)))
    assert [batch.input_ids.shape[0] for batch in batches] == [2, 2, 1]
    assert all(a.tokens.stop == b.tokens.start for a, b in pairwise(batches))


def test_a_sequence_alone_is_neither_padded_nor_masked() -> None:
    batch = only([(2, 3)], TrainerSettings(micro_batch=4))
    assert batch.attention_mask is None
    assert batch.input_ids.shape == (1, 5)


def test_equal_keys_mean_equal_passes() -> None:
    first, same = (only([(2, 3), (1, 2)], TrainerSettings(micro_batch=2)) for _ in range(2))
    assert first.key == same.key
    others = [
        only([(2, 3), (2, 1)], TrainerSettings(micro_batch=2)),
        only([(3, 2), (1, 2)], TrainerSettings(micro_batch=2)),
        only([(2, 3), (1, 2)], TrainerSettings(micro_batch=2, padding_side="left")),
        only([(2, 3), (1, 2)], TrainerSettings(micro_batch=2, batching="packed")),
    ]
    assert len({first.key, *(other.key for other in others)}) == 5


def test_prompts_of_another_batch_are_refused() -> None:
    prompts, _ = make([(1, 1)])
    _, rollout = make([(1, 1), (1, 1)])
    with pytest.raises(TrainerError, match="2 rollouts came for 1 prompts"):
        list(micro_batches(prompts, rollout, TrainerSettings()))


def test_an_empty_prompt_is_refused() -> None:
    prompts, rollout = make([(1, 1), (0, 4)])
    with pytest.raises(TrainerError, match="prompt 1 has no tokens"):
        list(micro_batches(prompts, rollout, TrainerSettings()))


def test_input_tokens_counts_prompts_and_responses() -> None:
    prompts, rollout = make([(2, 3), (4, 5), (1, 1)])
    assert input_tokens(prompts, rollout) == 16
    assert input_tokens(prompts, rollout, 2) == 14
    assert input_tokens(prompts, rollout, 9) == 16
