"""Attribution: what part of the difference is rounding, staleness, length or a side's fault?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from driftscope_dashboards import panel
from driftscope_dashboards.board import board, label_values, row
from driftscope_dashboards.query import Query, now

UID = "driftscope-attribution"
RUN = 'run=~"$run"'
MODEL = 'model=~"$model"'
CELL = "{{model}} {{engine_dtype}} → {{trainer_dtype}}"


def attribution() -> dashboard.Dashboard:
    made = board(
        UID,
        "driftscope: attribution",
        "Where a difference comes from: dtypes of both sides in paired probes, age of the weights, "
        "length of the sequences, and the side whose values look wrong.",
        variables=[
            label_values("run", "Run", "driftscope_run_info", "run"),
            label_values("model", "Model", "driftscope_paired_tokens", "model"),
        ],
    )
    for add in (_dtypes, _staleness, _shape, _sides):
        made = add(made)
    return made


def _dtypes(made: dashboard.Dashboard) -> dashboard.Dashboard:
    metric = "driftscope_paired_logprob_abs_diff_mean_nats"
    return (
        made.with_row(row("Rounding: the grid of dtypes of the last paired probe"))
        .with_panel(
            panel.bars(
                "Mean |Δ| by engine and trainer dtype",
                "What this model's rounding alone gives for every pair of dtypes. A run of these "
                f"dtypes far above its bar has another cause. Metric: `{metric}`",
                now(f"sort_desc({metric}{{{MODEL}}})", CELL),
                unit="short",
            )
        )
        .with_panel(
            panel.bars(
                "Bitwise equal tokens by engine and trainer dtype",
                "Metric: `driftscope_paired_bitwise_equal_ratio`",
                now(f"driftscope_paired_bitwise_equal_ratio{{{MODEL}}}", CELL),
                unit="percentunit",
            )
        )
        .with_panel(
            panel.stat_panel(
                "bf16 over fp16",
                "How many times larger the mean |Δ| of bf16 on both sides is than of fp16: what "
                "a change of dtype would bring. About 8 by theory (3 more bits of mantissa). "
                f"Metric: `{metric}`",
                [
                    now(
                        f'max by (model) ({metric}{{{MODEL}, engine_dtype="bf16", '
                        f'trainer_dtype="bf16"}}) / max by (model) ({metric}{{{MODEL}, '
                        'engine_dtype="fp16", trainer_dtype="fp16"})',
                        "{{model}}",
                    )
                ],
                decimals=1,
                width=panel.THIRD,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Runs against the probe's rounding",
                "Mean |Δ| of a run over that of the probe with both sides in the run's coarser "
                "dtype. Near 1 is rounding; much more is something else. Metrics: "
                f"`driftscope_run_logprob_abs_diff_mean_nats`, `{metric}`",
                [now(_against_probe(metric), "{{run}}")],
                decimals=1,
                steps=((None, "green"), (3.0, "yellow"), (10.0, "red")),
                width=panel.THIRD,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Age of the paired probe",
                "Metric: `driftscope_paired_last_success_timestamp_seconds`",
                [
                    now(
                        f"time() - driftscope_paired_last_success_timestamp_seconds{{{MODEL}}}",
                        "{{model}}",
                    )
                ],
                unit="s",
                decimals=0,
                width=panel.THIRD,
            )
        )
    )


def _against_probe(metric: str) -> str:
    """Joined on the precision of the run, in the model that is chosen."""
    probe = (
        f'max by (precision) (label_replace({metric}{{{MODEL}, engine_dtype="bf16", '
        'trainer_dtype="bf16"}, "precision", "bf16", "", "") or '
        f'label_replace({metric}{{{MODEL}, engine_dtype="fp16", trainer_dtype="fp16"}}, '
        '"precision", "fp16", "", ""))'
    )
    run = (
        f"driftscope_run_logprob_abs_diff_mean_nats{{{RUN}}} * on (run) group_left (precision) "
        f"driftscope_run_info{{{RUN}}}"
    )
    return f"({run}) / on (precision) group_left () ({probe})"


def _staleness(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Staleness: the age of the rollout's weights"))
        .with_panel(
            panel.plot(
                "Age of the weights",
                "Mean and largest age over tokens, in train steps. Metrics: "
                "`driftscope_run_lag_{mean,max}_steps`",
                [
                    Query(f"driftscope_run_lag_mean_steps{{{RUN}}}", "{{run}} mean"),
                    Query(f"driftscope_run_lag_max_steps{{{RUN}}}", "{{run}} max"),
                ],
            )
        )
        .with_panel(
            panel.plot(
                "Fresh tokens against all",
                "Mean |Δ| of tokens sampled with the current weights, beside that of all tokens: "
                "the gap is staleness. Metrics: "
                "`driftscope_run_fresh_logprob_abs_diff_mean_nats`, "
                "`driftscope_run_logprob_abs_diff_mean_nats`",
                [
                    Query(
                        f"driftscope_run_fresh_logprob_abs_diff_mean_nats{{{RUN}}}", "{{run}} fresh"
                    ),
                    Query(f"driftscope_run_logprob_abs_diff_mean_nats{{{RUN}}}", "{{run}} all"),
                ],
                logarithmic=True,
            )
        )
        .with_panel(
            panel.plot(
                "Share due to staleness",
                "Share of the stale tokens' difference above that of fresh ones, and the share of "
                "stale tokens. Metrics: `driftscope_run_staleness_ratio`, "
                "`driftscope_run_stale_tokens_ratio`",
                [
                    Query(f"driftscope_run_staleness_ratio{{{RUN}}}", "{{run}} of the difference"),
                    Query(f"driftscope_run_stale_tokens_ratio{{{RUN}}}", "{{run}} of the tokens"),
                ],
                unit="percentunit",
            )
        )
    )


def _shape(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Shape of the difference"))
        .with_panel(
            panel.heat_map(
                "Distribution of |Δ| over tokens",
                "One band is rounding; a second one far above is a bug that hits some tokens. "
                "Metric: `driftscope_run_token_logprob_abs_diff_nats`",
                Query(
                    f"sum by (le) (driftscope_run_token_logprob_abs_diff_nats_bucket{{{RUN}}})",
                    "{{le}}",
                    exemplar=True,
                ),
                unit="short",
            )
        )
        .with_panel(
            panel.plot(
                "Growth with length",
                "Slope of the sum of Δ over a sequence's length, per 1,000 tokens: noise cancels, "
                "a systematic difference adds up. Metric: "
                "`driftscope_run_sequence_logratio_slope_nats`",
                [Query(f"driftscope_run_sequence_logratio_slope_nats{{{RUN}}}", "{{run}}")],
                width=panel.HALF,
            )
        )
        .with_panel(
            panel.plot(
                "Signed mean against spread",
                "A mean Δ large against its standard deviation over √tokens points one way: "
                "temperature, top-p or a scaled head. Metrics: "
                "`driftscope_run_logprob_diff_{mean,std}_nats`",
                [
                    Query(f"driftscope_run_logprob_diff_mean_nats{{{RUN}}}", "{{run}} mean"),
                    Query(f"driftscope_run_logprob_diff_std_nats{{{RUN}}}", "{{run}} std"),
                ],
                width=panel.HALF,
            )
        )
        .with_panel(
            panel.plot(
                "χ² of tokens and sequences",
                "Metric: `driftscope_run_chi_squared_ratio`",
                [Query(f"driftscope_run_chi_squared_ratio{{{RUN}}}", "{{run}} {{level}}")],
                width=panel.HALF,
                logarithmic=True,
            )
        )
    )


def _sides(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Which side"))
        .with_panel(
            panel.plot(
                "Values that look wrong, by side",
                "A log-probability that is not finite, exactly 0 or positive names the side that "
                "made it. Metric: `driftscope_run_hygiene_tokens`",
                [
                    Query(
                        f'driftscope_run_hygiene_tokens{{{RUN}, kind=~"(trainer|rollout)_.*"}}',
                        "{{run}} {{kind}}",
                    )
                ],
                width=panel.HALF,
            )
        )
        .with_panel(
            panel.plot(
                "Confident disagreements",
                "Tokens with p_rollout above 0.5 and Δ below -2. Metric: "
                "`driftscope_run_confident_disagreement_tokens`",
                [Query(f"driftscope_run_confident_disagreement_tokens{{{RUN}}}", "{{run}}")],
                width=panel.HALF,
            )
        )
    )
