"""`ChatStream`: the answer to a turn of a `Chat`, while it is being written."""

from __future__ import annotations

from contextlib import suppress

from .errors import GenerationTimeout
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
        super().__init__(generator, turn.raw)
        self._turn = turn

    def __next__(self) -> Chunk:
        """Waits for the next piece of the answer, as `Stream` does."""
        try:
            chunk = super().__next__()
        except StopIteration:
            self._turn.keep()
            raise
        except Exception:
            self._turn.forget()
            raise
        if chunk.finish_reason is not None:
            self._turn.keep()
        return chunk

    def close(self) -> None:
        """Ends the answer and the iteration; what was taken of it stays in the conversation."""
        super().close()
        self._turn.keep()

    def result(self, timeout: float | None = None) -> Completion:
        """Waits for the end and returns the whole answer, as `Stream` does."""
        try:
            whole = super().result(timeout)
        except GenerationTimeout:
            raise
        except Exception:
            self._turn.forget()
            raise
        self._turn.keep()
        return whole

    def __del__(self) -> None:
        # `break` comes to this. There may be nothing left to do it with when the interpreter ends.
        with suppress(Exception):
            self.close()
