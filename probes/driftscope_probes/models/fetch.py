"""What the user typed → a checked model on disk: found, built or downloaded.

In: a catalogue name, a folder, or a Hub id. Out: a ModelFolder, or a ModelError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue, hub, smollm2, tiny_random
from driftscope_probes.models.cache import Build, build_once
from driftscope_probes.models.folder import ModelFolder, describe
from driftscope_probes.models.safetensors_file import MasterDtype
from driftscope_probes.progress import ProgressSink, discard

BUILDS: Mapping[str, Build] = MappingProxyType(
    {
        "smollm2-135m": lambda folder, progress: smollm2.build(folder, "bf16", progress),
        "smollm2-135m-fp32": lambda folder, progress: smollm2.build(folder, "fp32", progress),
        "tiny-random-llama": tiny_random.build_llama,
        "tiny-random-moe": tiny_random.build_moe,
    }
)


def fetch(
    name: str,
    *,
    master_dtype: MasterDtype | None = None,
    force: bool = False,
    progress: ProgressSink = discard,
) -> ModelFolder:
    """The catalogue or Hub model `name`, built or downloaded if it is not there yet.

    `master_dtype` picks the sibling of a catalogue model (None: the one named), `force` builds it
    again. Safe to call from several processes at once; raises ModelError.
    """
    model = catalogue.find(name, master_dtype)
    if model is not None:
        made = build_once(
            model.folder, model.recipe, BUILDS[model.name], force=force, progress=progress
        )
        return describe(
            model.folder,
            name=model.name,
            origin="catalogue",
            revision=model.recipe,
            fingerprint=made.fingerprint,
        )
    if not hub.is_hub_id(name):
        raise catalogue.unknown(name)
    if master_dtype is not None:
        raise ModelError(
            f"{name} is a Hub id; a master dtype can be chosen for catalogue models only.",
            remedy="Leave the master dtype out: a Hub model is used as it is stored.",
        )
    path, commit = hub.download(name, progress)
    return describe(path, name=name, origin="hub", revision=commit)


PATH_STARTS = ("/", "./", "../", "~")


def resolve(name: str, *, progress: ProgressSink = discard) -> ModelFolder:
    """The model called `name`: a catalogue name first, then a folder, then a Hub id.

    A folder that has a catalogue model's name is reached as `./name`. What is missing is built or
    downloaded. Raises ModelError.
    """
    if catalogue.find(name) is not None:
        return fetch(name, progress=progress)
    # os.path returns False where pathlib raises: names that are empty, too long or contain a NUL.
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        return describe(Path(path).resolve(), name=name, origin="folder")
    if os.path.isfile(path):
        raise ModelError(
            f"{name} is a file; a folder with config.json, tokenizer and safetensors is needed.",
            remedy="Give the folder it lies in. A GGUF or a pickle must be converted first.",
        )
    if name.startswith(PATH_STARTS) or not hub.is_hub_id(name):
        raise _no_such(name)
    return fetch(name, progress=progress)


def _no_such(name: str) -> ModelError:
    if "/" in name:
        return ModelError(
            f"There is no folder {name!r}.",
            remedy="Check the path; relative paths start at the current folder.",
        )
    return catalogue.unknown(name)
