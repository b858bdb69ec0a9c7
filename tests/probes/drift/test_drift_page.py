"""docs/drift-over-steps.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driftscope_probes.drift import SERIES, StepValues, cusum, drift, drift_of, trend
from driftscope_probes.numbers import NUMBERS

PAGE = (Path(__file__).parents[3] / "docs" / "drift-over-steps.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


@pytest.mark.parametrize(
    "stated",
    [
        f"first {cusum.WARM_UP} values",
        f"once it is {cusum.GAP} steps old",
        f"at most {cusum.WINSOR:.0f}; the chart adds what lies beyond {cusum.REFERENCE:.0f} and "
        f"alarms above {cusum.DECISION:.0f}",
        f"at most {cusum.MAX_AUTOCORRELATION}",
        f"after {cusum.ZEROS} exact zeros",
        f"after {cusum.WARM_UP} equal values of another kind, {cusum.OFF_CONSTANT} in a row",
        f"p below {drift.TREND_LEVEL:.4f}",
        f"From {trend.MIN_STEPS} values on; more than {trend.MAX_BLOCKS}",
        f"the newest {drift.MAX_TOLD} are told",
        f"| `not_enough_steps` | {cusum.WARM_UP} values or fewer",
    ],
)
def test_every_number_is_the_one_of_the_code(stated: str) -> None:
    assert stated in TEXT


def test_every_series_is_listed_with_its_scale() -> None:
    section = TEXT.partition("## Which numbers")[2].partition("The last three")[0]
    logs, _, linear = section.partition("As they are:")
    for part, scale in ((logs, "log"), (linear, "linear")):
        expected = {name for name in SERIES if NUMBERS[name].scale == scale}
        assert set(re.findall(r"`(\w+)`", part)) == expected


def test_the_example_has_the_fields_of_an_answer() -> None:
    found = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    example = json.loads(found.group(1))
    values = [1.0 + 0.01 * (step % 7) + 5 * (step >= 50) for step in range(80)]
    answer = drift_of([StepValues(s, {"kl_k3": value}) for s, value in enumerate(values)]).to_dict()
    assert example.keys() == answer.keys()
    shown, metric = example["metrics"]["kl_k3"], answer["metrics"]["kl_k3"]
    assert shown.keys() == metric.keys()
    assert shown["baseline"].keys() == metric["baseline"].keys()
    assert shown["change_points"][0].keys() == metric["change_points"][0].keys()
