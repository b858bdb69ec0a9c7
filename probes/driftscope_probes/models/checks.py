"""Checks of a model folder before anything is loaded: config, weight files, tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import read_json
from driftscope_probes.models.safetensors_file import TensorTable, read_table

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
# DeepSeek-V3's index, with 90,000 tensors, has about 9 MB.
INDEX_LIMIT = 64 * 1024**2
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights; raises ModelError unless all and only they are there."""
    names = weight_names(folder)
    present = {path.name for path in folder.iterdir() if path.is_file()}
    missing = [name for name in names if name not in present]
    if missing == [WEIGHTS_NAME]:
        raise _no_weights(folder, present)
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(names)} shards, the first is {missing[0]}.",
            remedy="Copy or download the model again; it is incomplete.",
        )
    # vLLM loads every safetensors file if there is no index and the index's files if there is one;
    # transformers prefers model.safetensors. Two sets would mean two different models.
    others = {name for name in present if name.endswith(".safetensors")} - set(names)
    ambiguous = others if names == (WEIGHTS_NAME,) else others & {WEIGHTS_NAME}
    if ambiguous:
        raise ModelError(
            f"{folder} holds two sets of weights: {names[0]} and {min(ambiguous)}.",
            remedy="Keep one set in the folder; engine and trainer could load different ones.",
        )
    return tuple(folder / name for name in names)


def weight_names(folder: Path) -> tuple[str, ...]:
    """What the weight files must be called: the index's shards if there is one, else one file."""
    return _shard_names(folder) if (folder / INDEX_NAME).is_file() else (WEIGHTS_NAME,)


def _shard_names(folder: Path) -> tuple[str, ...]:
    index = read_json(folder / INDEX_NAME, INDEX_LIMIT)
    weight_map = index.get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    for name in names:
        plain = isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name
        if not plain:
            raise ModelError(
                f"{folder / INDEX_NAME} names {name!r} as a shard.",
                remedy="Shards must be .safetensors files in the model's own folder.",
            )
    if not names:
        raise ModelError(
            f"{folder / INDEX_NAME} names no shards.",
            remedy="Copy or download the model again; the index is damaged.",
        )
    return tuple(sorted(names))


def _no_weights(folder: Path, present: set[str]) -> ModelError:
    pickled = sorted(name for name in present if name.endswith(PICKLED_SUFFIXES))
    if pickled:
        return ModelError(
            f"{folder} holds its weights only as {pickled[0]}, a pickle, which can run code when "
            "it is loaded.",
            remedy="Convert it where you trust it: load it with transformers and call "
            "`model.save_pretrained(folder)`, which writes safetensors.",
        )
    return ModelError(
        f"{folder} has neither {WEIGHTS_NAME} nor {INDEX_NAME}.",
        remedy="Give a folder with safetensors weights, as `save_pretrained` writes them.",
    )


CONFIG_NAME = "config.json"
#: Of a LoRA adapter as PEFT writes it: a folder of weights that are not a model by themselves.
ADAPTER_CONFIG_NAME = "adapter_config.json"
# Among the largest published: Gemma 3's tokenizer_config.json, about 1.2 MB.
CONFIG_LIMIT = 8 * 1024**2
# Gemma 3's tokenizer.json has about 33 MB.
TOKENIZER_LIMIT = 256 * 1024**2
# A folder needs all the files of one of these lines.
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("tekken.json",),
)
# safetensors' names for floats of eight bits and fewer ("F64" is not one of them).
NARROW_FLOATS = ("F8_", "F6_", "F4")
CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True, slots=True)
class CheckedFolder:
    """What the checks read, so that it is read only once."""

    config: dict[str, Any]
    weights: tuple[Path, ...]
    tables: tuple[TensorTable, ...]  # one for each file of weights


def check_folder(folder: Path) -> CheckedFolder:
    """Raises ModelError for the first thing that keeps `folder` from being used."""
    config = check_config(folder)
    _check_tokenizer(folder)
    weights = weight_files(folder)
    tables = tuple(read_table(path) for path in weights)
    for path, table in zip(weights, tables, strict=True):
        _check_number_formats(path, table)
    return CheckedFolder(config, weights, tables)


def check_config(folder: Path) -> dict[str, Any]:
    """config.json of a causal language model in a folder that asks for no code of its own."""
    if not (folder / CONFIG_NAME).is_file():
        if (folder / ADAPTER_CONFIG_NAME).is_file():
            raise ModelError(
                f"{folder} is a LoRA adapter ({ADAPTER_CONFIG_NAME}), not a whole model.",
                remedy="Give what the engine loads as --model and this folder as --adapter: the "
                "trainer then computes base + adapter, unmerged. The base is the one that the "
                "adapter names, or --trainer-model.",
            )
        raise ModelError(
            f"{folder} has no {CONFIG_NAME}.",
            remedy="Give the folder that `save_pretrained` wrote.",
        )
    for path in sorted(folder.glob("*config.json")):
        _check_no_remote_code(path, read_json(path, CONFIG_LIMIT))
    config = read_json(folder / CONFIG_NAME, CONFIG_LIMIT)
    architecture_of(config)
    if "quantization_config" in config:
        raise ModelError(
            f"The weights in {folder} are quantised (quantization_config in {CONFIG_NAME}).",
            remedy="Use the checkpoint it was made from: the comparison loads the same weights in "
            "bf16, fp16 and fp32.",
        )
    return config


def architecture_of(config: dict[str, Any]) -> str:
    """The class that `config` names; raises ModelError unless it is a causal language model."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    if isinstance(first, str) and first.endswith(CAUSAL_ENDINGS):
        return first
    given = f"architecture {first}" if first else "no architecture"
    raise ModelError(
        f"{CONFIG_NAME} names {given}; a causal language model (…ForCausalLM) is needed.",
        remedy="Give a text-only decoder model; encoders, sequence-to-sequence and multimodal ones "
        "have no comparable next-token probabilities here.",
    )


def _check_no_remote_code(path: Path, config: dict[str, Any]) -> None:
    # At any depth: engines have looked up auto_map in nested sections as well (CVE-2025-66448).
    if any(key == "auto_map" for key in _keys(config)):
        raise ModelError(
            f"{path} asks for code that comes with the model (auto_map); it is never run.",
            remedy="Use a model whose architecture transformers and vLLM support themselves. If it "
            "is one, remove `auto_map` from the file.",
        )


def _keys(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)


def _check_tokenizer(folder: Path) -> None:
    for names in TOKENIZER_FILES:
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            for path in paths:
                _check_size(path, TOKENIZER_LIMIT)
            return
    accepted = ", ".join(" with ".join(names) for names in TOKENIZER_FILES)
    raise ModelError(
        f"{folder} has no tokenizer; accepted: {accepted}.",
        remedy="Save it beside the weights: `tokenizer.save_pretrained(folder)`.",
    )


def _check_size(path: Path, limit: int) -> None:
    if path.stat().st_size > limit:
        raise ModelError(
            f"{path} is larger than {limit:,} bytes, the limit for this file.",
            remedy="Check that it is the model's own file; published ones are far smaller.",
        )


def _check_number_formats(path: Path, table: TensorTable) -> None:
    # Integers may be buffers (GPT-2's masks), but floats of eight bits or fewer are quantised.
    narrow = sorted(name for name in table.parameters if name.startswith(NARROW_FLOATS))
    if narrow:
        raise ModelError(
            f"{path} holds quantised weights ({narrow[0]}).",
            remedy="Use a checkpoint in BF16, F16 or F32.",
        )
