"""Every metric of /metrics: name, type, unit, labels, help. Nothing is exported that is not here.

Names follow Prometheus: prefix, base unit at the end. Δ is logp_trainer − logp_rollout of the
sampled token; space is part of the name: `logprob_abs_diff` in nats, `prob_abs_diff` as a ratio.
Every label is `run`, a model or kernel that the operator offers, or one of a few words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from driftscope_probes.drift import SERIES
from driftscope_probes.numbers import NUMBERS

Kind = Literal["gauge", "counter", "histogram", "gaugehistogram"]
PREFIX: Final = "driftscope_"
TOTAL: Final = "_total"
#: A cell of the grid. The model is a name of the catalogue or of the settings, so all are bounded.
CELL_LABELS = ("model", "engine_dtype", "trainer_dtype")


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    unit: str  # last part of the name, before _total; "": a number without unit
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a comparison as a metric."""

    metric: Metric
    source: str  # key of Comparison.to_dict(); missing or null there: the sample is left out
    more_labels: tuple[str, ...] = ()  # values of the metric's labels after those of the subject


_made: list[Metric] = []


def _metric(
    kind: Kind, stem: str, unit: str, help_text: str, labels: tuple[str, ...] = ()
) -> Metric:
    name = "_".join(part for part in (stem, unit) if part)
    total = TOTAL if kind == "counter" else ""
    made = Metric(f"{PREFIX}{name}{total}", kind, unit, help_text, labels)
    _made.append(made)
    return made


def gauge(stem: str, unit: str, help_text: str, *labels: str) -> Metric:
    return _metric("gauge", stem, unit, help_text, labels)


def _counter(stem: str, unit: str, help_text: str, *labels: str) -> Metric:
    return _metric("counter", stem, unit, help_text, labels)


#: In the order of the page.
_HEADLINES: Final = (
    *("abs_diff_mean", "abs_diff_p50", "abs_diff_p99", "abs_diff_max", "diff_mean", "diff_std"),
    *("kl_k1", "kl_k2", "kl_k3", "kl_reverse_unbiased", "js_divergence", "chi2_token", "chi2_seq"),
    *("prob_abs_diff_mean", "prob_abs_diff_max", "prob_abs_diff_std", "prob_pearson"),
    *("token_mult_prob_error", "ratio_mean", "ratio_min", "ratio_max", "ratio_std"),
    *("ratio_share_outside_0p5_2", "ratio_share_outside_0p8_1p2", "ratio_share_outside_0p9_1p1"),
    *("abs_diff_share_above_ln2", "confident_disagreements", "confident_disagreement_share"),
    *("ess_ratio_token", "ess_ratio_sequence"),
    *("bitwise_equal_fraction", "bitwise_equal_sequence_fraction"),
    *("training_log_ppl", "rollout_log_ppl", "log_ppl_diff_abs_mean"),
    *("seq_logratio_mean", "seq_logratio_min", "seq_logratio_max", "seq_logratio_std"),
    *("seq_logratio_slope_per_1000_tokens", "tokens", "sequences"),
)
#: Only for steps: a probe has one version of the weights and complete log-probabilities.
_STEP_HEADLINES: Final = (
    *("kl_k3_entropy_ratio", "lag_mean", "lag_max", "stale_token_share", "staleness_share"),
    *("lag0_abs_diff_mean", "masked_tokens", "nonfinite_tokens", "rollout_nonfinite"),
    *("trainer_nonfinite", "rollout_zero", "trainer_zero", "rollout_positive", "trainer_positive"),
    *("rollout_nan", "trainer_nan", "rollout_minus_infinity", "trainer_minus_infinity"),
    *("rollout_plus_infinity", "trainer_plus_infinity", "rollout_sentinel", "trainer_sentinel"),
    *("rollout_zero_unmatched", "trainer_zero_unmatched"),
    *("nonfinite_sequences", "empty_sequences"),
)


def _samples(
    names: tuple[str, ...], prefix: str, subject: tuple[str, ...], when: str
) -> Iterator[Sample]:
    for name in names:
        row = NUMBERS[name]
        export = row.export
        assert export is not None, f"{name} has no metric"
        stem = "_".join(part for part in (prefix, export.stem) if part)
        labels = (export.label,) if export.label else ()
        metric = gauge(stem, export.unit, f"{export.help} {when}", *subject, *labels)
        yield Sample(metric, name, (row.export_label,) if row.export_label else ())


#: Every cell of the last paired probe of every model.
CELL_SAMPLES = tuple(
    _samples(_HEADLINES, "paired", CELL_LABELS, "Last successful paired probe of the model.")
)
# fmt: off



RUNS = gauge("runs", "", "Runs: active ones, active ones beyond the cap, and idle ones. Only "
              "active ones have series of their own.", "state")
RUN_INFO = gauge(
    "run_info", "", "Always 1; what describes an active run, and the coarser dtype of both sides.",
    "run", "model", "framework", "engine", "rollout_dtype", "trainer_dtype", "precision",
)
RUN_LAST_STEP = gauge("run_last_step", "", "Number of the highest step in the series.", "run")
RUN_LAST_STEP_TIME = gauge("run_last_step_timestamp", "seconds",
                            "Unix time at which the latest step was completed.", "run")
RUN_STEP_INTERVAL = gauge("run_step_interval", "seconds",
                           "Mean time between two steps over the whole run.", "run")
RUN_FINISHED = gauge("run_finished", "", "1 where the run was said to have ended, else 0; a later "
                      "step opens it again.", "run")
RUN_STEPS = _counter("run_steps", "", "Complete steps of the run, of all its attempts.", "run")
RUN_REFUSED = _counter("run_refused_steps", "", "Steps and shards of the run that were refused: "
                       "malformed, too large, or in conflict with what is there.", "run")
RUN_ATTEMPTS = gauge("run_attempts", "", "Number of times the run was started.", "run")
RUN_TOKENS = _counter("run_compared_tokens", "", "Tokens compared in all steps.", "run")
RUN_NONFINITE = _counter("run_nonfinite_tokens", "",
                         "Tokens of all steps left out because a side is not finite.", "run")
RUN_CONFIDENT = _counter("run_confident_disagreements", "",
                         "Confident disagreements in all steps.", "run")
# fmt: on
#: The highest step of every active run.
RUN_SAMPLES = tuple(
    _samples(_HEADLINES + _STEP_HEADLINES, "run", ("run",), "Last step of the run.")
)
# fmt: off
RUN_ABS_DIFF = _metric(
    "gaugehistogram", "run_token_logprob_abs_diff", "nats",
    "Distribution of |Δ| over the tokens of the last step, from binned counts; le=\"0\" holds the "
    "exactly equal ones. It is no counter: read it without rate().", ("run",),
)
RUN_VERDICT = gauge(
    "run_verdict", "", "Verdict on the last step, from best to worst: 0 bitwise equal, 1 at the "
    "floor, 2 above the floor, 3 bug-like, 4 not comparable.", "run",
)
RUN_EXCESS = gauge("run_excess", "ratio", "How many times as large as the floor the noise of the "
                    "last step is; up to 2 rounding explains it.", "run")
RUN_CAUSE = gauge(
    "run_cause_confidence", "", "How sure the diagnosis of the last step is of a cause, 0 to 1, "
    "for causes above 0; unexplained is 1 where no cause is sure enough to be the answer.",
    "run", "cause",
)
RUN_WEIGHTS_MATCH = gauge(
    "run_weights_match", "", "1 where the engine held the trainer's weights at the last step, 0 "
    "where it did not, by the digests pushed with it; without them there is no series.", "run",
)
RUN_LIMIT = gauge(
    "run_limit", "", "Published limit on a number of a comparison, in its unit, for the dtypes of "
    "the run.", "run", "metric", "direction",
)
RUN_LIMIT_USED = gauge(
    "run_limit_used", "ratio", "How far the last step is on the way from the ideal (0) to the "
    "limit (1); +Inf where the number overflowed.", "run", "metric", "direction",
)
RUN_OVER_LIMIT = gauge("run_over_limit", "", "1 where the last step lies beyond the limit, else "
                        "0.", "run", "metric", "direction")
RUN_DRIFT_STATE = gauge("run_drift_state", "", "1 for the drift state of the run, 0 for the "
                         "others.", "run", "state")
RUN_METRIC_DRIFT = gauge("run_metric_drift", "", "1 for every number that is shifted or "
                          "trending; others have no series.", "run", "metric", "state")
RUN_CHANGE_STEP = gauge("run_last_change_step", "", "First step at the present level, where a "
                         "number changed its level.", "run", "metric")
RUN_CHANGE = gauge("run_last_change", "ratio", "Level after the last change over the level "
                    "before, where that is not 0.", "run", "metric")
RUN_TREND = gauge(
    "run_trend_per_100_steps", "ratio", "Relative growth in 100 steps of the distance from the "
    "ideal, where it is trending; 0.5 is +50 %.", "run", "metric",
)

JOBS = gauge("jobs", "", "Jobs in the job table by state.", "state")
JOBS_OLDEST_QUEUED = gauge("jobs_oldest_queued_timestamp", "seconds",
                            "Unix time at which the job that waits longest was queued.")
JOBS_QUEUED_LIMIT = gauge("jobs_queued_limit", "", "Jobs that may wait at most.")
JOB_TIME_LIMIT = gauge("job_time_limit", "seconds", "Time after which a job is stopped.")
JOB_LAST_DURATION = gauge("job_last_duration", "seconds",
                           "What the last finished job of the kind took.", "kind", "state")
STORAGE = gauge("storage", "bytes", "Size of what the data folder holds.", "kind")
TOKEN_BUDGET = gauge("token_budget", "bytes", "Disk space that tokens of steps may take.")
INSTANCES = gauge("instances", "", "Processes of the service that work on the database.")

#: From here on what one process of the service tells of itself; the above comes from the database,
#: and every process says the same.
JOB_LEASE_EXPIRATIONS = _counter(
    "job_lease_expirations", "", "Jobs that this process took over since its start, since nothing "
    "was heard of the instance that ran them.",
)
JOB_RETRIES = _counter("job_retries", "", "Jobs queued for another attempt since the start, by the "
                       "error before.", "reason")
WORKER_UP = gauge("worker_up", "", "1 while the thread that does the work is alive.", "worker")

HTTP_REQUESTS = _counter(
    "http_requests", "", "Requests answered since the start. The route is a template, or other: no "
    "such path, or refused by host, key or length. No answer at all is 5xx.",
    "route", "method", "status_class",
)
HTTP_DURATION = _metric("histogram", "http_request_duration", "seconds",
                        "Time from the head of a request to the end of its answer.", ("route",))

INGEST_REQUESTS = _counter("ingest_requests", "", "Pushes answered since the start: accepted, "
                           "known already, refused.", "result")
INGEST_REFUSED = _counter("ingest_refused", "", "Pushes refused since the start, by the name of "
                          "the problem.", "reason")
INGEST_BYTES = _counter("ingest_received", "bytes", "Bytes of pushes since the start, as sent.")
INGEST_IN_FLIGHT = gauge("ingest_in_flight", "requests", "Pushes being received or analysed.")
INGEST_LIMIT = gauge("ingest_in_flight_limit", "requests", "Pushes that may be under way at most.")
INGEST_DURATION = _metric("histogram", "ingest_duration", "seconds",
                          "Time from the head of a push to the end of its answer.")

WEBHOOK_NOTICES = _counter("webhook_notices", "", "Notices of the webhook since the start: "
                           "delivered, retried (attempts), failed, dropped.", "result")

DISK_FREE = gauge("disk_free", "bytes", "Free space on the disk of the data folder.")
DISK_SIZE = gauge("disk_size", "bytes", "Size of the disk of the data folder.")
DISK_RESERVED = gauge("disk_reserved", "bytes", "Free space below which no push is accepted.")
BUILD_INFO = gauge("build_info", "", "Always 1; the version is a label.", "version")
# fmt: on

#: Values of labels that the counting code does not define.
RUN_STATES = ("active", "beyond_cap", "idle")
DRIFT_STATES = ("not_enough_steps", "steady", "shifted", "trending")
DRIFT_METRICS = SERIES
STORAGE_KINDS = ("database", "tokens", "reports")
INGEST_RESULTS = ("accepted", "known", "refused")

#: In the order of the page, which is that of this file; those of experiments come before.
METRICS: Final = tuple(
    dict.fromkeys(metric for metric in _made if metric not in {s.metric for s in CELL_SAMPLES})
)
#: /metrics/process; all others are on /metrics/shared.
PROCESS_METRICS: Final = METRICS[METRICS.index(JOB_LEASE_EXPIRATIONS) :]
RUN_METRICS: Final = tuple(metric for metric in METRICS if "run" in metric.labels)


def sample_names(metric: Metric) -> tuple[str, ...]:
    """Under which names Prometheus stores it."""
    suffixes = {
        "histogram": ("_bucket", "_sum", "_count"),
        "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    }.get(metric.kind, ("",))
    return tuple(metric.name + suffix for suffix in suffixes)
