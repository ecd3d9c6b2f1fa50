"""`Bundle`: several running answers that one reader follows."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque

from . import _phicandle
from .errors import PhicandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    _News = tuple[int, _phicandle._Event | PhicandleError]

# Longest wait in one go: within it another thread that reads here looks again, and Ctrl-C is heard on Windows too.
SLICE = 0.05


class Bundle:
    """Several running answers that one reader follows, whichever has news.

    Native code notes the key of each answer with news and writes one byte for all of them, so waiting takes no thread,
    and costs the same for one answer as for a hundred. Any thread may read; tasks of one event loop may instead.
    """

    def __init__(self) -> None:
        self._waker = _phicandle.RawWaker()
        self._socket = socket.socket(fileno=self._waker.socket())
        self._raws: dict[int, _phicandle.RawStream] = {}
        self._ready: deque[int] = deque()
        self._lock = threading.Lock()
        self._byte: asyncio.Task[bytes] | None = None

    def __len__(self) -> int:
        """How many answers have not ended."""
        return len(self._raws)

    def add(self, key: int, raw: _phicandle.RawStream) -> None:
        """Follows one more answer, known by `key` from now on."""
        self._raws[key] = raw
        raw.wake(self._waker, key)

    def drop(self, key: int) -> None:
        """Cancels an answer and no longer follows it. One that has ended does not mind."""
        raw = self._raws.pop(key, None)
        if raw is not None:
            raw.cancel()

    def take(self) -> _News | None:
        """Returns a key with its next event, or with the error that it ended with; `None` while there is no news.

        Answers with news take turns.
        """
        with self._lock:
            self._ready.extend(self._waker.take_keys())
            while self._ready:
                key = self._ready.popleft()
                raw = self._raws.get(key)
                if raw is None:
                    continue
                try:
                    event = raw.next(0.0)
                except PhicandleError as error:
                    self._raws.pop(key, None)
                    return key, error
                if event[0] == _phicandle.CHUNK:
                    self._ready.append(key)
                    return key, event
                if event[0] != _phicandle.PENDING:
                    self._raws.pop(key, None)
                    return key, event
        return None

    def wait(self, timeout: float | None) -> _News | None:
        """As `take`, but waits up to `timeout` seconds for news; `None` waits while an answer is running.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            news = self.take()
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if news is not None or left <= 0.0 or (end is None and not self._raws):
                return news
            self.rest(left)

    def rest(self, seconds: float = SLICE) -> None:
        """Returns when there may be news, and at the latest after some seconds.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError, BlockingIOError):
            self._socket.recv(4096)

    def byte(self) -> asyncio.Task[bytes]:
        """Returns a task of the running event loop that is done when there may be news."""
        import asyncio

        if self._byte is None or self._byte.done():
            self._socket.setblocking(False)
            loop = asyncio.get_running_loop()
            self._byte = loop.create_task(loop.sock_recv(self._socket, 4096))
        return self._byte

    def cancel(self) -> None:
        """Ends all the answers now. Their last events still come."""
        for raw in list(self._raws.values()):
            raw.cancel()

    def close(self) -> None:
        """Cancels all the answers and follows none. Closing twice does nothing."""
        self.cancel()
        self._raws.clear()
        if self._byte is None or self._byte.done():
            self._socket.close()
        else:
            # The event loop lets go of the socket first.
            self._byte.add_done_callback(lambda _: self._socket.close())
            self._byte.cancel()

    def __del__(self) -> None:
        # Without this, a socket that goes away open would warn of a leak. Absent when `__init__` failed.
        if hasattr(self, "_socket"):
            self._socket.close()
