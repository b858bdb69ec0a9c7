"""The recorder against generate()'s own scores, which it keeps whole where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from driftscope_client.adapters.trl import recorded_generation
from driftscope_client.errors import MalformedStep

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, about itself


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(tiny_llama), dtype=torch.float32)


def generate(model: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    ids = torch.tensor([[5, 6, 7], [40, 41, 42]])
    settings = {
        "do_sample": True,
        "max_new_tokens": 6,
        "pad_token_id": 0,
        "temperature": 0.7,
        "top_k": 20,
        "repetition_penalty": 1.3,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    return model.generate(ids, attention_mask=torch.ones_like(ids), **{**settings, **options})


def test_it_records_what_was_sampled_from(model: Any) -> None:
    plain = generate(model)
    with recorded_generation(model) as recorder:
        out = generate(model)
    assert torch.equal(out.sequences, plain.sequences)
    completions = out.sequences[:, 3:].tolist()
    expected = [
        [float(s[row].log_softmax(-1)[token]) for s, token in zip(out.scores, ids, strict=True)]
        for row, ids in enumerate(completions)
    ]
    assert recorder.logprobs(completions) == expected
    shorter = [completions[0][:2], completions[1][:5]]
    assert recorder.logprobs(shorter) == [expected[0][:2], expected[1][:5]]


def test_the_model_is_as_before(model: Any) -> None:
    before = set(vars(model))
    with recorded_generation(model) as recorder:
        generate(model)
    generate(model, max_new_tokens=2)
    assert set(vars(model)) == before
    assert len(recorder.logprobs([[1] * 6, [1] * 6])[0]) == 6


def test_something_else_was_generated(model: Any) -> None:
    with recorded_generation(model) as recorder:
        pass
    with pytest.raises(MalformedStep, match="0 sequences of 0 tokens"):
        recorder.logprobs([[1]])
    with recorded_generation(model) as recorder:
        generate(model)
    with pytest.raises(MalformedStep, match="2 sequences of 6 tokens"):
        recorder.logprobs([[1] * 7, [1]])


def test_a_failure_to_record_does_not_stop_the_generation(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded_generation(model) as recorder:

        def fail(*_: Any) -> None:
            raise torch.OutOfMemoryError("no memory")

        monkeypatch.setattr(recorder, "_keep", fail)
        assert generate(model).sequences.shape == (2, 9)
    with pytest.raises(torch.OutOfMemoryError):
        recorder.logprobs([[1], [1]])
