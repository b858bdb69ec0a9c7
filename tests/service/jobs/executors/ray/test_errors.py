"""How the end of a driver is explained, and which ends are another attempt's business."""

from __future__ import annotations

import pytest

from driftscope_probes.children import Crash
from driftscope_service.jobs.executors.base import NodeLost
from driftscope_service.jobs.executors.ray.errors import (
    ClusterUnreachable,
    Node,
    NodeMismatch,
    Reported,
    Versions,
    check_versions,
    explain_driver_crash,
    lost,
)
from driftscope_service.jobs.executors.ray.options import ClusterOptions

NODE = Node("0ef667c8d8759f92", "gpu-7", "10.0.0.7", Versions("1.0", "3.11"))


def test_a_driver_without_its_node_is_a_lost_node() -> None:
    words = "[2026-11-30 C 7 7] core_worker.cc: The raylet has died, the process exits."
    assert isinstance(explain_driver_crash(Crash("driver", 1, words)), NodeLost)


@pytest.mark.parametrize(
    "crash",
    [
        Crash("driver", 1, 'File "ray/_raylet.pyx", line 1\nOSError: no space left on device'),
        Crash("driver", -9, "raylet"),
    ],
)
def test_another_end_is_not(crash: Crash) -> None:
    assert isinstance(explain_driver_crash(crash), ClusterUnreachable)


def test_without_ray_the_remedy_names_the_extra() -> None:
    error = explain_driver_crash(Crash("driver", 1, "ModuleNotFoundError: No module named 'ray'"))
    assert "driftscope[ray]" in error.remedy


def test_both_versions_are_named() -> None:
    check_versions(NODE, Versions("1.0", "3.11"))
    with pytest.raises(NodeMismatch) as error:
        check_versions(NODE, Versions("1.1", "3.12"))
    for word in ("gpu-7", "10.0.0.7", "1.0", "3.11", "1.1", "3.12"):
        assert word in error.value.message


def test_the_words_of_a_lost_node_are_one_short_line() -> None:
    error = lost(NODE, "first\n\tsecond " + "x" * 1000)
    assert error.message.startswith("node gpu-7 (10.0.0.7, 0ef667c8d875) was lost: first second x")
    assert len(error.message) < 500
    ray = "The actor died unexpectedly.\n\tpid: 7\nThe actor died because its node has died."
    assert lost(NODE, ray).message.endswith("was lost: The actor died because its node has died.")


def test_an_error_of_the_probe_stays_as_it_is() -> None:
    fields = {"error": "FloorFileError", "message": "no room.", "remedy": "make room."}
    assert Reported(fields).to_dict() == fields


def test_what_a_job_waits_for_in_words() -> None:
    options = ClusterOptions("auto", 2.0, 1.0, 3 << 30, "H100", {"rack": 1.0})
    assert options.demand == "2 CPUs, 1 GPU, H100, 3.0 GiB, 1 rack"
