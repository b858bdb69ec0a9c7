"""Beside a probe on a node: ends it and removes its folder once the actor is gone, however it went.

    python guard.py GROUP FOLDER

Reads its standard input, which the actor holds open. Ray may kill the actor's process, and then
kills its children but not what they started: only their group reaches those. Run as a file, with
the standard library alone, so that it is there in a few milliseconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress

#: From an actor whose probe has ended in order: its group is gone, and the number may be another's.
DONE = b"done"


def main() -> None:
    group, folder = int(sys.argv[1]), sys.argv[2]
    if os.fork():
        # Not a child of the actor's process any more, so that Ray does not kill it with that.
        os._exit(0)
    if sys.stdin.buffer.read() != DONE:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
