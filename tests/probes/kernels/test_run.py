"""Requests about kernels: the list is what is registered, and what is unknown is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driftscope_kernels.registry import kernels
from driftscope_probes.errors import RequestError
from driftscope_probes.kernels.run import run
from driftscope_probes.progress import discard


def listed(folder: Path, targets: Any = None, ops: Any = None) -> list[dict[str, Any]]:
    asked = {"action": "list", "targets": targets, "ops": ops}
    found: list[dict[str, Any]] = run(asked, folder, discard)["kernels"]
    return found


def test_every_registered_kernel_is_listed_and_filters_divide_the_list(tmp_path: Path) -> None:
    whole = listed(tmp_path)
    names = {f"{kernel['target']}/{kernel['op']}/{kernel['implementation']}" for kernel in whole}
    assert {kernel.name for kernel in kernels()} <= names
    assert all(kernel["dtypes"] for kernel in whole)
    for field, filter_ in (("target", "targets"), ("op", "ops")):
        values = {kernel[field] for kernel in whole}
        parts = [listed(tmp_path, **{filter_: [value]}) for value in values]
        assert sum(map(len, parts)) == len(whole)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"targets": ["torch", "acme"]}, "unknown target acme"),
        ({"ops": ["lineal"]}, "unknown op lineal"),
    ],
)
def test_what_is_unknown_is_named(asked: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=told):
        listed(tmp_path, **asked)
    with pytest.raises(RequestError, match="use list, check, replay or bench"):
        run({"action": "guess"}, tmp_path, discard)
