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


RUNNER = """
def run_probe(request, workdir, progress):
    return {"kind": "x", "model": {"name": "m"}, "request": request["request"], "environment": {}}
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_report_of_a_model_has_what_its_settings_are_known_for(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runner_of_a_test.py").write_text(RUNNER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    name = "tiny-random-llama" if there else str(tmp_path / "gone")
    asked = {"model": name, "engine_dtypes": ["bf16"]}
    report = run({"kind": "x", "request": asked, "runner": "runner_of_a_test"}, tmp_path, discard)
    read = {one["name"] for one in report["lint"]["read"]}
    assert "request" in read and ("config.json" in read) == there
    assert report["lint"]["rules"] > 0


def test_a_request_of_an_older_version_finds_its_runner(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="(?s)KernelsRequest.*nonsense"):
        run({"kind": "kernels", "request": {"nonsense": 1}}, tmp_path, discard)
