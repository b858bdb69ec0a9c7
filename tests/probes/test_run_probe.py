"""The process of a probe runs the runner of its request, without one that of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftscope_probes.errors import RequestError
from driftscope_probes.progress import discard
from driftscope_probes.run_probe import run


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "nosuch", "request": {}},
        {"kind": "../paired", "request": {}},
        {"kind": "paired", "request": {}, "runner": "nowhere.run"},
    ],
)
def test_a_probe_that_is_not_installed_is_named(request_: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="(?s)unknown probe.*install the same version"):
        run(request_, tmp_path, discard)


def test_a_request_of_an_older_version_finds_its_runner(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="(?s)KernelsRequest.*nonsense"):
        run({"kind": "kernels", "request": {"nonsense": 1}}, tmp_path, discard)
