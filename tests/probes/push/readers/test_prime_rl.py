"""Lines as prime-rl's exporter writes them: schema 1, compact JSON, null for what is not finite."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers import records
from driftscope_probes.push.readers.prime_rl import read_prime_rl_export
from driftscope_probes.push.rules import PushError, environment_names
from driftscope_probes.push.step_file import join_steps
from driftscope_probes.tokens import SEQUENCE_LABELS


def line(**changed: Any) -> dict[str, Any]:
    """Two prompt tokens, then a response of four with a masked tool token in it."""
    return {
        "schema_version": 1,
        "step": 3,
        "export_step": 3,
        "rank": 0,
        "micro_step": 0,
        "micro_sequence_idx": 0,
        "export_sequence_idx": 0,
        "run_id": None,
        "env_name": "math",
        "token_ids": [1, 2, 3, 4, 5, 6],
        "position_ids": [0, 1, 2, 3, 4, 5],
        "loss_mask": [False, False, True, True, False, True],
        "advantages": [0.0, 0.0, 0.5, 0.5, 0.5, 0.5],
        "losses": [{}] * 6,
        "inference_logprobs": [0.0, 0.0, -0.5, -1.0, 0.0, -2.0],
        "trainer_logprobs": [0.0, -3.0, -0.5, -1.25, -4.0, None],
        "entropy": [0.0, 1.0, 0.5, 0.25, 0.125, 0.75],
        "mismatch_kl": [0.0] * 6,
        "is_masked": [None] * 6,
        **changed,
    }


def read(tmp_path: Path, *lines: object) -> PushedStep:
    path = tmp_path / "rank_0.jsonl"
    raw = [x if isinstance(x, str) else json.dumps(x, separators=(",", ":")) for x in lines]
    path.write_text("".join(text + "\n" for text in raw))
    return read_prime_rl_export(path)


def test_responses_of_all_lines(tmp_path: Path) -> None:
    step = read(tmp_path, line(), line(loss_mask=[True] + [False] * 5), "")
    assert step.cu_seqlens.tolist() == [0, 4, 5]
    assert step.rollout.tolist() == [-0.5, -1.0, 0.0, -2.0, 0.0]
    assert step.trainer[:3].tolist() == [-0.5, -1.25, -4.0]
    assert math.isnan(step.trainer[3])
    assert step.mask.tolist() == [True, True, False, True, True]
    assert step.tensors()["token_ids"].tolist() == [3, 4, 5, 6, 1]
    assert step.tensors()["position_ids"].tolist() == [
        2,
        3,
        4,
        5,
        0,
    ]
    assert step.advantages is not None and step.advantages.tolist() == [0.5] * 4 + [0.0]
    assert step.tensors()["entropy"][0] == 0.5
    assert dict(step.metadata) == {
        "schema_version": "1",
        "framework": "prime-rl",
        "step": "3",
        "environments": "math",
    }


def labels(step: PushedStep) -> dict[str, list[int]]:
    return {
        name: step.tensors()[name].tolist() for name in SEQUENCE_LABELS if name in step.tensors()
    }


def test_where_each_line_comes_from(tmp_path: Path) -> None:
    lines = [
        line(rank=3, env_name="math"),
        line(rank=3, env_name="code, hard", loss_mask=[True] + [False] * 5),
        line(rank=3, env_name=None, loss_mask=[False] * 6),
        line(rank=3, env_name="math"),
    ]
    step = read(tmp_path, *lines)
    assert labels(step) == {
        "rank": [3, 3, 3, 3],
        "prompt_lengths": [2, 0, 6, 2],
        "environment": [0, 1, 2, 0],
    }
    assert environment_names(step.metadata) == ("math", "code; hard", "unknown")


def test_an_export_that_names_neither_rank_nor_environment(tmp_path: Path) -> None:
    older = {name: value for name, value in line().items() if name not in ("rank", "env_name")}
    step = read(tmp_path, older, line())
    assert labels(step) == {"prompt_lengths": [2, 2]}
    assert "environments" not in step.metadata


def test_ranks_with_their_own_environments_join(tmp_path: Path) -> None:
    first = read(tmp_path, line(env_name="math"), line(env_name="code"))
    second = read(tmp_path, line(rank=1, env_name="code"), line(rank=1, env_name="search"))
    step = join_steps([first, second])
    assert environment_names(step.metadata) == ("math", "code", "search")
    assert labels(step)["environment"] == [0, 1, 1, 2]
    assert labels(step)["rank"] == [0, 0, 1, 1]


def test_older_lines_name_only_the_trainer_step(tmp_path: Path) -> None:
    older = line(step=8)
    del older["export_step"], older["entropy"]
    step = read(tmp_path, older)
    assert step.metadata["step"] == "8"
    assert step.extras.entropy is None


def test_without_an_rl_loss_there_are_no_advantages(tmp_path: Path) -> None:
    assert read(tmp_path, line(advantages=[None] * 6)).advantages is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "it holds 0 steps"),
        ([line(), line(export_step=4)], "it holds 2 steps"),
        ([line(), line(schema_version=2)], "line 2 has schema_version 2"),
        ([{"prompt": "x"}], "line 1 has schema_version None"),
        ([line(), "{"], "line 2 is not valid JSON"),
        ([line(token_ids=[1, 2])], "line 1 has columns of different lengths"),
        ([line(entropy=[1.0])], "line 1 has columns of different lengths"),
        ([line(loss_mask=None)], "line 1 has columns of different lengths"),
        ([line(inference_logprobs=["x"] * 6)], "line 1: inference_logprobs cannot be read"),
        ([line(export_step="3")], "line 1 names no step"),
        ([line(), line(rank="0")], "line 2: rank cannot be read: str at 0"),
        ([line(rank=-1)], "rank is -1 for sequence 0"),
        ([line(env_name=7)], "line 1: env_name is a int, accepted is a string or null"),
        ([line(env_name="a\x00b")], "'environments' holds control characters"),
        ([{k: v for k, v in line().items() if k != "loss_mask"}], "line 1 has no loss_mask"),
    ],
)
def test_refused(tmp_path: Path, lines: list[object], told: str) -> None:
    with pytest.raises(PushError, match=told) as caught:
        read(tmp_path, *lines)
    assert caught.value.remedy


def test_long_lines_many_tokens_and_many_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_TOKENS", 7)
    with pytest.raises(PushError, match="beyond 7 tokens or .* the limits, at line 2"):
        read(tmp_path, line(), line())
    monkeypatch.setattr(records, "MAX_SEQUENCES", 1)
    with pytest.raises(PushError, match="or 1 sequences, the limits, at line 2"):
        read(tmp_path, line(), line(loss_mask=[False] * 6))
    monkeypatch.setattr(records, "MAX_EXPORT_LINE_BYTES", 99)
    with pytest.raises(PushError, match="line 1 is longer than 99 bytes"):
        read(tmp_path, line())


ITEMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(line())),
    value=ITEMS | st.lists(ITEMS, min_size=5, max_size=6) | st.lists(st.integers(0, 1)),
)
def test_any_value_in_any_field(tmp_path: Path, name: str, value: object) -> None:
    try:
        step = read(tmp_path, line(**{name: value}), line())
    except PushError as error:
        assert error.message and error.remedy
    else:
        assert step.cu_seqlens[-1] == step.tokens == step.trainer.size
