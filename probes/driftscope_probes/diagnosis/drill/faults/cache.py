"""Cache: keys and values that the engine reads are not those of its weights and tokens.

In: a lab. Out: injections of stale prefixes, caches of two versions, and fp8 caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftscope_probes.diagnosis.drill.case import Injection, Setting
from driftscope_probes.diagnosis.drill.damage import (
    E4M3_MAX,
    noted,
    quantised_e4m3,
    sample,
    strength,
)
from driftscope_probes.diagnosis.drill.faults.low_rank import adapter_of, apply_adapter
from driftscope_probes.diagnosis.drill.faults.weights import STEP_BOUNDS, joined
from driftscope_probes.diagnosis.drill.lab import (
    GROUP,
    WEIGHTS_VERSION,
    Decoding,
    Lab,
    Prompts,
    Sampled,
)
from driftscope_probes.diagnosis.drill.pool import between, sampling_of, scores
from driftscope_probes.diagnosis.drill.updates import displacement, move
from driftscope_probes.push.pushed_step import PushedStep

BLOCK = 16  # tokens of a block of vLLM's prefix cache: only whole blocks are cached
#: A cache that is read by all tokens moves them less than weights that compute them: the weights
#: behind it are moved as far as a severity this much higher asks for.
CACHE_SEVERITY = 0.45
IN_FLIGHT_SEVERITY = 0.1  # the same for a cache that half the tokens share


def _older(lab: Lab, setting: Setting, severity: float) -> Any:
    """The engine before the last updates, which brought it to the lab's weights; a severity above
    1 asks for more noise than SIGMA_AT_1."""
    difference = displacement(lab, setting, "adam")
    dose = strength(
        lab,
        setting,
        lambda model, by, _: move(model, difference, -by),
        severity,
        0,
        STEP_BOUNDS,
    )
    return move(lab.engine(fresh=True), difference, -dose)


def _with_decoding(lab: Lab, setting: Setting, decoding: Decoding) -> Sampled:
    return sample(lab, setting, lab.engine(), decoding=decoding)


def _hits(sequences: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[sequences] about half the groups hit the cache, at least one and not all."""
    groups = -(-sequences // GROUP)
    hit = rng.permutation(groups) < max(1, groups // 2)
    return np.repeat(hit, GROUP)[:sequences]


def _prompt_lengths(prompts: Prompts) -> NDArray[np.int64]:
    return np.array([len(prompt) for prompt in prompts], np.int64)


def _stale_prefix(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Groups whose prompt was sampled before the last update too find it in the cache, whole."""
    prompts = lab.prompts(setting.sequences, setting.seed, setting.context)
    hit = _hits(setting.sequences, rng)
    cached = np.where(hit, _prompt_lengths(prompts) - 1, 0)
    older = _older(lab, setting, severity + CACHE_SEVERITY)
    sampled = _with_decoding(lab, setting, Decoding(cache_model=older, cached_tokens=cached))
    # Engines report hits; half the trainers pass them on.
    extras = {"cached_tokens": cached.astype(np.int32)} if rng.random() < 0.5 else {}
    return lab.step(sampled, scores(lab, setting, sampled), **extras)


def _prefix_of_other_adapter(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Whole blocks of the prompts were cached by the base model, before the adapter was loaded:
    the cache's key did not hold the adapter."""
    adapter = adapter_of(displacement(lab, setting, "adam"))
    dose = strength(
        lab,
        setting,
        lambda model, by, _: apply_adapter(model, adapter, -by),
        severity + CACHE_SEVERITY,
        0,
        STEP_BOUNDS,
    )
    prompts = lab.prompts(setting.sequences, setting.seed, setting.context)
    whole_blocks = (_prompt_lengths(prompts) - 1) // BLOCK * BLOCK
    cached = np.where(_hits(setting.sequences, rng), whole_blocks, 0)
    base = apply_adapter(lab.engine(fresh=True), adapter, -dose)
    sampled = _with_decoding(lab, setting, Decoding(cache_model=base, cached_tokens=cached))
    extras = {"cached_tokens": cached.astype(np.int32)} if rng.random() < 0.5 else {}
    return lab.step(sampled, scores(lab, setting, sampled), **extras)


def _in_flight(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting, parts: int
) -> tuple[Sampled, NDArray[np.bool_]]:
    """New weights arrive while sequences decode, and their caches are kept.

    `parts` waves of requests started at different times: each is hit at another response token.
    Also says which sequences began before the update.
    """
    older, newer = _older(lab, setting, severity + IN_FLIGHT_SEVERITY), lab.engine()
    prompts = lab.prompts(setting.sequences, setting.seed, setting.context)
    # A step's order is not the order in which its requests were sent.
    waves = np.array_split(rng.permutation(setting.sequences), min(parts, setting.sequences))
    rolled: list[Sampled] = []
    began_before = np.zeros(setting.sequences, np.bool_)
    for index, wave in enumerate(waves):
        # From the start of a response to its end; the last wave began after the update.
        late = index == len(waves) - 1
        at = max(1, round(setting.max_tokens * (1 - (index + 0.5) / (len(waves) - 0.5))))
        began_before[wave] = not late
        rolled.append(
            lab.roll_out(
                newer if late else older,
                tuple(prompts[row] for row in wave),
                sampling_of(setting),
                processed=setting.processed,
                batch=setting.batch,
                seed=setting.seed + index,
                decoding=Decoding() if late else Decoding(swap_at=at, later_model=newer),
            )
        )
    return joined(rolled, np.argsort(np.concatenate(waves)).tolist()), began_before


def _hybrid(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    sampled, _ = _in_flight(lab, severity, rng, setting, parts=4)
    return lab.step(sampled, scores(lab, setting, sampled))


def _hybrid_with_versions(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Two waves only: requests that were aborted at one moment and resumed, and those after it;
    behavior_version is that of a response's first token, as partial rollouts note it."""
    sampled, before = _in_flight(lab, severity, rng, setting, parts=2)
    version = (WEIGHTS_VERSION - before).astype(np.int32)
    return lab.step(sampled, scores(lab, setting, sampled), behavior_version=version)


# Caches in fp8


@dataclass(frozen=True, slots=True)
class _Fp8Cache:
    """Keys and values of new columns as fp8 keeps them."""

    scale: float
    rounded: Callable[[Tensor, float], Tensor]
    from_position: int = 0  # absolute, prompt included; earlier columns stay as they are

    def __call__(self, cache: Any, padding: Tensor, columns: range) -> None:
        index = torch.arange(columns.start, columns.stop)
        hit = (index[None] - padding[:, None] >= self.from_position)[:, None, :, None]
        part = slice(columns.start, columns.stop)
        for layer in cache.layers:
            for states in (layer.keys, layer.values):
                new = states[:, :, part]
                states[:, :, part] = torch.where(hit, self.rounded(new, self.scale), new)


def _e5m2(states: Tensor, scale: float) -> Tensor:
    narrow = (states.float() / scale).to(torch.float8_e5m2)
    return (narrow.float() * scale).to(states.dtype)


#: A layer's states are around 1: with the coarsest scale most of them are below e4m3's least
#: normal number, 2^-6.
FINEST_SCALE, COARSEST_SCALE = 16.0, 512.0


def _scale(severity: float) -> float:
    return float(FINEST_SCALE * (COARSEST_SCALE / FINEST_SCALE) ** severity)


def _fp8_scales(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    fault = _Fp8Cache(_scale(severity), quantised_e4m3)
    sampled = _with_decoding(lab, setting, Decoding(on_cache=fault))
    return lab.step(sampled, scores(lab, setting, sampled))


#: Largest magnitude that the clipping scale keeps, in units of the states' own size.
LEAST_CLIP, MOST_CLIP = 2.0, 12.0


def _fp8_clipped(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    """Scales of a calibration whose states were smaller: large values are cut off."""
    largest = MOST_CLIP * (LEAST_CLIP / MOST_CLIP) ** severity
    fault = _Fp8Cache(largest / E4M3_MAX, quantised_e4m3)
    sampled = _with_decoding(lab, setting, Decoding(on_cache=fault))
    return lab.step(sampled, scores(lab, setting, sampled))


#: Where in the longest response the tile begins: the shortest ends at 0.4 of it.
TILE_PART = (0.1, 0.35)


def _tile(prompts: Prompts, max_tokens: int, rng: np.random.Generator) -> int:
    """A multiple of BLOCK that most sequences reach in the middle of their response."""
    lengths = _prompt_lengths(prompts)
    middle = int(np.median(lengths)) + max_tokens * rng.uniform(*TILE_PART)
    return max(BLOCK, round(middle / BLOCK) * BLOCK)


def _fp8_tile(lab: Lab, severity: float, rng: np.random.Generator, setting: Setting) -> PushedStep:
    """Blocks from one absolute position on are written with the wrong scale."""
    position = _tile(
        lab.prompts(setting.sequences, setting.seed, setting.context), setting.max_tokens, rng
    )
    fault = _Fp8Cache(_scale(severity), quantised_e4m3, from_position=position)
    sampled = _with_decoding(lab, setting, Decoding(on_cache=fault))
    return lab.step(sampled, scores(lab, setting, sampled))


@dataclass(frozen=True, slots=True)
class _SecondTile:
    """Once a row's cache reaches a position, what it holds is read in e5m2, scaled: the kernel's
    next tile takes another path."""

    position: int
    scale: float

    def __call__(self, cache: Any, padding: Tensor, columns: range) -> None:
        reached = columns.stop - padding >= self.position
        if not bool(reached.any()):
            return
        for layer in cache.layers:
            for states in (layer.keys, layer.values):
                states[reached] = _e5m2(states[reached], self.scale)


def _other_tile(
    lab: Lab, severity: float, rng: np.random.Generator, setting: Setting
) -> PushedStep:
    position = _tile(
        lab.prompts(setting.sequences, setting.seed, setting.context), setting.max_tokens, rng
    )
    # e5m2 has no such narrow range: severity is how far its steps are from powers of two.
    fault = _SecondTile(position, 2.0 ** between(0.0, 16.5, severity))
    sampled = _with_decoding(lab, setting, Decoding(on_cache=fault))
    return lab.step(sampled, scores(lab, setting, sampled))


_ALL: tuple[Injection, ...] = (
    Injection(
        "stale_prefix_cache",
        "a",
        "prompts of some groups were cached before the last update",
        _stale_prefix,
    ),
    Injection(
        "stale_prefix_cache",
        "b",
        "whole blocks of some prompts were cached without the adapter",
        _prefix_of_other_adapter,
    ),
    Injection(
        "hybrid_version_kv",
        "a",
        "weights were swapped while four waves of sequences decoded, and their caches kept",
        _hybrid,
    ),
    Injection(
        "hybrid_version_kv",
        "b",
        "half the sequences were resumed with newer weights on their old cache",
        _hybrid_with_versions,
    ),
    Injection(
        "fp8_kv_scales", "a", "keys and values in e4m3 with a scale that does not fit", _fp8_scales
    ),
    Injection(
        "fp8_kv_scales", "b", "keys and values clipped at a scale of other data", _fp8_clipped
    ),
    Injection(
        "fp8_kv_tile", "a", "e4m3 with the wrong scale from one absolute position on", _fp8_tile
    ),
    Injection(
        "fp8_kv_tile", "b", "the whole cache is read coarsely once it reaches a tile", _other_tile
    ),
)

#: Half the frameworks push their engine's settings.
PUSHED = 0.5


def _as_pushed(injection: Injection) -> Injection:
    if str(injection.cause).startswith("fp8"):
        return noted(injection, PUSHED, kv_cache_dtype="fp8_e4m3")
    if injection.cause == "stale_prefix_cache":
        return noted(injection, PUSHED, enable_prefix_caching="True")
    return injection


INJECTIONS: tuple[Injection, ...] = tuple(map(_as_pushed, _ALL))
