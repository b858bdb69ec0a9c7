"""Each refusal on a sound folder with one thing changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.checks import CONFIG_LIMIT, check_folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    fields = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(fields | values))


def refused(folder: Path, message: str) -> str:
    with pytest.raises(ModelError, match=message) as caught:
        check_folder(folder)
    return caught.value.remedy


def test_sound(llama_copy: Path) -> None:
    checked = check_folder(llama_copy)
    assert checked.config["model_type"] == "llama"
    assert [path.name for path in checked.weights] == ["model.safetensors"]
    assert set(checked.tables[0].parameters) == {"BF16"}


def test_python_files_alone_are_no_harm(llama_copy: Path) -> None:
    (llama_copy / "modeling_custom.py").write_text("raise SystemExit")
    check_folder(llama_copy)


def test_no_config(llama_copy: Path) -> None:
    (llama_copy / "config.json").unlink()
    assert "save_pretrained" in refused(llama_copy, "has no config.json")


def test_broken_config(llama_copy: Path) -> None:
    (llama_copy / "config.json").write_text('{"architectures": [')
    assert "again" in refused(llama_copy, "config.json is not valid JSON")


def test_huge_config(llama_copy: Path) -> None:
    (llama_copy / "config.json").write_text(" " * CONFIG_LIMIT + "{}")
    refused(llama_copy, "config.json is larger than")


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json"],
)
def test_remote_code(llama_copy: Path, name: str) -> None:
    change(llama_copy, name, auto_map={"AutoModelForCausalLM": "modeling_custom.Custom"})
    remedy = refused(llama_copy, f"{name} asks for code that comes with the model")
    assert "auto_map" in remedy


def test_remote_code_in_a_nested_section(llama_copy: Path) -> None:
    change(llama_copy, "config.json", parts=[{"vision_config": {"auto_map": {"AutoModel": "a.B"}}}])
    refused(llama_copy, "asks for code")


@pytest.mark.parametrize(
    "architectures",
    [
        ["BertModel"],
        ["T5ForConditionalGeneration"],
        ["LlamaForSequenceClassification"],
        [],
        None,
        "x",
        [3],
    ],
)
def test_not_a_causal_language_model(llama_copy: Path, architectures: object) -> None:
    change(llama_copy, "config.json", architectures=architectures)
    refused(llama_copy, "a causal language model .* is needed")


def test_quantised(llama_copy: Path) -> None:
    change(llama_copy, "config.json", quantization_config={"quant_method": "gptq"})
    refused(llama_copy, "quantised")


def test_quantised_by_its_number_format(llama_copy: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3).to(torch.float8_e4m3fn)}, llama_copy / "model.safetensors")
    refused(llama_copy, r"holds quantised weights \(F8_E4M3\)")


@pytest.mark.parametrize("kept", [[], ["vocab.json"]])
def test_no_tokenizer(llama_copy: Path, kept: list[str]) -> None:
    (llama_copy / "tokenizer.json").unlink()
    for name in kept:
        (llama_copy / name).write_text("{}")
    assert "tokenizer.save_pretrained" in refused(llama_copy, "has no tokenizer")


@pytest.mark.parametrize("names", [["tokenizer.model"], ["vocab.json", "merges.txt"]])
def test_other_kinds_of_tokenizer(llama_copy: Path, names: list[str]) -> None:
    (llama_copy / "tokenizer.json").unlink()
    for name in names:
        (llama_copy / name).write_text("{}")
    check_folder(llama_copy)


def test_truncated_weights(llama_copy: Path) -> None:
    path = llama_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(llama_copy, "is not a complete safetensors file")
