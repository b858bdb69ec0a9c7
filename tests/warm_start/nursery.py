"""Children of probes, forked from processes that have imported torch, transformers and vLLM.

    python tests/warm_start/nursery.py SOCKET

Importing takes 7 to 13 seconds of processor time per child, far more than the tiny models do. A
child that is forked here has the environment, folder, streams and arguments of the process that
stands for it (sitecustomize.py), and dies with it; one ward is kept per environment that libraries
read while they are loaded. What starts as it does for users: tests that ask for `plain_starts`,
`make demo`, and everything that is no child of a probe.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

#: Read by libraries while they are loaded: a child that differs in one of these gets a ward of
#: its own.
READ_AT_LOAD: Final = (
    "ATEN_", "CUDA", "DNNL_", "GOMP_", "HF_", "KMP_", "LD_", "MKL_", "OMP_", "ONEDNN_",
    "OPENBLAS_", "PYTHON", "PYTORCH_", "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "TRITON_", "VLLM_",
)  # fmt: skip
#: Each holds half a GiB; tests differ in fewer ways than this at a time.
MOST_WARDS: Final = 6
TRANSFORMERS: Final = ("torch", "transformers", "transformers.models.llama.modeling_llama",
                       "transformers.models.auto.modeling_auto",
                       "transformers.models.auto.tokenization_auto")  # fmt: skip
VLLM: Final = ("torch", "vllm", "vllm.engine.arg_utils", "vllm.entrypoints.llm",
               "vllm.v1.engine.llm_engine")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """One child, as the process that stands for it asks for it."""

    module: str
    workdir: str
    folder: str
    path: tuple[str, ...]
    environment: Mapping[str, str]
    progress_fd: int

    @classmethod
    def of(cls, payload: bytes) -> Order:
        fields: dict[str, Any] = json.loads(payload)
        return cls(**{**fields, "path": tuple(fields["path"])})

    @property
    def libraries(self) -> tuple[str, ...]:
        request = (Path(self.folder) / self.workdir / "request.json").read_text(encoding="utf-8")
        return VLLM if '"kind": "vllm"' in request else TRANSFORMERS

    @property
    def ward(self) -> tuple[Any, ...]:
        read = sorted(v for v in self.environment.items() if v[0].startswith(READ_AT_LOAD))
        return self.libraries, tuple(read)


def send(connection: socket.socket, payload: bytes, descriptors: list[int]) -> None:
    socket.send_fds(connection, [len(payload).to_bytes(4, "big")], descriptors)
    connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The bytes of an Order, and descriptors: at last three streams and the pipe of the progress.
    Raises ConnectionError where the other side is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, 4, 5)
    if not head:
        raise ConnectionError("the other side has closed")
    size, payload = int.from_bytes(head, "big"), b""
    while len(payload) < size:
        piece = connection.recv(size - len(payload))
        if not piece:
            raise ConnectionError("the other side ended within an order")
        payload += piece
    return payload, descriptors


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # linux/prctl.h, PR_SET_PDEATHSIG


class Root:
    """Listens, and hands each order to the ward that fits. Imports nothing that is heavy."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._wards: dict[tuple[Any, ...], socket.socket] = {}

    def serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            try:
                payload, descriptors = receive(connection)
                self._hand_over(Order.of(payload), payload, connection, descriptors)
            except (ConnectionError, OSError, ValueError, IndexError):
                traceback.print_exc()  # the process that asked sees the connection end
                connection.close()

    def _hand_over(
        self, order: Order, payload: bytes, connection: socket.socket, descriptors: list[int]
    ) -> None:
        handed = [connection.fileno(), *descriptors]
        ward = self._wards.pop(order.ward, None) or self._open(order, handed)
        self._wards[order.ward] = ward  # the last one used is the last one closed
        send(ward, payload, handed)
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _open(self, order: Order, passing: list[int]) -> socket.socket:
        """`passing`: descriptors on their way to the ward, which it must not hold twice."""
        if len(self._wards) == MOST_WARDS:
            self._wards.pop(next(iter(self._wards))).close()  # it ends after its last child
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            try:
                die_with_parent()
                self._listener.close()
                ours.close()
                for other in self._wards.values():
                    other.close()
                for descriptor in passing:
                    os.close(descriptor)
                Ward(theirs, order).serve()
            except BaseException:  # a process of its own: nothing goes on to the root's loop
                traceback.print_exc()
            finally:
                os._exit(0)
        theirs.close()
        return ours


class Ward:
    """Has imported what its children need; forks, and tells how each child ended."""

    def __init__(self, orders: socket.socket, first: Order) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(first.environment)
        sys.path[:0] = [part for part in first.path if part not in sys.path]
        for name in first.libraries:
            import_module(name)
        self._orders = orders
        self._watched = selectors.DefaultSelector()
        self._watched.register(orders, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Until the root has closed the ward and its last child has ended."""
        while self._watched.get_map():
            for key, _ in self._watched.select():
                if key.fileobj is self._orders:
                    self._take()
                else:
                    key.data(key.fileobj)

    def _take(self) -> None:
        try:
            payload, handed = receive(self._orders)
        except ConnectionError:
            self._watched.unregister(self._orders)
            return
        connection, descriptors = socket.socket(fileno=handed[0]), handed[1:]
        pid = os.fork()
        if pid == 0:
            run(Order.of(payload), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        Child(pid, connection, self._watched)


class Child:
    """One child: signals go to it, its end comes back, and it ends with who stands for it."""

    def __init__(
        self, pid: int, connection: socket.socket, watched: selectors.BaseSelector
    ) -> None:
        self._pid = pid
        self._connection = connection
        self._watched = watched
        self._end = os.pidfd_open(pid)
        watched.register(connection, selectors.EVENT_READ, self._hear)
        watched.register(self._end, selectors.EVENT_READ, self._ended)

    def _hear(self, _: Any) -> None:
        try:
            told = self._connection.recv(1)
        except ConnectionError:
            told = b""
        if told:
            self._send(signal.Signals(told[0]))
        else:
            self._watched.unregister(self._connection)
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _ended(self, _: Any) -> None:
        _, status = os.waitpid(self._pid, 0)
        # What it left of its group, as the real one's parent would end it.
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        for each in (self._end, self._connection):
            with suppress(KeyError):
                self._watched.unregister(each)
        os.close(self._end)
        with suppress(OSError):
            self._connection.sendall(status.to_bytes(4, "big"))
        self._connection.close()


def run(order: Order, descriptors: list[int]) -> None:
    """In the child; does not return."""
    os.setsid()
    die_with_parent()
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    # Above what is used here, so that none is overwritten before it has been moved.
    moved = [os.dup2(descriptor, 200 + at) for at, descriptor in enumerate(descriptors)]
    for at, target in zip(moved, (0, 1, 2, order.progress_fd), strict=True):
        os.dup2(at, target, inheritable=True)
    os.closerange(max(3, order.progress_fd + 1), 1024)
    for other in range(3, order.progress_fd):
        with suppress(OSError):
            os.close(other)
    sys.argv = [order.module, order.workdir]
    code = 1
    try:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # as an interpreter does at its top
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    die_with_parent()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wards that end are not waited for
        Root(listener).serve()


if __name__ == "__main__":
    main()
