"""Run health: is this run diverging now, since when, and by which number?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from driftscope_dashboards import panel
from driftscope_dashboards.board import annotation, board, label_values, row
from driftscope_dashboards.query import Query, now, rows

UID = "driftscope-run-health"
RUN = 'run=~"$run"'
METRIC = 'metric=~"$metric"'
DRIFT_STATES = panel.value_map(
    {
        "0": ("steady", "green"),
        "1": ("too few steps", "text"),
        "2": ("shifted", "orange"),
        "3": ("trending", "red"),
    }
)
#: The four states as one number, in the order of DRIFT_STATES; of several runs the worst.
SINCE_LAST_STEP = (
    f"time() - driftscope_run_last_step_timestamp_seconds{{{RUN}}} "
    f"unless on (run) driftscope_run_finished{{{RUN}}} == 1"
)
DRIFT_STATE = (
    " or ".join(
        f'max by (run) (driftscope_run_drift_state{{{RUN}, state="{state}"}} == 1) * {number}'
        for number, state in ((3, "trending"), (2, "shifted"), (1, "not_enough_steps"))
    )
    + f' or max by (run) (driftscope_run_drift_state{{{RUN}, state="steady"}} - 1 == 0)'
)


#: COMPARISON_VERDICTS of the service by rank.
VERDICTS = panel.value_map(
    {
        "0": ("bitwise equal", "green"),
        "1": ("at the floor", "green"),
        "2": ("above the floor", "orange"),
        "3": ("bug-like", "red"),
        "4": ("not comparable", "purple"),
    }
)


def run_health() -> dashboard.Dashboard:
    made = board(
        UID,
        "driftscope: run health",
        "Whether trainer and rollout engine still agree on the probability of the same tokens, per "
        "run: what is beyond its limit, since when, and how the numbers went there.",
        variables=[
            label_values("run", "Run", "driftscope_run_info", "run"),
            label_values("metric", "Number", f"driftscope_run_limit_used_ratio{{{RUN}}}", "metric"),
        ],
        annotations=[
            annotation(
                "Alerts",
                f'ALERTS{{alertname=~"Run.*", alertstate="firing", {RUN}}}',
                "{{alertname}}",
                "{{run}} {{metric}}",
                "red",
            ),
            annotation(
                "Level changes",
                f"changes(driftscope_run_last_change_step{{{RUN}}}[$__interval]) > 0",
                "Level changed: {{metric}}",
                "{{run}}",
                "orange",
            ),
            annotation(
                "Weight syncs",
                f"delta(driftscope_run_lag_max_steps{{{RUN}}}[$__interval]) < 0",
                "Weights synced",
                "{{run}}: the rollout's weights became younger.",
                "blue",
            ),
        ],
    )
    for add in (_now, _diagnosis, _limits, _divergence, _weights, _tokens):
        made = add(made)
    return made


def _now(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Now"))
        .with_panel(
            panel.stat_panel(
                "Numbers beyond their limit",
                "How many numbers of the last step lie beyond the published limit for the run's "
                "dtypes. Metric: `driftscope_run_over_limit`",
                [now(f"sum by (run) (driftscope_run_over_limit{{{RUN}}})", "{{run}}")],
                steps=panel.BAD_FROM_ONE,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Drift",
                "Whether the numbers keep their level over the steps, changed it, or move on. "
                "Metric: `driftscope_run_drift_state`",
                [now(DRIFT_STATE, "{{run}}")],
                mappings=[DRIFT_STATES],
                steps=((None, "green"), (1.0, "text"), (2.0, "orange"), (3.0, "red")),
            )
        )
        .with_panel(
            panel.stat_panel(
                "Nearest to a limit",
                "The largest share of the way from the ideal to a limit that any number has gone; "
                "100 % is at the limit. Metric: `driftscope_run_limit_used_ratio`",
                [now(f"max by (run) (driftscope_run_limit_used_ratio{{{RUN}}})", "{{run}}")],
                unit="percentunit",
                steps=((None, "green"), (0.7, "yellow"), (1.0, "red")),
                decimals=0,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Confident disagreements",
                "Tokens that the rollout held for likely (p > 0.5) and the trainer for at least e² "
                "times less so. One is a bug until shown otherwise. "
                "Metric: `driftscope_run_confident_disagreement_tokens`",
                [now(f"driftscope_run_confident_disagreement_tokens{{{RUN}}}", "{{run}}")],
                steps=panel.BAD_FROM_ONE,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Non-finite tokens",
                "Tokens of the last step left out because a log-probability is NaN or infinite. "
                "Metric: `driftscope_run_hygiene_tokens`",
                [now(f'driftscope_run_hygiene_tokens{{{RUN}, kind="nonfinite"}}', "{{run}}")],
                steps=panel.BAD_FROM_ONE,
            )
        )
        .with_panel(
            panel.stat_panel(
                "Since the last step",
                "Time since a step was reported, of runs that did not say that they ended. "
                "Metrics: `driftscope_run_last_step_timestamp_seconds`, `driftscope_run_finished`",
                [now(SINCE_LAST_STEP, "{{run}}")],
                unit="s",
                decimals=0,
            )
        )
        .with_panel(
            panel.table_panel(
                "Runs",
                "Every active run with what it runs; the name opens its page. Metrics: "
                "`driftscope_run_info`, `driftscope_run_last_step`, `driftscope_run_over_limit`, "
                "`driftscope_run_finished` (1: it said that it ended)",
                [
                    rows(f"driftscope_run_info{{{RUN}}}"),
                    rows(f"driftscope_run_last_step{{{RUN}}}"),
                    rows(f"sum by (run) (driftscope_run_over_limit{{{RUN}}})"),
                    rows(f"max by (run) (driftscope_run_finished{{{RUN}}})"),
                ],
                width=panel.FULL,
                joined_by="run",
                hidden=("Time 1", "Time 2", "Time 3", "Time 4", "Value #A", "instance 1",
                        "instance 2", "job 1", "job 2", "__name__ 1", "__name__ 2"),
                renamed={"Value #B": "last step", "Value #C": "beyond limit",
                         "Value #D": "finished"},
                link=("run", "Open the run's page", "${pages}/runs/${__value.raw}"),
            )
        )
    )  # fmt: skip


def _diagnosis(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Diagnosis"))
        .with_panel(
            panel.state_timeline(
                "Verdict",
                "Whether rounding explains the difference of the last step. Bug-like: no change of "
                "precision does; the page of the run says what does. Metric: "
                "`driftscope_run_verdict`",
                [Query(f"max by (run) (driftscope_run_verdict{{{RUN}}})", "{{run}}")],
                [VERDICTS],
                width=panel.THIRD,
            )
        )
        .with_panel(
            panel.plot(
                "Causes",
                "How sure the diagnosis is of each cause; two that look alike share their "
                "confidence, and the control on the page of the step tells them apart. Metric: "
                "`driftscope_run_cause_confidence`",
                [
                    Query(
                        f"max by (run, cause) (driftscope_run_cause_confidence{{{RUN}}})",
                        "{{run}} {{cause}}",
                    )
                ],
                unit="percentunit",
            )
        )
        .with_panel(
            panel.plot(
                "Times the floor",
                "Noise of the last step over the floor of its dtypes; up to the line rounding "
                "explains it. Metric: `driftscope_run_excess_ratio`",
                [Query(f"max by (run) (driftscope_run_excess_ratio{{{RUN}}})", "{{run}}")],
                logarithmic=True,
                limit=2.0,
            )
        )
    )


def _limits(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Limits and drift"))
        .with_panel(
            panel.plot(
                "Share of the way to the limit",
                "Every number on one scale: 0 is ideal, 1 the limit for the run's dtypes. What "
                "crosses 1 first says where to look. Metric: `driftscope_run_limit_used_ratio`",
                [
                    Query(
                        f"driftscope_run_limit_used_ratio{{{RUN}, {METRIC}}}",
                        "{{run}} {{metric}} {{direction}}",
                    )
                ],
                unit="percentunit",
                width=panel.HALF,
                limit=1.0,
            )
        )
        .with_panel(
            panel.state_timeline(
                "Drift state",
                "The state of every run over time. Metric: `driftscope_run_drift_state`",
                [Query(DRIFT_STATE, "{{run}}")],
                [DRIFT_STATES],
                width=panel.HALF,
            )
        )
        .with_panel(
            panel.table_panel(
                "What moved",
                "Numbers that changed their level or go on moving, from which step on. Metric: "
                "`driftscope_run_last_change_step`",
                [
                    rows(f"driftscope_run_last_change_step{{{RUN}}}"),
                    rows(f"driftscope_run_last_change_ratio{{{RUN}}}"),
                ],
                renamed={"Value #A": "from step", "Value #B": "level after / before"},
                link=("run", "Open the run's page", "${pages}/runs/${__value.raw}"),
            )
        )
        .with_panel(
            panel.plot(
                "Steps",
                "Highest complete step; a flat line is a run that stopped reporting. Metric: "
                "`driftscope_run_last_step`",
                [Query(f"driftscope_run_last_step{{{RUN}}}", "{{run}}")],
                width=panel.HALF,
            )
        )
    )


def _divergence(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Divergence"))
        .with_panel(
            panel.plot(
                "|Δ| of tokens",
                "Mean, 99th percentile and largest difference of the log-probabilities, in nats. "
                "Rounding moves all three together; a bug moves the largest alone. Metrics: "
                "`driftscope_run_logprob_abs_diff_{mean,p99,max}_nats`",
                [
                    Query(f"driftscope_run_logprob_abs_diff_mean_nats{{{RUN}}}", "{{run}} mean"),
                    Query(f"driftscope_run_logprob_abs_diff_p99_nats{{{RUN}}}", "{{run}} p99"),
                    Query(f"driftscope_run_logprob_abs_diff_max_nats{{{RUN}}}", "{{run}} max"),
                ],
                logarithmic=True,
            )
        )
        .with_panel(
            panel.plot(
                "KL(rollout ‖ trainer)",
                "Per token, as k1 and k3; k3 is never negative and has less noise. Metric: "
                "`driftscope_run_kl_nats`",
                [Query(f"driftscope_run_kl_nats{{{RUN}}}", "{{run}} {{estimator}}")],
            )
        )
        .with_panel(
            panel.plot(
                "Probabilities",
                "Mean |p_trainer - p_rollout|, the number verl calls rollout_probs_diff_mean. "
                "Metric: `driftscope_run_prob_abs_diff_mean_ratio`",
                [Query(f"driftscope_run_prob_abs_diff_mean_ratio{{{RUN}}}", "{{run}}")],
                logarithmic=True,
            )
        )
        .with_panel(
            panel.plot(
                "Pearson correlation of probabilities",
                "verl's rollout_actor_probs_pearson_corr; it should stay above 0.99. Metric: "
                "`driftscope_run_prob_pearson_ratio`",
                [Query(f"driftscope_run_prob_pearson_ratio{{{RUN}}}", "{{run}}")],
            )
        )
        .with_panel(
            panel.plot(
                "Log-perplexity of both sides",
                "Of the same responses. Two lines that part are a systematic difference, such as a "
                "temperature. Metric: `driftscope_run_log_perplexity_nats`",
                [Query(f"driftscope_run_log_perplexity_nats{{{RUN}}}", "{{run}} {{side}}")],
            )
        )
        .with_panel(
            panel.plot(
                "Bitwise equal tokens",
                "Share of tokens whose two log-probabilities have the same bits; 1 with invariant "
                "kernels on both sides. Metric: `driftscope_run_bitwise_equal_ratio`",
                [Query(f"driftscope_run_bitwise_equal_ratio{{{RUN}}}", "{{run}}")],
                unit="percentunit",
            )
        )
    )


def _weights(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Importance weights"))
        .with_panel(
            panel.plot(
                "Effective sample size",
                "Share of the tokens that remains in effect under the weights e^Δ. Metrics: "
                "`driftscope_run_effective_sample_ratio`, "
                "`driftscope_run_sequence_effective_sample_ratio`",
                [
                    Query(f"driftscope_run_effective_sample_ratio{{{RUN}}}", "{{run}} tokens"),
                    Query(
                        f"driftscope_run_sequence_effective_sample_ratio{{{RUN}}}",
                        "{{run}} sequences",
                    ),
                ],
                unit="percentunit",
            )
        )
        .with_panel(
            panel.plot(
                "Tokens outside bounds",
                "Share of tokens that truncation or masking at these bounds would touch. Metric: "
                "`driftscope_run_tokens_outside_bounds_ratio`",
                [
                    Query(
                        f"driftscope_run_tokens_outside_bounds_ratio{{{RUN}}}",
                        "{{run}} {{bounds}}",
                    )
                ],
                unit="percentunit",
            )
        )
        .with_panel(
            panel.plot(
                "Largest and smallest weight",
                "Of e^Δ over tokens. Metric: `driftscope_run_importance_weight_ratio`",
                [
                    Query(
                        f'driftscope_run_importance_weight_ratio{{{RUN}, stat=~"min|max"}}',
                        "{{run}} {{stat}}",
                    )
                ],
                logarithmic=True,
            )
        )
    )


def _tokens(made: dashboard.Dashboard) -> dashboard.Dashboard:
    return (
        made.with_row(row("Tokens"))
        .with_panel(
            panel.heat_map(
                "Distribution of |Δ| over the tokens of a step",
                "Each column is the last step at that time; le = 0 holds the exactly equal tokens. "
                "A second band is a second cause. Metric: "
                "`driftscope_run_token_logprob_abs_diff_nats`",
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
                "Tokens that look wrong",
                "Not finite, exactly 0, positive, or masked, per side. Metric: "
                "`driftscope_run_hygiene_tokens`",
                [
                    Query(
                        f'driftscope_run_hygiene_tokens{{{RUN}, kind!="masked"}}',
                        "{{run}} {{kind}}",
                    )
                ],
                width=panel.HALF,
            )
        )
    )
