"""Every metric of /metrics: name, labels, help. Nothing is exported that does not stand here.

Names follow Prometheus: prefix, base unit at the end. Δ is logp_trainer − logp_rollout of the
sampled token; space is part of the name: `logprob_abs_diff` in nats, `prob_abs_diff` as a ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A cell of the grid. The model is a name of the catalogue or of the settings, so all are bounded.
CELL_LABELS = ("model", "engine_dtype", "trainer_dtype")


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CellSample:
    """One number of every cell of the last paired probe of every model."""

    metric: Metric
    source: str  # key of Comparison.to_dict(); null there: the sample is left out
    more_labels: tuple[str, ...] = ()  # values of the metric's labels after CELL_LABELS


def _cell(name: str, help_text: str, *more_labels: str) -> Metric:
    text = f"{help_text} Last successful paired probe of the model."
    return Metric(f"driftscope_paired_{name}", text, CELL_LABELS + more_labels)


LOGPROB_ABS_DIFF_MEAN = _cell("logprob_abs_diff_mean_nats", "Mean of |Δ| over tokens.")
LOGPROB_ABS_DIFF_P99 = _cell("logprob_abs_diff_p99_nats", "99th percentile of |Δ| over tokens.")
LOGPROB_ABS_DIFF_MAX = _cell("logprob_abs_diff_max_nats", "Largest |Δ| of any token.")
KL = _cell(
    "kl_nats", "KL(rollout || trainer) per token as k1 = mean(-Δ) or k3 = mean(e^Δ - 1 - Δ).",
    "estimator",
)  # fmt: skip
PROB_ABS_DIFF_MEAN = _cell(
    "prob_abs_diff_mean_ratio", "Mean of |p_trainer - p_rollout| over tokens."
)
PROB_ABS_DIFF_MAX = _cell("prob_abs_diff_max_ratio", "Largest |p_trainer - p_rollout|.")
PROB_PEARSON = _cell(
    "prob_pearson_ratio", "Pearson correlation of p_trainer and p_rollout over tokens."
)
EFFECTIVE_SAMPLE = _cell(
    "effective_sample_ratio", "Effective sample size over tokens of the weights e^Δ, untruncated."
)
BITWISE_EQUAL = _cell(
    "bitwise_equal_ratio", "Share of tokens whose two log-probabilities have the same bits."
)
TOKENS = _cell("tokens", "Tokens compared.")

CELL_SAMPLES = (
    CellSample(LOGPROB_ABS_DIFF_MEAN, "abs_diff_mean"),
    CellSample(LOGPROB_ABS_DIFF_P99, "abs_diff_p99"),
    CellSample(LOGPROB_ABS_DIFF_MAX, "abs_diff_max"),
    CellSample(KL, "kl_k1", ("k1",)),
    CellSample(KL, "kl_k3", ("k3",)),
    CellSample(PROB_ABS_DIFF_MEAN, "prob_abs_diff_mean"),
    CellSample(PROB_ABS_DIFF_MAX, "prob_abs_diff_max"),
    CellSample(PROB_PEARSON, "prob_pearson"),
    CellSample(EFFECTIVE_SAMPLE, "ess_ratio_token"),
    CellSample(BITWISE_EQUAL, "bitwise_equal_fraction"),
    CellSample(TOKENS, "tokens"),
)

PAIRED_LAST_SUCCESS = Metric(
    "driftscope_paired_last_success_timestamp_seconds",
    "Unix time at which the last successful paired probe of the model was stored.",
    ("model",),
)
KERNEL_VERDICT = Metric(
    "driftscope_kernel_verdict",
    "1 where the last check of a kernel came to this verdict; several of one op may differ.",
    ("target", "op", "dtype", "threads", "verdict"),
)
#: Packages may register kernels under names of their own; the label takes no others than these.
KERNEL_TARGETS = ("driftscope", "torch", "vllm")
OTHER_TARGET = "other"
KERNEL_PLANTED = Metric(
    "driftscope_kernel_planted_faults",
    "Kernels with a planted fault in the last kernel check, all of which it must refute.",
)
KERNEL_PLANTED_CAUGHT = Metric(
    "driftscope_kernel_planted_caught_faults", "Planted faults that the last kernel check refuted."
)
KERNELS_LAST_SUCCESS = Metric(
    "driftscope_kernels_last_success_timestamp_seconds",
    "Unix time at which the last successful kernel check was stored.",
)
JOBS = Metric("driftscope_jobs", "Jobs in the job table by state.", ("state",))
BUILD_INFO = Metric("driftscope_build_info", "Always 1; the version is a label.", ("version",))

METRICS = (
    *dict.fromkeys(sample.metric for sample in CELL_SAMPLES),
    PAIRED_LAST_SUCCESS,
    KERNEL_VERDICT,
    KERNEL_PLANTED,
    KERNEL_PLANTED_CAUGHT,
    KERNELS_LAST_SUCCESS,
    JOBS,
    BUILD_INFO,
)
