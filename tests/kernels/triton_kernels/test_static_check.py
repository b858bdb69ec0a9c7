"""The static check: ours pass it, what depends on the batch or on the order of atomics does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from driftscope_kernels.check.static import static_process
from driftscope_kernels.triton_kernels.aot import TARGETS
from driftscope_kernels.triton_kernels.static_check import (
    NothingLaunchedError,
    main,
    static_verdict,
    static_verdicts,
)

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets, it cannot compile"
)

FOUR = ["linear", "rms_norm", "softmax", "attention-paged"]
WHOLE = "sm_90"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled afresh once per session: a warm cache would hide a kernel that fails to compile."""
    folder = Path(tmp_path_factory.getbasetemp()) / "driftscope-home"
    monkeypatch.setenv("DRIFTSCOPE_HOME", str(folder))


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_atomics_are_refuted(arch: str) -> None:
    found = static_verdict(
        "atomic", lambda rows: static_process.atomic_split_sum(torch.empty(rows, 200)), arch
    )
    assert found.verdict == "REFUTED"
    assert "atomic_split_kernel: atomic instructions" in found.reasons[0]


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_a_binary_per_batch_size_is_refuted(arch: str) -> None:
    found = static_verdict(
        "specialised", lambda rows: static_process.specialised_sum(torch.empty(rows, 200)), arch
    )
    assert found.verdict == "REFUTED"
    assert "binaries, chosen by batch size" in found.reasons[0]


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_an_argument_that_follows_the_batch_is_refuted(arch: str) -> None:
    found = static_verdict(
        "parts", lambda rows: static_process.sum_in_parts(torch.empty(rows, 200)), arch
    )
    assert found.verdict == "REFUTED" and len(found.binaries) == 1
    assert found.reasons == ("parts_kernel: argument part follows the batch size (64, 200)",)


def test_an_op_that_launches_nothing_has_no_verdict() -> None:
    with pytest.raises(NothingLaunchedError, match="at 1 rows"):
        static_verdict("nothing", lambda rows: torch.empty(rows).sum(), "sm_90")


def test_another_choice_of_kernels_is_refuted() -> None:
    def op(rows: int) -> None:
        x = torch.empty(rows, 200)
        (static_process.atomic_split_sum if rows > 16 else static_process.specialised_sum)(x)

    found = static_verdict("chosen", op, "sm_80")
    assert found.verdict == "REFUTED" and "other kernels at 17 rows" in found.reasons[0]


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_attention_with_tiles_by_batch_is_refuted(arch: str) -> None:
    def op(rows: int) -> None:
        q, k = torch.empty(rows, 4, 16), torch.empty(rows, 2, 16)
        lengths = torch.tensor([0, rows]), torch.tensor([rows])
        static_process.attention_with_tiles_by_batch(
            q, k, k, cu_seqlens_q=lengths[0], seqlens_k=lengths[1], scale=0.25
        )

    found = static_verdict("tiles", op, arch)
    assert found.verdict == "REFUTED"
    assert "attention_kernel: 2 binaries, chosen by batch size" in found.reasons[0]


def test_ours_are_static_on_one_architecture() -> None:
    for verdict in static_verdicts(FOUR, ["bf16"], ["sm_80"]):
        assert verdict.verdict == "STATIC", verdict.reasons
        for binary in verdict.binaries:
            assert binary.registers and not (binary.atomics or binary.approximate)


@pytest.mark.slow
@pytest.mark.parametrize("arch", TARGETS)
def test_all_of_ours_are_static(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    # One of them whole; of the others the ops whose code is the least alike.
    ops = [] if arch == WHOLE else [f"--op={op}" for op in FOUR]
    assert main(["--arch", arch, "--dtype", "bf16", *ops]) == 0
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    binaries = [binary for verdict in verdicts for binary in verdict["binaries"]]
    assert all(verdict["verdict"] == "STATIC" for verdict in verdicts) and binaries
    assert not any(binary["atomics"] or binary["approximate"] for binary in binaries)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="'sm_20': choose one of sm_80"):
        static_verdict("nothing", lambda rows: None, "sm_20")
