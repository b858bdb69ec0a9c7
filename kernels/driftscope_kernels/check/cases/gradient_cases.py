"""Every gradient that can be checked. Out: the cases, one per gradient.

`<op>.grad_<input>` is the gradient of one input, `<op>.grad` those of all inputs, joined.
"""

from __future__ import annotations

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases import gradient_inputs as inputs
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
HEAD_CALL_S = 0.02  # two matrix products over the whole vocabulary
CALL_S = 0.004  # a call runs forward and backward, a weight gradient over all tokens

GRADIENT_CASES = (
    OpCase(
        op="attention_prefill.grad", kinds=_UNPAIRED, shapes=_PROMPTS, quick_shapes=_PROMPTS[:1],
        build=inputs.attention_grad, oracle=oracles.attention_grad, most_rows=9,
        layouts=False, least_n=16, slow_call_s=ATTENTION_CALL_S,
    ),
    OpCase(
        op="linear.grad_x", kinds=SIGNED, shapes=_MATRICES, quick_shapes=_QUICK_MATRICES,
        build=inputs.linear_grad_x, oracle=oracles.linear_grad_x,
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="linear.grad_weight", kinds=SIGNED, shapes=_TOKENS, quick_shapes=_TOKENS[:1],
        build=inputs.linear_grad_weight, oracle=oracles.linear_grad_weight, most_rows=33,
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="linear.grad_bias", kinds=SIGNED, shapes=_NORM_TOKENS, quick_shapes=_NORM_TOKENS[:1],
        build=inputs.linear_grad_bias, oracle=oracles.linear_grad_bias,
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="bmm.grad_x", kinds=SIGNED, shapes=_BATCHED, quick_shapes=_BATCHED[:1],
        build=inputs.bmm_grad_x, oracle=oracles.bmm_grad_x, most_rows=65,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="bmm.grad_weight", kinds=SIGNED, shapes=_BATCHED, quick_shapes=_BATCHED[:1],
        build=inputs.bmm_grad_weight, oracle=oracles.bmm_grad_weight, most_rows=65,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="rms_norm.grad_x", kinds=SIGNED, shapes=_ROWS, quick_shapes=_ROWS[:1],
        build=inputs.rms_norm_grad_x, oracle=oracles.rms_norm_grad_x,
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="rms_norm.grad_weight", kinds=SIGNED, shapes=_NORM_TOKENS, quick_shapes=_NORM_TOKENS[:1],
        build=inputs.rms_norm_grad_weight, oracle=oracles.rms_norm_grad_weight,
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="add_rms_norm.grad_x", kinds=SIGNED, shapes=_ROWS, quick_shapes=_ROWS[:1],
        build=inputs.add_rms_norm_grad_x, oracle=oracles.add_rms_norm_grad_x,
        constants=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="add_rms_norm.grad_weight", kinds=SIGNED, shapes=_NORM_TOKENS,
        quick_shapes=_NORM_TOKENS[:1],
        build=inputs.add_rms_norm_grad_weight, oracle=oracles.add_rms_norm_grad_weight,
        micro_batches=True, slow_call_s=CALL_S,
    ),
    OpCase(
        op="softmax.grad_x", kinds=SIGNED, shapes=_ROWS, quick_shapes=_ROWS[:1],
        build=inputs.softmax_grad_x, oracle=oracles.softmax_grad_x,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="log_softmax.grad_x", kinds=SIGNED, shapes=_ROWS, quick_shapes=_ROWS[:1],
        build=inputs.softmax_grad_x, oracle=oracles.log_softmax_grad_x,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="logsumexp.grad_x", kinds=POSITIVE, shapes=_ROWS, quick_shapes=_ROWS[1:2],
        build=inputs.logsumexp_grad_x, oracle=oracles.logsumexp_grad_x,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="swiglu.grad", kinds=TERMWISE, shapes=_ROWS, quick_shapes=_ROWS[1:2],
        build=inputs.swiglu_grad, oracle=oracles.swiglu_grad,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="rotary.grad", kinds=TERMWISE, shapes=(Shape(64), Shape(80)), quick_shapes=(Shape(64),),
        build=inputs.rotary_grad, oracle=oracles.rotary_grad,
        slow_call_s=CALL_S,
    ),
    OpCase(
        op="token_logprob.grad_x", kinds=SIGNED, shapes=_HEADS, quick_shapes=_HEADS[:1],
        build=inputs.token_logprob_grad_x, oracle=oracles.token_logprob_grad_x, most_rows=65,
        constants=True, slow_call_s=HEAD_CALL_S,
    ),
    OpCase(
        op="token_logprob.grad_weight", kinds=SIGNED, shapes=_TOKENS, quick_shapes=_TOKENS[:1],
        build=inputs.token_logprob_grad_weight, oracle=oracles.token_logprob_grad_weight,
        most_rows=33,
        micro_batches=True, slow_call_s=HEAD_CALL_S,
    ),
)  # fmt: skip
