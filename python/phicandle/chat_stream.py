"""`ChatStream`: the answer to a turn of a `Chat`, while it is being written."""

from __future__ import annotations

from .stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .chat import OpenTurn
    from .chunk import Chunk
    from .completion import Completion
    from .generator import Generator


class ChatStream(Stream):
    r"""A `Stream` whose turn becomes part of its `Chat` when it ends.

    A stream that is cancelled, closed, left by `with` or `break`, or runs out of time, leaves the text that was taken
    from it: `Chat.messages` marks such an answer. One that fails leaves the conversation as it was.

    Example:
        >>> from phicandle import Generator
        >>> chat = Generator("demo").chat()
        >>> for chunk in chat.stream("Write a haiku about ice hockey"):
        ...     if "\n" in chunk:
        ...         break
        >>> chat.messages[-1]["finish_reason"]
        'cancelled'
    """

    __slots__ = ("_turn",)

    def __init__(self, generator: Generator, turn: OpenTurn) -> None:
        self._turn = turn
        super().__init__(generator, turn.raw)

    def __next__(self) -> Chunk:
        """Waits for the next piece of the answer, as `Stream` does."""
        with self._turn:
            return super().__next__()

    def close(self) -> None:
        """Ends the answer and the iteration; what was taken of it stays in the conversation."""
        super().close()
        self._turn.keep()

    def result(self, timeout: float | None = None) -> Completion:
        """Waits for the end and returns the whole answer, as `Stream` does."""
        with self._turn:
            return super().result(timeout)

    def __del__(self) -> None:
        self._turn.abandon()
