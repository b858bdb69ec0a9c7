"""The replay command says everything that differs from the defaults, and the CLI takes it."""

import shlex

from driftscope_probes.determinism.report import Subject, replay_command
from driftscope_probes.determinism.request import DeterminismRequest


def test_defaults_are_left_out_but_not_the_threads() -> None:
    request = DeterminismRequest(model="smollm2-135m")
    subject = Subject("batch_size", "bf16", "stock", "vllm")
    assert replay_command(request, subject, (1, 2), 2) == (
        "driftscope probe determinism --model smollm2-135m --axes batch_size --values 1,2 "
        "--no-bisect --engine vllm --engine-dtypes bf16 --threads 2"
    )


def test_everything_else_is_said() -> None:
    request = DeterminismRequest(
        model="./my model",
        kernels="both",
        prompt_tokens=[5, 9],
        max_tokens=3,
        seed=7,
        attention_split_kv=False,
    )
    subject = Subject("neighbours", "fp32", "invariant", "vllm")
    words = shlex.split(replay_command(request, subject, (16, "other content"), 1))
    told = dict(zip(words, words[1:], strict=False))
    assert told["--model"] == "./my model"
    assert told["--values"] == "16,other content"
    assert told["--kernels"] == "invariant" and told["--engine-dtypes"] == "fp32"
    assert (told["--prompt-tokens"], told["--max-tokens"], told["--seed"]) == ("5,9", "3", "7")
    assert "--no-attention-split-kv" in words


def test_a_server_is_named_and_its_threads_are_not() -> None:
    request = DeterminismRequest(
        model="m", engine="vllm-server", server_url="http://127.0.0.1:8000", server_model="x"
    )
    words = shlex.split(
        replay_command(request, Subject("position", "bf16", "stock", "vllm-server"), (0, 1), 2)
    )
    assert words[words.index("--server-url") + 1] == "http://127.0.0.1:8000"
    assert words[words.index("--server-model") + 1] == "x"
    assert "--threads" not in words
