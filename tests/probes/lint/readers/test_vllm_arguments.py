"""One engine's arguments in every form in which people keep them."""

from __future__ import annotations

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Scalar
from driftscope_probes.lint.readers.registry import read_text

SAME: dict[str, Scalar] = {
    "engine.name": "vllm",
    "engine.model": "a/model",
    "engine.dtype": "fp16",
    "engine.tensor_parallel": 4,
    "engine.prefix_caching": False,
    "engine.eager": True,
    "engine.speculative": "eagle3",
    "engine.cudagraph_mode": "none",
}
SHELL = """
#!/bin/bash
set -euo pipefail
MODEL=${1:-a/model}
ARGS=(--dtype half
  # --dtype float32
  -tp 4)
vllm serve "$MODEL" "${ARGS[@]}" --no-enable-prefix-caching --enforce-eager \\
  --speculative-config '{"method": "eagle3",
     "num_speculative_tokens": 2}' \\
  --compilation-config.cudagraph_mode=NONE 2>&1 | tee log
"""
MODULE = """
VLLM_USE_V1=1 python3 -m vllm.entrypoints.openai.api_server --model a/model --dtype half \\
  --tensor-parallel-size 4 --no-enable-prefix-caching --enforce-eager \\
  --spec-method eagle3 -cc.cudagraph_mode=NONE
"""
YAML = """
model: a/model
dtype: half
tensor-parallel-size: 4
enable-prefix-caching: false
enforce_eager: true
speculative-config: {method: eagle3}
compilation-config: {cudagraph_mode: NONE}
"""
JSON = r"""{"model": "a/model", "dtype": "half", "tensor_parallel_size": 4,
"enable_prefix_caching": false, "enforce_eager": true,
"speculative_config": "{\"method\": \"eagle3\"}",
"compilation_config": {"cudagraph_mode": "NONE"}}"""
POD = """
spec:
  containers:
  - name: engine
    image: registry/vllm-openai
    command: [vllm, serve]
    args: [a/model, --dtype, half, -tp, "4", --no-enable-prefix-caching, --enforce-eager,
      --spec-method, eagle3, --compilation-config, '{"cudagraph_mode": "NONE"}']
"""
SKY = """
resources: {accelerators: H100:4}
run: |
  vllm serve a/model --dtype half -tp 4 --no-enable-prefix-caching --enforce-eager \\
    --spec-method eagle3 --compilation-config '{"cudagraph_mode": "NONE"}'
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("serve.sh", SHELL),
        ("serve.txt", MODULE),
        ("args.yaml", YAML),
        ("args.json", JSON),
        ("pod.yaml", POD),
        ("sky.yaml", SKY),
    ],
)
def test_every_form_says_the_same(name: str, text: str) -> None:
    known = read_text(name, text)
    assert {one.name: one.value for one in known if one.name.startswith("engine.")} == SAME


def test_a_finding_leads_to_what_was_written() -> None:
    shell = read_text("serve.sh", "vllm serve a/model --kv-cache-dtype fp8\n")
    yaml = read_text("args.yaml", "model: a/model\nkv-cache-dtype: fp8\n")
    where = [known.get("engine.kv_cache_dtype") for known in (shell, yaml)]
    assert [one.where for one in where if one] == [
        "serve.sh: --kv-cache-dtype",
        "args.yaml: kv-cache-dtype",
    ]


def test_an_image_says_the_version() -> None:
    text = "docker run --gpus all vllm/vllm-openai:v0.11.0 --model a/model --max-model-len 4096\n"
    known = read_text("run.sh", text)
    assert known.value("engine.version") == "0.11.0"
    assert known.value("engine.max_length") == 4096


def test_an_image_that_is_only_fetched_starts_no_engine() -> None:
    text = "docker pull vllm/vllm-openai:v0.12.0\nvllm serve a/model --dtype half\n"
    known = read_text("both.sh", text)
    assert known.value("engine.dtype") == "fp16"
    assert known.get("engine.version") is None


def test_arguments_turned_off_by_name() -> None:
    known = read_text("args.yaml", "no-enable-prefix-caching: true\nkv-cache-dtype: fp8\n")
    assert known.value("engine.prefix_caching") is False


def test_of_two_engines_in_one_file_the_first_is_read() -> None:
    text = "vllm serve a/one --dtype half\nvllm serve a/two --kv-cache-dtype fp8\n"
    known = read_text("both.sh", text)
    assert known.value("engine.model") == "a/one"
    assert known.get("engine.kv_cache_dtype") is None


def test_what_only_the_shell_knows_is_not_known() -> None:
    known = read_text("serve.sh", "vllm serve $MODEL --dtype $DTYPE -tp $(nproc) --seed 1\n")
    assert {one.name for one in known} == {"engine.name", "engine.seed"}


@pytest.mark.parametrize(
    "text",
    ["model: a/model\nlearning_rate: 0.1\nepochs: 3\nbatch: 4\ndtype: half\n", "pip install vllm"],
)
def test_other_files_that_name_a_model_or_vllm_are_not_taken_for_arguments(text: str) -> None:
    with pytest.raises(RequestError, match="is understood"):
        read_text("other.yaml" if ":" in text else "other.sh", text)
