"""Every gradient that can be checked. Out: the cases, one per gradient.

`<op>.grad_<input>` is the gradient of one input, `<op>.grad` those of all inputs, joined.
"""

from __future__ import annotations

from driftscope_kernels.check.cases import gradient_inputs as inputs
from driftscope_kernels.check.cases import inputs as kinds
from driftscope_kernels.check.cases.case import ATTENTION_CALL_S, OpCase, Shape
from driftscope_kernels.check.twins import oracles

SIGNED, POSITIVE, TERMWISE = kinds.SIGNED_KINDS, kinds.POSITIVE_KINDS, kinds.TERMWISE_KINDS
#: Weights of attention leave no pair of terms equal.
_UNPAIRED = (kinds.NORMAL, kinds.WIDE, kinds.LINEAR_RANGE, kinds.ACTIVATIONS)
_PROMPTS = (Shape(70, 32), Shape(150, 32))
#: K up to 1,536, where oneDNN begins to treat one row apart.
_MATRICES = (Shape(64, 48), Shape(576, 64), Shape(1536, 64))
_QUICK_MATRICES = (Shape(64, 48), Shape(1536, 64))
_BATCHED = (Shape(64, 16), Shape(576, 16))
_ROWS = (Shape(64), Shape(576), Shape(1000))
#: Two tiles of the vocabulary, the second not full.
_HEADS = (Shape(64, 1000), Shape(576, 1000))
#: Tokens: nine blocks of 64, and a last one that is not full.
_TOKENS = (Shape(576, 48), Shape(1000, 48))
_NORM_TOKENS = (Shape(576), Shape(1000))
HEAD_CALL_S = 0.02  # of the head two matrix products of the whole vocabulary
CALL_S = 0.004  # a call runs forward and backward, a weight gradient over all tokens

GRADIENT_CASES = (
    OpCase(
        *("attention_prefill.grad", _UNPAIRED, _PROMPTS, _PROMPTS[:1]),
        *(inputs.attention_grad, oracles.attention_grad, 9),
        layouts=False, least_n=16, slow_call_s=ATTENTION_CALL_S,
    ),
    OpCase(
        *("linear.grad_x", SIGNED, _MATRICES, _QUICK_MATRICES),
        *(inputs.linear_grad_x, oracles.linear_grad_x),
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("linear.grad_weight", SIGNED, _TOKENS, _TOKENS[:1]),
        *(inputs.linear_grad_weight, oracles.linear_grad_weight, 33),
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("linear.grad_bias", SIGNED, _NORM_TOKENS, _NORM_TOKENS[:1]),
        *(inputs.linear_grad_bias, oracles.linear_grad_bias),
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("bmm.grad_x", SIGNED, _BATCHED, _BATCHED[:1]),
        *(inputs.bmm_grad_x, oracles.bmm_grad_x, 65),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("bmm.grad_weight", SIGNED, _BATCHED, _BATCHED[:1]),
        *(inputs.bmm_grad_weight, oracles.bmm_grad_weight, 65),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("rms_norm.grad_x", SIGNED, _ROWS, _ROWS[:1]),
        *(inputs.rms_norm_grad_x, oracles.rms_norm_grad_x),
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("rms_norm.grad_weight", SIGNED, _NORM_TOKENS, _NORM_TOKENS[:1]),
        *(inputs.rms_norm_grad_weight, oracles.rms_norm_grad_weight),
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("add_rms_norm.grad_x", SIGNED, _ROWS, _ROWS[:1]),
        *(inputs.add_rms_norm_grad_x, oracles.add_rms_norm_grad_x),
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("add_rms_norm.grad_weight", SIGNED, _NORM_TOKENS, _NORM_TOKENS[:1]),
        *(inputs.add_rms_norm_grad_weight, oracles.add_rms_norm_grad_weight),
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        *("softmax.grad_x", SIGNED, _ROWS, _ROWS[:1]),
        *(inputs.softmax_grad_x, oracles.softmax_grad_x),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("log_softmax.grad_x", SIGNED, _ROWS, _ROWS[:1]),
        *(inputs.softmax_grad_x, oracles.log_softmax_grad_x),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("logsumexp.grad_x", POSITIVE, _ROWS, _ROWS[1:2]),
        *(inputs.logsumexp_grad_x, oracles.logsumexp_grad_x),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("swiglu.grad", TERMWISE, _ROWS, _ROWS[1:2]),
        *(inputs.swiglu_grad, oracles.swiglu_grad),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("rotary.grad", TERMWISE, (Shape(64), Shape(80)), (Shape(64),)),
        *(inputs.rotary_grad, oracles.rotary_grad),
        slow_call_s=CALL_S,
    ),
    OpCase(
        *("token_logprob.grad_x", SIGNED, _HEADS, _HEADS[:1]),
        *(inputs.token_logprob_grad_x, oracles.token_logprob_grad_x, 65),
        constants=True, slow_call_s=HEAD_CALL_S,
    ),
    OpCase(
        *("token_logprob.grad_weight", SIGNED, _TOKENS, _TOKENS[:1]),
        *(inputs.token_logprob_grad_weight, oracles.token_logprob_grad_weight, 33),
        micro_batches=True, slow_call_s=HEAD_CALL_S,
    ),
)  # fmt: skip
