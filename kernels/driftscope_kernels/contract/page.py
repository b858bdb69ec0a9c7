"""docs/kernel-contract.md, rendered from the contracts.

In: CONTRACTS and the constants of exp and log. Out: Markdown; `python -m
driftscope_kernels.contract.page > docs/kernel-contract.md` writes it, a test compares.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from driftscope_kernels import options
from driftscope_kernels.contract.contract import CONTRACTS, Contract
from driftscope_kernels.options import ROW_BLOCK
from driftscope_kernels.reference import attention_tanh, exp, log

INTRODUCTION = f"""\
# The numeric contract of the kernels

Rendered by `python -m driftscope_kernels.contract.page`; edit `contract.py`, not this page.

A contract fixes every operation whose order or rounding could change a bit. All implementations
of an op give the same bits: the plain one in `driftscope_kernels/reference/`, which is the
contract spelled as numpy, and the fast ones. Nothing in a contract depends on the number of rows,
on where a row is, on the other rows, on strides or on the number of threads: that is why results
do not.

## What holds for all ops

- dtypes float32, bfloat16, float16; inputs are widened to float32, which is exact. Operations are
  IEEE 754 float32, to nearest even, subnormal numbers kept unless a contract says otherwise.
  `fma(a, b, c)` is a·b + c rounded once; nothing is contracted to an fma that is not written as
  one.
- Every NaN that an op returns is the positive quiet NaN with an empty payload: 0x7FC00000, 0x7FC0
  in bfloat16, 0x7E00 in float16.
- The caller's rounding mode and flush-to-zero flags play no part in compiled implementations;
  numpy and torch obey them, so `torch.set_flush_denormal(True)` is outside the contract of the
  reference.
- An incomplete last group of a lane sum is padded with +0, products with +0·+0.
- "Bound" is the distance from the exact result, to first order: u = 2^-24, u' the unit roundoff
  of the dtype returned (2^-24, 2^-8 bfloat16, 2^-11 float16), γ(n) = n·u / (1 − n·u).

## Gradients of weights and cuts into micro-batches

A weight gradient sums over the rows of a batch; its bits follow from the number and order of
rows. It is summed in blocks of {ROW_BLOCK} rows, and the blocks are added one after another. What
that promises:

- the same batch gives the same bits, at every run and number of threads;
- with `ops.attach_main_grad(parameter)`, a float32 sum of its own, a batch cut into micro-batches
  at multiples of {ROW_BLOCK} rows gives the bits of the whole batch: each block is added to
  `main_grad` in order, `.grad` stays None;
- without it, autograd adds up what each micro-batch returns. The bits of the whole batch come out
  if the parameter is float32 and every micro-batch after the first is one block of {ROW_BLOCK}
  rows; in other cuts sums are nested otherwise, and in 16 bits rounded in between.

Rows are counted over all dimensions but the last. A sequence that is not a multiple of
{ROW_BLOCK} tokens long shifts the blocks of those behind it: pad it, or cut elsewhere.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, _functions(), _presets()]
    parts += [_section(contract) for contract in CONTRACTS.values()]
    return "\n".join(parts)


def _section(contract: Contract) -> str:
    lines = [f"## {contract.op}", "", contract.computes, ""]
    lines.append(f"- Accumulates: {contract.accumulates}.")
    lines += [f"- {step}" for step in contract.steps]
    lines.append(f"- Rounds: {contract.rounds}")
    lines.append(f"- Special values: {contract.special}")
    lines += [f"- Gradient: {gradient}" for gradient in contract.gradients]
    if contract.uses:
        lines.append(f"- Uses: {', '.join(contract.uses)}, as spelled above.")
    if contract.options is not None:
        lines.append(f"- Options: `{contract.options.__name__}`.")
    if contract.bound is not None:
        lines.append(f"- Bound: {_first_paragraph(contract.bound)}")
    return "\n".join(lines) + "\n"


def _functions() -> str:
    return "\n".join(
        [
            "## exp, log and tanh",
            "",
            "Hexadecimal numbers are exact float32 values. No library's exp, log or tanh is used.",
            "",
            *_function("exp", exp, ("LOG2_E", "LN2_HIGH", "LN2_LOW", "LARGEST", "SMALLEST")),
            *_function("log", log, ("LN2_HIGH", "LN2_LOW")),
            *_function("tanh", attention_tanh, ("THRESHOLD",)),
        ]
    )


def _function(name: str, module: Any, constants: tuple[str, ...]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield from (line.strip() for line in (getattr(module, name).__doc__ or "").splitlines())
    yield f"- {(module.__doc__ or '').split('Out: ')[1].strip()}"
    for constant in constants:
        yield f"- {constant} = `{_hex(getattr(module, constant))}`"
    powers = ", ".join(f"`{_hex(c)}`" for c in module.COEFFICIENTS)
    yield f"- Coefficients, lowest power first: {powers}"
    yield ""


def _hex(value: np.float32) -> str:
    return float(value).hex().replace("0000000p", "p")


def _presets() -> str:
    rows = ["## Options and presets", "", "| option | values | vllm | transformers |"]
    rows.append("|---|---|---|---|")
    for part in dataclasses.fields(options.Preset):
        kind = typing.get_type_hints(options.Preset)[part.name]
        for field in dataclasses.fields(kind):
            values = typing.get_args(typing.get_type_hints(kind)[field.name])
            chosen = [
                getattr(getattr(preset, part.name), field.name)
                for preset in (options.VLLM, options.TRANSFORMERS)
            ]
            cells = [f"{part.name}.{field.name}", ", ".join(values), *chosen]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    sys.stdout.write(page())
