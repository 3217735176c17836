"""A TCP proxy in front of one server that does to its connections what networks do: cut, refuse, halve, delay, stall."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self


class TcpProxy:
    """Forwards every connection to `upstream`; runs in a thread of its own, and may be told what to do from any other."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        """Where new connections are forwarded to, "host:port"; may be changed at any time."""
        self.delay = 0.0
        """Seconds that every chunk of bytes is held back."""
        self.forwarded = 0
        """Bytes forwarded so far, both ways together."""
        self._halving = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._thread.start()
        self._run(self._listen(0))

    def cut(self) -> None:
        """Cuts all connections, at both ends."""
        self._do(_abort, self._writers)

    def halve(self) -> None:
        """Forwards of the next chunk only the first half, and then cuts all connections."""
        self._halving = True

    def stall(self) -> None:
        """Forwards nothing any more, and leaves all connections open."""
        self._do(self._flowing.clear)

    def flow(self) -> None:
        """Forwards again, beginning with what was held back."""
        self._do(self._flowing.set)

    def refuse(self) -> None:
        """Lets the system refuse new connections; those that are open stay."""
        self._do(self._server.close)

    def accept(self) -> None:
        """Takes new connections again, at the same address."""
        self._run(self._listen(int(self.address.rpartition(":")[2])))

    def close(self) -> None:
        """Cuts all connections, and takes no more."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, function: Callable[..., None], *arguments: Any) -> None:
        async def do() -> None:
            function(*arguments)

        self._run(do())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        self._writers.add(writer)
        ends = [writer]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            other_reader, other_writer = await asyncio.open_connection(*self.upstream.rsplit(":", 1))
            self._writers.add(other_writer)
            ends.append(other_writer)
            await asyncio.gather(self._worker(reader, other_writer, ends), self._worker(other_reader, writer, ends))
        _abort(ends)
        self._writers.difference_update(ends)
        self._tasks.discard(task)

    async def _worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: Any) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                await self._flowing.wait()
                await asyncio.sleep(self.delay)
                halving, self._halving = self._halving, False
                writer.write(chunk[: len(chunk) // 2] if halving else chunk)
                await writer.drain()
                self.forwarded += len(chunk)
                if halving:
                    _abort(self._writers)
        _abort(ends)  # what one end has closed is closed at the other


def _abort(writers: Any) -> None:
    for writer in writers:
        writer.transport.abort()
