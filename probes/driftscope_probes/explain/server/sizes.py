"""What a position or length coincides with: sizes of the configuration, of blocks and of chunks.

In: config.json of both sides and what the server tells. Out: Coincidences. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Keys of config.json that are a number of tokens.
TOKEN_KEYS: Final = (
    "sliding_window",
    "attention_chunk_size",
    "original_max_position_embeddings",
    "max_position_embeddings",
)
#: Positions count from 0 and lengths from 1; a window may or may not count the token itself.
OFF_BY: Final = 1
#: vLLM's blocks: GPUs (16), CPU and some attention backends (32, 64, 128).
BLOCKS: Final = (128, 64, 32, 16)
#: vLLM's own max_num_batched_tokens and their halves, by kind of machine and of server.
CHUNKS: Final = (512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True, slots=True)
class Coincidence:
    what: str  # "sliding_window of the trainer's config.json"
    tokens: int
    chance: float  # that a random position would lie as near


def coincidences(
    at: int, configs: Mapping[str, Mapping[str, Any]], max_length: int | None, longest: int
) -> list[Coincidence]:
    """The least likely first. `configs`: config.json by whose it is. `longest`: positions asked."""
    found = []
    single = (2 * OFF_BY + 1) / longest
    for whose, config in configs.items():
        for key, tokens in _sizes(config):
            if abs(at - tokens) <= OFF_BY:
                found.append(Coincidence(f"{key} of the {whose}'s config.json", tokens, single))
    if max_length is not None and abs(at - max_length) <= OFF_BY:
        found.append(Coincidence("the server's max_model_len", max_length, single))
    for chunk in CHUNKS:
        if abs(at - chunk) <= OFF_BY:
            what = "a usual max_num_batched_tokens: the border of a prefill chunk"
            found.append(Coincidence(what, chunk, single))
    for block in BLOCKS:
        if at % block == 0:
            what = f"a multiple of {block}, as of blocks of the key-value cache and kernel tiles"
            found.append(Coincidence(what, block, 1 / block))
            break
    return sorted(found, key=lambda one: one.chance)


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name in ("", "rope_parameters", "rope_scaling", "text_config"):
        table = config.get(name) if name else config
        if not isinstance(table, Mapping):
            continue
        for key in TOKEN_KEYS:
            value = table.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                yield (f"{name}.{key}" if name else key), value
