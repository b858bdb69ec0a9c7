"""Which files of a model folder hold its weights, so that both sides load the same ones.

In: a folder. Out: the safetensors files, whole and unambiguous, or a ModelError.
"""

from __future__ import annotations

from pathlib import Path

from driftscope_probes.errors import ModelError
from driftscope_probes.models.json_file import read_json

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
