"""Numbers of a request are numbers: what JSON schema calls no integer is not taken for one."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from driftscope_probes.engines.settings import SamplingSettings
from driftscope_probes.request_model import RequestModel


class Asked(RequestModel):
    count: int = 0
    share: float | None = None
    sizes: tuple[int, ...] = ()
    either: int | Literal["all"] = 0
    flag: bool = False


@pytest.mark.parametrize(
    "given",
    [
        {"count": False},
        {"share": True},
        {"sizes": [1, True]},
        {"either": True},
        {"either": "some"},
    ],
)
def test_other_types_are_refused_where_they_stand(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate(given)
    assert {error["loc"][0] for error in caught.value.errors()} == set(given)


def test_numbers_texts_and_flags_in_their_places_are_taken() -> None:
    given = {"count": 8.0, "share": 1, "sizes": [1, 2], "either": "all", "flag": True}
    assert Asked.model_validate(given).model_dump() == {
        "count": 8, "share": 1.0, "sizes": (1, 2), "either": "all", "flag": True
    }  # fmt: skip


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        SamplingSettings.model_validate({"max_token": 8})


def test_text_that_spells_a_number_is_one() -> None:
    assert Asked.model_validate({"count": "8", "sizes": ["1"]}).sizes == (1,)
