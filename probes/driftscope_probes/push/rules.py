"""Strings that describe a step: model, dtypes, sampling, versions. Nothing is computed from them.

In: whatever stood in the file. Out: dict of strings, within limits, of a known schema version.
"""

from __future__ import annotations

from driftscope_probes.push.limits import MAX_METADATA_CHARACTERS, MAX_METADATA_ENTRIES
from driftscope_probes.push.push_error import PushError
from driftscope_probes.push.tensor_rules import SCHEMA_VERSION


def checked_metadata(given: object) -> dict[str, str]:
    """Raises PushError. Without a schema_version it is version 1; later ones have to say so."""
    if not isinstance(given, dict):
        raise PushError(
            f"the metadata is a JSON {type(given).__name__}, accepted is an object of strings.",
            remedy='write {"model": "…", "framework": "…"}.',
        )
    if len(given) > MAX_METADATA_ENTRIES:
        raise PushError(
            f"the metadata has {len(given)} entries, accepted are {MAX_METADATA_ENTRIES}.",
            remedy="keep what describes the step; docs/push-format.md lists the names.",
        )
    for name, value in given.items():
        if not isinstance(value, str):
            raise PushError(
                f"metadata {name[:80]!r} is a {type(value).__name__}, accepted are strings.",
                remedy=f"write str({name[:80]}).",
            )
        if max(len(name), len(value)) > MAX_METADATA_CHARACTERS:
            raise PushError(
                f"metadata {name[:80]!r} is longer than {MAX_METADATA_CHARACTERS} characters.",
                remedy="shorten it: names and versions are enough.",
            )
        if not (name + value).isprintable():
            raise PushError(
                f"metadata {name[:80]!r} holds control characters: {value[:80]!r}.",
                remedy="write plain text in one line.",
            )
    metadata = {"schema_version": SCHEMA_VERSION, **given}
    if metadata["schema_version"] != SCHEMA_VERSION:
        raise PushError(
            f"schema_version is {metadata['schema_version']!r}, this program reads "
            f"{SCHEMA_VERSION!r}.",
            remedy="write version 1, or update driftscope.",
        )
    return metadata
