import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from driftscope_probes.engines.base import RolloutTask, end_of_sequence_ids
from driftscope_probes.engines.hf_generate import HfGenerate
from driftscope_probes.engines.rollout import roll_out
from driftscope_probes.errors import RequestError
from driftscope_probes.progress import discard
from driftscope_probes.trace import Trace

MakeTask = Callable[..., RolloutTask]
#: Half the vocabulary ends a response: nearly every response is short.
MANY = list(range(480))


@pytest.fixture
def short_spoken(tiny_llama: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "short"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": MANY}))
    return folder


def stops_at_its_first_end(trace: Trace, max_tokens: int) -> bool:
    responses = [trace.token_ids[trace.sequence(index)] for index in range(trace.sequences)]
    return all(
        not any(token in MANY for token in response[:-1])
        and (response[-1] in MANY or response.size == max_tokens)
        for response in responses
    )


def test_a_response_ends_with_its_first_end_token(make_task: MakeTask, short_spoken: Path) -> None:
    task = make_task("hf", model=short_spoken, ignore_eos=False)
    trace = HfGenerate(task).generate(discard)
    assert stops_at_its_first_end(trace, task.sampling.max_tokens)
    assert trace.token_ids.size < len(task.prompts) * task.sampling.max_tokens
    ignoring = HfGenerate(make_task("hf", model=short_spoken)).generate(discard)
    assert ignoring.token_ids.size == len(task.prompts) * task.sampling.max_tokens
    assert not stops_at_its_first_end(ignoring, task.sampling.max_tokens)


@pytest.mark.slow
def test_vllm_stops_at_the_same_tokens(
    make_task: MakeTask, short_spoken: Path, tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    task = make_task("vllm", model=short_spoken, ignore_eos=False)
    trace = roll_out(task, tmp_path / "rollout", discard).trace
    assert stops_at_its_first_end(trace, task.sampling.max_tokens)
    assert trace.token_ids.size < len(task.prompts) * task.sampling.max_tokens


def test_one_id_a_list_or_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert end_of_sequence_ids(tmp_path) == [7]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert end_of_sequence_ids(tmp_path) == [3, 4]
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="end-of-sequence"):
        end_of_sequence_ids(tmp_path)
