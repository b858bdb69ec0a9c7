"""Ways in which our trainer can be made to compute otherwise, each a guess at what the server does.

In: the trainer's request and configuration. Out: Variants, and their sum as one Way. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from driftscope_probes.dtypes import DTYPES, HEAD_SUFFIX, Dtype, parse_mode
from driftscope_probes.explain.server.changed_folder import Edit
from driftscope_probes.explain.server.request import ServerExplainRequest
from driftscope_probes.trainer.question import NormCast
from driftscope_probes.trainer.settings import Attention, Kernels

#: `rounding`: the same function, rounded otherwise. `fault`: another function.
Kind = Literal["rounding", "fault"]
#: In use: Llama 2 and the papers; SmolLM2; Llama 3; Qwen2.5, Qwen3 and Mistral; Qwen3-2507.
ROPE_BASES: Final = (10_000.0, 100_000.0, 500_000.0, 1_000_000.0, 5_000_000.0)
#: Llama 2 and Mistral; Llama 1, Qwen; layer norms; torch's own for bf16.
EPSILONS: Final = (1e-5, 1e-6, 1e-12, 2.0**-7)
WEIGHTS: Final = "weights"
ROPE: Final = "rope_theta"
#: Keys of config.json that change no number of a forward, or cannot be moved between weights.
NO_NUMBERS: Final = frozenset(
    (
        "_name_or_path architectures model_type dtype torch_dtype transformers_version use_cache "
        "bos_token_id eos_token_id pad_token_id unk_token_id vocab_size hidden_size "
        "num_hidden_layers num_attention_heads num_key_value_heads intermediate_size head_dim "
        "initializer_range max_position_embeddings quantization_config output_router_logits "
        "router_aux_loss_coef tie_word_embeddings auto_map"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Way:
    """How the trainer computes; a field that is None leaves it as it is."""

    weights: Path | None = None
    config: tuple[Edit, ...] = ()
    dtype: Dtype | Literal["autocast-bf16"] | None = None
    fp32_head: bool | None = None
    attention: Attention | None = None
    kernels: Kernels | None = None
    norm_cast: NormCast | None = None
    norm_epsilon: float | None = None
    weights_as: Dtype | None = None
    quiet: bool = False
    tempered: bool = False  # logits divided by the sampling temperature

    def mode(self, asked: str) -> str:
        """Of the trainer, as dtypes.parse_mode spells it."""
        head = parse_mode(asked).fp32_head if self.fp32_head is None else self.fp32_head
        return (self.dtype or asked.removesuffix(HEAD_SUFFIX)) + (HEAD_SUFFIX if head else "")


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    axis: str  # variants of one axis exclude each other
    kind: Kind
    title: str  # "the trainer with a rotary base of 500,000"
    way: Way


@dataclass(frozen=True, slots=True)
class Other:
    """A folder whose weights the server might hold."""

    path: Path
    config: Mapping[str, Any]


def summed(variants: Iterable[Variant]) -> Way:
    """Of variants on different axes."""
    total = Way()
    # What another folder's configuration is set back to must not undo a change of it.
    for variant in sorted(variants, key=lambda one: one.axis != WEIGHTS):
        set_here = {
            name: value
            for name in Way.__dataclass_fields__
            if (value := getattr(variant.way, name)) not in (None, (), False) or name == "fp32_head"
        }
        if set_here["fp32_head"] is None:
            del set_here["fp32_head"]
        if "config" in set_here:
            set_here["config"] = (*total.config, *variant.way.config)
        total = replace(total, **set_here)
    return total


def variants_of(
    request: ServerExplainRequest,
    trainer: Mapping[str, Any],
    engine: Mapping[str, Any],
    others: Mapping[str, Other],
) -> list[Variant]:
    """`trainer`, `engine`: config.json of both folders; `others`: folders of weights by name.

    The likeliest come first: of two changes that do the same, the first is named.
    """
    return [
        *_roundings(request),
        *_config_differences(trainer, engine),
        *_weights(trainer, others),
        *_rotary(trainer),
        *_windows(trainer),
        *_norms(trainer),
        Variant("dropout off", "dropout", "fault", "evaluation mode", Way(quiet=True)),
        *_temperature(request),
    ]


def _roundings(request: ServerExplainRequest) -> list[Variant]:
    mode = parse_mode(request.trainer_dtype)
    base = request.trainer_dtype.removesuffix(HEAD_SUFFIX)
    found = [
        Variant(f"dtype {dtype}", "dtype", "rounding", f"computed in {dtype}", Way(dtype=dtype))
        for dtype in DTYPES
        if dtype != base
    ]
    if mode.weights == "fp32":
        found += [
            Variant(f"weights in {to}", "weights_as", "rounding", title, Way(weights_as=to))
            for to in ("bf16", "fp16")
            for title in [f"weights rounded to {to}, computed as before"]
        ]
    other = "in the model's dtype" if mode.fp32_head else "in float32"
    head, attention = Way(fp32_head=not mode.fp32_head), request.trainer.attention
    found.append(Variant("head " + other, "head", "rounding", f"the output layer {other}", head))
    flipped: Attention = "eager" if attention == "sdpa" else "sdpa"
    title = f"transformers' {flipped} attention"
    way = Way(attention=flipped)
    found.append(Variant(f"attention {flipped}", "attention", "rounding", title, way))
    kernels: Kernels = "invariant" if request.trainer.kernels == "stock" else "stock"
    title = f"{'our invariant' if kernels == 'invariant' else 'torch' + chr(39) + 's'} kernels"
    found.append(Variant(f"kernels {kernels}", "kernels", "rounding", title, Way(kernels=kernels)))
    casts: tuple[NormCast, ...] = ("after_weight", "before_weight")
    found += [
        Variant(
            f"norm cast {cast.replace('_', ' ')}",
            "norm_cast",
            "rounding",
            f"norms rounded {cast.replace('_', ' the ')}",
            Way(norm_cast=cast),
        )
        for cast in casts
    ]
    return found


def _config_differences(trainer: Mapping[str, Any], engine: Mapping[str, Any]) -> list[Variant]:
    """What the two folders' config.json say differently: the likeliest of all."""
    return [
        Variant(
            f"config {key} as the engine's",
            _AXES.get(key.rpartition(".")[2], key),
            "fault",
            f"{key} as in the engine's config.json: {_short(_value(engine, key))}, the trainer's "
            f"says {_short(_value(trainer, key))}",
            Way(config=((key, _value(engine, key)),)),
        )
        for key in _different(trainer, engine)
    ]


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Keys of values that differ, "rope_parameters.rope_theta" for one inside a table."""
    keys = []
    for key in {*one, *other} - NO_NUMBERS:
        first, second = one.get(key), other.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            keys += [f"{key}.{inner}" for inner in _different(first, second)]
        elif first != second:
            keys.append(key)
    return sorted(keys)


def _value(config: Mapping[str, Any], key: str) -> Any:
    table, _, inner = key.rpartition(".")
    return (config[table] if table else config).get(inner)


def _weights(trainer: Mapping[str, Any], others: Mapping[str, Other]) -> list[Variant]:
    """The other weights under the trainer's own configuration: one thing is changed at a time."""
    found = []
    for name, other in others.items():
        back = tuple((key, _value(trainer, key)) for key in _different(trainer, other.config))
        way = Way(weights=other.path, config=back)
        found.append(Variant(f"weights of {name}", WEIGHTS, "fault", f"the weights of {name}", way))
    return found


#: The axis of generic variants that a key of config.json belongs to.
_AXES: Final = {
    "rope_parameters": "rope_base",
    "rope_theta": "rope_base",
    "rope_type": "rope_scaling",
    "rope_scaling": "rope_scaling",
    "sliding_window": "window",
    "rms_norm_eps": "norm_epsilon",
    "layer_norm_eps": "norm_epsilon",
}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"  # a line of a terminal


def rotary_table(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Name of the table and the table; "" where the keys stand at the top (transformers 4)."""
    table = config.get("rope_parameters")
    if isinstance(table, Mapping):
        # One table per kind of layer (Gemma 3): which one is at fault cannot be told.
        return ("rope_parameters", table) if ROPE in table else None
    return ("", config) if isinstance(config.get(ROPE), int | float) else None


def _rotary(config: Mapping[str, Any]) -> list[Variant]:
    found = rotary_table(config)
    if found is None:
        return []
    name, table = found
    key = f"{name}.{ROPE}" if name else ROPE
    variants = [
        Variant(
            f"rotary base {base:g}",
            "rope_base",
            "fault",
            f"a rotary base of {base:,.0f} instead of {float(table['rope_theta']):,.0f}",
            Way(config=((key, base),)),
        )
        for base in ROPE_BASES
        if base != float(table[ROPE])
    ]
    scaling = table if name else (config.get("rope_scaling") or {})
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind != "default":
        edits: tuple[Edit, ...] = (("rope_scaling", None),)
        if name:
            gone = [(f"{name}.{key}", None) for key in table if key not in ("rope_type", ROPE)]
            edits = ((f"{name}.rope_type", "default"), *gone)
        title = f"no rotary scaling instead of {kind}"
        way = Way(config=edits)
        variants.append(Variant("rotary scaling off", "rope_scaling", "fault", title, way))
    return variants


def _windows(config: Mapping[str, Any]) -> list[Variant]:
    found = []
    window = config.get("sliding_window")
    if isinstance(window, int) and config.get("use_sliding_window", True):
        off: list[Edit] = [("sliding_window", None)]
        if "use_sliding_window" in config:
            off.append(("use_sliding_window", False))
        if isinstance(config.get("layer_types"), list):
            off.append(("layer_types", ["full_attention"] * len(config["layer_types"])))
        title = f"the sliding window of {window} ignored"
        found.append(Variant("window ignored", "window", "fault", title, Way(config=tuple(off))))
        found += [
            Variant(
                f"window {other}",
                "window",
                "fault",
                f"a sliding window of {other} instead of {window}",
                Way(config=(("sliding_window", other),)),
            )
            for other in (window - 1, window + 1)
        ]
    if config.get("attn_logit_softcapping") is not None:
        way = Way(config=(("attn_logit_softcapping", None),))
        title = "attention scores not capped"
        found.append(Variant("softcap off", "softcap", "fault", title, way))
    return found


def _norms(config: Mapping[str, Any]) -> list[Variant]:
    own = config.get("rms_norm_eps", config.get("layer_norm_eps"))
    return [
        Variant(
            f"norm epsilon {epsilon:.3g}",
            "norm_epsilon",
            "fault",
            f"an epsilon of {epsilon:.3g} in every norm instead of {own}",
            Way(norm_epsilon=epsilon),
        )
        for epsilon in EPSILONS
        if epsilon != own
    ]


def _temperature(request: ServerExplainRequest) -> list[Variant]:
    temperature = request.sampling.temperature
    if temperature in (0.0, 1.0) or request.logprobs_mode == "processed_logprobs":
        return []
    title = f"logits divided by the temperature {temperature:g}: processed_logprobs"
    return [Variant("behind temperature", "temperature", "fault", title, Way(tempered=True))]
