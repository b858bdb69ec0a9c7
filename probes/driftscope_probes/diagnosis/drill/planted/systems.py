"""Systems: an engine and a trainer with one fault, whose look in a step's data several causes have.

In: a ground. Out: SYSTEMS, one per cause: the sides as a user would state them, and the plant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from driftscope_probes.diagnosis.controls.sides import Known, Sides
from driftscope_probes.diagnosis.drill.faults.weights import lose_rows, quantise
from driftscope_probes.diagnosis.drill.lab import Lab
from driftscope_probes.diagnosis.drill.planted.ground import LONG_CONTEXT, MAX_TOKENS, Ground
from driftscope_probes.diagnosis.drill.planted.plant import Plant, Side
from driftscope_probes.diagnosis.floor import prior_floor
from driftscope_probes.dtypes import Dtype
from driftscope_probes.engines.settings import EngineSettings, SamplingSettings
from driftscope_probes.trainer.settings import TrainerSettings


@dataclass(frozen=True, slots=True)
class PlantedSystem:
    cause: str | None  # None: healthy
    sides: Sides
    known: Known
    plant: Plant | None = None


@dataclass(frozen=True, slots=True)
class System:
    cause: str
    alike: str  # the group of causes whose data look the same, in a word
    what: str  # what is planted and where, a sentence without its full stop
    build: Callable[[Ground], PlantedSystem]
    dtypes: tuple[Dtype, Dtype] = ("bf16", "bf16")
    mixture: bool = False
    #: Controls that must speak up; None: all whose table gives the cause OWN_FROM or more.
    own: tuple[str, ...] | None = None


def sides_of(ground: Ground, **changes: Any) -> Sides:
    """A healthy pair; `changes` replace fields."""
    plain = Sides(
        engine_model=ground.folder,
        trainer_model=ground.folder,
        engine=EngineSettings(threads=1, batch_size=32),
        trainer=TrainerSettings(threads=1, headroom=False),
        engine_dtype=ground.rollout_dtype,
        trainer_mode=ground.trainer_dtype,
        sampling=SamplingSettings(max_tokens=MAX_TOKENS, seed=ground.seed),
        prompts=ground.prompts(),
    )
    return replace(plain, **changes)


def system_of(
    ground: Ground, cause: str | None, plant: Plant | None = None, **changes: Any
) -> PlantedSystem:
    sides = sides_of(ground, **changes)
    mixture = "moe" in ground.folder.name
    floor = prior_floor(
        ground.rollout_dtype, ground.trainer_dtype, moe=mixture, model=ground.folder.name
    )
    return PlantedSystem(cause, sides, Known(floor, mixture_of_experts=mixture), plant)


def _function(
    cause: str, side: Side, fault: str, size: float, context: int = 0, **changes: Any
) -> Callable[[Ground], PlantedSystem]:
    """A fault of function: the weights are equal."""

    def build(ground: Ground) -> PlantedSystem:
        plant = Plant(side, fault, size, folder=str(ground.work))
        return system_of(ground, cause, plant, prompts=ground.prompts(context), **changes)

    return build


def engine_settings(**settings: Any) -> EngineSettings:
    return EngineSettings(**{"threads": 1, "batch_size": 32, **settings})


def trainer_settings(**settings: Any) -> TrainerSettings:
    return TrainerSettings(threads=1, headroom=False, **settings)


#: Greedy: vLLM 0.32 on CPU fails on a seed in a chunked prefill.
GREEDY = SamplingSettings(max_tokens=MAX_TOKENS, temperature=0.0)
#: Tokens of a chunk: the long prompts have several.
CHUNK = 32
#: Well above the border of "above the floor" in bf16, far below gross.
SEVERITY = 0.5


def _stale(ground: Ground) -> PlantedSystem:
    newer = ground.saved("newer", ground.moved("adam", SEVERITY), ground.trainer_dtype)
    older = (ground.folder,)
    return system_of(ground, "stale_engine_weights", trainer_model=newer, older_models=older)


def _sub_ulp(ground: Ground) -> PlantedSystem:
    """The engine gets the trainer's float32 weights rounded to bf16, and computes in float32."""
    model = ground.moved("adam", SUB_ULP_SEVERITY)
    newer = ground.saved("newer", model, "fp32")
    rounded = ground.saved("rounded", model, "bf16")
    return system_of(
        ground,
        "sub_ulp_update",
        engine_model=rounded,
        trainer_model=newer,
        older_models=(ground.folder,),
    )


SUB_ULP_SEVERITY = 0.1


def _dropped(ground: Ground) -> PlantedSystem:
    newer = ground.saved("newer", ground.moved("adam", 0.2), ground.trainer_dtype)
    lossy = Lab(newer, "fp32", "fp32", ground.seed).trainer(fresh=True)
    lost = ground.saved("lost", lose_rows(lossy, 0.3, ground.seed))
    return system_of(
        ground,
        "dropped_tensor_on_reload",
        engine_model=lost,
        trainer_model=newer,
        older_models=(ground.folder,),
    )


def _quantised(ground: Ground) -> PlantedSystem:
    folder = ground.saved("quantised", quantise(ground.model(), "int4"))
    return system_of(ground, "quantized_weights", engine_model=folder)


def _other_checkpoint(ground: Ground) -> PlantedSystem:
    """Of another run: neither an older step of this one nor near it."""
    mine = ground.saved("mine", ground.moved("adam", 0.3), ground.trainer_dtype)
    other = ground.saved("other", ground.moved("gradient", 0.8), ground.trainer_dtype)
    return system_of(
        ground,
        "other_checkpoint",
        engine_model=other,
        trainer_model=mine,
        older_models=(ground.folder,),
    )


def _stale_cache(ground: Ground) -> PlantedSystem:
    older = ground.saved("older", ground.moved("adam", 1.5), ground.rollout_dtype)
    prompts = ground.prompts(LONG_CONTEXT)
    return system_of(
        ground,
        "stale_prefix_cache",
        Plant("engine", "stale_cache", 0.0, folder=str(older), prompts=prompts),
        prompts=prompts,
        engine=engine_settings(prefix_caching=True),
    )


def _fp8_cache(ground: Ground) -> PlantedSystem:
    return system_of(
        ground,
        "fp8_kv_scales",
        engine=engine_settings(kv_cache_dtype="fp8"),
        prompts=ground.prompts(80),
    )


def _lora(cause: str, severity: float, engine_adapter: str) -> Callable[[Ground], PlantedSystem]:
    def build(ground: Ground) -> PlantedSystem:
        adapter = ground.adapter(severity)
        return system_of(ground, cause, adapter=adapter, engine_adapter=engine_adapter)

    return build


def _dropout(ground: Ground) -> PlantedSystem:
    """The config asks for it, and the trainer forgets evaluation mode; engines ignore it."""
    return system_of(ground, "dropout_active", Plant("trainer", "dropout", 0.02))


FP32: tuple[Dtype, Dtype] = ("fp32", "fp32")
SYSTEMS: tuple[System, ...] = (
    System(
        "stale_engine_weights",
        "weights",
        "the trainer took Adam steps that the engine never got",
        _stale,
    ),
    System(
        "sub_ulp_update",
        "weights",
        "the engine has the trainer's float32 weights rounded to bf16",
        _sub_ulp,
        FP32,
    ),
    System(
        "dropped_tensor_on_reload",
        "weights",
        "rows of one tensor are zero in the engine",
        _dropped,
        own=("tensors_compared", "trainer_weights_in_engine"),
    ),
    System(
        "prefill_vs_decode_kernel",
        "engine caches",
        "the MLP of decode steps keeps 3 binary digits",
        _function("prefill_vs_decode_kernel", "engine", "decode", 2.0),
    ),
    System(
        "stale_prefix_cache",
        "engine caches",
        "prompts were cached with older weights and the cache was kept at the sync",
        _stale_cache,
    ),
    System(
        "chunked_prompt_logprobs",
        "engine caches",
        "the first token of each later chunk of a prompt leaves no keys and values",
        _function(
            "chunked_prompt_logprobs",
            "engine",
            "chunk_edges",
            0.5,
            LONG_CONTEXT,
            engine=engine_settings(chunked_prefill_tokens=CHUNK),
            sampling=GREEDY,
        ),
    ),
    System("quantized_weights", "few bits", "the engine's weights in int4 groups", _quantised),
    System(
        "fp8_kv_scales",
        "few bits",
        "the engine keeps keys and values in e4m3 with scale 1",
        _fp8_cache,
        FP32,
    ),
    System(
        "fp8_kv_tile",
        "few bits",
        "from position 96 on a quantised cache is written with another scale",
        _function(
            "fp8_kv_tile",
            "engine",
            "tile",
            96.0,
            80,
            engine=engine_settings(kv_cache_dtype="fp8"),
        ),
        FP32,
    ),
    System(
        "batch_variant_trainer",
        "batching",
        "the trainer's MLP keeps 3 binary digits in micro-batches of several rows",
        _function(
            "batch_variant_trainer",
            "trainer",
            "batch",
            2.0,
            trainer=trainer_settings(micro_batch=4),
        ),
    ),
    System(
        "batch_variant_engine",
        "batching",
        "the engine's MLP keeps 3 binary digits where several rows run together",
        _function("batch_variant_engine", "engine", "batch", 2.0),
    ),
    System(
        "lora_not_applied",
        "adapters",
        "the trainer adds an adapter that the engine does not have",
        _lora("lora_not_applied", SEVERITY, "off"),
    ),
    System(
        "lora_merge_rounding",
        "adapters",
        "the adapter was merged into bf16 weights for the engine",
        _lora("lora_merge_rounding", 0.3, "merged-bf16"),
        FP32,
    ),
    System(
        "other_checkpoint",
        "adapters",
        "the engine serves another run's checkpoint",
        _other_checkpoint,
    ),
    System(
        "sleep_wake_corruption",
        "life cycle",
        "each wake-up scales a norm's weights",
        _function("sleep_wake_corruption", "engine", "sleep", 1.2),
    ),
    System(
        "corrupt_reload_moe_layout",
        "life cycle",
        "each reload scales a norm's weights once more",
        _function("corrupt_reload_moe_layout", "engine", "reload", 1.2),
    ),
    System(
        "autotune_per_launch",
        "life cycle",
        "the engine's MLP keeps 3 binary digits, on a grid that each launch moves",
        _function("autotune_per_launch", "engine", "per_launch", 2.0),
    ),
    System(
        "dropout_active",
        "trainer",
        "attention dropout is on in the trainer",
        _dropout,
    ),
    System(
        "packed_attention_leak",
        "trainer",
        "positions do not start anew in a pack",
        _function(
            "packed_attention_leak",
            "trainer",
            "pack",
            0.0,
            trainer=trainer_settings(batching="packed", micro_batch=4),
        ),
    ),
    System(
        "pad_attended",
        "trainer",
        "the attention mask of left-padded rows is lost",
        _function(
            "pad_attended",
            "trainer",
            "pad",
            0.0,
            80,
            trainer=trainer_settings(padding_side="left", micro_batch=8),
        ),
    ),
    System(
        "norm_eps",
        "trainer",
        "the trainer's norms have another epsilon",
        _function("norm_eps", "trainer", "norm_epsilon", 0.003),
    ),
    System(
        "lm_head_precision",
        "trainer",
        "the trainer's head reads hidden states of few bits",
        _function("lm_head_precision", "trainer", "head", 2.0),
    ),
    System(
        "attention_backend_diff",
        "kernels",
        "the trainer's fused attention keeps 3 binary digits",
        _function("attention_backend_diff", "trainer", "attention", 2.0),
        own=("trainer_attention", "reference_forward"),
    ),
    System(
        "attention_backend_diff",
        "kernels",
        "the engine's MLP keeps few binary digits where keys are split among threads",
        _function(
            "attention_backend_diff",
            "engine",
            "split_kv",
            2.0,
            LONG_CONTEXT,
            engine=engine_settings(threads=2),
        ),
        own=("kv_split_off",),
    ),
    System(
        "compile_or_cudagraph_mode",
        "kernels",
        "the compiled engine hands states of 3 binary digits to its head",
        _function(
            "compile_or_cudagraph_mode",
            "engine",
            "compiled",
            2.0,
            engine=engine_settings(compile=True),
        ),
    ),
    System(
        "trainer_model_bug",
        "trainer",
        "the trainer's attention is scaled otherwise",
        _function("trainer_model_bug", "trainer", "sharper", 0.3),
    ),
    System(
        "moe_routing_flip",
        "kernels",
        "the engine's router rounds its logits",
        _function("moe_routing_flip", "engine", "router", 0.25),
        mixture=True,
        # A router that rounds does so in float32 as well.
        own=("routes_replayed",),
    ),
)
