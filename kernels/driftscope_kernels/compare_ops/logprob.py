"""Log-probability of one token per row: x_t − log Σ exp(x), after softcap and temperature.

In: logits [tokens, vocabulary] and the ids scored. Out: [tokens, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from driftscope_kernels.compare_ops.choices import Choice, Way, ways
from driftscope_kernels.compare_ops.parameters import LogprobParameters
from driftscope_kernels.compare_ops.precision import (
    FLOAT32,
    largest_at,
    roundoff,
    shortest_decimal,
)
from driftscope_kernels.compare_ops.variant import Family, Inputs, Outputs, Reason, Variant
from driftscope_kernels.options import VOCABULARY_TILE

#: Rows at a time in float64: 64 of a vocabulary of 256,000 are 130 MB.
_ROWS: Final = 64
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
#: Rows that a temperature is solved for from: two would do without rounding, and each try reads
#: whole rows.
_FITTED_ROWS: Final = 8
_STEPS: Final = 64
#: A number known no closer than to a tenth is not named.
_WIDEST: Final = 0.1


class LogprobFamily(Family[LogprobParameters]):
    outputs: Sequence[str] = ("logprob",)

    def reference(self, inputs: Inputs, parameters: LogprobParameters) -> Outputs:
        return (_exact(inputs["logits"], inputs.tokens, parameters),)

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
        for logits, tokens, right in _blocks(inputs["logits"], inputs.tokens, reference[0]):
            scaled = _scaled64(logits, parameters)
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
            size = scaled.abs() + _uncapped(logits, parameters)
            found.append(moved + relative * (size.gather(1, tokens) + size.amax(-1, True)))
        return (torch.cat(found),)

    def variants(self, parameters: LogprobParameters) -> Sequence[Variant[LogprobParameters]]:
        return [_variant(way) for way in _ways(parameters)]

    def faults(self, parameters: LogprobParameters) -> Sequence[Variant[LogprobParameters]]:
        return list(_faults(parameters))

    def fitted(
        self, inputs: Inputs, parameters: LogprobParameters, seen: Outputs
    ) -> Sequence[Variant[LogprobParameters]]:
        row = _Rows.of(inputs, seen[0])
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
        capped = _capped(logits, parameters)
        divided = capped if temperature == "temperature_in_dtype" else capped.float()
        scaled = _divided(divided, parameters).float()
        return (_SOFTMAXES[softmax](scaled, inputs.tokens[:, None]).to(dtype),)

    return Variant(way.name, way.reason, way.says, _CODE[softmax], run)


def _capped(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    if parameters.softcap is None:
        return logits
    return torch.tanh(logits / parameters.softcap) * parameters.softcap


def _divided(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return logits if parameters.temperature == 1.0 else logits / parameters.temperature


def _scaled(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return _divided(_capped(logits, parameters), parameters)


def _scaled64(logits: Tensor, parameters: LogprobParameters) -> Tensor:
    return _scaled(logits.double(), parameters)


def _uncapped(logits: Tensor, parameters: LogprobParameters) -> Tensor | float:
    """What a rounded quotient inside a tanh moves, at most: c·u·|x/c|·(1 − tanh²)."""
    if parameters.softcap is None:
        return 0.0
    inner = logits.double() / parameters.softcap
    return parameters.softcap * inner.abs() / inner.cosh().square() / parameters.temperature


def _log_softmax(x: Tensor, tokens: Tensor) -> Tensor:
    return torch.log_softmax(x, -1).gather(1, tokens)


def _logsumexp(x: Tensor, tokens: Tensor) -> Tensor:
    return x.gather(1, tokens) - torch.logsumexp(x, -1, keepdim=True)


def _shifted(x: Tensor, tokens: Tensor) -> Tensor:
    shifted = x - x.amax(-1, keepdim=True)
    return shifted.gather(1, tokens) - shifted.exp().sum(-1, keepdim=True).log()


def _tiles(x: Tensor, tokens: Tensor) -> Tensor:
    """Each tile's sum is by torch, against the maximum of the row; totals are added in order."""
    top = x.amax(-1, keepdim=True)
    total = torch.zeros_like(top)
    for tile in torch.split(x, VOCABULARY_TILE, -1):
        total = total + (tile - top).exp().sum(-1, keepdim=True)
    return x.gather(1, tokens) - (top + total.log())


def _numpy(x: Tensor, tokens: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True)
    total = torch.from_numpy((x - top).exp().numpy().sum(-1, keepdims=True))
    return x.gather(1, tokens) - (top + total.log())


def _float64_sum(x: Tensor, tokens: Tensor) -> Tensor:
    sums = [torch.logsumexp(block.double(), -1, keepdim=True) for block in torch.split(x, _ROWS)]
    return x.gather(1, tokens) - torch.cat(sums).float()


_SOFTMAXES: Final = {
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "shifted": _shifted,
    "tiles": _tiles,
    "numpy": _numpy,
    "float64_sum": _float64_sum,
}
_CODE: Final = {
    "log_softmax": "torch.log_softmax(logits.float(), -1).gather(1, ids[:, None])",
    "logsumexp": "logits.float().gather(1, ids[:, None]) - logits.float().logsumexp(-1, True)",
    "shifted": "s = x - x.amax(-1, True); s.gather(1, ids[:, None]) - s.exp().sum(-1, True).log()",
    "tiles": "sum((t - m).exp().sum(-1, True) for t in x.split(512, -1)).log()",
    "numpy": "torch.from_numpy((x - m).exp().numpy().sum(-1, keepdims=True)).log()",
    "float64_sum": "x.gather(1, ids[:, None]) - x.double().logsumexp(-1, True).float()",
}


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
        scaled = _scaled(inputs["logits"].float(), own).to(narrow).float()
        return (_log_softmax(scaled, inputs.tokens[:, None]).to(dtype),)

    def within(inputs: Inputs, own: LogprobParameters, dtype: torch.dtype) -> Outputs:
        scaled = _scaled(inputs["logits"].float(), own).to(narrow)
        return (_log_softmax(scaled, inputs.tokens[:, None]).to(dtype),)

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


def _exact(logits: Tensor, tokens: Tensor, parameters: LogprobParameters) -> Tensor:
    """float64 [tokens, 1]"""
    return torch.cat(
        [
            torch.log_softmax(_scaled64(rows, parameters), -1).gather(1, ids)
            for rows, ids, _ in _blocks(logits, tokens, tokens[:, None])
        ]
    )


def _blocks(
    logits: Tensor, tokens: Tensor, beside: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    parts = (torch.split(part, _ROWS) for part in (logits, tokens[:, None], beside))
    return zip(*parts, strict=True)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows that a number is solved for from."""

    logits: Tensor  # float64 [rows, vocabulary]
    tokens: Tensor
    seen: Tensor  # float64 [rows, 1]
    errors: tuple[float, float]  # of one value: where logits were scaled in float32, in dtype

    @staticmethod
    def of(inputs: Inputs, seen: Tensor) -> _Rows:
        step = max(1, len(seen) // _FITTED_ROWS)
        few = seen[::step].double().reshape(-1, 1)
        size = float(few.abs().amax()) if len(few) else 0.0
        # A seen value is rounded once to its dtype, and off by a few float32 roundings of logits.
        logits = inputs["logits"][::step]
        wide = 4 * FLOAT32 * float(logits.double().abs().amax()) if len(few) else 0.0
        error = roundoff(seen.dtype) * size + wide
        # Quotient, tanh and product: three roundings of the logits' dtype where it has 16 bit.
        narrow = 3 * roundoff(logits.dtype) * float(logits.double().abs().amax()) if len(few) else 0
        return _Rows(logits.double(), inputs.tokens[::step], few, (error, error + narrow))

    def solved(
        self,
        change: Callable[[float], LogprobParameters],
        between: tuple[float, float],
    ) -> float | None:
        """The number whose log-probabilities are those seen, if any does that within rounding."""
        if not len(self.seen) or not bool(self.seen.isfinite().all()):
            return None

        def nearness(log: float) -> float:
            return -float(self._gap(change(math.exp(log))).square().sum())

        step = (between[1] - between[0]) / _STEPS
        coarse = max((between[0] + i * step for i in range(_STEPS + 1)), key=nearness)
        best = largest_at(nearness, coarse - step, coarse + step)
        farthest = float(self._gap(change(math.exp(best))).abs().amax())
        error = next((error for error in self.errors if farthest <= 4 * error), None)
        slope = self._slope(change, best)
        if error is None or slope == 0.0:
            return None
        width = min(4 * error / slope, _WIDEST)
        return shortest_decimal(math.exp(best - width), math.exp(best + width))

    def _gap(self, parameters: LogprobParameters) -> Tensor:
        return _exact(self.logits, self.tokens, parameters) - self.seen

    def _slope(self, change: Callable[[float], LogprobParameters], log: float) -> float:
        """Root of Σ (change of a row per change of log)²: rows tell a number together."""
        ahead, behind = (self._gap(change(math.exp(log + d))) for d in (1e-4, -1e-4))
        return float((ahead - behind).norm()) / 2e-4
