"""The ops: differentiable functions whose bits `contract.contract.CONTRACTS` fixes.

In: tensors in float32, bfloat16 or float16. Out: the same bits for a row whatever else is in the
batch, wherever the row is, however many threads run, from whichever implementation is there.
"""

from driftscope_kernels.autograd.arguments import ArgumentError, attach_main_grad
from driftscope_kernels.autograd.attention import attention
from driftscope_kernels.autograd.linear import bmm, linear, matmul
from driftscope_kernels.autograd.norm import add_rms_norm, rms_norm
from driftscope_kernels.autograd.reduction import mean, sum
from driftscope_kernels.autograd.rotary import rotary
from driftscope_kernels.autograd.softmax import log_softmax, logsumexp, softmax
from driftscope_kernels.autograd.swiglu import swiglu
from driftscope_kernels.autograd.token_logprob import TokenLogprob, token_logprob

__all__ = [
    "ArgumentError",
    "TokenLogprob",
    "add_rms_norm",
    "attention",
    "attach_main_grad",
    "bmm",
    "linear",
    "log_softmax",
    "logsumexp",
    "matmul",
    "mean",
    "rms_norm",
    "rotary",
    "softmax",
    "sum",
    "swiglu",
    "token_logprob",
]
