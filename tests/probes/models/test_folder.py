import json
from pathlib import Path

import pytest

from driftscope_probes.errors import ModelError
from driftscope_probes.models.folder import describe


def set_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def test_facts(llama_copy: Path) -> None:
    model = describe(llama_copy, name="mine", origin="folder")
    assert model.architecture == "LlamaForCausalLM"
    assert model.dtype == "bf16"
    assert model.parameters == 836_736
    assert model.weight_bytes == (llama_copy / "model.safetensors").stat().st_size
    assert model.vocab_size == 961
    assert model.max_context == 2048
    assert model.fingerprint.startswith("sampled-sha256:")
    assert json.loads(json.dumps(model.to_dict()))["path"] == str(llama_copy)
    told = model.facts("as it was asked for")
    assert told["name"] == "as it was asked for" and "path" not in told


def test_other_names_for_the_context(llama_copy: Path) -> None:
    set_config(llama_copy, max_position_embeddings=None, n_positions=512)
    assert describe(llama_copy, name="mine", origin="folder").max_context == 512


@pytest.mark.parametrize("value", [None, 0, -1, "2048"])
def test_no_context(llama_copy: Path, value: object) -> None:
    set_config(llama_copy, max_position_embeddings=value)
    with pytest.raises(ModelError, match="gives no positive max_position_embeddings"):
        describe(llama_copy, name="mine", origin="folder")


def test_weights_in_a_format_that_is_not_compared(llama_copy: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3)}, llama_copy / "model.safetensors")
    with pytest.raises(ModelError, match="mostly F64"):
        describe(llama_copy, name="mine", origin="folder")


def test_unreadable(llama_copy: Path) -> None:
    # Permissions would not stop root; a folder in a file's place stops everybody.
    (llama_copy / "tokenizer_config.json").unlink()
    (llama_copy / "tokenizer_config.json").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        describe(llama_copy, name="mine", origin="folder")
