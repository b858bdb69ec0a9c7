"""A TCP proxy that cuts, delays, silences and half-closes what passes through it.

In: a port of loopback to pass on to, which may change. Out: a port to connect to.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum

_PIECE = 65536


class Fault(Enum):
    NONE = "none"
    REFUSE = "refuse"  # every connection ends at once, as where nothing listens
    SILENT = "silent"  # connections are taken, and nothing is passed on in either direction
    SLOW = "slow"  # every piece arrives late


class TcpProxy:
    """One event loop in a thread; its methods may be called from any other."""

    def __init__(self, to_port: int, *, delay_s: float = 0.01) -> None:
        self.to_port = to_port
        self.fault = Fault.NONE
        self._delay_s = delay_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(server, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End every connection without a word, as a router that forgets them."""
        self._loop.call_soon_threadsafe(self._abort)

    def half_close(self) -> None:
        """Say that no more will come, and go on reading."""

        def end() -> None:
            for writer in self._writers:
                with suppress(OSError):
                    writer.write_eof()

        self._loop.call_soon_threadsafe(end)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._abort()
            open_ones = asyncio.all_tasks() - {asyncio.current_task()}
            for task in open_ones:
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.REFUSE:
            writer.transport.abort()
            return
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        await asyncio.gather(self._pass(reader, onward), self._pass(back, writer))
        self._writers -= {writer, onward}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                while self.fault is Fault.SILENT:
                    await asyncio.sleep(self._delay_s)
                if self.fault is Fault.SLOW:
                    await asyncio.sleep(self._delay_s)
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


@contextmanager
def tcp_proxy(to_port: int) -> Iterator[TcpProxy]:
    proxy = TcpProxy(to_port)
    try:
        yield proxy
    finally:
        proxy.close()
