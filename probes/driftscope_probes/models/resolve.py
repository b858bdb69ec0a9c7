"""From what the user typed to a checked model on disk.

In: a catalogue name, a folder, or a Hub id. Out: a ModelFolder, or a ModelError.
"""

from __future__ import annotations

import os
from pathlib import Path

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue, hub
from driftscope_probes.models.fetch import fetch
from driftscope_probes.models.folder import ModelFolder, describe
from driftscope_probes.progress import ProgressSink, discard

__all__ = ["ModelFolder", "fetch", "resolve"]

PATH_STARTS = ("/", "./", "../", "~")


def resolve(name: str, *, progress: ProgressSink = discard) -> ModelFolder:
    """The model called `name`: a catalogue name first, then a folder, then a Hub id.

    A folder that has a catalogue model's name is reached as `./name`. What is missing is built or
    downloaded. Raises ModelError.
    """
    if catalogue.find(name) is not None:
        return fetch(name, progress=progress)
    # os.path answers False where pathlib raises: names that are empty, too long or hold a NUL.
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
