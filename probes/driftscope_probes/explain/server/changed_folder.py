"""A model folder with another configuration: links to the weights, its own config.json.

In: a folder and edits. Out: a folder beside it. Free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftscope_probes.diagnose.pair import MOST_CONFIG_BYTES
from driftscope_probes.models.checks import CONFIG_NAME
from driftscope_probes.models.json_file import read_json, write_json

#: Key of config.json, "rope_parameters.rope_theta" for one inside, and its value; None: null, or
#: removed from a table.
Edit = tuple[str, Any]


def config_of(folder: Path) -> dict[str, Any]:
    """Raises ModelError."""
    return read_json(folder / CONFIG_NAME, MOST_CONFIG_BYTES)


def edited(config: Mapping[str, Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
    """A copy; tables that are edited are copies too."""
    result = dict(config)
    for key, value in edits:
        table, _, inner = key.rpartition(".")
        if table:
            inside = {**(result.get(table) or {}), inner: value}
            result[table] = {name: one for name, one in inside.items() if one is not None}
        else:
            result[key] = value
    return result


class ChangedFolders:
    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._made: dict[tuple[Path, str], Path] = {}

    def of(self, folder: Path, edits: tuple[Edit, ...]) -> Path:
        """`folder` itself where nothing is edited."""
        if not edits:
            return folder
        key = (folder, repr(edits))
        if key not in self._made:
            target = self._workdir / f"config-{len(self._made)}"
            target.mkdir(parents=True)
            for file in folder.iterdir():
                if file.is_file() and file.name != CONFIG_NAME:
                    (target / file.name).symlink_to(file.resolve())
            write_json(target / CONFIG_NAME, edited(config_of(folder), edits))
            self._made[key] = target
        return self._made[key]
