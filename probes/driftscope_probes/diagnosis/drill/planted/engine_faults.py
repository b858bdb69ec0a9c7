"""Faults of function in a real vLLM engine: hooks on the model that it runs.

In: a Plant and the engine's process. Out: ENGINE_FAULTS by name. A fault acts where it would act in
life: in the product of a batch, in decode steps alone, at the edge of a chunk, in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm import SamplingParams
from vllm.forward_context import get_forward_context

from driftscope_probes.diagnosis.drill.damage import coarse, quantised_e4m3
from driftscope_probes.diagnosis.drill.planted.plant import Plant
from driftscope_probes.engines.base import RolloutTask
from driftscope_probes.engines.vllm_in_process import VllmInProcess

#: The task is what was asked of the engine, before `prepared` changed it.
Fault = Callable[[VllmInProcess, Plant, RolloutTask], None]
When = Callable[[Tensor], bool]
LAUNCHES = "launches"


def layers_of(model: Any) -> list[Any]:
    return list(model.model.layers)


def _each_block(engine: VllmInProcess, change: Callable[[Tensor], Tensor]) -> None:
    """Hook the output of each layer's MLP, dense or of experts."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return change(output)

    def install(model: Any) -> None:
        for layer in layers_of(model):
            layer.mlp.register_forward_hook(hook)

    engine.llm.apply_model(install)


def _kernel(when: When) -> Fault:
    """A kernel of few bits, used where `when` says so of its input."""

    def fault(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
        _each_block(engine, lambda values: coarse(values, plant.size) if when(values) else values)

    return fault


def several_rows(values: Tensor) -> bool:
    return values.shape[0] > 1


def _metadata() -> Any:
    """Of the attention of this step; None while vLLM warms up."""
    told: Any = get_forward_context().attn_metadata
    return next(iter(told.values()), None) if isinstance(told, dict) else told


def decoding(values: Tensor) -> bool:
    metadata = _metadata()
    return metadata is not None and metadata.max_query_len == 1


def _compiled(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    if task.engine.compile:
        _logits(engine, plant, task)


def _logits(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """The compiled graph ends before the head, where hooks do not reach."""

    def install(model: Any) -> None:
        own = model.compute_logits
        model.compute_logits = lambda hidden, *rest: own(coarse(hidden, plant.size), *rest)

    engine.llm.apply_model(install)


def _split_kv(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    if os.environ.get("VLLM_CPU_ATTN_SPLIT_KV", "1") != "0":
        _each_block(engine, lambda values: coarse(values, plant.size))


def launch_number(plant: Plant) -> int:
    """How many engines were opened on this plant before, this one not counted."""
    file = Path(plant.folder) / LAUNCHES
    before = len(file.read_bytes()) if file.exists() else 0
    with file.open("ab") as counted:
        counted.write(b".")
    return before


def _per_launch(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """Each launch measures anew which kernel is fastest, and takes another one."""
    offset = (launch_number(plant) * GOLDEN) % 1.0
    _each_block(engine, lambda values: coarse(values, plant.size, offset))


GOLDEN = (5**0.5 - 1) / 2  # spreads any number of launches over a step of the grid


def _keys_and_values(
    engine: VllmInProcess, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> None:
    """Hook what each layer's attention writes into the cache, [tokens, heads · size] each."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        query, key, value, *rest = inputs
        return (query, *change(key, value), *rest)

    def install(model: Any) -> None:
        for layer in layers_of(model):
            layer.self_attn.attn.register_forward_pre_hook(hook)

    engine.llm.apply_model(install)


def _chunk_edges(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """The first token of each later chunk of a prompt leaves keys and values that are too small."""

    def change(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        edges = _edges()
        if edges:
            key, value = key.clone(), value.clone()
            key[edges] *= plant.size
            value[edges] *= plant.size
        return key, value

    _keys_and_values(engine, change)


def _edges() -> list[int]:
    """Rows of this step at which a prompt goes on that an earlier chunk began."""
    metadata = _metadata()
    if metadata is None:
        return []
    starts = metadata.query_start_loc.tolist()
    lengths = metadata.seq_lens.tolist()
    spans = zip(starts[:-1], starts[1:], lengths, strict=False)
    return [start for start, end, length in spans if end - start > 1 and length > end - start]


def _positions(tokens: int) -> Tensor | None:
    metadata = _metadata()
    if metadata is None:
        return None
    starts = metadata.query_start_loc.tolist()
    found = torch.zeros(tokens, dtype=torch.int64)
    for start, end, length in zip(
        starts[:-1], starts[1:], metadata.seq_lens.tolist(), strict=False
    ):
        found[start:end] = torch.arange(length - (end - start), length)
    return found


#: Scale of e4m3 that does not fit: a layer's states are around 1, and most of them fall below its
#: least normal number, 2^-6, times this.
TILE_SCALE = 64.0


def _tile(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """From position `size` on, a quantised cache is written with the scale of other data; up to
    there it is exact, as with scales that fit."""
    if task.engine.kv_cache_dtype in (None, "auto"):
        return

    def change(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        positions = _positions(key.shape[0])
        if positions is None:
            return key, value
        late = (positions >= plant.size)[:, None]
        first, second = (
            torch.where(late, quantised_e4m3(states, TILE_SCALE), states) for states in (key, value)
        )
        return first, second

    _keys_and_values(engine, change)


def prepared(plant: Plant, task: RolloutTask) -> RolloutTask:
    """What the engine is opened with: the cache of `tile` is rounded by the fault alone."""
    if plant.fault != "tile" or task.engine.kv_cache_dtype is None:
        return task
    exact = task.engine.model_copy(update={"kv_cache_dtype": "auto"})
    return replace(task, engine=exact)


def _router(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """The router's logits are rounded to multiples of `size`: near ties go to other experts."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        logits, *rest = output
        return ((logits / plant.size).round() * plant.size, *rest)

    def install(model: Any) -> None:
        for layer in layers_of(model):
            layer.mlp.gate.register_forward_hook(hook)

    engine.llm.apply_model(install)


def _stale_cache(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """The engine starts with older weights, serves the prompts, and gets the newer weights by a
    sync after which nobody drops the prefix cache."""
    llm = engine.llm
    current = str(llm.vllm_config.model_config.model)
    llm.reset_prefix_cache()
    _load(engine, plant.folder)
    asked = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
    for index, prompt in enumerate(plant.prompts):
        llm.add_request(f"earlier-{index}", {"prompt_token_ids": list(prompt)}, asked)
    while llm.has_unfinished_requests():
        llm.step()
    _load(engine, current)
    llm.reset_prefix_cache = lambda *_, **__: True


def _load(engine: VllmInProcess, folder: str) -> None:
    engine.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})


def _norms(model: Any) -> list[Any]:
    """In the order of the layers; their weights are the ones that a CPU engine does not pack."""
    return [
        norm
        for layer in layers_of(model)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]


def _lose(number: int, size: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        norms = _norms(model)
        with torch.no_grad():
            norms[number % len(norms)].weight.mul_(size)

    return change


def _after_each(engine: VllmInProcess, plant: Plant, method: str) -> Callable[..., Any]:
    """The method, after whose every call another norm's weights are scaled by `size`."""
    own = getattr(engine.llm, method)
    calls = count()

    def and_lose(*args: Any, **kwargs: Any) -> Any:
        answer = own(*args, **kwargs)
        engine.llm.apply_model(_lose(next(calls), plant.size))
        return answer

    return and_lose


def _sleep(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """Each wake-up brings a buffer back wrongly; the engine has slept once before it is asked."""
    llm = engine.llm
    llm.wake_up = _after_each(engine, plant, "wake_up")
    llm.sleep(1)
    llm.wake_up()


def _reload(engine: VllmInProcess, plant: Plant, task: RolloutTask) -> None:
    """What is done to weights after they are loaded is done once more to a tensor that the load
    did not bring; the engine's weights were loaded once more before it is asked."""
    llm = engine.llm
    own, calls = llm.collective_rpc, count()

    def rpc(method: Any, *args: Any, **kwargs: Any) -> Any:
        answer = own(method, *args, **kwargs)
        if method == "reload_weights":
            own("apply_model", args=(_lose(next(calls), plant.size),))
        return answer

    llm.collective_rpc = rpc
    _load(engine, str(llm.vllm_config.model_config.model))


ENGINE_FAULTS: Mapping[str, Fault] = {
    "batch": _kernel(several_rows),
    "decode": _kernel(decoding),
    "compiled": _compiled,
    "split_kv": _split_kv,
    "per_launch": _per_launch,
    "chunk_edges": _chunk_edges,
    "tile": _tile,
    "router": _router,
    "stale_cache": _stale_cache,
    "sleep": _sleep,
    "reload": _reload,
}
