"""The tables of verdicts hold every word there is, and every presentation of them does too."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

import pytest

from driftscope_kernels.options import VerdictName
from driftscope_probes.verdicts import (
    AXIS_VERDICTS,
    KERNEL_AXIS_VERDICTS,
    KERNEL_VERDICTS,
    NOT_RUN,
    RANKS,
    AxisVerdictName,
    ItemVerdictName,
)

ITEM_WORDS = (*RANKS["kernel"], *RANKS["engine"], *NOT_RUN.values())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (KERNEL_VERDICTS, get_args(VerdictName)),
        (AXIS_VERDICTS, get_args(AxisVerdictName)),
        (ITEM_WORDS, get_args(ItemVerdictName)),
    ],
)
def test_a_table_has_every_word_once(table: Collection[str], words: tuple[str, ...]) -> None:
    assert sorted(table) == sorted(words)


def test_verdicts_rank_from_worst_to_best() -> None:
    assert RANKS["kernel"] == ("REFUTED", "INCONCLUSIVE", "NOT_REFUTED", "STATIC", "PROVED")
    assert RANKS["engine"] == ("differs", "not_repeatable", "equal")
    assert set(KERNEL_AXIS_VERDICTS) <= set(RANKS["kernel"])
