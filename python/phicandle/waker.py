"""How an event loop learns of tokens without a thread: native code writes a byte, the loop sees a readable socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from . import _phicandle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


async def wait_for_exit() -> NoReturn:
    """Never returns: the interpreter ends, and so would this thread; but it is a loop's, and has other tasks."""
    await asyncio.get_running_loop().create_future()
    raise SystemExit


class LoopWaker:
    """Wakes the tasks of one event loop when their streams have something to read.

    The native side notes the key of each stream that has news and writes one byte for all of them. The loop watches
    the socket only while somebody waits, so an idle waker leaves no trace in the loop.

    Belongs to one loop: every method is called on its thread.
    """

    def __init__(self) -> None:
        self.raw = _phicandle.RawWaker()
        self._socket = socket.socket(fileno=self.raw.socket())
        self._socket.setblocking(False)
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._ready: set[int] = set()
        self._keys = 0
        self._pump: asyncio.Task[None] | None = None
        self._watching = False

    def key(self) -> int:
        """Returns a number by which a new stream is known here."""
        self._keys += 1
        return self._keys

    def forget(self, key: int) -> None:
        """Drops what is kept about a stream that has ended. Others who wait for it look again, and find the end."""
        self._wake(key)
        self._ready.discard(key)

    def look_again(self, key: int) -> None:
        """Has those who wait for the stream `key` look at it, though nothing new has come."""
        self._wake(key)

    async def wait(self, key: int) -> None:
        """Returns when the stream `key` may have something to read."""
        loop = asyncio.get_running_loop()
        # What has come since the caller looked may wake another who waits, and takes it: the caller looks again too.
        if key in self._collect() or key in self._ready:
            self._ready.discard(key)
            return
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            self._watch(loop)
        self._waiting.setdefault(key, []).append(future)
        try:
            await future
        finally:
            futures = self._waiting[key]
            futures.remove(future)
            if not futures:
                del self._waiting[key]
            if not self._waiting:
                self._unwatch(loop)

    def close_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has whoever waits wake, to find that the stream has ended, and closes the socket; from any thread."""
        if loop.is_running():
            with contextlib.suppress(RuntimeError):  # The loop was closed since; so its tasks are gone.
                loop.call_soon_threadsafe(self._close, loop)
        else:
            self._close(loop)

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        for key in self._waiting:
            self._wake(key)
        # While it is open: its number may belong to another thread's socket as soon as it is not.
        self._unwatch(loop)
        self._socket.close()

    def __del__(self) -> None:
        # Without this, a socket that goes away open would warn of a leak. Absent when `__init__` failed.
        if hasattr(self, "_socket"):
            self._socket.close()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = True
        try:
            loop.add_reader(self._socket, self._readable)
        except NotImplementedError:  # Windows' proactor loop cannot watch a socket, but can receive from it.
            self._pump = loop.create_task(self._receive(loop))

    def _unwatch(self, loop: asyncio.AbstractEventLoop) -> None:
        watched, self._watching = self._watching, False
        if not watched or loop.is_closed():
            return
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        else:
            loop.remove_reader(self._socket)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._socket.recv(64)
        self._collect()

    async def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        while await loop.sock_recv(self._socket, 64):
            self._collect()

    def _collect(self) -> list[int]:
        # Also called without a byte: a key noted before anybody watched must not wait for the next one.
        keys = self.raw.take_keys()
        for key in keys:
            if not self._wake(key):
                self._ready.add(key)
        return keys

    def _wake(self, key: int) -> bool:
        # One that is done was woken before, or its task was cancelled: it hears of nothing new.
        futures = [future for future in self._waiting.get(key, ()) if not future.done()]
        for future in futures:
            future.set_result(None)
        return bool(futures)
