"""The catalogue: one row per number of Comparison.to_dict(), with everything shown about it.

Labels, units, ideals, scales and names on /metrics are defined only here; everything that shows
numbers looks them up by name. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

#: How a value is written: plain; as a percentage; so that its distance from 1 is legible; as that
#: distance.
Form = Literal["plain", "fraction", "near_one", "one_minus"]
#: How changes over steps are measured. log: by the logarithm of the distance from the ideal, so
#: that a doubling is the same everywhere. linear: by the value itself, for signed numbers,
#: fractions and counts, which are often exactly 0.
ScaleKind = Literal["log", "linear"]


@dataclass(frozen=True, slots=True)
class Export:
    """A metric of /metrics, without the prefix that names its subject."""

    stem: str
    unit: str
    help: str
    label: str = ""  # tells the numbers of the metric apart; "": it has only one


@dataclass(frozen=True, slots=True)
class NumberRow:
    name: str  # in Comparison.to_dict()
    label: str
    unit: str = ""  # "": a count, a ratio or a probability
    form: Form = "plain"
    ideal: float = 0.0  # where both sides agree; 0 too where agreement fixes no value
    short: str = ""  # heading of a column
    narrow: str = ""  # the same in the terminal; "": as `short`
    scale: ScaleKind | None = None  # None: not followed over steps
    export: Export | None = None  # None: not on /metrics
    export_label: str = ""  # value of the export's label


_plain = NumberRow
_nats = partial(NumberRow, unit="nats")
_per_token = partial(NumberRow, unit="nats/token")
_fraction = partial(NumberRow, form="fraction")
_near_one = partial(NumberRow, form="near_one", ideal=1.0)

# fmt: off
_KL = Export("kl", "nats", "KL(rollout || trainer) per token as k1 = mean(-Δ), k2 = mean(Δ²/2) or "
             "k3 = mean(e^Δ - 1 - Δ).", "estimator")
_CHI2 = Export("chi_squared", "ratio", "χ² of the weights over tokens or over sequences.", "level")
_WEIGHT = Export("importance_weight", "ratio",
                 "Statistic of the weights e^Δ over tokens, untruncated.", "stat")
_OUTSIDE = Export("tokens_outside_bounds", "ratio",
                  "Share of tokens whose weight e^Δ lies outside.", "bounds")
_LOG_PPL = Export("log_perplexity", "nats",
                  "Logarithm of the perplexity of the responses on a side.", "side")
_LOG_RATIO = Export("sequence_logratio", "nats", "Statistic over sequences of the sum of Δ.",
                    "stat")
_BAD_TOKENS = Export("hygiene", "tokens",
                     "Tokens that were left out or look wrong, by what is the matter.", "kind")
_BAD_SEQUENCES = Export("hygiene", "sequences",
                        "Sequences with a token left out as not finite, or without any.", "kind")

#: In reading order. Δ = logp_trainer − logp_rollout, ρ = exp(Δ), S = ΣΔ of a sequence.
GROUPS: Final[Mapping[str, tuple[NumberRow, ...]]] = {
    "Difference in log-probability": (
        _nats("abs_diff_mean", "mean |Δ| over tokens", short="mean |Δ|", scale="log",
              export=Export("logprob_abs_diff_mean", "nats", "Mean of |Δ| over tokens.")),
        _nats("abs_diff_seq_mean", "mean |Δ| over sequences"),
        _nats("abs_diff_p50", "median |Δ|",
              export=Export("logprob_abs_diff_p50", "nats", "Median of |Δ| over tokens.")),
        _nats("abs_diff_p90", "90th percentile of |Δ|"),
        _nats("abs_diff_p95", "95th percentile of |Δ|"),
        _nats("abs_diff_p99", "99th percentile of |Δ|", short="p99 |Δ|", scale="log",
              export=Export("logprob_abs_diff_p99", "nats", "99th percentile of |Δ| over tokens.")),
        _nats("abs_diff_p99p9", "99.9th percentile of |Δ|"),
        _nats("abs_diff_p99p99", "99.99th percentile of |Δ|"),
        _nats("abs_diff_max", "largest |Δ|", short="max |Δ|", scale="log",
              export=Export("logprob_abs_diff_max", "nats", "Largest |Δ| of any token.")),
        _fraction("abs_diff_share_above_ln2", "tokens with |Δ| above ln 2", scale="linear",
                  export=Export("tokens_above_ln2", "ratio",
                                "Share of tokens with |Δ| above ln 2.")),
        _plain("confident_disagreements", "confident disagreements",
               export=Export("confident_disagreement", "tokens",
                             "Tokens with p_rollout above 0.5 whose Δ is below -2 nats.")),
        _fraction("confident_disagreement_share", "share of confident disagreements",
                  scale="linear", export=Export("confident_disagreement", "ratio",
                                                "Share of confident disagreements among tokens.")),
        _nats("diff_mean", "mean Δ, signed",
              export=Export("logprob_diff_mean", "nats", "Mean of Δ over tokens, signed.")),
        _nats("diff_std", "standard deviation of Δ",
              export=Export("logprob_diff_std", "nats", "Standard deviation of Δ over tokens.")),
    ),
    "KL divergence, KL(rollout ‖ trainer)": (
        _nats("kl_k1", "k1 = mean(−Δ)", scale="linear", export=_KL, export_label="k1"),
        _nats("kl_k2", "k2 = mean(½Δ²)", export=_KL, export_label="k2"),
        _nats("kl_k3", "k3 = mean(ρ − 1 − Δ)", short="k3", scale="log",
              export=_KL, export_label="k3"),
    ),
    "Other divergences": (
        _nats("kl_reverse_k3", "mean(1/ρ − 1 + Δ), reverse k3"),
        _nats("kl_reverse_unbiased", "mean(ρΔ), KL(trainer ‖ rollout)",
              export=Export("reverse_kl", "nats",
                            "KL(trainer || rollout) per token, mean(Δ e^Δ).")),
        _nats("js_divergence", "Jensen-Shannon term of NeMo-RL",
              export=Export("js_divergence", "nats", "Jensen-Shannon term of NeMo-RL.")),
        _nats("binary_kl_mean", "mean binary KL"),
        _nats("binary_kl_max", "largest binary KL"),
        _plain("chi2_token", "χ² over tokens", export=_CHI2, export_label="token"),
        _plain("chi2_token_saturated", "tokens at the bound of χ²"),
        _plain("chi2_seq", "χ² over sequences", export=_CHI2, export_label="sequence"),
        _plain("chi2_seq_saturated", "sequences at the bound of χ²"),
    ),
    "Difference in probability": (
        _plain("prob_abs_diff_mean", "mean |p trainer − p rollout|", scale="log",
               export=Export("prob_abs_diff_mean", "ratio",
                             "Mean of |p_trainer - p_rollout| over tokens.")),
        _plain("prob_abs_diff_max", "largest |p trainer − p rollout|",
               export=Export("prob_abs_diff_max", "ratio", "Largest |p_trainer - p_rollout|.")),
        _plain("prob_abs_diff_std", "standard deviation of |p trainer − p rollout|",
               export=Export("prob_abs_diff_std", "ratio",
                             "Standard deviation of |p_trainer - p_rollout|.")),
        _plain("prob_abs_diff_seq_mean", "mean |p trainer − p rollout| over sequences"),
        _plain("prob_diff_mean", "mean p trainer − p rollout, signed"),
        _near_one("prob_pearson", "Pearson correlation of probabilities",
                  short="1 − Pearson", narrow="1−Pearson", scale="log",
                  export=Export("prob_pearson", "ratio",
                                "Pearson correlation of p_trainer and p_rollout over tokens.")),
        _near_one("token_mult_prob_error", "mean exp |Δ|", scale="log",
                  export=Export("token_mult_prob_error", "ratio", "Mean of e^|Δ| over tokens.")),
        _near_one("seq_mult_prob_error_mean", "mean exp |Δ| over sequences"),
        _near_one("seq_mult_prob_error_min", "smallest mean exp |Δ| of a sequence"),
        _near_one("seq_mult_prob_error_max", "largest mean exp |Δ| of a sequence"),
    ),
    "Importance ratio ρ": (
        _near_one("ratio_mean", "mean ρ", export=_WEIGHT, export_label="mean"),
        _near_one("ratio_min", "smallest ρ", export=_WEIGHT, export_label="min"),
        _near_one("ratio_max", "largest ρ", export=_WEIGHT, export_label="max"),
        _plain("ratio_std", "standard deviation of ρ", export=_WEIGHT, export_label="std"),
        _plain("ratio_abs_dev_mean", "mean |ρ − 1|"),
        _fraction("ratio_share_outside_0p5_2", "tokens with ρ outside [0.5, 2]",
                  short="ρ outside [0.5,\u00a02]", narrow="ρ∉[0.5,2]",
                  export=_OUTSIDE, export_label="0.5_2"),
        _fraction("ratio_share_above_2", "tokens with ρ above 2"),
        _fraction("ratio_share_below_0p5", "tokens with ρ below 0.5"),
        _fraction("ratio_share_outside_0p9_1p1", "tokens with ρ outside [0.9, 1.1]",
                  short="ρ outside [0.9,\u00a01.1]", narrow="ρ∉[0.9,1.1]",
                  export=_OUTSIDE, export_label="0.9_1.1"),
        _fraction("ratio_share_outside_0p8_1p2", "tokens with ρ outside [0.8, 1.2]",
                  export=_OUTSIDE, export_label="0.8_1.2"),
        _near_one("ess_ratio_token", "effective sample size / tokens",
                  short="1 − ESS/n", narrow="1−ESS/n", scale="log",
                  export=Export("effective_sample", "ratio", "Effective sample size over tokens of "
                                "the weights e^Δ, untruncated.")),
        _near_one("ess_ratio_sequence", "effective sample size / sequences",
                  export=Export("sequence_effective_sample", "ratio", "Effective sample size over "
                                "sequences of their weights, untruncated.")),
        _near_one("ess_ratio_token_truncated", "ESS / tokens, ρ capped at 2"),
        _near_one("ess_ratio_sequence_truncated",
                  "ESS / sequences, exp S capped at 2"),
    ),
    "Sequence log-ratio S": (
        _nats("seq_logratio_mean", "mean S", export=_LOG_RATIO, export_label="mean"),
        _nats("seq_logratio_std", "standard deviation of S", short="std S",
              export=_LOG_RATIO, export_label="std"),
        _nats("seq_logratio_min", "smallest S", export=_LOG_RATIO, export_label="min"),
        _nats("seq_logratio_max", "largest S", export=_LOG_RATIO, export_label="max"),
        _per_token("seq_logratio_per_token_mean", "mean S per token"),
        _per_token("seq_logratio_per_token_std", "standard deviation of S per token"),
        _plain("seq_logratio_slope_per_1000_tokens", "slope of S over the length",
               "nats per 1,000 tokens", scale="linear",
               export=Export("sequence_logratio_slope", "nats", "Slope of the sum of Δ over the "
                             "length of a sequence, per 1,000 tokens.")),
        _near_one("seq_ratio_mean", "mean exp S"),
        _near_one("seq_ratio_min", "smallest exp S"),
        _near_one("seq_ratio_max", "largest exp S"),
        _near_one("seq_geo_ratio_mean", "mean geometric ratio"),
        _near_one("seq_geo_ratio_min", "smallest geometric ratio"),
        _near_one("seq_geo_ratio_max", "largest geometric ratio"),
    ),
    "Perplexity of the responses": (
        _plain("training_ppl", "perplexity by the trainer"),
        _per_token("training_log_ppl", "log-perplexity by the trainer",
                   export=_LOG_PPL, export_label="trainer"),
        _plain("rollout_ppl", "perplexity by the rollout"),
        _per_token("rollout_log_ppl", "log-perplexity by the rollout", scale="linear",
                   export=_LOG_PPL, export_label="rollout"),
        _per_token("log_ppl_diff_mean", "mean difference of log-perplexities"),
        _per_token("log_ppl_diff_abs_mean", "mean |difference of log-perplexities|",
                   export=Export("log_perplexity_abs_diff", "nats", "Mean over sequences of the "
                                 "difference of both logarithms of perplexity, unsigned.")),
        _per_token("log_ppl_diff_max", "largest difference of log-perplexities"),
        _per_token("log_ppl_diff_min", "smallest difference of log-perplexities"),
        _near_one("ppl_ratio", "mean ratio of perplexities"),
    ),
    "Bitwise equality": (
        _fraction("bitwise_equal_fraction", "bitwise equal tokens", ideal=1.0,
                  short="bitwise equal", narrow="bitwise =", scale="linear",
                  export=Export("bitwise_equal", "ratio", "Share of tokens whose two "
                                "log-probabilities have the same bits.")),
        _plain("bitwise_equal_sequences", "bitwise equal sequences"),
        _fraction("bitwise_equal_sequence_fraction", "share of bitwise equal sequences", ideal=1.0,
                  export=Export("bitwise_equal_sequences", "ratio",
                                "Share of sequences whose tokens all have.")),
        _plain("first_differing_token", "first differing token, counted from 0",
               short="first ≠ at"),
        _plain("first_differing_token_median", "median first differing token of a sequence"),
        _plain("ulp_distance_p50", "median distance in float32 ULPs"),
        _plain("ulp_distance_max", "largest distance in float32 ULPs"),
    ),
    "What was compared": (
        _plain("tokens", "tokens compared", short="tokens",
               export=Export("", "tokens", "Tokens compared.")),
        _plain("sequences", "sequences compared",
               export=Export("", "sequences", "Sequences compared.")),
        _plain("masked_tokens", "masked tokens", export=_BAD_TOKENS, export_label="masked"),
        _plain("nonfinite_tokens", "tokens left out: a side is not finite", scale="linear",
               export=_BAD_TOKENS, export_label="nonfinite"),
        _plain("nonfinite_sequences", "sequences with tokens left out",
               export=_BAD_SEQUENCES, export_label="nonfinite"),
        _plain("empty_sequences", "sequences without any token",
               export=_BAD_SEQUENCES, export_label="empty"),
        *(_plain(f"{side}_{what}", f"{side}: {words}",
                 export=_BAD_TOKENS, export_label=f"{side}_{what}")
          for what, words in (("nonfinite", "not finite"), ("nan", "NaN"),
                              ("minus_infinity", "−∞"), ("plus_infinity", "+∞"),
                              ("sentinel", "no log-probability, −100 or below"),
                              ("zero", "exactly 0"),
                              ("zero_unmatched", "exactly 0 where the other side is not"),
                              ("positive", "above 0"))
          for side in ("rollout", "trainer")),
        *(_plain(f"{side}_significant_bits", f"{side}: significant bits of its values")
          for side in ("rollout", "trainer")),
        *(_nats(f"{side}_half_step_p99", f"{side}: half a step of its grid, p99")
          for side in ("rollout", "trainer")),
        *(_nats(f"{side}_highest", f"{side}: how far above 0 at most")
          for side in ("rollout", "trainer")),
    ),
}
#: Only where a step brings entropies, positions or versions of the weights.
EXTRAS: Final = (
    _plain("first_differing_position", "first differing absolute position"),
    _plain("first_differing_position_median", "median of that over sequences"),
    _plain("first_differing_position_max", "largest of that over sequences"),
    _nats("entropy_mean", "mean entropy"),
    _plain("kl_k3_entropy_ratio", "k3 relative to the entropy", scale="log",
           export=Export("kl_entropy", "ratio",
                         "KL as k3 over the mean entropy, where entropies were pushed.")),
    _plain("lag_mean", "mean lag of the weights", "versions", scale="linear",
           export=Export("lag_mean", "steps",
                         "Mean age of the rollout's weights over tokens, in train steps.")),
    _plain("lag_max", "largest lag of the weights", "versions",
           export=Export("lag_max", "steps",
                         "Largest age of the rollout's weights, in train steps.")),
    _fraction("stale_token_share", "tokens from older weights", scale="linear",
              export=Export("stale_tokens", "ratio",
                            "Share of tokens rolled out by older weights.")),
    _nats("lag0_abs_diff_mean", "mean |Δ| at lag 0", scale="log",
          export=Export("fresh_logprob_abs_diff_mean", "nats",
                        "Mean of |Δ| over tokens rolled out by the current weights.")),
    _fraction("staleness_share", "share of |Δ| that older weights explain", scale="linear",
              export=Export("staleness", "ratio", "Share of the stale tokens' difference that lies "
                            "above that of fresh tokens.")),
)
# fmt: on
NUMBERS: Final[Mapping[str, NumberRow]] = {
    row.name: row for rows in (*GROUPS.values(), EXTRAS) for row in rows
}
