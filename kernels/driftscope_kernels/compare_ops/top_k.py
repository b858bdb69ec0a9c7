"""Weights and numbers of the experts that a router's logits choose: what is right, and ways to it.

In: logits [tokens, experts]. Out: weights [tokens, k] in the dtype asked for, experts [tokens, k]
int64, the heaviest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.parameters import TopKParameters
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant

#: Added to the sum of chosen sigmoids (transformers, DeepseekV3TopkRouter).
LEAST_SUM: Final = 1e-20
#: Roundings to the logits' dtype on the way: the probability, its quotient, and the weight.
ROUNDINGS: Final = 3.0
#: exp, the sum and the quotient of float32, in units of the last place.
SOFTMAX_ULPS: Final = 16.0
UNIT_ROUNDOFF_FLOAT32: Final = 2.0**-24
#: Scores closer than this share are in no order that float32 must keep.
TIED: Final = 2.0**-20

#: Logits and parameters to all scores, float32 or narrower; the choice may add a bias to them.
Scores = Callable[[Tensor, TopKParameters], Tensor]
#: Scores for the choice, and how many, to the chosen numbers.
Choice = Callable[[Tensor, int], Tensor]


class TopKFamily(Family[TopKParameters]):
    """Softmax over all experts; with a correction bias sigmoid, as DeepSeek-V3 has it."""

    outputs = ("weights", "experts")

    def reference(self, inputs: Inputs, parameters: TopKParameters) -> Outputs:
        return _chosen(_scores(inputs["logits"].double(), parameters), parameters, _by_size)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: TopKParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """Of an expert's number 0, or infinite where two scores are equal but for rounding."""
        logits = inputs["logits"]
        half = max(torch.finfo(dtype).eps, torch.finfo(logits.dtype).eps) / 2
        span = logits.double().abs().amax(1, keepdim=True)
        share = ROUNDINGS * half + (SOFTMAX_ULPS + span) * UNIT_ROUNDOFF_FLOAT32
        if not parameters.renormalise and parameters.correction_bias is None:
            # exp(logit − log Σ exp), the two and their difference rounded: a share of a logarithm
            # is a share of the weight times that logarithm.
            whole = logits.double().logsumexp(1, keepdim=True).abs()
            share = share + half * (whole + reference[0].log().abs())
        scores = _with_bias(_scores(logits.double(), parameters), parameters)
        most = min(parameters.experts_used + 1, scores.shape[1])
        best = scores.topk(most, dim=1).values
        tied = ((best[:, :-1] - best[:, 1:]) <= TIED * best[:, :-1].abs()).any(1, keepdim=True)
        free = torch.where(tied, torch.inf, 0.0).double().expand(reference[1].shape)
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        return share * reference[0].abs() + smallest, free

    def variants(self, parameters: TopKParameters) -> Sequence[Variant[TopKParameters]]:
        return tuple(_variants(parameters))

    def faults(self, parameters: TopKParameters) -> Sequence[Variant[TopKParameters]]:
        return tuple(_faults(parameters))


def _scores(logits: Tensor, parameters: TopKParameters) -> Tensor:
    if parameters.correction_bias is not None:
        return logits.sigmoid()
    return torch.softmax(logits, dim=-1)


def _with_bias(scores: Tensor, parameters: TopKParameters) -> Tensor:
    bias = parameters.correction_bias
    return scores if bias is None else scores + bias.to(scores.dtype)


def _by_size(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, dim=-1).indices


def _lowest_first(scores: Tensor, k: int) -> Tensor:
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :k]


def _highest_first(scores: Tensor, k: int) -> Tensor:
    order = scores.flip(-1).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return scores.shape[-1] - 1 - order


def _chosen(scores: Tensor, parameters: TopKParameters, choice: Choice) -> tuple[Tensor, Tensor]:
    experts = choice(_with_bias(scores, parameters), parameters.experts_used)
    weights = scores.gather(1, experts)
    if parameters.renormalise:
        total = weights.sum(dim=-1, keepdim=True)
        weights = weights / (total if parameters.correction_bias is None else total + LEAST_SUM)
    return weights, experts


def _of_chosen_logits(wide: bool) -> Callable[[Inputs, TopKParameters, torch.dtype], Outputs]:
    """Softmax over the chosen logits alone, in float32 or in their own dtype."""

    def run(inputs: Inputs, parameters: TopKParameters, dtype: torch.dtype) -> Outputs:
        logits = inputs["logits"].float() if wide else inputs["logits"]
        values, experts = torch.topk(logits, parameters.experts_used, dim=-1, sorted=False)
        if parameters.renormalise:
            weights = torch.softmax(values, dim=-1)
        else:
            weights = (values - torch.logsumexp(logits, dim=-1, keepdim=True)).exp()
        return weights.to(dtype), experts

    return run


def _variant(
    name: str,
    reason: Reason,
    says: str,
    code: str,
    way: Callable[[Tensor, TopKParameters], tuple[Tensor, Tensor]],
) -> Variant[TopKParameters]:
    def run(inputs: Inputs, parameters: TopKParameters, dtype: torch.dtype) -> Outputs:
        weights, experts = way(inputs["logits"], parameters)
        return weights.to(dtype), experts

    return Variant(name, reason, says, code, run)


def _variants(parameters: TopKParameters) -> Iterator[Variant[TopKParameters]]:
    biased = parameters.correction_bias is not None
    score = "sigmoid" if biased else "softmax"
    yield _variant(
        f"{score}_all",
        "rounding_point",
        f"the {score} of all logits is float32, and weights are rounded last",
        f"torch.topk({score}(logits.float()), k)",
        lambda logits, given: _chosen(_scores(logits.float(), given), given, _by_size),
    )
    if not biased:
        yield Variant(
            "softmax_chosen_in_dtype",
            "rounding_point",
            "the softmax is over the chosen logits alone, in their dtype",
            "torch.softmax(torch.topk(logits, k).values, -1)",
            _of_chosen_logits(wide=False),
        )
        yield Variant(
            "softmax_chosen",
            "rounding_point",
            "the softmax is over the chosen logits alone, in float32",
            "torch.softmax(torch.topk(logits.float(), k).values, -1)",
            _of_chosen_logits(wide=True),
        )
    yield _variant(
        "rounded_weights",
        "rounding_point",
        "weights are rounded to the dtype of the logits",
        f"torch.topk({score}(logits.float()), k).values.to(logits.dtype)",
        _rounded_weights,
    )
    yield _variant(
        f"{score}_in_dtype",
        "rounding_point",
        f"the {score} of all logits is rounded to their dtype before the choice",
        f"torch.topk({score}(logits), k)",
        lambda logits, given: _chosen(_scores(logits, given), given, _by_size),
    )
    yield _variant(
        "float64",
        "dtype",
        f"the {score} is float64",
        f"torch.topk({score}(logits.double()), k)",
        lambda logits, given: _chosen(_scores(logits.double(), given), given, _by_size),
    )
    for name, which, choice in (
        ("lowest", "lowest", _lowest_first),
        ("highest", "highest", _highest_first),
    ):
        yield _variant(
            f"ties_{name}_first",
            "primitive",
            f"of equal scores the {which} expert comes first",
            "scores.sort(descending=True, stable=True)",
            _with_ties(choice),
        )


def _rounded_weights(logits: Tensor, given: TopKParameters) -> tuple[Tensor, Tensor]:
    weights, experts = _chosen(_scores(logits.float(), given), given, _by_size)
    return weights.to(logits.dtype), experts


def _with_ties(choice: Choice) -> Callable[[Tensor, TopKParameters], tuple[Tensor, Tensor]]:
    return lambda logits, given: _chosen(_scores(logits.float(), given), given, choice)


def _faults(parameters: TopKParameters) -> Iterator[Variant[TopKParameters]]:
    def plain(logits: Tensor, given: TopKParameters) -> tuple[Tensor, Tensor]:
        return _chosen(_scores(logits.float(), given), given, _by_size)

    other = "without" if parameters.renormalise else "with"
    yield _variant(
        f"{other}_renormalisation",
        "formula",
        "weights are not made to add up to one"
        if parameters.renormalise
        else "weights are made to add up to one",
        "norm_topk_prob = " + str(not parameters.renormalise),
        lambda logits, given: plain(logits, replace(given, renormalise=not given.renormalise)),
    )
    yield from _other_scores(parameters)
    if parameters.renormalise:
        yield _variant(
            "one_more_expert",
            "formula",
            "weights are divided by the sum of one expert more",
            "w / topk(scores, k + 1).values.sum(-1, keepdim=True)",
            _shared_with_one_more,
        )
    bias = parameters.correction_bias
    if bias is not None:
        rounded = bias.bfloat16().to(bias.dtype)
        yield _variant(
            "bias_bf16",
            "dtype",
            "the correction bias is rounded to bf16",
            "e_score_correction_bias.bfloat16()",
            lambda logits, given: plain(logits, replace(given, correction_bias=rounded)),
        )
        yield _variant(
            "no_bias",
            "formula",
            "the correction bias is left out",
            "torch.topk(logits.sigmoid(), k)",
            lambda logits, given: plain(
                logits, replace(given, correction_bias=torch.zeros_like(bias))
            ),
        )
        yield _variant(
            "bias_in_weights",
            "formula",
            "weights contain the correction bias",
            "torch.topk(logits.sigmoid() + bias, k).values",
            lambda logits, given: _chosen(
                _with_bias(_scores(logits.float(), given), given),
                replace(given, correction_bias=None),
                _by_size,
            ),
        )


def _other_scores(parameters: TopKParameters) -> Iterator[Variant[TopKParameters]]:
    bias = parameters.correction_bias
    if bias is None:
        yield _variant(
            "sigmoid",
            "formula",
            "scores are sigmoids instead of a softmax",
            "torch.topk(logits.sigmoid(), k)",
            lambda logits, given: _chosen(logits.float().sigmoid(), given, _by_size),
        )
        return
    yield _variant(
        "softmax",
        "formula",
        "scores are a softmax instead of sigmoids",
        "torch.topk(logits.softmax(-1) + bias, k)",
        lambda logits, given: _chosen(torch.softmax(logits.float(), -1), given, _by_size),
    )


def _shared_with_one_more(logits: Tensor, given: TopKParameters) -> tuple[Tensor, Tensor]:
    most = min(given.experts_used + 1, logits.shape[-1])
    scores = _scores(logits.float(), given)
    weights, experts = _chosen(scores, replace(given, experts_used=most), _by_size)
    return weights[:, : given.experts_used], experts[:, : given.experts_used]
