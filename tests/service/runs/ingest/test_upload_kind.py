"""Media types and content codings."""

from __future__ import annotations

import pytest

from driftscope_probes.push.rules import MAX_JSON_BYTES
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.upload import UploadKind, upload_kind


@pytest.mark.parametrize(
    ("content_type", "encoding", "kind"),
    [
        ("application/vnd.safetensors", "", UploadKind("safetensors", False)),
        ("Application/Octet-Stream", "identity", UploadKind("safetensors", False)),
        ("application/vnd.apache.arrow.stream", "zstd", UploadKind("arrow", True)),
        ("application/json ; charset=utf-8", " ZSTD ", UploadKind("json", True)),
    ],
)
def test_accepted(content_type: str, encoding: str, kind: UploadKind) -> None:
    assert upload_kind(content_type, encoding) == kind


@pytest.mark.parametrize(
    ("content_type", "encoding", "told"),
    [
        ("", "", "Content-Type"),
        ("application/x-npz", "", "application/vnd.safetensors"),
        ("application/json", "br", "Content-Encoding"),
        ("application/json", "zstd, zstd", "identity, zstd"),
    ],
)
def test_refused(content_type: str, encoding: str, told: str) -> None:
    with pytest.raises(ServiceError, match=told) as error:
        upload_kind(content_type, encoding)
    assert error.value.kind.status == 415


def test_json_has_a_limit_of_its_own() -> None:
    assert UploadKind("json", False).max_bytes(2**40) == MAX_JSON_BYTES
    assert UploadKind("json", False).max_bytes(1024) == 1024
    assert UploadKind("arrow", False).max_bytes(2**40) == 2**40
