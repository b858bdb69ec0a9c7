"""Determinism and nightly: did last night's change of torch, vLLM or driver alter a bit?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from driftscope_dashboards import panel
from driftscope_dashboards.board import annotation, board, label_values, row
from driftscope_dashboards.query import Query, now, rows

UID = "driftscope-determinism"
MODEL = 'model=~"$model"'
TARGET = 'target=~"$target"'
SUBJECT = "{{model}} {{axis}} {{dtype}} {{kernels}}"
#: One series per subject: 0 equal, 1 differs, 2 not run, 3 not repeatable.
VERDICT = " or ".join(
    f"max by (model, axis, dtype, kernels) (driftscope_determinism_verdict{{{MODEL}, "
    f'verdict="{verdict}"}} * {number})'
    for number, verdict in ((1, "differs"), (3, "not_repeatable"), (2, "not_run"), (0, "equal"))
)
VERDICTS = panel.value_map(
    {
        "0": ("equal", "green"),
        "1": ("differs", "orange"),
        "2": ("not run", "text"),
        "3": ("not repeatable", "purple"),
    }
)
#: Older than one night and some hours.
NIGHT_S = 26 * 3600.0


def determinism() -> dashboard.Dashboard:
    made = board(
        UID,
        "driftscope: determinism and nightly",
        "Verdicts of the nightly job, of the engine probe and of the kernel checker, over time.",
        variables=[
            label_values("model", "Model", "driftscope_determinism_verdict", "model"),
            label_values("target", "Kernels of", "driftscope_kernel_verdict", "target"),
        ],
        annotations=[
            annotation(
                "Verdict changes",
                'ALERTS{alertname="DeterminismVerdictChanged", alertstate="firing"}',
                "Verdict changed",
                "{{model}} {{axis}} {{dtype}} {{kernels}}",
                "red",
            )
        ],
        since="now-7d",
    )
    for add in (_nightly, _engine, _kernels):
        made = add(made)
    return made


def _nightly(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Nightly"))
        .with_panel(
            panel.stat_panel(
                "Last night",
                "Exit code of the last nightly run. Metric: `driftscope_nightly_exit_code`",
                [now("driftscope_nightly_exit_code")],
                mappings=[
                    panel.value_map(
                        {
                            "0": ("as expected", "green"),
                            "1": ("a verdict changed", "red"),
                            "2": ("could not run", "orange"),
                        }
                    )
                ],
                width=6,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Since the last success",
                "Time since a night was as expected. Metric: "
                "`driftscope_nightly_last_success_timestamp_seconds`",
                [now("time() - driftscope_nightly_last_success_timestamp_seconds")],
                unit="s",
                decimals=0,
                steps=((None, "green"), (NIGHT_S, "red")),
                width=6,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Items that need a look",
                "Items of the last night that are better, worse, new or not run. Metric: "
                "`driftscope_nightly_items`",
                [now('sum(driftscope_nightly_items{state!="as_expected"})')],
                steps=panel.BAD_FROM_ONE,
                width=6,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Planted faults missed",
                "Kernels with a planted fault that the last kernel check did not refute: with one "
                "missed, its other verdicts are worth nothing. Metric: "
                "`driftscope_kernel_planted_faults`",
                [now("driftscope_kernel_planted_faults - driftscope_kernel_planted_caught_faults")],
                steps=panel.BAD_FROM_ONE,
                width=6,
            )
        )
        .with_panel(
            panel.plot(
                "Items of the last night by outcome",
                "Metric: `driftscope_nightly_items`",
                [Query("driftscope_nightly_items", "{{state}}")],
                width=panel.FULL,
                stacked=True,
            )
        )
    )


def _engine(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Engines"))
        .with_panel(
            panel.state_timeline(
                "Verdict by axis",
                "Whether the engine gives the same bits along each axis: batch size, position, "
                "prefix cache, … Metric: `driftscope_determinism_verdict`",
                [Query(VERDICT, SUBJECT)],
                [VERDICTS],
                height=12,
            )
        )
        .with_panel(
            panel.plot(
                "Different outputs",
                "How many different outputs an axis gave; 1 is deterministic. Metric: "
                "`driftscope_determinism_unique_outputs`",
                [Query(f"driftscope_determinism_unique_outputs{{{MODEL}}}", SUBJECT)],
                width=panel.HALF,
                limit=1.5,
            )
        )
        .with_panel(
            panel.plot(
                "Mismatched tokens",
                "Tokens whose log-probability has other bits than in the first output. Metric: "
                "`driftscope_determinism_mismatched_tokens`",
                [Query(f"driftscope_determinism_mismatched_tokens{{{MODEL}}}", SUBJECT)],
                width=panel.HALF,
            )
        )
    )


def _kernels(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Kernels"))
        .with_panel(
            panel.plot(
                "Kernels by verdict",
                "Metric: `driftscope_kernel_verdict`",
                [
                    Query(
                        f"sum by (target, verdict) (driftscope_kernel_verdict{{{TARGET}}})",
                        "{{target}} {{verdict}}",
                    )
                ],
                width=panel.HALF,
                stacked=True,
            )
        )
        .with_panel(
            panel.table_panel(
                "Refuted kernels",
                "Kernels whose result depends on the batch; the page has the counterexample. "
                "Metric: `driftscope_kernel_verdict`",
                [rows(f'driftscope_kernel_verdict{{{TARGET}, verdict="REFUTED"}}')],
                hidden=("Value",),
                link=("op", "Open the kernels page", "${pages}/kernels"),
            )
        )
    )
