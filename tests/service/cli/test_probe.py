"""Bad input to `probe paired`: a clear error with its remedy, and nothing left behind."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def refused(driftscope: Run, tmp_path: Path, *arguments: str) -> str:
    """What the command says; it must fail fast and leave no file."""
    before = sorted(tmp_path.rglob("*"))
    done = driftscope("probe", "paired", *arguments, DRIFTSCOPE_HOME=str(tmp_path.parent / "home"))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "What to do:" in done.stderr
    left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert [path for path in left if path.is_file()] == []
    assert not any(".partial" in path.name for path in left)
    return str(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "tiny-random-lama"], "tiny-random-llama"),
        (["--model", "./absent"], "no folder"),
        (["--model", "tiny-random-llama", "--engine-dtypes", "bf17"], "bf17"),
        (["--model", "tiny-random-llama", "--trainer-dtypes", "int8"], "autocast-bf16"),
        (["--model", "tiny-random-llama", "--prompts", "0"], "0 prompts"),
        (["--model", "tiny-random-llama", "--prompts", "absent.txt"], "neither a number nor"),
        (["--model", "tiny-random-llama", "--max-tokens", "0"], "max_tokens"),
        (["--model", "tiny-random-llama", "--engine", "sglang"], "vllm-server"),
        (["--model", "tiny-random-llama", "--engine", "vllm-server"], "engine dtypes"),
    ],
)
def test_an_option_out_of_range(
    driftscope: Run, tmp_path: Path, arguments: list[str], told: str
) -> None:
    assert told in refused(driftscope, tmp_path, *arguments)


def test_a_prompt_longer_than_the_context(driftscope: Run, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("word " * 3000)
    told = refused(driftscope, tmp_path, "--model", "tiny-random-llama", "--prompts", "p.txt")
    assert "exceeds the model's context of 2048" in told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", "\n \n", "holds no prompt"),
        ("bad.jsonl", '{"prompt": "x"}\n{"question": 1}\n', "line 2"),
        ("bad.jsonl", "not json\n", "line 1"),
        ("role.jsonl", '{"messages": [{"role": "robot", "content": "x"}]}', "line 1"),
        ("latin.txt", b"caf\xe9\n", "UTF-8"),
    ],
)
def test_a_bad_prompt_file(
    driftscope: Run, tmp_path: Path, name: str, content: str | bytes, told: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    assert told in refused(driftscope, tmp_path, "--model", "tiny-random-llama", "--prompts", name)


def test_pickled_weights_and_remote_code_are_refused(
    driftscope: Run, tmp_path: Path, tiny_llama: Path
) -> None:
    pickled = Path(shutil.copytree(tiny_llama, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "safetensors" in refused(driftscope, tmp_path, "--model", "./pickled")
    remote = Path(shutil.copytree(tiny_llama, tmp_path / "remote"))
    config = json.loads((remote / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (remote / "config.json").write_text(json.dumps(config))
    assert "auto_map" in refused(driftscope, tmp_path, "--model", "./remote")


def test_an_output_folder_in_use_is_left_alone(driftscope: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    told = refused(driftscope, tmp_path, "--model", "tiny-random-llama", "--out", "out")
    assert "exists already" in told
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_an_engine_that_fails_keeps_its_log_for_the_reader(driftscope: Run, tmp_path: Path) -> None:
    arguments = ["--model", "tiny-random-llama", "--engine", "hf", "--prefix-caching"]
    told = refused(driftscope, tmp_path, *arguments)
    assert "prefix_caching" in told
    logs = tmp_path.parent / "home" / "logs" / "last-failure"
    assert str(logs) in told
    assert list(logs.glob("*.txt"))
