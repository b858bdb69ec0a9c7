"""Weights: the two sides do not hold the same parameters.

In: a lab. Out: injections of stale engines, lost and reset tensors, quantised weights, adapters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import (
    E4M3_MAX,
    engine_step,
    finer,
    from_first_step,
    in_engine,
    in_trainer,
    noted,
    quantised_e4m3,
    sample,
    scored_by,
    strength,
    trainer_step,
)
from driftscope_probes.diagnosis.drill.faults.low_rank import (
    RANK,
    Adapter,
    adapter_of,
    apply_adapter,
    attach_adapter,
)
from driftscope_probes.diagnosis.drill.lab import GROUP, WEIGHTS_VERSION, Lab, Sampled
from driftscope_probes.diagnosis.drill.pool import rollout, scores
from driftscope_probes.diagnosis.drill.updates import Displacement, Rule, displacement, move
from driftscope_probes.push.pushed_step import PushedStep

#: Multiples of the displacement after a few real steps: from one of them to thousands.
STEP_BOUNDS = (0.03, 3000.0)
#: Fraction of a tensor's rows: one row of a large layer up to all of it.
ROWS_BOUNDS = (1e-3, 1.0)
MOST_LAG = 3  # weight versions; what asynchronous trainers allow at most is 1 to 8


def _moved(lab: Lab, setting: Setting, rule: Rule, severity: float) -> tuple[Displacement, float]:
    difference = displacement(lab, setting, rule)
    dose = strength(
        lab, setting, lambda model, by, _: move(model, difference, by), severity, 0, STEP_BOUNDS
    )
    return difference, dose


def _stale(rule: Rule) -> Any:
    def inject(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
        difference, dose = _moved(lab, setting, rule, severity)
        return trainer_step(lab, setting, move(lab.trainer(fresh=True), difference, dose))

    return inject


def joined(parts: list[Sampled], order: list[int]) -> Sampled:
    """Several rollouts as one; order[i]: which row of all, one after another, stands at i."""
    prompts = [prompt for part in parts for prompt in part.prompts]
    responses = [response for part in parts for response in part.responses]
    logprobs = [values for part in parts for values in part.logprobs]
    return replace(
        parts[0],
        prompts=tuple(prompts[row] for row in order),
        responses=tuple(responses[row] for row in order),
        logprobs=tuple(logprobs[row] for row in order),
    )


def subset(sampled: Sampled, rows: list[int]) -> Sampled:
    return joined([sampled], rows)


def by_versions(
    lab: Lab, setting: Setting, engines: list[Any], version: np.ndarray[Any, Any]
) -> Sampled:
    """Row i sampled by engines[version[i]]; None stands for the healthy engine."""
    parts: list[Sampled] = []
    rows: list[int] = []
    for index, engine in enumerate(engines):
        own = np.flatnonzero(version == index).tolist()
        if not own:
            continue
        whole = rollout(lab, setting) if engine is None else sample(lab, setting, engine)
        parts.append(subset(whole, own))
        rows += own
    return joined(parts, np.argsort(rows).tolist())


def _lagging(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """About half the groups come from before the last update, and the versions say so."""
    difference, dose = _moved(lab, setting, "gradient", severity)
    groups = rng.permutation(-(-setting.sequences // GROUP)) % 2
    old = np.repeat(groups, GROUP)[: setting.sequences]
    newer = move(lab.engine(fresh=True), difference, dose)
    sampled = by_versions(lab, setting, [newer, None], old)
    scored = scored_by(lab, setting, sampled, move(lab.trainer(fresh=True), difference, dose))
    return lab.step(sampled, scored, behavior_version=(WEIGHTS_VERSION - old).astype(np.int32))


def _lags(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """Several lags at once, as a queue of an asynchronous trainer holds them."""
    difference, dose = _moved(lab, setting, "adam", severity)
    lag = rng.integers(0, MOST_LAG + 1, size=setting.sequences)
    lag[: MOST_LAG + 1] = np.arange(MOST_LAG + 1)[: len(lag)]
    engines: list[Any] = [
        move(lab.engine(fresh=True), difference, dose * (1 - index / MOST_LAG))
        for index in range(MOST_LAG)
    ]
    sampled = by_versions(lab, setting, [*engines, None], lag)
    scored = scored_by(lab, setting, sampled, move(lab.trainer(fresh=True), difference, dose))
    return lab.step(sampled, scored, behavior_version=(WEIGHTS_VERSION - lag).astype(np.int32))


#: A float32 trainer's update, in units of the displacement, that bf16 rounds away almost wholly.
SUB_ULP_STEPS = (0.5, 4.0)


def _sub_ulp(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    mixed = Lab(lab.model_folder, "bf16", "fp32", lab.seed)
    difference = displacement(lab, setting, "adam")
    low, high = SUB_ULP_STEPS
    dose = low * (high / low) ** severity
    sampled = sample(mixed, setting, move(mixed.engine(fresh=True), difference, dose))
    trainer = move(mixed.trainer(fresh=True), difference, dose)
    return mixed.step(
        sampled,
        scored_by(mixed, setting, sampled, trainer),
    )


def _lost_increments(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The engine adds each step's update to its bf16 weights, where every one of them is lost."""
    mixed = Lab(lab.model_folder, "bf16", "fp32", lab.seed)
    difference, dose = _moved(lab, setting, "adam", severity)
    return trainer_step(mixed, setting, move(mixed.trainer(fresh=True), difference, dose))


def _matrices(model: Any) -> list[tuple[str, Tensor]]:
    """All weight matrices of the layers; experts' [experts, out, in] as they are."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if ".layers." in name and parameter.ndim > 1
    ]


def lose_rows(model: Any, fraction: float, seed: int) -> Any:
    """The last rows of one matrix are zero: a shard that a reload did not bring."""
    matrices = _matrices(model)
    _, tensor = matrices[int(np.random.default_rng(seed).integers(len(matrices)))]
    with torch.no_grad():
        rows = tensor.flatten(0, -2)
        rows[len(rows) - max(1, round(fraction * len(rows))) :] = 0.0
    return model


def reset_tensor(model: Any, fraction: float, seed: int) -> Any:
    """Part of one matrix as it was initialised: normal, of the same standard deviation."""
    matrices = _matrices(model)
    _, tensor = matrices[int(np.random.default_rng([seed, 1]).integers(len(matrices)))]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        columns = max(1, round(fraction * tensor.shape[-1]))
        part = tensor[..., :columns]
        fresh = torch.randn(part.shape, generator=generator) * tensor.float().std()
        part.copy_(fresh)
    return model


def _each_linear(model: Any) -> list[Tensor]:
    """What engines quantise: the layers' matrices, not the embedding, the head or the router."""
    return [tensor for name, tensor in _matrices(model) if not name.endswith(".gate.weight")]


INT4_GROUP, NORMAL_GROUP = 32, 64
#: NF4 has 4; more make the milder half of the severities.
LEAST_BITS, MOST_BITS = 4, 6
#: Formats from barely visible to gross; int8 with a scale per row is below the floor of bf16.
FORMATS = ("fp8", "int4", "int4-row")


def quantise(model: Any, form: str) -> Any:
    """int8 and int4-row per row, fp8 e4m3 per tensor, int4 in groups: all linear weights, rounded
    and back."""
    with torch.no_grad():
        for tensor in _each_linear(model):
            wide = tensor.float()
            if form == "fp8":
                tensor.copy_(quantised_e4m3(wide, float(wide.abs().amax()) / E4M3_MAX))
                continue
            most = 127.0 if form == "int8" else 7.0
            groups = (
                wide
                if form in ("int8", "int4-row")
                else wide.reshape(*wide.shape[:-1], -1, INT4_GROUP)
            )
            scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12) / most
            rounded = (groups / scale).round().clamp(-most, most) * scale
            tensor.copy_(rounded.reshape(wide.shape))
    return model


def quantise_to_normal_levels(model: Any, bits: int) -> Any:
    """NF4 of QLoRA with 2^bits levels: quantiles of a normal variable, in groups of 64."""
    probabilities = (torch.arange(2**bits) + 0.5) / 2**bits
    levels = torch.special.ndtri(probabilities)
    levels = levels / levels.abs().amax()
    with torch.no_grad():
        for tensor in _each_linear(model):
            groups = tensor.float().reshape(-1, NORMAL_GROUP)
            scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-12)
            nearest = torch.bucketize(groups / scale, (levels[1:] + levels[:-1]) / 2)
            tensor.copy_((levels[nearest] * scale).reshape(tensor.shape))
    return model


def _quantised_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    form = FORMATS[min(int(severity * len(FORMATS)), len(FORMATS) - 1)]
    sampled = sample(lab, setting, quantise(lab.engine(fresh=True), form))
    # Half the trainers note the engine's format, the others only the dtype it computes in.
    metadata = {"rollout_dtype": form.removesuffix("-row")} if rng.random() < 0.5 else {}
    return lab.step(sampled, scores(lab, setting, sampled), metadata)


def _quantised_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    bits = round(MOST_BITS + (LEAST_BITS - MOST_BITS) * severity)
    return trainer_step(lab, setting, quantise_to_normal_levels(lab.trainer(fresh=True), bits))


def _adapter(lab: Lab, setting: Setting, severity: float) -> tuple[Adapter, float]:
    adapter = adapter_of(displacement(lab, setting, "adam"))
    dose = strength(
        lab,
        setting,
        lambda model, by, _: apply_adapter(model, adapter, by),
        severity,
        0,
        STEP_BOUNDS,
    )
    return adapter, dose


def _adapter_missing_in_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    adapter, dose = _adapter(lab, setting, severity)
    return trainer_step(lab, setting, attach_adapter(lab.trainer(fresh=True), adapter, dose))


def _adapter_missing_in_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    adapter, dose = _adapter(lab, setting, severity)
    return engine_step(lab, setting, apply_adapter(lab.engine(fresh=True), adapter, dose))


#: Syncs at which the adapter was taken out and merged again.
MERGES = 300
#: An adapter whose own effect is plain; the fault is only in how it is added.
ADAPTER_SEVERITY = 0.6


def _merged(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """The engine merges at each sync into bf16 weights, and computes in a finer dtype."""
    fine = finer(lab, 2 * severity)
    adapter, dose = _adapter(lab, setting, ADAPTER_SEVERITY)
    engine = fine.engine(fresh=True)
    for _ in range(round(MERGES**severity) - 1):
        earlier = dose * rng.uniform(0.0, 1.0)
        apply_adapter(engine, adapter, earlier, store=torch.bfloat16)
        apply_adapter(engine, adapter, -earlier, store=torch.bfloat16)
    apply_adapter(engine, adapter, dose, store=torch.bfloat16)
    sampled = sample(fine, setting, engine)
    trainer = attach_adapter(fine.trainer(fresh=True), adapter, dose)
    return fine.step(sampled, scored_by(fine, setting, sampled, trainer))


def _merged_into_fp8(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """The base is on the fp8 grid on both sides; the engine rounds the sum to that grid again."""
    adapter, dose = _adapter(lab, setting, 0.2 + 0.6 * severity)
    engine = quantise(apply_adapter(quantise(lab.engine(fresh=True), "fp8"), adapter, dose), "fp8")
    trainer = attach_adapter(quantise(lab.trainer(fresh=True), "fp8"), adapter, dose)
    sampled = sample(lab, setting, engine)
    return lab.step(
        sampled,
        scored_by(lab, setting, sampled, trainer),
    )


_ALL: tuple[Injection, ...] = (
    Injection(
        "stale_engine_weights",
        "a",
        "the trainer took policy-gradient steps on this batch that the engine never got",
        _stale("gradient"),
    ),
    Injection(
        "stale_engine_weights",
        "b",
        "the trainer took Adam steps on earlier batches that the engine never got",
        _stale("adam"),
    ),
    Injection(
        "policy_staleness",
        "a",
        "half the groups were sampled before the last update, and behavior_version says so",
        _lagging,
    ),
    Injection(
        "policy_staleness",
        "b",
        "a queue with lags from 0 to 3 updates, and behavior_version says so",
        _lags,
    ),
    Injection(
        "sub_ulp_update",
        "a",
        "Adam steps of an fp32 trainer that bf16 rounds away on their way to the engine",
        _sub_ulp,
    ),
    Injection(
        "sub_ulp_update",
        "b",
        "updates of an fp32 trainer are added one by one to bf16 weights, which loses each",
        _lost_increments,
    ),
    in_engine(
        "dropped_tensor_on_reload",
        "a",
        "rows of one tensor are zero in the engine: a shard that the reload lost",
        lose_rows,
        ROWS_BOUNDS,
    ),
    in_trainer(
        "dropped_tensor_on_reload",
        "b",
        "one tensor of the trainer is as it was initialised after a checkpoint was loaded",
        reset_tensor,
        ROWS_BOUNDS,
    ),
    Injection(
        "quantized_weights",
        "a",
        "the engine's linear weights in fp8 or int4",
        _quantised_engine,
    ),
    Injection(
        "quantized_weights",
        "b",
        "the trainer's base weights on the quantiles of a normal variable, as QLoRA keeps them",
        _quantised_trainer,
    ),
    Injection(
        "lora_not_applied",
        "a",
        "the trainer's adapter never reached the engine",
        _adapter_missing_in_engine,
    ),
    Injection(
        "lora_not_applied",
        "b",
        "the trainer scored with its adapter disabled",
        _adapter_missing_in_trainer,
    ),
    Injection(
        "lora_merge_rounding",
        "a",
        "the adapter is merged into bf16 weights at each sync, beside which it would be exact",
        _merged,
    ),
    Injection(
        "lora_merge_rounding",
        "b",
        "the adapter is merged into fp8 weights, which rounds most of it away",
        _merged_into_fp8,
    ),
)


def _as_pushed(injection: Injection) -> Injection:
    """Who trains an adapter says so; weights are quantised from the first step on."""
    if str(injection.cause).startswith("lora"):
        return noted(injection, 1.0, lora_rank=str(RANK))
    return from_first_step(injection) if injection.cause == "quantized_weights" else injection


INJECTIONS: tuple[Injection, ...] = tuple(map(_as_pushed, _ALL))
