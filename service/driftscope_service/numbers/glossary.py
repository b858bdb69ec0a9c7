"""The glossary: every word and sign of the pages that a newcomer does not know, a fact per row.

What the catalogue of numbers or the table of verdicts says already is taken from there. Pages name
a row by its slug; `term` of the templates links to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from driftscope_probes.diagnosis.cause import NAMED_FROM
from driftscope_probes.diagnosis.floor import ABOVE_FLOOR_UP_TO, AT_FLOOR_UP_TO
from driftscope_probes.numbers import NUMBERS
from driftscope_probes.verdicts import (
    AXIS_VERDICTS,
    COMPARISON_VERDICTS,
    KERNEL_VERDICTS,
)
from driftscope_service.numbers.diagnosis_words import verdict_words


@dataclass(frozen=True, slots=True)
class Term:
    slug: str  # in the address, /glossary#slug
    name: str  # as the pages write it
    meaning: str  # one or two sentences
    formula: str = ""
    doc: str = "metrics"  # page under /docs that says more, with its #section

    @property
    def told(self) -> str:
        """In one line, where the term stands."""
        return f"{self.formula}. {self.meaning}" if self.formula else self.meaning


def _number(slug: str, name: str, shown: str, meaning: str, doc: str = "metrics") -> Term:
    """`name`: of the catalogue, whose label holds the formula; `shown`: as one says it."""
    row = NUMBERS[name]
    ideal = f" {row.ideal:g} where both sides agree." if row.scale or row.ideal else ""
    return Term(slug, shown, f"{meaning}{ideal}", row.label, doc)


def _verdict(slug: str, name: str, meaning: str, doc: str) -> Term:
    return Term(slug, name, f"{meaning[:1].upper()}{meaning[1:]}.", doc=doc)


_FINDING: Final = "finding-a-divergence"
_FLOOR: Final = "floor"
_DRIFT: Final = "drift-over-steps"
_PUSH: Final = "push-format"

SIDES: Final = (
    Term(
        "rollout",
        "rollout",
        "The side that sampled the tokens: the inference engine (vLLM, SGLang, "
        "transformers), with the log-probabilities that it reported.",
        doc=_FINDING,
    ),
    Term(
        "trainer",
        "trainer",
        "The side that scores the same tokens again and computes the gradient.",
        doc=_FINDING,
    ),
    Term(
        "step",
        "step",
        "One training step: the tokens of its rollouts with the log-probabilities of both sides.",
        doc=_PUSH,
    ),
    Term(
        "nats",
        "nats",
        "Unit of a natural logarithm. 0.01 nats are about 1 % of a probability; "
        "ln 2 = 0.693 nats are a factor of two.",
    ),
)
NUMBERS_TOLD: Final = (
    Term(
        "delta",
        "Δ",
        "Of one sampled token, in nats. Below 0 the trainer finds it less likely than "
        "the rollout did; 0 for every token is exactly on-policy.",
        "Δ = log p trainer − log p rollout",
        _FINDING,
    ),
    Term(
        "rho",
        "ρ",
        "Importance ratio of one token: how many times as likely the trainer finds "
        "it. 1 where both agree.",
        "ρ = exp Δ = p trainer / p rollout",
    ),
    Term(
        "S",
        "S",
        "Log-ratio of a sequence: the differences of its tokens add up, and exp S is its "
        "importance weight. 0 where both agree.",
        "S = ΣΔ over the tokens of a sequence",
    ),
    _number(
        "abs-diff-mean", "abs_diff_mean", "mean |Δ|", "How far apart both sides are per token."
    ),
    _number(
        "abs-diff-p99",
        "abs_diff_p99",
        "p99 |Δ|",
        "One token in a hundred is further apart than this: the tail, which a mean hides.",
    ),
    _number(
        "k1",
        "kl_k1",
        "k1",
        "Estimate of KL(rollout ‖ trainer) from the sampled tokens: unbiased, but "
        "it may be negative and noise cancels in it.",
    ),
    _number("k2", "kl_k2", "k2", "Estimate of the same KL: biased, never negative."),
    _number(
        "k3",
        "kl_k3",
        "k3",
        "Estimate of KL(rollout ‖ trainer): unbiased, never negative, and grows "
        "with the square of Δ.",
    ),
    _number(
        "pearson",
        "prob_pearson",
        "Pearson",
        "Correlation of the probabilities of both sides over the tokens; "
        "its distance from 1 is shown where it is closer than four decimals show.",
    ),
    _number(
        "ess",
        "ess_ratio_token",
        "ESS",
        "Effective sample size: how many equally weighted tokens the "
        "tokens with their weights ρ are worth, as a share.",
    ),
    Term(
        "confident-disagreement",
        "confident disagreement",
        "A token that the rollout was sure of and "
        "the trainer finds far less likely. Rounding does not make one.",
        "p rollout above 0.5 and Δ below −2 nats",
        "limits#martingale",
    ),
    Term(
        "perplexity",
        "log-perplexity",
        "Mean of −log p over the tokens of the responses on one side.",
        "−mean log p",
    ),
    Term(
        "bitwise-equal",
        "bitwise equal",
        "The two log-probabilities of a token are the same float32 number, to the last bit.",
    ),
    Term(
        "ulp", "ULP", "Unit in the last place: the step from one floating-point number to the next."
    ),
    Term(
        "lag",
        "lag",
        "Age of the weights that sampled a token, in train steps: 0 is on-policy.",
        "train_version − behavior_version",
        _PUSH,
    ),
    Term(
        "flip",
        "flip",
        "In a mixture of experts: a token and layer whose set of experts differs "
        "between both sides.",
        doc="metrics#routes-of-a-mixture-of-experts",
    ),
    Term(
        "not-finite",
        "not finite",
        "A log-probability that is NaN or infinite. It is left out of every "
        "number, counted, and beyond its limit.",
        doc="limits#numbers-that-are-not-finite",
    ),
    Term(
        "interval",
        "95 % interval",
        "From resampling sequences: where the number would lie for other "
        "sequences of the same kind.",
        doc=_FINDING,
    ),
)
ANSWERS: Final = (
    Term(
        "sigma",
        "σ",
        "Noise on the logits that explains the differences of a step: unlike a mean |Δ| "
        "it does not depend on how sure the model is of its text.",
        "σ = √(ΣΔ² / Σ(1 − p)²)",
        _FLOOR,
    ),
    Term(
        "floor",
        "floor",
        "The σ that rounding alone explains for a model and a pair of dtypes: "
        "measured on the model itself (calibrated), or what is known of its kind (prior).",
        doc=_FLOOR,
    ),
    Term(
        "excess",
        "excess",
        f"How many times the floor the noise of a step is. Up to {AT_FLOOR_UP_TO:g} is "
        f"rounding, up to {ABOVE_FLOOR_UP_TO:g} above the floor, more looks like a bug.",
        "measured σ / floor σ",
        _FLOOR,
    ),
    *(
        _verdict(f"verdict-{word.replace('_', '-')}", verdict_words(word), meaning, _FLOOR)
        for word, meaning in COMPARISON_VERDICTS.items()
    ),
    Term(
        "cause",
        "cause",
        "Why a step diverges, out of a catalogue. One is named where its confidence "
        f"is at least {NAMED_FROM:g}; else the step is unexplained.",
        doc="causes",
    ),
    Term(
        "confidence",
        "confidence",
        "Probability that a cause is the right one, calibrated on injected faults.",
        doc="drill",
    ),
    Term(
        "control",
        "what would settle it",
        "An experiment whose outcome differs between the causes that look alike.",
        doc="causes",
    ),
)
COURSE: Final = (
    Term(
        "limit",
        "limit",
        "What authors of a training framework published as the border of healthy, for "
        "the dtypes of the run. A reason to look, not a verdict.",
        doc="limits",
    ),
    Term("steady", "steady", "Within every limit, and no number has moved.", doc=_DRIFT),
    Term("shifted", "shifted", "A number has changed its level, and stays there.", doc=_DRIFT),
    Term("trending", "trending", "A number keeps moving the same way over the steps.", doc=_DRIFT),
    Term(
        "outlier",
        "outlier",
        "A single step far from its neighbours; the steps after it are as before.",
        doc=_DRIFT,
    ),
)
KERNELS: Final = (
    *(
        _verdict(f"kernel-{word.lower().replace('_', '-')}", word, meaning, "kernel-checker")
        for word, meaning in KERNEL_VERDICTS.items()
    ),
    *(
        _verdict(
            f"axis-{word.replace('_', '-')}", word.replace("_", " "), meaning, "determinism-probe"
        )
        for word, meaning in AXIS_VERDICTS.items()
    ),
    Term(
        "axis",
        "axis",
        "One thing that is changed while all else stays: batch size, threads, cache, chunks.",
        doc="determinism-probe",
    ),
    Term(
        "finding",
        "finding",
        "A setting that is known to make the two sides disagree: error where they cannot agree, "
        "warning where they differ in common cases, note where it matters when numbers are read.",
        doc="lint",
    ),
    Term(
        "replay",
        "replay",
        "A command that shows one difference again, bit for bit.",
        doc="kernel-checker",
    ),
)
GROUPS: Final[Mapping[str, tuple[Term, ...]]] = {
    "What is compared": SIDES,
    "Numbers": NUMBERS_TOLD,
    "What a diagnosis says": ANSWERS,
    "Over the steps": COURSE,
    "Kernels and engines": KERNELS,
}
TERMS: Final[Mapping[str, Term]] = {term.slug: term for terms in GROUPS.values() for term in terms}
#: The row that explains a number of the catalogue, where its label is not enough.
OF_NUMBER: Final[Mapping[str, str]] = {
    "abs_diff_mean": "abs-diff-mean",
    "abs_diff_p99": "abs-diff-p99",
    "abs_diff_max": "delta",
    "kl_k1": "k1",
    "kl_k2": "k2",
    "kl_k3": "k3",
    "prob_pearson": "pearson",
    "ess_ratio_token": "ess",
    "confident_disagreement_share": "confident-disagreement",
    "confident_disagreements": "confident-disagreement",
    "bitwise_equal_fraction": "bitwise-equal",
    "rollout_log_ppl": "perplexity",
    "training_log_ppl": "perplexity",
    "seq_logratio_mean": "S",
    "seq_logratio_std": "S",
    "ratio_mean": "rho",
    "lag_mean": "lag",
    "nonfinite_tokens": "not-finite",
}
