"""What the environment asks of a vLLM process: which kernels, and where they round.

Free of torch and vllm.
The process that starts an engine sets the variables; `vllm_plugin.register` reads them in the
engine's process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Literal

from driftscope_kernels import options
from driftscope_kernels.options import (
    TRANSFORMERS_ATTENTION,
    VLLM_ATTENTION,
    AttentionOptions,
    NormOptions,
    RotaryOptions,
)

Kernels = Literal["stock", "invariant"]

KERNELS_VARIABLE = "DRIFTSCOPE_VLLM_KERNELS"
#: Where those kernels round: `vllm_plugin.rounding` has its values.
ROUNDING_VARIABLE = "DRIFTSCOPE_VLLM_ROUNDING"
#: "1": stock kernels whose weights can be written while the engine runs, as ours always can.
LOADABLE_VARIABLE = "DRIFTSCOPE_VLLM_LOADABLE"
STOCK: Kernels = "stock"
INVARIANT: Kernels = "invariant"


class KernelChoiceError(ValueError):
    """A choice of kernels that does not exist, or that this vLLM cannot take."""


def kernels_asked() -> Kernels:
    """What the environment asks for. Raises KernelChoiceError."""
    value = os.environ.get(KERNELS_VARIABLE) or STOCK
    if value == STOCK:
        return STOCK
    if value == INVARIANT:
        return INVARIANT
    raise KernelChoiceError(f"{KERNELS_VARIABLE} = {value!r}: choose {STOCK} or {INVARIANT}")


def loadable_asked() -> bool:
    return os.environ.get(LOADABLE_VARIABLE) == "1"


Preset = Literal["transformers", "vllm"]
#: Reinforcement learning wants the trainer's numbers from an engine.
DEFAULT: Preset = "transformers"


@dataclass(frozen=True, slots=True)
class RotaryRounding:
    halves: RotaryOptions  # pairs half a head apart (GPT-NeoX, Llama)
    interleaved: RotaryOptions  # pairs side by side (GPT-J)


@dataclass(frozen=True, slots=True)
class Rounding:
    """A field per op in which the two presets differ. SwiGLU and linear round alike in both."""

    norm: NormOptions
    rotary: RotaryRounding
    attention: AttentionOptions
    # Σ exp of log_softmax: along whole rows, or in tiles of the vocabulary as `ops.token_logprob`
    # adds it up, which sees no whole row.
    log_softmax: Literal["rows", "tiles"]
    # Experts of a mixture. "float32": weights and the weighted sum in float32, one rounding.
    # "model_dtype": weights, outputs of experts and products of the two rounded to the dtype, then
    # summed in float32 in the order of the router (transformers 5.19, integrations/moe.py,
    # grouped_mm_experts_forward).
    experts: Literal["float32", "model_dtype"]


PRESETS: dict[str, Rounding] = {
    "transformers": Rounding(
        norm=options.TRANSFORMERS.norm,
        rotary=RotaryRounding(options.TRANSFORMERS.rotary, options.TRANSFORMERS.rotary_interleaved),
        attention=TRANSFORMERS_ATTENTION,
        log_softmax="tiles",
        experts="model_dtype",
    ),
    "vllm": Rounding(
        norm=options.VLLM.norm,
        rotary=RotaryRounding(options.VLLM.rotary, options.VLLM.rotary_interleaved),
        attention=VLLM_ATTENTION,
        log_softmax="rows",
        experts="float32",
    ),
}
OPS = tuple(field.name for field in fields(Rounding))


def asked() -> str:
    """What the environment asks for, as it is written there."""
    return os.environ.get(ROUNDING_VARIABLE) or DEFAULT


def parse(text: str) -> Rounding:
    """Raises KernelChoiceError: not a preset, not an op."""
    name, *exceptions = text.split(",")
    if name not in PRESETS:
        raise KernelChoiceError(f"{ROUNDING_VARIABLE} = {text!r}: choose {' or '.join(PRESETS)}")
    chosen = {op: getattr(PRESETS[name], op) for op in OPS}
    for exception in exceptions:
        op, _, other = exception.partition("=")
        if op not in OPS or other not in PRESETS:
            raise KernelChoiceError(
                f"{ROUNDING_VARIABLE} = {text!r}: {exception!r} is not an exception; write "
                f"OP={'|'.join(PRESETS)}, with one of the ops {', '.join(OPS)}"
            )
        chosen[op] = getattr(PRESETS[other], op)
    return Rounding(**chosen)


class _InUse:
    """Read at every call of an op, so kept parsed."""

    text: str = DEFAULT
    rounding: Rounding = PRESETS[DEFAULT]


def use(text: str) -> None:
    """From now on, in this process; engines that are running follow. Raises KernelChoiceError."""
    _InUse.rounding = parse(text)
    _InUse.text = text


def in_use() -> Rounding:
    return _InUse.rounding


def text_in_use() -> str:
    return _InUse.text
