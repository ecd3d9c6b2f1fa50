"""`AsyncStream`: an answer while it is being written, for `async for`."""

from __future__ import annotations

import asyncio
from collections import deque

from . import _phicandle
from .answers import Answers
from .completion import read
from .stream import chunk_of, finished, seconds, shown, timed_out
from .waker import LoopWaker, wait_for_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .chunk import Chunk
    from .completion import Completion
    from .loaded import Loaded


class AsyncStream:
    r"""An answer while it is being written: an async iterator of `Chunk` and an async context manager.

    It uses no thread and never blocks the event loop. Cancelling the task that waits for it cancels the answer. It
    belongs to the event loop that was running when it was made; `cancel` may be called from any thread.

    Example:
        >>> import asyncio
        >>> from phicandle import Generator
        >>> async def main():
        ...     async with Generator("demo").astream("Write a haiku about ice hockey", temperature=0.0) as stream:
        ...         async for chunk in stream:
        ...             pass
        ...     return stream.text.count("\n")
        >>> asyncio.run(main())
        2
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_generator",
        "_iterating",
        "_key",
        "_model",
        "_quiet",
        "_raw",
        "_waker",
    )

    def __init__(self, generator: Loaded, raw: _phicandle.RawStream, waker: LoopWaker) -> None:
        self._generator = generator
        self._model = generator.info.name
        self._raw = raw
        self._waker = waker
        self._key = waker.key()
        self._closed = False
        # Tasks that wait for a chunk, and whether the loop is woken for the end alone.
        self._iterating = 0
        self._quiet = False
        raw.wake(waker.raw, self._key)

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Chunk:
        """Waits for the next piece of the answer.

        Returns:
            The next chunk. The last one carries `finish_reason`, `usage` and `metrics`.

        Raises:
            StopAsyncIteration: The answer is complete, or the stream is closed.
            GenerationCancelled: The generator was closed.
            PhicandleError: The answer failed, as the error says.
            asyncio.CancelledError: The task was cancelled, and the answer with it.
        """
        if self._closed:
            raise StopAsyncIteration
        self._iterating += 1
        try:
            chunk = self._chunk(await self._event(None, whole=False))
        finally:
            self._iterating -= 1
            # Who waits for the whole left what came to this one.
            self._waker.look_again(self._key)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    @property
    def text(self) -> str:
        """The text that has been taken from the stream so far; with `n=`, that of the first answer."""
        return self._raw.written()[0]

    @property
    def done(self) -> bool:
        """Whether the answer has ended, for whatever reason."""
        return self._raw.done()

    def cancel(self) -> None:
        """Ends the answer now, while the prompt is being read too. What was written stays readable.

        The stream can still be iterated: it ends with a chunk whose `finish_reason` is "cancelled".
        """
        self._raw.cancel()

    async def aclose(self) -> None:
        """Ends the answer and the iteration. Closing twice does nothing."""
        self._closed = True
        self.cancel()
        self._waker.forget(self._key)

    async def result(self, timeout: float | None = None) -> Completion:
        """Waits for the end and returns the whole answer, including the chunks that were iterated before.

        Each chunk is given out once: one that comes while this waits goes to a task that waits for the next one, and if
        there is none it is part of the answer alone.

        Args:
            timeout: Most seconds to wait; `None` = no limit. To limit the writing itself, use
                `SamplingParams.timeout`.

        Returns:
            The answer; after `cancel` or `aclose` what was written by then, with `finish_reason` "cancelled".

        Raises:
            GenerationTimeout: `timeout` ran out. The answer goes on: call `result` again, or `cancel`.
            GenerationCancelled: The generator was closed.
            PhicandleError: The answer failed, as the error says.
            asyncio.CancelledError: The task was cancelled, and the answer with it.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + seconds(timeout)
        event = await self._event(end, whole=True)
        if event[0] == _phicandle.PENDING:
            raise timed_out(timeout, self.partial())
        return self._whole()

    def partial(self) -> Completion:
        """Returns what has been taken from the stream so far, without waiting.

        Returns:
            A `Completion`; while the answer is being written its `finish_reason` and `seed` are `None`.
        """
        return read(self._raw, self._model)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "An AsyncStream cannot be pickled: it is work in progress in this process. Send its text."
        )

    def __repr__(self) -> str:
        return shown("AsyncStream", self._raw, closed=self._closed)

    async def _event(self, end: float | None, *, whole: bool) -> _phicandle._Event:
        """Waits for the next event, or with `whole` for the last one; one that is pending when the time is up."""
        try:
            # Between two chunks the other tasks have their turn, also when the answer is ahead of its reader.
            await asyncio.sleep(0)
            return await self._next_event(end, whole=whole)
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _next_event(self, end: float | None, *, whole: bool) -> _phicandle._Event:
        while True:
            # Before the look: of what comes after it, the loop must hear.
            if self._quiet == bool(self._iterating):
                self._quiet = not self._quiet
                self._hush(self._quiet)
            event: _phicandle._Event = (_phicandle.PENDING, "", (), None)
            try:
                if not whole:
                    event = self._take()
                elif not self._iterating:
                    event = self._rest()
            except SystemExit:
                await wait_for_exit()
            if event[0] != _phicandle.PENDING:
                if event[0] != _phicandle.CHUNK:
                    self._waker.forget(self._key)
                return event
            try:
                if end is None:
                    await self._waker.wait(self._key)
                else:
                    left = end - asyncio.get_running_loop().time()
                    await asyncio.wait_for(self._waker.wait(self._key), max(0.0, left))
            except asyncio.TimeoutError:
                return event

    def _hush(self, quiet: bool) -> None:
        self._raw.quiet(quiet)

    def _take(self) -> _phicandle._Event:
        return self._raw.next(0.0)

    def _rest(self) -> _phicandle._Event:
        """Takes all that is there, and returns the last event or that it is pending."""
        return self._raw.rest(0.0), "", (), None

    def _chunk(self, event: _phicandle._Event) -> Chunk | None:
        return chunk_of(self._raw, event, self._model)

    def _whole(self) -> Completion:
        return finished(self._raw, self._model)


class AsyncChoiceStream(Answers, AsyncStream):
    """Several answers to one prompt while they are being written: an `AsyncStream` whose chunks differ in `index`."""

    __slots__ = ("_index", "_raws", "_turn")

    def __init__(self, generator: Loaded, raws: list[_phicandle.RawStream], waker: LoopWaker) -> None:
        super().__init__(generator, raws[0], waker)
        self._raws = raws
        self._index = 0
        self._turn = deque(range(len(raws)))
        for raw in raws[1:]:
            raw.wake(waker.raw, self._key)

    def _take(self) -> _phicandle._Event:
        """The next event of any answer; the answers take turns. One that fails takes the others with it."""
        for _ in range(len(self._turn)):
            self._index = index = self._turn.popleft()
            try:
                event = self._raws[index].next(0.0)
            except BaseException:
                self.cancel()
                raise
            if event[0] in (_phicandle.PENDING, _phicandle.CHUNK):
                self._turn.append(index)
            if event[0] in (_phicandle.LAST, _phicandle.CHUNK):
                return event
        return _phicandle.PENDING if self._turn else _phicandle.END, "", (), None

    def _hush(self, quiet: bool) -> None:
        for raw in self._raws:
            raw.quiet(quiet)

    def _rest(self) -> _phicandle._Event:
        try:
            self._turn = deque(
                index for index in self._turn if self._raws[index].rest(0.0) == _phicandle.PENDING
            )
        except BaseException:
            self.cancel()
            raise
        return _phicandle.PENDING if self._turn else _phicandle.END, "", (), None

    def _chunk(self, event: _phicandle._Event) -> Chunk | None:
        return chunk_of(self._raws[self._index], event, self._model, self._index)
