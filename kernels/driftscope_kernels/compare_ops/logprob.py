"""Log-probability of one token per row: x_t − log Σ exp(x), after softcap and temperature.

In: logits [tokens, vocabulary] and the ids scored. Out: [tokens, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.fitted_rows import FittedRows
from driftscope_kernels.compare_ops.log_softmax import (
    CODE,
    SOFTMAXES,
    blocks_of,
    capped,
    divided,
    exact_logprob,
    log_softmax,
    moved_by_cap,
    scaled,
    scaled_exactly,
)
from driftscope_kernels.compare_ops.parameters import LogprobParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    roundoff,
)
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant
from driftscope_kernels.options import VOCABULARY_TILE

#: The fewest lanes in which a way here adds up a row: AVX2's float32.
_FEWEST_LANES: Final = 8

#: Softcap in the dtype of the logits, as Gemma 2 of Hugging Face and of vLLM have it.
_CAP: Final = (
    Choice("cap_in_dtype"),
    Choice("float32_cap", "rounding_point", "logits are capped in float32"),
)
_TEMPERATURE: Final = (
    Choice("float32_temperature"),
    Choice(
        "temperature_in_dtype", "rounding_point", "logits divided by the temperature are rounded"
    ),
)
_SOFTMAX: Final = (
    Choice("log_softmax"),
    Choice("logsumexp", "primitive", "the logit less torch.logsumexp of the row"),
    Choice("shifted", "primitive", "the shifted logit less the log of Σ exp"),
    Choice("tiles", "reduction_order", f"Σ exp is added in tiles of {VOCABULARY_TILE} logits"),
    Choice("numpy", "reduction_order", "Σ exp is added pairwise, as numpy does"),
    Choice("float64_sum", "reduction_order", "exp and its sum are float64"),
)
#: Temperatures in use that a log-probability may have been divided by unasked.
_TEMPERATURES: Final = (0.6, 0.7, 0.8, 0.9, 1.1, 1.2)
_LOG_TEMPERATURES: Final = (math.log(1 / 32), math.log(32))
_LOG_CAPS: Final = (math.log(0.5), math.log(1000.0))


class LogprobFamily(Family[LogprobParameters]):
    outputs: Sequence[str] = ("logprob",)

    def reference(self, inputs: Inputs, parameters: LogprobParameters) -> Outputs:
        return (exact_logprob(inputs["logits"], inputs.tokens, parameters),)

    def tolerance(
        self,
        inputs: Inputs,
        parameters: LogprobParameters,
        dtype: torch.dtype,
        reference: Outputs,
    ) -> Outputs:
        """In float32 roundings: logit, maximum and result 4 each; Σ exp one per addition in the
        fewest lanes, relative, which is absolute in its logarithm; each exp by its argument's
        rounding, Σ p·|x − max|. The result is rounded to the dtype. Softcap and temperature move
        each logit by four roundings of the logits' dtype.
        """
        found = []
        for logits, tokens, right in blocks_of(inputs["logits"], inputs.tokens, reference[0]):
            scaled = scaled_exactly(logits, parameters)
            top = scaled.amax(-1, keepdim=True)
            probability = scaled.softmax(-1)
            chosen = scaled.gather(1, tokens)
            spread = (probability * (scaled - top).abs()).sum(-1, keepdim=True)
            additions = logits.shape[-1] / _FEWEST_LANES + VOCABULARY_TILE
            steps = 4 * (chosen.abs() + top.abs() + right.abs()) + spread + additions
            moved = FLOAT32 * steps + roundoff(dtype) * right.abs()
            relative = 0.0
            if parameters.temperature != 1.0 or parameters.softcap is not None:
                relative = 4 * max(roundoff(logits.dtype), FLOAT32)
            size = scaled.abs() + moved_by_cap(logits, parameters)
            found.append(moved + relative * (size.gather(1, tokens) + size.amax(-1, True)))
        return (torch.cat(found),)

    def variants(self, parameters: LogprobParameters) -> Sequence[Variant[LogprobParameters]]:
        return [_variant(way) for way in _ways(parameters)]

    def faults(self, parameters: LogprobParameters) -> Sequence[Variant[LogprobParameters]]:
        return list(_faults(parameters))

    def fitted(
        self, inputs: Inputs, parameters: LogprobParameters, seen: Outputs
    ) -> Sequence[Variant[LogprobParameters]]:
        row = FittedRows.of(inputs, seen[0])
        found: list[Variant[LogprobParameters]] = []
        temperature = row.solved(
            lambda value: replace(parameters, temperature=value), _LOG_TEMPERATURES
        )
        if temperature is not None and temperature != parameters.temperature:
            found += _temperature(temperature, parameters)
        cap = row.solved(lambda value: replace(parameters, softcap=value), _LOG_CAPS)
        if cap is not None and cap != parameters.softcap:
            found += _softcap(cap, parameters)
        return found


LOGPROB: Final = LogprobFamily()


def _ways(parameters: LogprobParameters) -> Iterator[Way]:
    cap = _CAP[:1] if parameters.softcap is None else _CAP
    temperature = _TEMPERATURE[:1] if parameters.temperature == 1.0 else _TEMPERATURE
    yield from ways("torch's log_softmax in float32", _SOFTMAX, cap, temperature)


def _variant(way: Way) -> Variant[LogprobParameters]:
    softmax, cap, temperature = way.choices

    def run(inputs: Inputs, parameters: LogprobParameters, dtype: torch.dtype) -> Outputs:
        logits = inputs["logits"]
        if cap == "float32_cap":
            logits = logits.float()
        logits = capped(logits, parameters)
        if temperature == "float32_temperature":
            logits = logits.float()
        logits = divided(logits, parameters).float()
        return (SOFTMAXES[softmax](logits, inputs.tokens[:, None]).to(dtype),)

    return Variant(way.name, way.reason, way.says, CODE[softmax], run)


def _faults(parameters: LogprobParameters) -> Iterator[Variant[LogprobParameters]]:
    for dtype, short in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        yield from _narrow(dtype, short, parameters)
    for temperature in dict.fromkeys((1.0, *_TEMPERATURES)):
        if temperature != parameters.temperature:
            yield from _temperature(temperature, parameters)
    if parameters.softcap is not None:
        yield from _with(
            parameters,
            lambda own: replace(own, softcap=None),
            "no_softcap",
            f"logits are not capped at {parameters.softcap:g}",
        )
    yield Variant(
        "not_normalised",
        "formula",
        "the logit itself is given",
        "logits.gather(1, ids[:, None])",
        lambda inputs, own, dtype: (
            inputs["logits"].gather(1, inputs.tokens[:, None]).to(dtype),
        ),
    )  # fmt: skip


def _narrow(
    narrow: torch.dtype, short: str, parameters: LogprobParameters
) -> Iterator[Variant[LogprobParameters]]:
    """Of float32 logits: rounding, but far beyond what float32 explains."""

    def rounded(inputs: Inputs, own: LogprobParameters, dtype: torch.dtype) -> Outputs:
        logits = scaled(inputs["logits"].float(), own).to(narrow).float()
        return (log_softmax(logits, inputs.tokens[:, None]).to(dtype),)

    def within(inputs: Inputs, own: LogprobParameters, dtype: torch.dtype) -> Outputs:
        logits = scaled(inputs["logits"].float(), own).to(narrow)
        return (log_softmax(logits, inputs.tokens[:, None]).to(dtype),)

    name = str(narrow).removeprefix("torch.")
    yield Variant(
        f"{short}_logits",
        "rounding_point",
        f"logits are rounded to {name} before log_softmax",
        f"torch.log_softmax(logits.to({narrow}).float(), -1).gather(1, ids[:, None])",
        rounded,
    )
    yield Variant(
        f"{short}_log_softmax",
        "dtype",
        f"log_softmax is given and gives {name}",
        f"torch.log_softmax(logits.to({narrow}), -1).gather(1, ids[:, None])",
        within,
    )


def _temperature(value: float, parameters: LogprobParameters) -> list[Variant[LogprobParameters]]:
    return _with(
        parameters,
        lambda own: replace(own, temperature=value),
        f"temperature={value:g}",
        f"the temperature is {value:g}, not {parameters.temperature:g}",
    )


def _softcap(value: float, parameters: LogprobParameters) -> list[Variant[LogprobParameters]]:
    return _with(
        parameters,
        lambda own: replace(own, softcap=value),
        f"softcap={value:g}",
        f"logits are capped at {value:g}",
    )


def _with(
    parameters: LogprobParameters,
    change: Callable[[LogprobParameters], LogprobParameters],
    name: str,
    says: str,
    reason: Reason = "formula",
) -> list[Variant[LogprobParameters]]:
    """In the two ways of the field: trainers and engines take log_softmax or logsumexp."""
    changed = change(parameters)
    found = []
    for way in _ways(changed):
        if way.choices[0] in ("log_softmax", "logsumexp"):
            inner = _variant(way)

            def run(
                inputs: Inputs,
                own: LogprobParameters,
                dtype: torch.dtype,
                inner: Variant[LogprobParameters] = inner,
            ) -> Outputs:
                return inner.run(inputs, change(own), dtype)

            found.append(Variant(f"{name}, {inner.name}", reason, says, inner.code, run))
    return found
