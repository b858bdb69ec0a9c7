import pytest

from driftscope_probes.children import Crash
from driftscope_probes.crashes import explain_engine_crash


@pytest.mark.parametrize(
    ("returncode", "log", "message", "remedy"),
    [
        (-9, "loading\n", "killed by SIGKILL", "out of memory"),
        (-11, "", "killed by SIGSEGV", "dmesg"),
        (
            1,
            "torch.OutOfMemoryError: CUDA out of memory. Tried 3 GiB",
            "CUDA out of memory",
            "--max",
        ),
        (1, "RuntimeError: DefaultCPUAllocator: can't allocate memory: 9", "allocate", "--batch"),
        (1, "ModuleNotFoundError: No module named 'vllm'", "'vllm'", "--engine hf"),
        (1, "InvalidCxxCompiler: No working C++ compiler", "compiler", "g++"),
        (1, "Traceback\nValueError: odd", "exit code 1: ValueError: odd", "ValueError: odd"),
        (0, "", "exit code 0: (no output)", "--engine hf"),
    ],
)
def test_what_happened_and_what_to_do(returncode: int, log: str, message: str, remedy: str) -> None:
    error = explain_engine_crash(Crash("m", returncode, log))
    assert message in error.message
    assert remedy in error.remedy
