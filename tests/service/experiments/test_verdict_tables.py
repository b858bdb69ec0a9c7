"""Colours, symbols and orders of verdicts cover every word of the tables in probes."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from driftscope_probes.verdicts import AXIS_VERDICTS, ITEM_STATES, KERNEL_VERDICTS, OUTCOMES
from driftscope_service.experiments.determinism import html as axis_html
from driftscope_service.experiments.determinism import terminal as axis_terminal
from driftscope_service.experiments.kernels import html as kernel_html
from driftscope_service.experiments.kernels import terminal as kernel_terminal
from driftscope_service.experiments.nightly import html as night_html
from driftscope_service.experiments.nightly import matrix as night_matrix
from driftscope_service.experiments.nightly import metrics as night_metrics
from driftscope_service.experiments.nightly import terminal as night_terminal


@pytest.mark.parametrize("shown", [kernel_terminal.STYLES, kernel_html.ORDER, kernel_html.TONES])
def test_every_verdict_on_a_kernel_is_shown(shown: Collection[str]) -> None:
    assert sorted(shown) == sorted(KERNEL_VERDICTS)


@pytest.mark.parametrize("shown", [axis_terminal.STYLES, axis_html.ORDER, axis_html.TONES])
def test_every_verdict_on_an_axis_is_shown(shown: Collection[str]) -> None:
    assert sorted(shown) == sorted(AXIS_VERDICTS)


def test_every_state_of_a_nightly_item_is_shown() -> None:
    exported = [state.replace("_", " ") for state in night_metrics.ITEM_STATES]
    for shown in (night_html.TONES, night_matrix.SYMBOLS, exported):
        assert sorted(shown) == sorted(ITEM_STATES)
    assert night_terminal.STYLES.keys() == OUTCOMES.keys()
