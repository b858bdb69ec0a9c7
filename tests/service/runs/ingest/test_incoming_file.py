"""An upload on its way to disk: hashed, counted, limited, gone when it is given up."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulid import ULID

from driftscope_probes.durable_file import sync
from driftscope_probes.push import PushError
from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.upload import IncomingFile


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=300), max_size=8), zstd=st.booleans())
def test_what_arrives_is_what_is_written(tmp_path: Path, chunks: list[bytes], zstd: bool) -> None:
    content = b"".join(chunks)
    file = IncomingFile(tmp_path / f"{ULID()}.part", 10_000, zstd=zstd)
    packed = zstandard.compress(content)
    for chunk in [packed[:7], packed[7:]] if zstd else chunks:
        file.write(chunk)
    received = file.finish()
    sync(received.path)
    assert received.path.read_bytes() == content
    assert received.sha256 == hashlib.sha256(content).hexdigest()
    assert received.size_bytes == len(content)
    file.discard()
    assert not received.path.exists()


@pytest.mark.parametrize("zstd", [False, True])
def test_the_limit_is_of_the_decoded_body(tmp_path: Path, zstd: bool) -> None:
    for size, fits in ((1000, True), (1001, False)):
        file = IncomingFile(tmp_path / "a.part", 1000, zstd=zstd)
        content = bytes(range(250)) * 5
        body = zstandard.compress(content[:size]) if zstd else content[:size]
        if fits:
            file.write(body)
        else:
            with pytest.raises(ServiceError, match="at most 1000 bytes") as error:
                file.write(body)
            assert error.value.kind.status == 413
        file.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_cut_short(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "a.part", 1000, zstd=True)
    file.write(zstandard.compress(b"x" * 500)[:-2])
    with pytest.raises(PushError, match="short"):
        file.finish()
    file.discard()


def test_discarding_waits_for_the_write_under_way(tmp_path: Path) -> None:
    """Whatever the order, nothing is left and no write fails."""
    for _ in range(20):
        file = IncomingFile(tmp_path / "a.part", 2**30, zstd=False)
        failed: list[BaseException] = []

        def write(file: IncomingFile = file, failed: list[BaseException] = failed) -> None:
            try:
                for _ in range(20):
                    file.write(bytes(2**16))
            except BaseException as error:
                failed.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        file.discard()
        writer.join()
        assert failed == []
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_moved_stays(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "a.part", 10, zstd=False)
    file.write(b"x")
    received = file.finish()
    received.path.rename(tmp_path / "kept")
    file.discard()
    assert (tmp_path / "kept").read_bytes() == b"x"
