"""Metrics of /metrics: name, type, unit, labels, help. Those of an experiment stand with it.

Names follow Prometheus: prefix, base unit at the end. Δ is logp_trainer − logp_rollout of the
sampled token; space is part of the name: `logprob_abs_diff` in nats, `prob_abs_diff` as a ratio.
Every label is `run`, a model or kernel that the operator offers, or one of a few words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from driftscope_probes.drift import SERIES

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


@dataclass(frozen=True, slots=True)
class _Headline:
    """A number that the steps of a run and the cells of a probe have alike."""

    stem: str
    unit: str
    help: str
    sources: tuple[tuple[str, ...], ...]  # (key of Comparison.to_dict(), values of `labels` …)
    labels: tuple[str, ...] = ()


def _metric(
    kind: Kind, stem: str, unit: str, help_text: str, labels: tuple[str, ...] = ()
) -> Metric:
    name = "_".join(part for part in (stem, unit) if part)
    total = TOTAL if kind == "counter" else ""
    return Metric(f"{PREFIX}{name}{total}", kind, unit, help_text, labels)


def gauge(stem: str, unit: str, help_text: str, *labels: str) -> Metric:
    return _metric("gauge", stem, unit, help_text, labels)


def _counter(stem: str, unit: str, help_text: str, *labels: str) -> Metric:
    return _metric("counter", stem, unit, help_text, labels)


def _one(stem: str, unit: str, help_text: str, source: str) -> _Headline:
    return _Headline(stem, unit, help_text, ((source,),))


# fmt: off
_HEADLINES = (
    _one("logprob_abs_diff_mean", "nats", "Mean of |Δ| over tokens.", "abs_diff_mean"),
    _one("logprob_abs_diff_p50", "nats", "Median of |Δ| over tokens.", "abs_diff_p50"),
    _one("logprob_abs_diff_p99", "nats", "99th percentile of |Δ| over tokens.", "abs_diff_p99"),
    _one("logprob_abs_diff_max", "nats", "Largest |Δ| of any token.", "abs_diff_max"),
    _one("logprob_diff_mean", "nats", "Mean of Δ over tokens, signed.", "diff_mean"),
    _one("logprob_diff_std", "nats", "Standard deviation of Δ over tokens.", "diff_std"),
    _Headline(
        "kl", "nats",
        "KL(rollout || trainer) per token as k1 = mean(-Δ), k2 = mean(Δ²/2) or "
        "k3 = mean(e^Δ - 1 - Δ).",
        (("kl_k1", "k1"), ("kl_k2", "k2"), ("kl_k3", "k3")), ("estimator",),
    ),
    _one("reverse_kl", "nats", "KL(trainer || rollout) per token, mean(Δ e^Δ).",
         "kl_reverse_unbiased"),
    _one("js_divergence", "nats", "Jensen-Shannon term of NeMo-RL.", "js_divergence"),
    _Headline(
        "chi_squared", "ratio", "χ² of the weights over tokens or over sequences.",
        (("chi2_token", "token"), ("chi2_seq", "sequence")), ("level",),
    ),
    _one("prob_abs_diff_mean", "ratio", "Mean of |p_trainer - p_rollout| over tokens.",
         "prob_abs_diff_mean"),
    _one("prob_abs_diff_max", "ratio", "Largest |p_trainer - p_rollout|.", "prob_abs_diff_max"),
    _one("prob_abs_diff_std", "ratio", "Standard deviation of |p_trainer - p_rollout|.",
         "prob_abs_diff_std"),
    _one("prob_pearson", "ratio", "Pearson correlation of p_trainer and p_rollout over tokens.",
         "prob_pearson"),
    _one("token_mult_prob_error", "ratio", "Mean of e^|Δ| over tokens.", "token_mult_prob_error"),
    _Headline(
        "importance_weight", "ratio", "Statistic of the weights e^Δ over tokens, untruncated.",
        (("ratio_mean", "mean"), ("ratio_min", "min"), ("ratio_max", "max"), ("ratio_std", "std")),
        ("stat",),
    ),
    _Headline(
        "tokens_outside_bounds", "ratio", "Share of tokens whose weight e^Δ lies outside.",
        (("ratio_share_outside_0p5_2", "0.5_2"), ("ratio_share_outside_0p8_1p2", "0.8_1.2"),
         ("ratio_share_outside_0p9_1p1", "0.9_1.1")),
        ("bounds",),
    ),
    _one("tokens_above_ln2", "ratio", "Share of tokens with |Δ| above ln 2.",
         "abs_diff_share_above_ln2"),
    _one("confident_disagreement", "tokens",
         "Tokens with p_rollout above 0.5 whose Δ is below -2 nats.", "confident_disagreements"),
    _one("confident_disagreement", "ratio", "Share of confident disagreements among tokens.",
         "confident_disagreement_share"),
    _one("effective_sample", "ratio",
         "Effective sample size over tokens of the weights e^Δ, untruncated.", "ess_ratio_token"),
    _one("sequence_effective_sample", "ratio",
         "Effective sample size over sequences of their weights, untruncated.",
         "ess_ratio_sequence"),
    _one("bitwise_equal", "ratio",
         "Share of tokens whose two log-probabilities have the same bits.",
         "bitwise_equal_fraction"),
    _one("bitwise_equal_sequences", "ratio", "Share of sequences whose tokens all have.",
         "bitwise_equal_sequence_fraction"),
    _Headline(
        "log_perplexity", "nats", "Logarithm of the perplexity of the responses on a side.",
        (("training_log_ppl", "trainer"), ("rollout_log_ppl", "rollout")), ("side",),
    ),
    _one("log_perplexity_abs_diff", "nats",
         "Mean over sequences of the difference of both logarithms of perplexity, unsigned.",
         "log_ppl_diff_abs_mean"),
    _Headline(
        "sequence_logratio", "nats", "Statistic over sequences of the sum of Δ.",
        (("seq_logratio_mean", "mean"), ("seq_logratio_min", "min"),
         ("seq_logratio_max", "max"), ("seq_logratio_std", "std")),
        ("stat",),
    ),
    _one("sequence_logratio_slope", "nats",
         "Slope of the sum of Δ over the length of a sequence, per 1,000 tokens.",
         "seq_logratio_slope_per_1000_tokens"),
    _one("", "tokens", "Tokens compared.", "tokens"),
    _one("", "sequences", "Sequences compared.", "sequences"),
)
#: Of a step alone: a probe has one version of the weights and whole log-probabilities.
_STEP_HEADLINES = (
    _one("kl_entropy", "ratio", "KL as k3 over the mean entropy, where entropies were pushed.",
         "kl_k3_entropy_ratio"),
    _one("lag_mean", "steps", "Mean age of the rollout's weights over tokens, in train steps.",
         "lag_mean"),
    _one("lag_max", "steps", "Largest age of the rollout's weights, in train steps.", "lag_max"),
    _one("stale_tokens", "ratio", "Share of tokens rolled out by older weights.",
         "stale_token_share"),
    _one("staleness", "ratio",
         "Share of the stale tokens' difference that lies above that of fresh tokens.",
         "staleness_share"),
    _one("fresh_logprob_abs_diff_mean", "nats",
         "Mean of |Δ| over tokens rolled out by the current weights.", "lag0_abs_diff_mean"),
    _Headline(
        "hygiene", "tokens", "Tokens that were left out or look wrong, by what is the matter.",
        (("masked_tokens", "masked"), ("nonfinite_tokens", "nonfinite"),
         ("rollout_nonfinite", "rollout_nonfinite"), ("trainer_nonfinite", "trainer_nonfinite"),
         ("rollout_zero", "rollout_zero"), ("trainer_zero", "trainer_zero"),
         ("rollout_positive", "rollout_positive"), ("trainer_positive", "trainer_positive")),
        ("kind",),
    ),
    _Headline(
        "hygiene", "sequences", "Sequences with a token left out as not finite, or without any.",
        (("nonfinite_sequences", "nonfinite"), ("empty_sequences", "empty")), ("kind",),
    ),
)
# fmt: on


def _samples(
    headlines: tuple[_Headline, ...], prefix: str, subject: tuple[str, ...], when: str
) -> Iterator[Sample]:
    for headline in headlines:
        stem = "_".join(part for part in (prefix, headline.stem) if part)
        text = f"{headline.help} {when}"
        metric = gauge(stem, headline.unit, text, *subject, *headline.labels)
        for source, *more in headline.sources:
            yield Sample(metric, source, tuple(more))


#: Every cell of the last paired probe of every model.
CELL_SAMPLES = tuple(
    _samples(_HEADLINES, "paired", CELL_LABELS, "Last successful paired probe of the model.")
)
#: The highest step of every active run.
RUN_SAMPLES = tuple(
    _samples(_HEADLINES + _STEP_HEADLINES, "run", ("run",), "Last step of the run.")
)

# fmt: off
RUNS = gauge("runs", "", "Runs: active ones, active ones beyond the cap, and idle ones. Only "
              "active ones have series of their own.", "state")
RUN_INFO = gauge(
    "run_info", "", "Always 1; what describes an active run, and the coarser dtype of both sides.",
    "run", "model", "framework", "engine", "rollout_dtype", "trainer_dtype", "precision",
)
RUN_LAST_STEP = gauge("run_last_step", "", "Number of the highest complete step.", "run")
RUN_LAST_STEP_TIME = gauge("run_last_step_timestamp", "seconds",
                            "Unix time at which the latest step was completed.", "run")
RUN_STEP_INTERVAL = gauge("run_step_interval", "seconds",
                           "Mean time between two steps over the whole run.", "run")
RUN_FINISHED = gauge("run_finished", "", "1 where the run was said to have ended, else 0; a later "
                      "step opens it again.", "run")
RUN_STEPS = _counter("run_steps", "", "Complete steps of the run.", "run")
RUN_TOKENS = _counter("run_compared_tokens", "", "Tokens compared in all steps.", "run")
RUN_NONFINITE = _counter("run_nonfinite_tokens", "",
                         "Tokens of all steps left out because a side is not finite.", "run")
RUN_CONFIDENT = _counter("run_confident_disagreements", "",
                         "Confident disagreements in all steps.", "run")
RUN_ABS_DIFF = _metric(
    "gaugehistogram", "run_token_logprob_abs_diff", "nats",
    "Distribution of |Δ| over the tokens of the last step, from binned counts; le=\"0\" holds the "
    "exactly equal ones. It is no counter: read it without rate().", ("run",),
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

STORAGE = gauge("storage", "bytes", "Size of what the data folder holds.", "kind")
TOKEN_BUDGET = gauge("token_budget", "bytes", "Disk space that tokens of steps may take.")
DISK_FREE = gauge("disk_free", "bytes", "Free space on the disk of the data folder.")
DISK_SIZE = gauge("disk_size", "bytes", "Size of the disk of the data folder.")
DISK_RESERVED = gauge("disk_reserved", "bytes", "Free space below which no push is accepted.")
BUILD_INFO = gauge("build_info", "", "Always 1; the version is a label.", "version")
# fmt: on

#: Values of labels that are not told by the code that counts them.
RUN_STATES = ("active", "beyond_cap", "idle")
DRIFT_STATES = ("not_enough_steps", "steady", "shifted", "trending")
DRIFT_METRICS = SERIES
STORAGE_KINDS = ("database", "tokens", "reports")
INGEST_RESULTS = ("accepted", "known", "refused")
#: In the order of the page, where those of experiments come before: Kind.metrics.
METRICS: tuple[Metric, ...] = (
    RUNS,
    RUN_INFO,
    RUN_LAST_STEP,
    RUN_LAST_STEP_TIME,
    RUN_STEP_INTERVAL,
    RUN_FINISHED,
    RUN_STEPS,
    RUN_TOKENS,
    RUN_NONFINITE,
    RUN_CONFIDENT,
    *dict.fromkeys(sample.metric for sample in RUN_SAMPLES),
    RUN_ABS_DIFF,
    RUN_LIMIT,
    RUN_LIMIT_USED,
    RUN_OVER_LIMIT,
    RUN_DRIFT_STATE,
    RUN_METRIC_DRIFT,
    RUN_CHANGE_STEP,
    RUN_CHANGE,
    RUN_TREND,
    JOBS,
    JOBS_OLDEST_QUEUED,
    JOBS_QUEUED_LIMIT,
    JOB_TIME_LIMIT,
    JOB_LAST_DURATION,
    WORKER_UP,
    HTTP_REQUESTS,
    HTTP_DURATION,
    INGEST_REQUESTS,
    INGEST_REFUSED,
    INGEST_BYTES,
    INGEST_IN_FLIGHT,
    INGEST_LIMIT,
    INGEST_DURATION,
    STORAGE,
    TOKEN_BUDGET,
    DISK_FREE,
    DISK_SIZE,
    DISK_RESERVED,
    BUILD_INFO,
)


def sample_names(metric: Metric) -> tuple[str, ...]:
    """Under which names Prometheus stores it."""
    suffixes = {
        "histogram": ("_bucket", "_sum", "_count"),
        "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    }.get(metric.kind, ("",))
    return tuple(metric.name + suffix for suffix in suffixes)
