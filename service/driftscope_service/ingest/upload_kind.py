"""What an upload says about itself: media type and content coding → how to read it, how large.

In: the Content-Type and Content-Encoding headers. Out: UploadKind, or a 415.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from driftscope_probes.push.rules import MAX_JSON_BYTES
from driftscope_probes.push.step_file import StepFormat
from driftscope_service import problem_kinds
from driftscope_service.errors import ServiceError

SAFETENSORS = "application/vnd.safetensors"
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
#: safetensors has no registered media type: clients that know none send bytes.
FORMAT_OF: Mapping[str, StepFormat] = {
    SAFETENSORS: "safetensors",
    "application/octet-stream": "safetensors",
    ARROW: "arrow",
    JSON: "json",
}
ENCODINGS = ("identity", "zstd")


@dataclass(frozen=True, slots=True)
class UploadKind:
    step_format: StepFormat
    zstd: bool

    def max_bytes(self, limit: int) -> int:
        """Of the decoded body; JSON takes far more memory than it has bytes."""
        return min(limit, MAX_JSON_BYTES) if self.step_format == "json" else limit


def upload_kind(content_type: str, content_encoding: str) -> UploadKind:
    media_type = content_type.partition(";")[0].strip().lower()
    step_format = FORMAT_OF.get(media_type)
    if step_format is None:
        raise _unsupported("Content-Type", content_type, FORMAT_OF)
    encoding = content_encoding.strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise _unsupported("Content-Encoding", content_encoding, ENCODINGS)
    return UploadKind(step_format, encoding == "zstd")


def _unsupported(
    header: str, given: str, accepted: Mapping[str, object] | tuple[str, ...]
) -> ServiceError:
    known = ", ".join(accepted)
    return ServiceError(
        problem_kinds.UNSUPPORTED_MEDIA_TYPE,
        f"{header} is {given[:200]!r}; accepted are {known}",
        remedy=f"send {header} with one of them",
    )
