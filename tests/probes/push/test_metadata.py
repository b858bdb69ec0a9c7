import pytest

from driftscope_probes.push.rules import (
    MAX_ENVIRONMENTS_CHARACTERS,
    MAX_METADATA_CHARACTERS,
    MAX_METADATA_ENTRIES,
    PushError,
    checked_metadata,
)


def test_version_1_is_assumed_and_unknown_names_are_kept() -> None:
    assert checked_metadata({"note": "modèle"}) == {"schema_version": "1", "note": "modèle"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "is a JSON list"),
        ({"temperature": 0.7}, "'temperature' is a float"),
        ({"model": None}, "'model' is a NoneType"),
        ({"schema_version": "2"}, "schema_version is '2'"),
        ({"model": "\x1b[2J"}, "control characters"),
        ({"model": "\ud800"}, "control characters"),
        ({"a\nb": ""}, "control characters"),
        ({"model": "m" * (MAX_METADATA_CHARACTERS + 1)}, "longer than 1024"),
        ({"environments": "m" * (MAX_ENVIRONMENTS_CHARACTERS + 1)}, "longer than 16384"),
        ({str(n): "" for n in range(MAX_METADATA_ENTRIES + 1)}, "65 entries"),
    ],
)
def test_refused(given: object, told: str) -> None:
    with pytest.raises(PushError, match=told):
        checked_metadata(given)
