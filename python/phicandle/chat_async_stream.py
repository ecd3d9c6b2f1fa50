"""`ChatAsyncStream`: the answer to a turn of a `Chat`, for `async for`."""

from __future__ import annotations

from .async_stream import AsyncStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .chat import OpenTurn
    from .chunk import Chunk
    from .completion import Completion
    from .generator import Generator
    from .waker import LoopWaker


class ChatAsyncStream(AsyncStream):
    """An `AsyncStream` whose turn becomes part of its `Chat` when it ends, as that of a `ChatStream` does.

    Example:
        >>> import asyncio
        >>> from phicandle import Generator
        >>> async def main():
        ...     chat = Generator("demo").chat()
        ...     async for chunk in chat.astream("Write a haiku about ice hockey"):
        ...         pass
        ...     return len(chat.messages)
        >>> asyncio.run(main())
        2
    """

    __slots__ = ("_turn",)

    def __init__(self, generator: Generator, turn: OpenTurn, waker: LoopWaker) -> None:
        self._turn = turn
        super().__init__(generator, turn.raw, waker)

    async def __anext__(self) -> Chunk:
        """Waits for the next piece of the answer, as `AsyncStream` does."""
        with self._turn:
            return await super().__anext__()

    async def aclose(self) -> None:
        """Ends the answer and the iteration; what was taken of it stays in the conversation."""
        await super().aclose()
        self._turn.keep()

    async def result(self, timeout: float | None = None) -> Completion:
        """Waits for the end and returns the whole answer, as `AsyncStream` does."""
        with self._turn:
            return await super().result(timeout)

    def __del__(self) -> None:
        self._turn.abandon()
