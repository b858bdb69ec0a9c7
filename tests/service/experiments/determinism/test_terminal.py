"""The report in the terminal: every verdict, the onset in words, the replay uncut."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from driftscope_probes.determinism.batch import ROWS_TOGETHER, Onset
from driftscope_probes.determinism.report import (
    AxisReport,
    DeterminismReport,
    FirstDifference,
    Measure,
    Subject,
)
from driftscope_service.experiments.determinism.html import axes_state
from driftscope_service.experiments.determinism.terminal import (
    onset_words,
    print_determinism,
    share,
)

REPLAY = "driftscope probe determinism --model tiny --axes batch_size --values 1,2 --no-bisect " * 2


def axes() -> list[AxisReport]:
    first = FirstDifference(cell=2, sequence="prompt 1", token=3)
    differing = Measure(62, 744, 743, 700, 2, 3, 0.157, 1_234_567, first, first)
    equal = Measure(16, 192, 192, 192, 1, 1, 0.0, 0, None, None)
    return [
        AxisReport.run(
            Subject("batch_size", "bf16", "stock", "vllm"),
            1,
            differing,
            {2: differing},
            Onset(setting="batch size", equal_up_to=1, differs_from=2, tested=(1, 2, 4)),
        ).model_copy(update={"replay": REPLAY}),
        AxisReport.run(
            Subject("position", "bf16", "invariant", "vllm"), 0, equal, {1: equal}, None
        ),
        AxisReport.not_run(
            Subject("kv_split", "bf16", "stock", "vllm"), "one thread never splits keys"
        ),
    ]


def printed(width: int = 80) -> str:
    stream = io.StringIO()
    parts: dict[str, Any] = {"model": {"name": "tiny"}, "axes": axes(), "notes": ["a [note]"]}
    report = DeterminismReport.model_construct(**parts)
    print_determinism(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_a_table_for_each_choice_of_kernels() -> None:
    lines = printed().splitlines()
    assert "tiny, vllm bf16, stock kernels" in lines
    assert "tiny, vllm bf16, invariant kernels" in lines
    row = next(line.split() for line in lines if line.startswith("batch_size"))
    assert row == ["batch_size", "differs", "2", "99.9%", "94.1%", "2", "0.16", "1.2e+06"]
    assert next(line.split() for line in lines if line.startswith("position"))[1:4] == [
        "equal",
        "all",
        "all",
    ]


def test_the_smallest_case_can_be_copied() -> None:
    shown = printed()
    assert "batch_size (bf16, stock) differs from batch size 2 on, equal up to 1" in shown
    assert "first differing token: prompt 1, token 3, at 2" in shown
    assert f"  replay: {REPLAY}" in shown
    assert "kv_split (bf16, stock): not run: one thread never splits keys" in shown
    assert "a [note]" in shown


def test_a_share_below_all_is_never_shown_as_all() -> None:
    assert (share(1.0), share(0.99999), share(0.5)) == ("all", "99.9%", "50.0%")


def test_rows_that_do_not_repeat() -> None:
    onset = Onset(setting=ROWS_TOGETHER, equal_up_to=20, differs_from=21, tested=("first", 8, 44))
    assert onset_words(onset) == "from 21 rows on, equal up to 20"
    alone = onset.model_copy(update={"equal_up_to": None, "differs_from": 1})
    assert onset_words(alone) == "from 1 row on"


def test_what_does_not_repeat_is_not_blamed() -> None:
    differing = Measure(62, 744, 743, 700, 2, 3, 0.157, 1_234_567, None, None)
    onset = Onset(setting="batch size", equal_up_to=20, differs_from=21, tested=(1, 44))
    axis = AxisReport.run(
        Subject("batch_size", "bf16", "stock", "vllm-server"),
        1,
        differing,
        {21: differing},
        onset,
        not_repeatable="the same 21 rows asked again give other bits",
    )
    stream = io.StringIO()
    parts: dict[str, Any] = {"model": {"name": "tiny"}, "axes": [axis], "notes": []}
    report = DeterminismReport.model_construct(**parts)
    print_determinism(report, Console(file=stream, width=80))
    shown = stream.getvalue()
    assert all(len(line) <= 80 for line in shown.split("batch_size (bf16")[0].splitlines())
    assert "not repeatable: the same 21 rows asked again give other bits" in shown
    state = axes_state([axis])
    assert (state.tone, state.word) == ("watch", "not repeatable")
    assert "On 1 of 1 axes the same request gave other bits again" in state.sentence


def test_names_have_no_last_equal_value() -> None:
    onset = Onset(
        setting="prefix cache", equal_up_to=None, differs_from="hot", tested=("off", "cold", "hot")
    )
    assert onset_words(onset) == "at prefix cache hot"
