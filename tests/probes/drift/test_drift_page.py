"""docs/drift-over-steps.md says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from driftscope_probes.drift import (
    SERIES,
    StepValues,
    changes,
    cusum,
    dating,
    detection,
    drift_of,
    metric,
    resumption,
    split,
    trend,
)
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
        f"{cusum.ROW} values in a row more than {cusum.ROW_OFF} stds off",
        f"after {detection.ZEROS} exact zeros",
        f"after {cusum.WARM_UP} equal values of another kind, {detection.OFF_CONSTANT} in a row",
        f"Until a level is {split.LATE} values old",
        f"at a normal score of {detection.EARLY_DECISION:.0f} ({detection.WINDOW_DECISION} for a "
        f"stretch), of {detection.LATE_DECISION} once; later whenever there are "
        f"{detection.LOOK_GROWTH} times as many, at {detection.LOOK_DECISION}",
        f"a noise of {metric.TYPICAL_NOISE:.0%} counts as {split.KNOWN_BEFORE:.0f} values".replace(
            "%", " %"
        ),
        f"{split.AFTER} steps are therefore the soonest",
        f"at most {dating.WINDOW} to either side",
        f"Student's t with {dating.FREEDOM:.0f} degrees",
        f"central {dating.INTERVAL:.0%}".replace("%", " %"),
        f"treads of at most {changes.SHORT_TREAD} steps",
        f"not above {changes.CONFIRMED} is taken back",
        f"more than {resumption.OFF:.0f} normal scores from the level before "
        f"({resumption.OFF_ALONE:.0f} if it alone does)",
        f"back once {resumption.BACK} in a row",
        f"at a score of {resumption.LASTS:.0f}",
        f"p below {metric.TREND_LEVEL:.4f}",
        f"From {trend.MIN_STEPS} values on; more than {trend.MAX_BLOCKS}",
        f"the newest {metric.MAX_TOLD} are told",
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
    shown, number = example["metrics"]["kl_k3"], answer["metrics"]["kl_k3"]
    assert shown.keys() == number.keys()
    assert shown["baseline"].keys() == number["baseline"].keys()
    assert shown["change_points"][0].keys() == number["change_points"][0].keys()
    told, event = example["events"][0], answer["events"][0]
    assert told.keys() == event.keys()
    assert told["numbers"][0].keys() == event["numbers"][0].keys()
