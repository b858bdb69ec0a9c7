"""A model by name: from the cache, a folder, or the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from driftscope_probes.errors import ModelError
from driftscope_probes.models import catalogue, smollm2, tiny_random
from driftscope_probes.models.cache import Build, build_once
from driftscope_probes.models.checks import check_config, weight_files, weight_names
from driftscope_probes.models.folder import ModelFolder, describe
from driftscope_probes.models.safetensors_file import MasterDtype
from driftscope_probes.progress import Progress, ProgressSink, discard

HUB_ID = re.compile(
    r"(?P<repository>[a-z0-9][\w.-]{0,95}/[a-z0-9][\w.-]{0,95})(@(?P<revision>[\w./-]{1,100}))?",
    re.ASCII | re.IGNORECASE,
)
# Config, index, tokenizer and chat template; small, and enough to reject a model.
TEXT_PATTERNS = ("*.json", "*.txt", "*.model", "*.jinja")
SUBFOLDERS = "*/*"


def is_hub_id(name: str) -> bool:
    return HUB_ID.fullmatch(name) is not None


def download(name: str, progress: ProgressSink) -> tuple[Path, str]:
    """Folder and commit of the Hub model `name`; raises ModelError if it cannot be had."""
    match = HUB_ID.fullmatch(name)
    assert match is not None, name
    repository, revision = match["repository"], match["revision"]
    progress(Progress(f"looking up {repository}", 0.0))
    folder = _snapshot(repository, revision, TEXT_PATTERNS)
    check_config(folder)
    # The folder is named by its commit; asking for that one keeps both downloads the same version.
    commit = folder.name
    progress(Progress(f"downloading the weights of {repository}", 0.05))
    folder = _snapshot(repository, commit, (*TEXT_PATTERNS, *weight_names(folder)))
    weight_files(folder)
    progress(Progress("done", 1.0))
    return folder, commit


def _snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, HTTPError
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise ModelError(
            f"{repository} looks like a Hub id, and huggingface_hub is not installed.",
            remedy="Install driftscope with its extra `probes`, or give a folder.",
        ) from error
    # Its progress bars would overwrite ours.
    disable_progress_bars()
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=[SUBFOLDERS],
        )
    except (OSError, HTTPError, HFValidationError) as error:
        raise _unavailable(repository, revision, error) from error
    return Path(folder)


def _unavailable(repository: str, revision: str | None, error: Exception) -> ModelError:
    from huggingface_hub import is_offline_mode

    wanted = f"{repository}@{revision}" if revision else repository
    if is_offline_mode():
        return ModelError(
            f"{wanted} is not in the Hub's cache, and HF_HUB_OFFLINE forbids a download.",
            remedy="Fetch it once with HF_HUB_OFFLINE=0, or give a folder with the model.",
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(
        f"{wanted} is neither a folder here nor a model that the Hub would give: {lines[0]}",
        remedy="Check the spelling and the network. For a private or gated model log in with "
        "`hf auth login` and accept its terms.",
    )


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
    if not is_hub_id(name):
        raise catalogue.unknown(name)
    if master_dtype is not None:
        raise ModelError(
            f"{name} is a Hub id; a master dtype can be chosen for catalogue models only.",
            remedy="Leave the master dtype out: a Hub model is used as it is stored.",
        )
    path, commit = download(name, progress)
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
    if name.startswith(PATH_STARTS) or not is_hub_id(name):
        raise _no_such(name)
    return fetch(name, progress=progress)


def _no_such(name: str) -> ModelError:
    if "/" in name:
        return ModelError(
            f"There is no folder {name!r}.",
            remedy="Check the path; relative paths start at the current folder.",
        )
    return catalogue.unknown(name)
