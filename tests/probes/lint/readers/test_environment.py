"""Variables, versions and GPUs wherever they are written, and secrets nowhere."""

from __future__ import annotations

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Scalar
from driftscope_probes.lint.readers.environment import environment_settings
from driftscope_probes.lint.readers.registry import read_text

RAY = """
ray job submit --runtime-env-json='{
  "env_vars": {"NCCL_PROTO": "LL128", "HF_TOKEN": "hf_secret"}}' -- python3 train.py
"""


def told(name: str, text: str) -> dict[str, Scalar]:
    return {one.name: one.value for one in read_text(name, text)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host.env", "HF_TOKEN=hf_secret\nNCCL_PROTO=LL128\n"),
        ("host.txt", "declare -x HF_TOKEN=hf_secret\ndeclare -x NCCL_PROTO=LL128\n"),
        ("run.sh", "#!/bin/sh\nset -e\n  export NCCL_PROTO='LL128'\n"),
        ("run.sh", "NCCL_PROTO=LL128 HF_TOKEN=hf_secret python train.py\n"),
        ("ray.sh", RAY),
        ("docker.sh", "docker run -e HF_TOKEN=hf_secret -e NCCL_PROTO=LL128 image\n"),
        ("pod.yaml", "env:\n- {name: NCCL_PROTO, value: LL128}\n- {name: T, value: hf_secret}\n"),
        ("compose.yaml", "services: {a: {environment: [NCCL_PROTO=LL128, K=hf_secret]}}\n"),
        ("sky.yaml", "envs: {NCCL_PROTO: LL128, HF_TOKEN: hf_secret}\n"),
        ("run.toml", "[env_vars]\nNCCL_PROTO = 'LL128'\nWANDB_API_KEY = 'hf_secret'\n"),
    ],
)
def test_a_variable_wherever_it_is_written_and_no_secret(name: str, text: str) -> None:
    known = told(name, text)
    assert known == {"environment.nccl_proto": "ll128"}


def test_a_process_says_what_its_variables_mean() -> None:
    known = environment_settings(
        {
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "0-15|16-31",
            "NVIDIA_TF32_OVERRIDE": "0",
            "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "FP",
            "PATH": "/usr/bin",
        }
    )
    assert {one.name: one.value for one in known if known.get(one.name) == one} == {
        "environment.cpu_threads": 16,
        "environment.tf32": False,
        "machine.device": "cpu",
    }


@pytest.mark.parametrize(
    ("bound", "threads"), [("0", 1), ("0,2,4-7", 6), ("auto", None), ("7-3", None), ("", None)]
)
def test_threads_bound_to_cores(bound: str, threads: int | None) -> None:
    known = environment_settings({"VLLM_CPU_OMP_THREADS_BIND": bound})
    assert known.value("environment.cpu_threads") == threads


def test_versions_and_gpus() -> None:
    collected = "[pip3] torch==2.9.0+cu128\nvLLM Version : 0.11.0\nGPU 0: NVIDIA L20 (UUID: x)\n"
    assert told("collected.txt", collected) == {
        "environment.torch": "2.9.0+cu128",
        "environment.vllm": "0.11.0",
        "machine.gpu": "nvidia l20",
    }
    assert told("job.sh", "#SBATCH --gres=gpu:a100:8\n") == {"machine.gpu": "a100"}
    assert told("sky.yaml", "resources: {accelerators: {A100-80GB: 8}}\n") == {
        "machine.gpu": "a100-80gb"
    }


def test_a_file_with_nothing_but_secrets_is_not_understood() -> None:
    with pytest.raises(RequestError) as error:
        read_text("secrets.env", "HF_TOKEN=hf_secret\nWANDB_API_KEY=hf_secret\n")
    assert "hf_secret" not in str(error.value)
