"""Every op that can be checked: its inputs, its shapes, how exact its result must be.

In: op name. Out: OpCase. Names and shapes of inputs are those that `Kernel.run` receives
(docs/add-a-kernel.md has the table).
"""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_kernels.check.cases import inputs as kinds
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
            *("linear", SIGNED, _MATRICES, _QUICK_MATRICES, inputs.matrix, oracles.linear),
            constants=True,
        ),
        OpCase(
            *("mm", SIGNED, _MATRICES, _QUICK_MATRICES, inputs.matrix, oracles.linear),
            constants=True,
        ),
        OpCase(
            *("bmm", SIGNED, (Shape(64, 16), Shape(576, 16)), (Shape(64, 16),)),
            *(inputs.batched_matrix, oracles.bmm, 65),
        ),
        OpCase("sum", SIGNED, _ROWS, _QUICK_ROWS, inputs.reduction, oracles.sum_),
        OpCase("mean", SIGNED, _ROWS, _QUICK_ROWS, inputs.reduction, oracles.mean),
        OpCase(
            *("mean_strided", SIGNED, _ROWS, _QUICK_ROWS, inputs.strided_reduction, oracles.mean),
            layouts=False,
        ),
        OpCase("softmax", POSITIVE, _ROWS, _QUICK_ROWS, inputs.exponentials, oracles.softmax),
        OpCase(
            *("log_softmax", POSITIVE, _ROWS, _QUICK_ROWS),
            *(inputs.exponentials, oracles.log_softmax),
        ),
        OpCase("logsumexp", POSITIVE, _ROWS, _QUICK_ROWS, inputs.exponentials, oracles.logsumexp),
        OpCase(
            *("rms_norm", POSITIVE, _ROWS, _QUICK_ROWS, inputs.squares, oracles.rms_norm),
            constants=True,
        ),
        OpCase(
            *("add_rms_norm", POSITIVE, _ROWS, _QUICK_ROWS),
            *(inputs.added_squares, oracles.add_rms_norm),
            constants=True,
        ),
        OpCase(
            *("swiglu", TERMWISE, _ROWS, _QUICK_ROWS),
            *(inputs.gated, oracles.swiglu),
        ),
        OpCase(
            *("rotary", TERMWISE, (Shape(64), Shape(80)), (Shape(64),)),
            *(inputs.rotated, oracles.rotary),
        ),
        OpCase(
            *("token_logprob", SIGNED, (Shape(64, 1000), Shape(576, 1000)), (Shape(64, 1000),)),
            *(inputs.token_logprob, oracles.token_logprob, 65), constants=True,
        ),
        OpCase(
            *("attention", SIGNED, _CONTEXTS, _QUICK_CONTEXTS),
            *(inputs.decode, oracles.attention, 33),
            layouts=False, paged=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("attention_prefill", SIGNED, _PROMPTS, _PROMPTS[:1]),
            *(inputs.prefill, oracles.attention, 5),
            layouts=False, paged=True, prefill=True, least_n=64, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("sdpa", SIGNED, _CONTEXTS, _QUICK_CONTEXTS, inputs.decode, oracles.attention, 33),
            layouts=False, slow_call_s=ATTENTION_CALL_S,
        ),
        OpCase(
            *("sdpa_prefill", SIGNED, _PROMPTS, _PROMPTS[:1], inputs.prefill, oracles.attention, 5),
            layouts=False, prefill=True, slow_call_s=ATTENTION_CALL_S,
        ),
        *GRADIENT_CASES,
    )
}  # fmt: skip
