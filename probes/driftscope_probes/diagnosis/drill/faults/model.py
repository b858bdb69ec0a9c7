"""Model: the two sides compute another function of the same weights.

In: a lab. Out: injections of rope, norms, dropout, heads, attention scale and trainer's bugs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import (
    engine_step,
    finer,
    from_first_step,
    in_engine,
    in_trainer,
    trainer_step,
)
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.push.pushed_step import PushedStep

DEFAULT_ROPE_BASE = 10_000.0
LARGE_ROPE_MODELS = ("smollm2-135m", "tiny-qwen")  # their base is above the default


def _layers(model: Any) -> list[Any]:
    return list(model.model.layers)


def _some_layer(model: Any, seed: int) -> Any:
    layers = _layers(model)
    return layers[int(np.random.default_rng([seed, 2]).integers(len(layers)))]


# Rope


def other_rope_base(model: Any, excess: float, seed: int) -> Any:
    """Frequencies of a base (1 + excess) times the model's, on all layers."""
    rotary = model.model.rotary_emb
    pairs = rotary.inv_freq.numel()
    exponents = torch.arange(pairs, dtype=torch.float32) / pairs
    rotary.inv_freq = rotary.inv_freq * (1.0 + excess) ** -exponents
    return model


def rotated_partly(model: Any, fraction: float, seed: int) -> Any:
    """The slowest frequencies turn too little, the last ones not at all (partial rotary factor)."""
    rotary = model.model.rotary_emb
    pairs = rotary.inv_freq.numel()
    place = torch.linspace(1.0, 0.0, pairs)  # 1: fastest
    # At fraction f the pairs below place f have lost their rotation, the border pair in part.
    kept = ((place - fraction) * pairs + 1.0).clamp(0.0, 1.0)
    rotary.inv_freq = rotary.inv_freq * kept
    return model


@dataclass(frozen=True, slots=True, eq=False)
class _OtherRope:
    """Before a layer: its rotation replaced by that of other frequencies."""

    inverse: Tensor  # float32 [pairs]

    def __call__(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        given, _ = kwargs["position_embeddings"]
        angles = kwargs["position_ids"][..., None].float() * self.inverse
        angles = torch.cat([angles, angles], -1)
        rotation = (angles.cos().to(given.dtype), angles.sin().to(given.dtype))
        return args, kwargs | {"position_embeddings": rotation}


def default_rope(model: Any, layers: int, seed: int) -> Any:
    """The default base on the last `layers` layers, as where a config names one per layer type."""
    pairs = model.model.rotary_emb.inv_freq.numel()
    inverse = DEFAULT_ROPE_BASE ** -(torch.arange(pairs, dtype=torch.float32) / pairs)
    for layer in _layers(model)[-layers:]:
        layer.register_forward_pre_hook(_OtherRope(inverse), with_kwargs=True)
    return model


def _share_of_layers(model: Any, severity: float) -> int:
    return max(1, round(severity * len(_layers(model))))


def _default_rope_in_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    engine = lab.engine(fresh=True)
    return engine_step(lab, setting, default_rope(engine, _share_of_layers(engine, severity), 0))


#: Frequencies below this many turns in the original context are stretched, as in Llama 3.1.
LOW_TURNS, HIGH_TURNS, ORIGINAL_CONTEXT = 1.0, 4.0, 512


def scaled_like_llama3(model: Any, excess: float, seed: int) -> Any:
    """Llama 3.1's scaling: slow frequencies divided by 1 + excess, fast ones kept."""
    rotary = model.model.rotary_emb
    turns = ORIGINAL_CONTEXT * rotary.inv_freq / (2.0 * torch.pi)
    kept = ((turns - LOW_TURNS) / (HIGH_TURNS - LOW_TURNS)).clamp(0.0, 1.0)
    rotary.inv_freq = rotary.inv_freq * (kept + (1.0 - kept) / (1.0 + excess))
    return model


# Norms and dropout


def _norms(model: Any) -> list[Any]:
    return [part for part in model.modules() if hasattr(part, "variance_epsilon")]


def larger_epsilon(model: Any, epsilon: float, seed: int) -> Any:
    for norm in _norms(model):
        norm.variance_epsilon = epsilon
    return model


def other_final_epsilon(model: Any, epsilon: float, seed: int) -> Any:
    """Only the norms that the trainer's own code builds: those before attention."""
    for layer in _layers(model):
        layer.input_layernorm.variance_epsilon = epsilon
    return model


@dataclass(frozen=True, slots=True)
class _Dropout:
    probability: float

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (F.dropout(output[0], self.probability), *output[1:])
        return F.dropout(output, self.probability)


def dropout_after_blocks(model: Any, probability: float, seed: int) -> Any:
    """On the outputs of attention and MLP, as GPT-2 has it."""
    torch.manual_seed(seed)
    for layer in _layers(model):
        layer.self_attn.register_forward_hook(_Dropout(probability))
        layer.mlp.register_forward_hook(_Dropout(probability))
    return model


def dropout_in_attention(model: Any, probability: float, seed: int) -> Any:
    """On the attention's weights, through the config's own setting and training mode."""
    torch.manual_seed(seed)
    for layer in _layers(model):
        layer.self_attn.attention_dropout = probability
        layer.self_attn.train()
    return model


# Output layer


@dataclass(frozen=True, slots=True)
class _RoundedLogits:
    bits: int  # significant bits that stay; bf16 has 8

    def __call__(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        fraction, exponent = torch.frexp(output.float())
        scale = 2.0**self.bits
        return torch.ldexp((fraction * scale).round() / scale, exponent).to(output.dtype)


def logits_in_bf16(model: Any) -> Any:
    model.lm_head.register_forward_hook(_RoundedLogits(8))
    return model


@dataclass(frozen=True, slots=True)
class _HeadInBf16:
    """The product itself runs in bf16: hidden states and result are rounded."""

    def __call__(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        product: Tensor = F.linear(inputs[0].bfloat16(), module.weight.bfloat16())
        rounded: Tensor = product.to(output.dtype)
        return rounded


def head_in_bf16(model: Any) -> Any:
    model.lm_head.register_forward_hook(_HeadInBf16())
    return model


def _head_of_engine(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    fine = finer(lab, severity)
    return engine_step(fine, setting, head_in_bf16(fine.engine(fresh=True)))


def _logits_of_trainer(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    fine = finer(lab, severity)
    return trainer_step(fine, setting, logits_in_bf16(fine.trainer(fresh=True)))


# Sharper distributions from equal weights


def sharper_attention(model: Any, excess: float, seed: int) -> Any:
    """The attention's scale 1 + excess times too large in every layer."""
    for layer in _layers(model):
        layer.self_attn.scaling *= 1.0 + excess
    return model


def sharper_norm(model: Any, excess: float, seed: int) -> Any:
    """The final norm's gain larger, unevenly: (1 + excess)^|normal| per channel."""
    generator = torch.Generator().manual_seed(seed)
    weight = model.model.norm.weight
    power = torch.randn(weight.shape, generator=generator).abs()
    with torch.no_grad():
        weight.copy_(weight.float() * (1.0 + excess) ** power)
    return model


# Bugs in a trainer's own model code


def extra_bias(model: Any, size: float, seed: int) -> Any:
    """A bias that the checkpoint does not have stays at its random start, in one layer's output."""
    layer = _some_layer(model, seed)
    generator = torch.Generator().manual_seed(seed)
    projection = layer.self_attn.o_proj
    bias = torch.randn(projection.weight.shape[0], generator=generator) * size
    projection.register_forward_hook(_Added(bias.to(projection.weight.dtype)))
    return model


@dataclass(frozen=True, slots=True, eq=False)
class _Added:
    bias: Tensor

    def __call__(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output + self.bias


def heads_in_other_order(model: Any, fraction: float, seed: int) -> Any:
    """Some channels between attention and its output layer are taken from the next head: a
    transposed view, as where heads and channels were interleaved."""
    projection = _some_layer(model, seed).self_attn.o_proj
    width = projection.weight.shape[1]
    swapped = max(2, round(fraction * width))
    order = torch.arange(width)
    order[:swapped] = order[:swapped].roll(swapped // 2)
    projection.register_forward_pre_hook(_Reordered(order))
    return model


@dataclass(frozen=True, slots=True, eq=False)
class _Reordered:
    order: Tensor

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][..., self.order],)


_ALL: tuple[Injection, ...] = (
    in_engine(
        "rope_config", "a", "the engine's rope base is another", other_rope_base, (1e-4, 1e4)
    ),
    in_trainer(
        "rope_config",
        "b",
        "the trainer rotates only part of each head's channels",
        rotated_partly,
        (1e-3, 1.0),
    ),
    Injection(
        "rope_parameters_dropped",
        "a",
        "the engine's last layers fall back to base 10,000",
        _default_rope_in_engine,
        LARGE_ROPE_MODELS,
    ),
    in_trainer(
        "rope_parameters_dropped",
        "b",
        "one side dropped Llama 3.1's scaling of the slow frequencies",
        scaled_like_llama3,
        (1e-4, 1e4),
    ),
    in_engine(
        "norm_eps",
        "a",
        "all norms of the engine have a larger epsilon",
        larger_epsilon,
        (1e-5, 1.0),
    ),
    in_trainer(
        "norm_eps",
        "b",
        "the norms before attention have a larger epsilon in the trainer",
        other_final_epsilon,
        (1e-5, 1.0),
    ),
    in_trainer(
        "dropout_active",
        "a",
        "the trainer drops outputs of attention and MLP while it scores",
        dropout_after_blocks,
        (1e-5, 0.5),
    ),
    in_trainer(
        "dropout_active",
        "b",
        "the trainer drops attention weights while it scores",
        dropout_in_attention,
        (1e-5, 0.5),
    ),
    Injection("lm_head_precision", "a", "the engine's output layer runs in bf16", _head_of_engine),
    Injection("lm_head_precision", "b", "the trainer keeps its logits in bf16", _logits_of_trainer),
    in_engine(
        "entropy_sharpening",
        "a",
        "the engine's attention scale is too large in every layer",
        sharper_attention,
        (1e-3, 10.0),
    ),
    in_trainer(
        "entropy_sharpening",
        "b",
        "the trainer's final norm has larger gains, unevenly",
        sharper_norm,
        (1e-3, 10.0),
    ),
    in_trainer(
        "trainer_model_bug",
        "a",
        "a bias that the checkpoint does not have, in one layer of the trainer",
        extra_bias,
        (1e-4, 10.0),
    ),
    in_trainer(
        "trainer_model_bug",
        "b",
        "the trainer's attention output is read in another order of channels in one layer",
        heads_in_other_order,
        (1e-3, 1.0),
    ),
)

#: Sharpening grows while a policy trains; all others are wrong from the beginning.
INJECTIONS: tuple[Injection, ...] = tuple(
    one if one.cause == "entropy_sharpening" else from_first_step(one) for one in _ALL
)
