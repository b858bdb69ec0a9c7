"""Client of the nursery, in the child processes of probes that tests start: see nursery.py.

Python imports this first because conftest.py puts its folder onto PYTHONPATH. Where it does not
apply it returns at once, and the process starts as it does for users.
"""

from __future__ import annotations

import os
import sys

SOCKET = "NURSERY_OF_OUR_TESTS"
PROGRESS_FD = "DRIFTSCOPE_PROGRESS_FD"
#: Child processes of probes that import torch, which takes longer than what they do in a test.
MODULES = frozenset(
    f"driftscope_probes.{name}"
    for name in (
        "diagnosis.drill.planted.engine_child",
        "diagnosis.drill.planted.trainer_child",
        "engines.run_rollout",
        "engines.sessions.run_session",
        "explain.run_against_itself",
        "explain.run_pair",
        "floor.measure",
        "nightly.engine_items",
        "trainer.run_session",
        "trainer.run_trainer",
    )
)


def applies() -> bool:
    """Started as `python -m MODULE WORKDIR` with a nursery there."""
    asked = sys.orig_argv
    return len(asked) == 4 and asked[1] == "-m" and asked[2] in MODULES and SOCKET in os.environ


def stand_for(module: str, workdir: str) -> None:
    """Have the nursery run the module, and be its process to whoever started this one."""
    import ctypes
    import json
    import signal
    import socket

    # As the child itself does: linux/prctl.h, PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    descriptors = [0, 1, 2, int(os.environ[PROGRESS_FD])]
    order = {
        "module": module,
        "workdir": workdir,
        "folder": os.getcwd(),
        "path": [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part],
        "environment": dict(os.environ),
        "progress_fd": descriptors[-1],
    }
    payload = json.dumps(order).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nursery:
        nursery.connect(os.environ[SOCKET])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: nursery.sendall(bytes([number])))
        socket.send_fds(nursery, [len(payload).to_bytes(4, "big")], descriptors)
        nursery.sendall(payload)
        for descriptor in descriptors:
            os.close(descriptor)
        told = nursery.recv(4)
    if len(told) < 4:
        os.kill(os.getpid(), signal.SIGKILL)  # the nursery died, and the child with it
    status = int.from_bytes(told, "big")
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if applies():
    stand_for(sys.orig_argv[2], sys.orig_argv[3])
