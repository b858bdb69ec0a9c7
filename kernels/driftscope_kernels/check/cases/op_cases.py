"""Every op that can be checked: its inputs, its shapes, how exact its result must be.

In: op name. Out: OpCase. Names and shapes of inputs are those that `Kernel.run` receives
(docs/add-a-kernel.md has the table).
"""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_kernels.check.cases import case as kinds
from driftscope_kernels.check.cases import op_inputs as inputs
from driftscope_kernels.check.cases.case import ATTENTION_CALL_S, OpCase, Shape
from driftscope_kernels.check.cases.gradient_cases import GRADIENT_CASES
from driftscope_kernels.check.twins import oracles


class UnknownOpError(ValueError):
    """An op without a description of its inputs."""


def op_case(op: str) -> OpCase:
    if op not in OP_CASES:
        raise UnknownOpError(
            f"op {op!r}: the checker knows the inputs of {', '.join(OP_CASES)}; register the "
            "kernel under the one that it computes"
        )
    return OP_CASES[op]


SIGNED, POSITIVE, TERMWISE = kinds.SIGNED_KINDS, kinds.POSITIVE_KINDS, kinds.TERMWISE_KINDS
#: (K, N) of small models' projections, K cut to what one core checks in seconds; 1,536 is where
#: oneDNN begins to treat one row apart.
_MATRICES = (Shape(64, 48), Shape(576, 64), Shape(1536, 64), Shape(2048, 33))
_QUICK_MATRICES = (Shape(64, 48), Shape(1536, 64))
_ROWS = (Shape(64), Shape(576), Shape(1000), Shape(4864))
_QUICK_ROWS = (Shape(576), Shape(1000))
_CONTEXTS = (Shape(100, 64), Shape(300, 64), Shape(700, 64))
_QUICK_CONTEXTS = (Shape(100, 64), Shape(300, 64))
_PROMPTS = (Shape(100, 64), Shape(300, 64))

OP_CASES: Mapping[str, OpCase] = {
    case.op: case
    for case in (
        OpCase(
            op="linear", kinds=SIGNED, shapes=_MATRICES, quick_shapes=_QUICK_MATRICES,
            build=inputs.matrix, oracle=oracles.linear,
            constants=True,
        ),
        OpCase(
            op="mm", kinds=SIGNED, shapes=_MATRICES, quick_shapes=_QUICK_MATRICES,
            build=inputs.matrix, oracle=oracles.linear,
            constants=True,
        ),
        OpCase(
            op="bmm", kinds=SIGNED, shapes=(Shape(64, 16), Shape(576, 16)), quick_shapes=(Shape(64,
            16),),
            build=inputs.batched_matrix, oracle=oracles.bmm, most_rows=65,
        ),
        OpCase("sum", SIGNED, _ROWS, _QUICK_ROWS, inputs.reduction, oracles.sum_),
        OpCase("mean", SIGNED, _ROWS, _QUICK_ROWS, inputs.reduction, oracles.mean),
        OpCase(
            op="mean_strided", kinds=SIGNED, shapes=_ROWS, quick_shapes=_QUICK_ROWS,
            build=inputs.strided_reduction, oracle=oracles.mean,
            layouts=False,
        ),
        OpCase("softmax", POSITIVE, _ROWS, _QUICK_ROWS, inputs.exponentials, oracles.softmax),
        OpCase(
            op="log_softmax", kinds=POSITIVE, shapes=_ROWS, quick_shapes=_QUICK_ROWS,
            build=inputs.exponentials, oracle=oracles.log_softmax,
        ),
        OpCase("logsumexp", POSITIVE, _ROWS, _QUICK_ROWS, inputs.exponentials, oracles.logsumexp),
        OpCase(
            op="rms_norm", kinds=POSITIVE, shapes=_ROWS, quick_shapes=_QUICK_ROWS,
            build=inputs.squares, oracle=oracles.rms_norm,
            constants=True,
        ),
        OpCase(
            op="add_rms_norm", kinds=POSITIVE, shapes=_ROWS, quick_shapes=_QUICK_ROWS,
            build=inputs.added_squares, oracle=oracles.add_rms_norm,
            constants=True,
        ),
        OpCase(
            op="swiglu", kinds=TERMWISE, shapes=_ROWS, quick_shapes=_QUICK_ROWS,
            build=inputs.gated, oracle=oracles.swiglu,
        ),
        OpCase(
            op="rotary", kinds=TERMWISE, shapes=(Shape(64), Shape(80)), quick_shapes=(Shape(64),),
            build=inputs.rotated, oracle=oracles.rotary,
        ),
        OpCase(
            op="token_logprob", kinds=SIGNED, shapes=(Shape(64, 1000), Shape(576, 1000)),
            quick_shapes=(Shape(64, 1000),),
            build=inputs.token_logprob, oracle=oracles.token_logprob, most_rows=65, constants=True,
        ),
        OpCase(
            op="attention", kinds=SIGNED, shapes=_CONTEXTS, quick_shapes=_QUICK_CONTEXTS,
            build=inputs.decode, oracle=oracles.attention, most_rows=33,
            layouts=False, paged=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            op="attention_prefill", kinds=SIGNED, shapes=_PROMPTS, quick_shapes=_PROMPTS[:1],
            build=inputs.prefill, oracle=oracles.attention, most_rows=5,
            layouts=False, paged=True, prefill=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            op="sdpa", kinds=SIGNED, shapes=_CONTEXTS, quick_shapes=_QUICK_CONTEXTS,
            build=inputs.decode, oracle=oracles.attention, most_rows=33,
            layouts=False, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            op="sdpa_prefill", kinds=SIGNED, shapes=_PROMPTS, quick_shapes=_PROMPTS[:1],
            build=inputs.prefill, oracle=oracles.attention, most_rows=5,
            layouts=False, prefill=True, slow_call_s=ATTENTION_CALL_S,
        ),
        *GRADIENT_CASES,
    )
}  # fmt: skip
