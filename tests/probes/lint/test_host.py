"""What each kind of document tells of a host: versions, hardware, variables, settings."""

from __future__ import annotations

import json

import pytest

from driftscope_probes.device.environment import environment
from driftscope_probes.lint.host import (
    MOST_PIECES,
    Host,
    host_of,
    host_of_environment,
    settings_of_environment,
)
from driftscope_probes.lint.readers.registry import document


def host(name: str, text: str) -> Host:
    return host_of([document(name, text)])


def test_an_environment_alone_and_inside_a_report_say_the_same() -> None:
    found = environment()
    alone = host("environment.json", json.dumps(found))
    inside = host("report.json", json.dumps({"kind": "paired", "environment": found}))
    assert alone.of("version")["numpy"].value == found["packages"]["numpy"]
    assert {f.name: f.value for f in alone.facts} == {f.name: f.value for f in inside.facts}
    here = host_of_environment(found)
    assert here.of("hardware")["cores"].where == "this machine: hardware.cores"


def test_a_machine_of_a_cpu_build_is_known_as_one() -> None:
    found = {"packages": {"torch": "2.9.0+cpu"}, "variables": {"VLLM_BATCH_INVARIANT": "1"}}
    known = settings_of_environment(found)
    assert known.value("machine.device") == "cpu"
    assert known.value("environment.batch_invariant") is True
    gpu = settings_of_environment({"packages": {"torch": "2.9.0"}, "variables": {}})
    assert gpu.get("machine.device") is None


def test_a_frozen_list_is_read_by_the_names_that_indexes_compare() -> None:
    frozen = "# pip freeze\nFlash_Attn==2.8.3\ntorch==2.9.0 ; python_version > '3'\n"
    told = host("pip.txt", frozen + "vllm @ file:///build/vllm.whl\n-e ./here\n")
    versions = {name: fact.value for name, fact in told.of("version").items()}
    assert versions == {"flash-attn": "2.8.3", "torch": "2.9.0", "vllm": "file:///build/vllm.whl"}


def test_variables_are_read_without_secrets_and_without_what_a_shell_keeps() -> None:
    text = "VLLM_USE_V1=1\nexport NCCL_ALGO='Ring'\nHF_TOKEN=hf_x\nPWD=/root\nTEXT=a\n b\n"
    told = {name: fact.value for name, fact in host("run.env", text).of("variable").items()}
    assert told == {"VLLM_USE_V1": "1", "NCCL_ALGO": "Ring", "TEXT": "a"}


def test_what_has_a_name_of_its_own_is_compared_under_it() -> None:
    text = '{"model_type": "llama", "architectures": ["L"], "torch_dtype": "float16", "x": [1, 2]}'
    told = host("a/config.json", text)
    assert told.of("setting")["model.dtype"].value == "fp16"
    assert "config.json: torch_dtype" not in told.of("config")
    assert told.of("config")["config.json: x"].value == "[1, 2]"


def test_a_key_of_a_service_is_not_kept() -> None:
    told = host("recipe.yaml", "wandb:\n  api_key: s3\nrun:\n  max_tokens: 4\n")
    assert list(told.of("config")) == ["run.max_tokens"]


@pytest.mark.timeout(20)
def test_a_list_that_multiplies_itself_is_cut() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    told = host("bomb.yaml", "\n".join(lines))
    assert max(len(str(fact.value)) for fact in told.facts) < 10 * MOST_PIECES
