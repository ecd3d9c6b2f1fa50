"""`Stream`: an answer while it is being written."""

from __future__ import annotations

from . import _phicandle
from .arguments import number, wrong
from .chunk import Chunk, piece
from .completion import read
from .errors import ForkError, GenerationCancelled, GenerationTimeout
from .likelihood import token_logprobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .completion import Completion
    from .loaded import Loaded

# Looked up once: a chunk that comes after a pass of the model finds nothing in the caches of the CPU.
_CHUNK = _phicandle.CHUNK


class Stream:
    """An answer while it is being written: an iterator of `Chunk` and a context manager.

    Work starts with the call that made the stream, not with the first `next`. It stops when the answer is complete,
    and when the stream is cancelled, closed, left by `with`, or garbage-collected (which is what `break` comes to).
    Any thread may call any method.

    Example:
        >>> from phicandle import Generator
        >>> generator = Generator("demo")
        >>> with generator.stream("Write a haiku about ice hockey", seed=1) as stream:
        ...     for chunk in stream:
        ...         pass
        >>> stream.text == generator.generate("Write a haiku about ice hockey", seed=1).text
        True
    """

    __slots__ = ("__weakref__", "_closed", "_generator", "_model", "_raw")

    def __init__(self, generator: Loaded, raw: _phicandle.RawStream) -> None:
        # The generator stays alive as long as its stream: `for chunk in Generator().stream(...)` depends on it.
        self._generator = generator
        self._model = generator.info.name
        self._raw = raw
        self._closed = False

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        """Waits for the next piece of the answer.

        Returns:
            The next chunk. The last one carries `finish_reason`, `usage` and `metrics`.

        Raises:
            StopIteration: The answer is complete, or the stream is closed.
            GenerationCancelled: The generator was closed.
            PhicandleError: The answer failed, as the error says.
            KeyboardInterrupt: Ctrl-C; the answer is cancelled.
        """
        if self._closed:
            raise StopIteration
        chunk = chunk_of(self._raw, self._raw.next(None), self._model)
        if chunk is None:
            raise StopIteration
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

    def close(self) -> None:
        """Ends the answer and the iteration. Closing twice does nothing."""
        self._closed = True
        self.cancel()

    def result(self, timeout: float | None = None) -> Completion:
        """Waits for the end and returns the whole answer, including the chunks that were iterated before.

        Each chunk is given out once: one that comes while this waits is part of the answer, and of no iteration.

        Args:
            timeout: Most seconds to wait; `None` = no limit. To limit the writing itself, use
                `SamplingParams.timeout`.

        Returns:
            The answer; after `cancel` or `close` what was written by then, with `finish_reason` "cancelled".

        Raises:
            GenerationTimeout: `timeout` ran out. The answer goes on: call `result` again, or `cancel`.
            GenerationCancelled: The generator was closed.
            PhicandleError: The answer failed, as the error says.
        """
        import time

        end = None if timeout is None else time.monotonic() + seconds(timeout)
        while True:
            kind = self._read(None if end is None else max(0.0, end - time.monotonic()))
            if kind == _phicandle.PENDING:
                raise timed_out(timeout, self.partial())
            if kind in (_phicandle.LAST, _phicandle.END):
                return self._whole()

    def partial(self) -> Completion:
        """Returns what has been taken from the stream so far, without waiting.

        Returns:
            A `Completion`; while the answer is being written its `finish_reason` and `seed` are `None`.
        """
        return read(self._raw, self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("A Stream cannot be pickled: it is work in progress in this process. Send its text.")

    def __repr__(self) -> str:
        return shown("Stream", self._raw, closed=self._closed)

    def _read(self, timeout: float | None) -> int:
        """Reads up to the end, or until the time runs out, and returns the kind of the event that it came to."""
        return self._raw.rest(timeout)

    def _whole(self) -> Completion:
        return finished(self._raw, self._model)


def shown(name: str, raw: _phicandle.RawStream, *, closed: bool) -> str:
    """Returns how a stream shows itself; in a forked child too, where nothing else may be asked of it."""
    try:
        state = "done" if raw.done() else "closed" if closed else "running"
        return f"<phicandle.{name} {state}, {len(raw.written()[0])} characters>"
    except ForkError:
        return f"<phicandle.{name} of the parent process>"


def chunk_of(raw: _phicandle.RawStream, event: _phicandle._Event, model: str, index: int = 0) -> Chunk | None:
    """Returns an event of a raw stream as a chunk; `None` at the end."""
    kind, text, token_ids, found = event
    if kind == _CHUNK and found is None:
        return piece(text, token_ids, index)
    logprobs = token_logprobs(found)
    if kind == _CHUNK:
        return Chunk(text, token_ids, logprobs=logprobs, index=index)
    if kind == _phicandle.LAST:
        whole = finished(raw, model)
        return Chunk(text, token_ids, whole.finish_reason, whole.usage, whole.metrics, logprobs, index)
    return None


def finished(raw: _phicandle.RawStream, model: str) -> Completion:
    """Returns the answer of a raw stream that has ended.

    Raises:
        GenerationCancelled: It was ended by closing the generator, not by its own reader.
    """
    whole = read(raw, model)
    if whole.finish_reason == "cancelled" and not raw.cancelled():
        raise GenerationCancelled(
            "The generator was closed while this answer was being written.",
            hint="Make a new Generator to go on; the text so far is in `partial`.",
            partial=whole,
        )
    return whole


def timed_out(timeout: float | None, partial: Completion) -> GenerationTimeout:
    """Returns the error for a `result(timeout=...)` that ran out."""
    return GenerationTimeout(
        f"The answer was not complete after {timeout} s.",
        hint="It goes on being written: call result() again to wait, or cancel(); the text so far is in `partial`.",
        partial=partial,
    )


def seconds(timeout: float) -> float:
    """Returns a timeout in seconds that may be waited for.

    Raises:
        InvalidParameterError: It is not a number, or negative, or NaN.
    """
    value = number("timeout", timeout)
    if not value >= 0.0:
        raise wrong("timeout", "a number of seconds of at least 0, or None", timeout)
    return value
