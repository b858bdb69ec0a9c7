"""Backward passes begun inside a block, during which the function mode has to be on.

torch takes a function mode off while a function runs that it has taken over, and with gradient
checkpointing forward passes run in there. So the engine is called from here, as torch.autograd
calls it. In: the arguments of the torch functions. Out: their result, or NotImplemented.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import _make_grads, _tensor_or_tensors_to_tuple
from torch.autograd.graph import _engine_run_backward


def _tuple(tensors: Any) -> tuple[Any, ...]:
    if isinstance(tensors, Mapping):
        return tuple(tensors.values())
    return (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)


def _backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> Any:
    if grad_variables is not None or not all(isinstance(t, Tensor) for t in _tuple(tensors)):
        return NotImplemented
    wanted = () if inputs is None else _tuple(inputs)
    return _run(_tuple(tensors), grad_tensors, retain_graph, create_graph, wanted, True, True)


def _tensor_backward(
    tensor: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> Any:
    return _backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)


def _grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> Any:
    given = _tuple(outputs)
    if is_grads_batched or materialize_grads or not all(isinstance(t, Tensor) for t in given):
        return NotImplemented
    unused = bool(allow_unused)
    return _run(given, grad_outputs, retain_graph, create_graph, _tuple(inputs), unused, False)


def _run(
    tensors: tuple[Tensor, ...],
    gradients: Any,
    retain_graph: bool | None,
    create_graph: bool,
    inputs: tuple[Any, ...],
    allow_unreachable: bool,
    accumulate_grad: bool,
) -> Any:
    given = _tensor_or_tensors_to_tuple(gradients, len(tensors))
    start = _make_grads(tensors, given, is_grads_batched=False)
    kept = create_graph if retain_graph is None else retain_graph
    found = _engine_run_backward(
        *(tensors, start, kept, create_graph, inputs),
        allow_unreachable=allow_unreachable,
        accumulate_grad=accumulate_grad,
    )
    return None if accumulate_grad else found


BACKWARDS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.backward: _tensor_backward,
    torch.autograd.backward: _backward,
    torch.autograd.grad: _grad,
}
