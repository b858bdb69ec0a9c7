from pathlib import Path

import pytest

from driftscope_probes.engines.base import Response, RolloutTask, asked_settings, trace_of
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.errors import EngineError
from driftscope_probes.prompts import PromptBatch


def task(**engine: object) -> RolloutTask:
    return RolloutTask(
        Path("m"),
        "m",
        "bf16",
        PromptBatch.from_lists([[1], [2, 3]]),
        SamplingSettings(max_tokens=4, seed=5),
        EngineSettings(**engine),
    )


def test_responses_become_one_ragged_trace() -> None:
    responses = [Response([7, 8], [-0.5, -1.0]), Response([9], [-2.0])]
    trace = trace_of(responses, task(), engine_version="1", settings={})
    assert trace.cu_seqlens.tolist() == [0, 2, 3]
    assert trace.logprobs.tolist() == [-0.5, -1.0, -2.0]
    assert trace.mask.all()


@pytest.mark.parametrize("bad", [Response(), Response([1, 2], [-1.0])])
def test_a_response_without_its_logprobs_is_refused(bad: Response) -> None:
    with pytest.raises(EngineError, match="prompt 1"):
        trace_of([Response([1], [-1.0]), bad], task(), engine_version="1", settings={})


def test_settings_record_the_seeds_and_hide_a_password() -> None:
    asked = asked_settings(task(kind="vllm-server", server_url="http://me:hush@host:8000/v"))
    assert asked["server_url"] == "http://host:8000/v"
    assert asked["batch_size"] == 2
    assert [task().seed(i) for i in range(2)] == [5, 6]
