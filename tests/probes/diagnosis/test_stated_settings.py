"""What the metadata state of both sides speaks against a cause that the data alone would name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftscope_probes.diagnosis.cause import NAMED_FROM, Diagnosis
from driftscope_probes.diagnosis.diagnose import diagnose
from driftscope_probes.diagnosis.observed import Observed
from driftscope_probes.diagnosis.settings import settings_of
from driftscope_probes.tokens import Extras, Tokens

from .made_up_policy import MadeUpPolicy, log_softmax

PROCESSED = {"temperature": "1.0", "logprobs_mode": "processed_logprobs"}
OFF = {"top_p": "1.0", "top_k": "0", "min_p": "0.0"}


def untrained(metadata: dict[str, str]) -> Diagnosis:
    """A dozen words that are all as likely, divided by 0.7 after the softmax: on one value a
    factor is as good as an offset."""
    generator = np.random.default_rng(0)
    values = log_softmax(generator.normal(0.0, 0.05, (96, 12)))
    ids = (values + generator.gumbel(size=values.shape)).argmax(-1)
    rollout = np.take_along_axis(values, ids[:, None], 1)[:, 0]
    tokens = Tokens(_short(rollout), _short(rollout / 0.7), np.arange(0, 97, 12), None, Extras())
    dtypes = {"rollout_dtype": "fp32", "trainer_dtype": "fp32"}
    return diagnose(Observed(tokens, dtypes | metadata))


def _short(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32)


def test_no_truncation_is_named_where_each_of_its_settings_is_off() -> None:
    found = untrained(PROCESSED | OFF)
    assert (found.verdict, found.cause, found.unexplained) == ("bug_like", None, True)
    assert found.causes[0].name == "truncation_renorm"  # still a candidate: settings err


@pytest.mark.parametrize("left_out", OFF)
def test_a_setting_that_is_not_stated_may_come_from_the_models_file(left_out: str) -> None:
    stated = {name: value for name, value in OFF.items() if name != left_out}
    found = untrained(PROCESSED | stated)
    assert found.cause is not None and found.cause.name == "truncation_renorm"


def temperature(metadata: dict[str, str]) -> float:
    """Confidence in the cause, of an engine at 0.7 and a trainer at 1."""
    observed = MadeUpPolicy(5, temperature=0.7).pair().observed(bare=True)
    found = diagnose(Observed(observed.tokens, {**observed.metadata, **metadata}))
    return {cause.name: cause.confidence for cause in found.causes}.get("temperature_semantics", 0)


def test_no_other_temperature_is_named_where_both_sides_state_the_same() -> None:
    processed = {"logprobs_mode": "processed_logprobs"}
    same = {"temperature": "0.7", "trainer_temperature": "0.7"}
    assert 0 < temperature(processed | same) < NAMED_FROM
    assert temperature(processed | {"temperature": "0.7"}) > NAMED_FROM
    assert temperature(processed | same | {"trainer_temperature": "1"}) > NAMED_FROM
    # Raw values are not divided, whatever the tokens are drawn at.
    assert temperature(same | {"logprobs_mode": "raw_logprobs"}) > NAMED_FROM


def test_what_is_on_is_not_off() -> None:
    assert settings_of(OFF).states_no_truncation
    assert settings_of(OFF | {"top_k": "-1"}).states_no_truncation
    for name, value in (("top_p", "0.9"), ("top_k", "20"), ("min_p", "0.05"), ("top_p", "none")):
        assert not settings_of(OFF | {name: value}).states_no_truncation
