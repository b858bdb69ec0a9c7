"""Models from the Hugging Face Hub: only files that are loaded, only after a look at the config.

In: `organisation/model` or `organisation/model@revision`. Out: a folder in the Hub's own cache and
the commit, or a ModelError. HF_HUB_OFFLINE and HF_HOME hold as for every Hub program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from driftscope_probes.errors import ModelError
from driftscope_probes.models.checks import check_config
from driftscope_probes.models.weight_files import weight_files, weight_names
from driftscope_probes.progress import Progress, ProgressSink

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
