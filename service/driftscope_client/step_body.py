"""A step as the body of a request: a safetensors file, never joined into one piece of memory.

In: StoredTensors and metadata. Out: StepBody. The same step gives the same bytes, also in another
process: the service knows a repeated push by them. (The safetensors library writes metadata in an
order of its own, and numpy cannot give it bfloat16.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from driftscope_client.stored_tensor import StoredTensor
from driftscope_client.tensor_kinds import SCHEMA_VERSION

CONTENT_TYPE = "application/vnd.safetensors"
#: Large enough that the loop over chunks costs nothing, small enough to be read again at once.
CHUNK_BYTES = 2**20
#: The format asks for eight bytes; the data then starts aligned.
LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class StepBody:
    parts: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def chunks(self) -> Iterator[bytes]:
        """From the start each time: a push may be sent more than once."""
        for part in self.parts:
            for start in range(0, part.nbytes, CHUNK_BYTES):
                yield bytes(part[start : start + CHUNK_BYTES])


def step_body(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, object]) -> StepBody:
    """Metadata values become strings; None is left out."""
    described = {name: str(value) for name, value in metadata.items() if value is not None}
    described["schema_version"] = SCHEMA_VERSION
    header: dict[str, object] = {"__metadata__": dict(sorted(described.items()))}
    parts, end = [], 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.values.nbytes
        shape = list(tensor.values.shape)
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [begin, end]}
        parts.append(tensor.values.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % LENGTH_BYTES)
    return StepBody((memoryview(len(text).to_bytes(LENGTH_BYTES, "little") + text), *parts))
