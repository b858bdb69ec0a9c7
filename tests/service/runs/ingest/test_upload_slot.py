"""Slots are given back whatever happens, and a full disk is a problem of its own."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from driftscope_service.http.errors import ServiceError
from driftscope_service.runs.ingest.upload import UploadSlots


def test_a_slot_comes_back_after_a_failure(tmp_path: Path) -> None:
    slots = UploadSlots(tmp_path, 1, 0)
    for _ in range(3):
        with pytest.raises(ValueError), slots.hold(0):
            raise ValueError
    with slots.hold(0), pytest.raises(ServiceError) as error, slots.hold(0):
        pass
    assert error.value.kind.slug == "too-many-uploads"


def test_what_a_request_declares_must_fit(tmp_path: Path) -> None:
    slots = UploadSlots(tmp_path, 1, 0)
    for declared, refused in ((2**62, True), (0, False)):
        if refused:
            with pytest.raises(ServiceError) as error, slots.hold(declared):
                pass
            assert error.value.kind.status == 507
        else:
            with slots.hold(declared):
                pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_becomes_full(tmp_path: Path, number: int) -> None:
    with pytest.raises(ServiceError) as error, UploadSlots(tmp_path, 1, 0).hold(0):
        raise OSError(number, "full")
    assert error.value.kind.slug == "storage-full"


def test_another_failure_of_the_disk_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="broken"), UploadSlots(tmp_path, 1, 0).hold(0):
        raise OSError(errno.EIO, "broken")
