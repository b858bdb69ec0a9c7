import subprocess
import sys

import pytest

from driftscope_probes.children import Crash
from driftscope_probes.crashes import explain_trainer_crash

MODULE = "driftscope_probes.trainer.run_trainer"


@pytest.mark.parametrize(
    "log",
    [
        "RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    ],
)
def test_a_failed_allocation_is_named(log: str) -> None:
    error = explain_trainer_crash(Crash(MODULE, 1, f"Traceback\n{log}\n"))
    assert "ran out of memory" in error.message
    assert "micro_batch" in error.remedy


def test_sigkill_points_at_memory() -> None:
    error = explain_trainer_crash(Crash(MODULE, -9, "scoring"))
    assert "SIGKILL" in error.message
    assert "memory" in error.message


def test_another_signal_is_named_with_the_last_line() -> None:
    error = explain_trainer_crash(Crash(MODULE, -11, "first\nlast words\n"))
    assert "SIGSEGV" in error.message
    assert "last words" in error.message


def test_a_traceback_gives_its_last_line() -> None:
    error = explain_trainer_crash(Crash(MODULE, 1, "Traceback\n  File\nKeyError: 'modes'\n"))
    assert "KeyError: 'modes'" in error.message
    assert "log.txt" in error.remedy


def test_what_the_parent_imports_is_free_of_torch() -> None:
    modules = ("crashes", "dtypes", "trainer.settings")
    imports = "; ".join(f"import driftscope_probes.{name}" for name in modules)
    check = f"{imports}; import sys; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
