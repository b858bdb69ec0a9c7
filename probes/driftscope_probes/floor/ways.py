"""The ways in which the same tokens are scored, by name, as they stand in the file of scores."""

from __future__ import annotations

from typing import Final, Literal

from driftscope_probes.dtypes import Dtype

ALONE = "alone"  # a training-mode forward over one sequence
BATCHED = "batched"  # the same with other sequences in the batch, padded
DECODED = "decoded"  # token by token with a KV cache, as an engine
EMBEDDING: Final = "embedding"  # the FP32 model, its input embeddings perturbed by one rounding
STORED: Final = "stored"  # the FP32 model, every tensor perturbed where the dtype would store it
#: "embedding" perturbs the input; "stored" every tensor that a module hands on, logits included.
Where = Literal["embedding", "stored"]
PERTURBATIONS: Final[tuple[Where, ...]] = (EMBEDDING, STORED)


def way_name(way: str, dtype: Dtype) -> str:
    return f"{way}:{dtype}"
