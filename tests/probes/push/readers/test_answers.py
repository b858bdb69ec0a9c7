"""Answers of inference servers as one side, and the trainer's side from a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftscope_probes.push import PushError
from driftscope_probes.push.column_names import AS_THEY_ARE, ColumnNames, parse_columns
from driftscope_probes.push.pushed_step import PushedStep
from driftscope_probes.push.readers.answers import is_openai, is_sglang
from driftscope_probes.push.readers.registry import reader_of
from driftscope_probes.push.readers.two_files import names_of_side
from driftscope_probes.push.source import StepSource, read_source, sources_of


def chat(*logprobs: float, ids: list[int] | None = None, index: int = 0) -> dict[str, Any]:
    named = ["a" for _ in logprobs] if ids is None else [f"token_id:{one}" for one in ids]
    content: list[dict[str, Any]] = [
        {"token": token, "logprob": value, "bytes": None, "top_logprobs": []}
        for token, value in zip(named, logprobs, strict=True)
    ]
    return {"index": index, "message": {"content": "hi"}, "logprobs": {"content": content}}


def answer(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "x", "object": "chat.completion", "choices": list(choices), **more}


def completion(values: list[float | None], **more: Any) -> dict[str, Any]:
    held = {"tokens": ["a"] * len(values), "token_logprobs": values, "text_offset": []}
    return {"index": 0, "text": "hi", "logprobs": held, **more}


SGLANG: dict[str, Any] = {
    "text": "hi",
    "meta_info": {"prompt_tokens": 5, "output_token_logprobs": [[-0.5, 7, None], [-1.0, 8, "b"]]},
}
TWO = answer(chat(-2.0, ids=[9], index=1), chat(-0.5, -1.0, ids=[7, 8]))
BATCH = {"custom_id": "1", "response": {"status_code": 200, "body": TWO}}
TRAINER = [-0.75, -1.5, -2.5]


def read(path: Path, trainer: Path | None = None, columns: str = "") -> PushedStep:
    names = ColumnNames(parse_columns(columns)) if columns else AS_THEY_ARE
    return read_source(sources_of(path, StepSource((), trainer, names))[0])


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "trainer.npz", trainer_logprobs=np.array(TRAINER), token_ids=[7, 8, 9])
    return tmp_path / "trainer.npz"


def lines(*records: object) -> str:
    return "\n".join(map(json.dumps, records))


@pytest.mark.parametrize(
    ("name", "text", "step_format"),
    [
        ("chat.json", json.dumps(TWO), "openai"),
        ("indented.json", json.dumps(TWO, indent=1), "openai"),
        ("upload", json.dumps([answer(chat(-0.5, -1.0)), answer(chat(-2.0))]), "openai"),
        ("chat.jsonl", lines(answer(chat(-0.5, -1.0)), answer(chat(-2.0))), "openai"),
        ("batch.jsonl", lines(BATCH), "openai"),
        (
            "completion.json",
            json.dumps(answer(completion([-0.5, -1.0]), completion([-2.0], index=1))),
            "openai",
        ),
        (
            "echo.json",
            json.dumps(
                answer(completion([None, -9.0, -0.5, -1.0, -2.0]), usage={"prompt_tokens": 2})
            ),
            "openai",
        ),
        (
            "sglang.jsonl",
            lines(SGLANG, {"meta_info": {"output_token_logprobs": [[-2, 9]]}}),
            "sglang",
        ),
    ],
)
def test_each_choice_is_a_sequence(
    tmp_path: Path, npz: Path, name: str, text: str, step_format: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert reader_of(path).step_format == step_format
    with pytest.raises(PushError, match="one side only, the rollout's, with log-prob") as error:
        read(path)
    assert "3 tokens" in error.value.message and f"{name} --trainer FILE" in str(error.value.remedy)
    step = read(path, npz)
    assert step.rollout.tolist() == [-0.5, -1.0, -2.0] and step.trainer.tolist() == TRAINER
    assert step.cu_seqlens.tolist() == ([0, 3] if name == "echo.json" else [0, 2, 3])
    sampled = step.rollout_token_ids
    assert sampled is None or sampled.tolist() == [7, 8, 9]
    assert step.tensors()["token_ids"].tolist() == [7, 8, 9]


@pytest.mark.parametrize("record", [None, 1, [], {}, {"choices": {}}, {"response": None}])
def test_what_no_server_answers(record: object) -> None:
    assert not is_openai(record) and not is_sglang(record)
    assert is_openai(BATCH) and is_sglang(SGLANG)


def test_the_trainers_side_in_any_format(tmp_path: Path) -> None:
    (tmp_path / "rollout.json").write_text(json.dumps(TWO))
    flat = np.array(TRAINER, np.float32)
    nested = [TRAINER[:2], TRAINER[2:]]
    padded = np.array([[-0.75, -1.5], [-2.5, 0]], np.float32)
    np.save(tmp_path / "a.npy", flat)
    np.savez(tmp_path / "b.npz", trainer_logprobs=padded, mask=[[1, 1], [1, 0]])
    np.savez(tmp_path / "c.npz", logprobs=flat, cu_seqlens=[0, 2, 3], other=np.zeros(7))
    save_file({"trainer_logprobs": flat}, tmp_path / "d.safetensors")
    (tmp_path / "e.json").write_text(json.dumps(nested))
    (tmp_path / "f.json").write_text(json.dumps({"old_log_probs": nested, "reward": 1}))
    (tmp_path / "g.jsonl").write_text(lines(*({"trainer_logprobs": row} for row in nested)))
    (tmp_path / "h.csv").write_text("token,logp\na,-0.75\nb,-1.5\nc,-2.5\n")
    (tmp_path / "i.json").write_text(json.dumps(answer(chat(*TRAINER[:2]), chat(-2.5, index=1))))
    (tmp_path / "j.json").write_text(json.dumps({"lp": TRAINER}))
    whole = np.array([9, 9, -0.75, -1.5, 9, -2.5], np.float32)
    np.savez(
        tmp_path / "k.npz",
        trainer_logprobs=whole,
        cu_seqlens=[0, 4, 6],
        mask=np.array([0, 0, 1, 1, 0, 1]),
    )
    for path in sorted(tmp_path.glob("?.*")):
        columns = "trainer_logprobs=lp" if path.name == "j.json" else ""
        step = read(tmp_path / "rollout.json", path, columns)
        assert step.trainer.tolist() == TRAINER, path.name
        assert step.cu_seqlens.tolist() == [0, 2, 3], path.name


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (answer({"index": 0, "message": {"content": "hi"}, "logprobs": None}), "no log-probabilit"),
        ({"meta_info": {"finish_reason": "stop"}}, "no log-probabilities"),
        ({"meta_info": {"output_token_logprobs": [1.0]}}, "not lists of log-probability"),
        ([answer(chat(-1.0)), {"text": "hi"}], "answer 1 is no answer of a server"),
        (answer(chat(-1.0, -2.0), chat(-3.0), chat(-4.0)), "has 1 sequences, rollout_logprobs"),
    ],
)
def test_answers_that_are_no_side(tmp_path: Path, npz: Path, record: object, told: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(PushError, match=told) as error:
        read(tmp_path / "a.json", npz)
    assert error.value.remedy


def test_a_side_of_another_length_is_placed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(TWO))
    (tmp_path / "t.json").write_text(json.dumps({"trainer_logprobs": [[-1.0], [-2.0]]}))
    with pytest.raises(PushError, match="1 tokens in sequence 0 .number 1 of 2., rollout") as error:
        read(tmp_path / "a.json", tmp_path / "t.json")
    assert "t.json" in error.value.message and "a stop token" in str(error.value.remedy)


def test_a_server_that_scored_the_responses_as_prompts(tmp_path: Path) -> None:
    """The prompt's tokens stand before them: the ids say where a response begins."""
    (tmp_path / "a.json").write_text(json.dumps(TWO))

    def places(*pairs: tuple[int, float]) -> list[Any]:
        return [None, *({str(i): {"logprob": p, "rank": 1}, "0": {"logprob": 0}} for i, p in pairs)]

    vllm = [
        {"index": 0, "logprobs": None, "prompt_logprobs": places((4, -9), (7, -0.75), (8, -1.5))},
        {"index": 1, "logprobs": None, "prompt_logprobs": places((9, -2.5))},
    ]
    scored: list[list[Any]] = [
        [[None, 3, None], [-9, 4, None], [-0.75, 7, None], [-1.5, 8, None]],
        [[None, 3, ""], [-2.5, 9, None]],
    ]
    sglang = [
        {"meta_info": {"input_token_logprobs": one, "output_token_logprobs": [[-0.1, 1, None]]}}
        for one in scored
    ]
    for name, record in (("vllm.json", answer(*vllm)), ("sglang.json", sglang)):
        (tmp_path / name).write_text(json.dumps(record))
        step = read(tmp_path / "a.json", tmp_path / name)
        assert step.trainer.tolist() == TRAINER and step.cu_seqlens.tolist() == [0, 2, 3]
    (tmp_path / "vllm.json").write_text(json.dumps(answer(*vllm)).replace('"8"', '"6"'))
    with pytest.raises(PushError, match="tokens in sequence 0"):
        read(tmp_path / "a.json", tmp_path / "vllm.json")


def test_what_is_mapped_for_one_side_is_not_asked_of_the_other() -> None:
    mapped = ColumnNames(parse_columns("rollout_logprobs=a,trainer_logprobs=b,mask=m"))
    assert names_of_side(mapped, "rollout").given == {"rollout_logprobs": "a", "mask": "m"}
    assert names_of_side(mapped, "trainer").given == {"trainer_logprobs": "b", "mask": "m"}
