"""Files of strangers: what is read, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftscope_probes.errors import RequestError
from driftscope_probes.lint.base import Settings, lint
from driftscope_probes.lint.names import NAMES
from driftscope_probes.lint.readers import registry
from driftscope_probes.lint.readers.environment import VARIABLES
from driftscope_probes.lint.readers.registry import read, read_paths, read_text
from driftscope_probes.lint.readers.vllm_arguments import KEYS
from driftscope_probes.lint.rules.registry import ALL_RULES

SUFFIXES = (".json", ".yaml", ".toml", ".sh", ".env", ".txt", "")
#: Words that readers look for, so that what is made up is not all passed over.
WORDS = (
    *("model_type", "architectures", "text_config", "layer_types", "rope_parameters", "peft_type"),
    *("transformers_version", "eos_token_id", "tokenizer_class", "chat_template", "vllm serve x"),
    *("args", "command", "image", "name", "value", "env", "accelerators", "hardware", "packages"),
    *("actor_rollout_ref", "algorithm", "grpo", "policy", "trainer", "orchestrator", "inference"),
    *(key.partition(".")[0] for key in KEYS),
    *VARIABLES,
)
words = st.sampled_from(WORDS) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=15,
)


def understood(name: str, text: str) -> Settings | None:
    """None: refused with a remedy. Anything else that is raised fails the test."""
    try:
        known = read_text(name, text)
    except RequestError as error:
        assert error.remedy and name in error.message
        return None
    assert {one.name for one in known} <= NAMES.keys()
    assert all(isinstance(one.value, bool | int | float | str) for one in known)
    lint(known, ALL_RULES)
    return known


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=400), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_are_read_or_refused(raw: bytes, suffix: str) -> None:
    understood(f"file{suffix}", raw.decode("utf-8", "replace"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=st.dictionaries(words, trees, max_size=8))
def test_any_table_is_read_or_refused(tree: dict[str, Any]) -> None:
    understood("file.json", json.dumps(tree))


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(st.lists(words | st.sampled_from(["--dtype", "'", '"', "\\", "$(", "=("]))))
def test_any_script_is_read_or_refused(lines: list[list[str]]) -> None:
    understood("file.sh", "\n".join(" ".join(line) for line in lines))


BOMB = "a0: &a0 [x, y]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 10)}], y{level}: 1}}\n"
    for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deep.yaml", "[" * 100_000),
        ("deep.json", "[" * 100_000),
        ("deep.toml", "a = " + "[" * 100_000),
        ("aliases.yaml", BOMB + "model: a\ndtype: half\n"),
        ("merged.yaml", MERGED + "model: a\ndtype: half\n"),
        ("ring.yaml", "model: a\ndtype: half\nring: &r {r: *r}\n"),
        ("tag.yaml", "!!python/object/apply:os.system ['true']"),
        ("substitutions.sh", "$(" * 100_000),
        ("arrays.sh", "a=(" * 50_000),
        ("quote.sh", "'" + "x " * 200_000),
        ("words.sh", "vllm serve " + "x " * 400_000),
        ("doubling.sh", "a=xx\n" + "a=$a$a$a$a\n" * 40 + "vllm serve $a\n"),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_what_is_made_to_bring_a_host_down_does_not(name: str, text: str) -> None:
    started = time.process_time()
    understood(name, text)
    assert time.process_time() - started < 5


def test_a_later_file_overrides_an_earlier_one(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.sh"
    first.write_text("model: a/model\ndtype: half\nenforce-eager: true\n")
    second.write_text("vllm serve a/model --dtype float32\n")
    known = read_paths([first, second])
    assert known.value("engine.dtype") == "fp32"
    assert known.value("engine.eager") is True


def test_a_folder_of_a_run_is_read_as_far_as_it_is_understood(tmp_path: Path) -> None:
    (tmp_path / "serve.sh").write_text("vllm serve a/model -tp 2\n")
    (tmp_path / "host.env").write_text("NCCL_PROTO=Simple\n")
    (tmp_path / "notes.txt").write_text("Nothing to see.\n")
    (tmp_path / "template.yaml").write_text("{{ a }: b")
    known = read(tmp_path)
    assert known.value("engine.tensor_parallel") == 2
    assert known.value("environment.nccl_proto") == "simple"


def test_a_model_without_weights_and_with_a_bare_generation_config(tmp_path: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"transformers_version": "5.0.0"}')
    assert read(tmp_path).value("model.type") == "llama"


@pytest.mark.parametrize("config", [[1, 2, 3], {"model_type": "llama", "rope_theta": 1e4}])
def test_a_folder_whose_config_is_no_models_is_not_called_clean(
    tmp_path: Path, config: object
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"top_k": 20}))
    with pytest.raises(RequestError, match="is not the config of a model or an adapter"):
        read(tmp_path)


def test_what_cannot_be_read_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\x00\xff")
    (tmp_path / "large.json").write_bytes(b" " * (registry.LARGEST + 1))
    (tmp_path / "prose.txt").write_text("Nothing here.\n")
    (tmp_path / "broken.json").write_text("{")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("missing.yaml", "There is no file"),
        ("image.png", "not text in UTF-8"),
        ("large.json", "larger than 4 MiB"),
        ("prose.txt", "Nothing in .* is understood"),
        ("broken.json", "not valid JSON"),
        ("pipe", "There is no file"),
        ("empty", "holds no settings"),
    ):
        with pytest.raises(RequestError, match=said) as error:
            read(tmp_path / name)
        assert error.value.remedy


def test_a_folder_is_read_and_judged_in_a_tenth_of_what_is_allowed(tiny_moe: Path) -> None:
    started = time.process_time()
    lint(read(tiny_moe), ALL_RULES)
    assert time.process_time() - started < 0.05
