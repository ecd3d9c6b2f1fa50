"""`Chunk`: a piece of an answer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from .completion import Metrics, Usage
    from .likelihood import TokenLogprob
    from .types import FinishReason


class Chunk(str):
    """A piece of an answer: a `str` that also says which tokens it came from.

    `"".join(stream)` is the whole answer. A chunk never ends inside a character. The last chunk of a stream carries
    `finish_reason`, `usage` and `metrics`, and is usually empty text.

    Attributes:
        token_ids: The tokens whose text completed with this chunk.
        logprobs: With `logprobs=`, how likely each of `token_ids` was; else `None`.
        index: Which answer of `n=` this belongs to, from 0. (`str.index` is hidden by it; use `find`.)
        finish_reason: On the last chunk "stop", "length", "cancelled" or "timeout"; else `None`.
        usage: On the last chunk, the tokens read and written; else `None`.
        metrics: On the last chunk, the times taken; else `None`.

    Example:
        >>> from phicandle import Generator
        >>> with Generator("demo") as generator:
        ...     chunks = list(generator.stream("Write a haiku about ice hockey", temperature=0.0))
        >>> chunks[-1].finish_reason
        'stop'
    """

    __slots__ = ("finish_reason", "index", "logprobs", "metrics", "token_ids", "usage")

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None
    index: int  # type: ignore[assignment] # hides str.index; `find` does the same work
    finish_reason: FinishReason | None
    usage: Usage | None
    metrics: Metrics | None

    def __new__(
        cls,
        text: str = "",
        token_ids: tuple[int, ...] = (),
        finish_reason: FinishReason | None = None,
        usage: Usage | None = None,
        metrics: Metrics | None = None,
        logprobs: tuple[TokenLogprob, ...] | None = None,
        index: int = 0,
    ) -> Self:
        """Makes a chunk; only phicandle itself needs to."""
        chunk = str.__new__(cls, text)
        chunk.token_ids = token_ids
        chunk.logprobs = logprobs
        chunk.index = index
        chunk.finish_reason = finish_reason
        chunk.usage = usage
        chunk.metrics = metrics
        return chunk

    def __reduce__(self) -> tuple[Any, ...]:
        end = (self.finish_reason, self.usage, self.metrics)
        return Chunk, (str(self), self.token_ids, *end, self.logprobs, self.index)


def piece(text: str, token_ids: tuple[int, ...], index: int) -> Chunk:
    """Returns `Chunk(text, token_ids, index=index)`, without what Python does around a class that is called.

    After a pass of the model nothing of that is in the caches of the CPU, and it takes as long as all the rest.
    """
    chunk = str.__new__(Chunk, text)
    chunk.token_ids = token_ids
    chunk.index = index
    chunk.logprobs = chunk.finish_reason = chunk.usage = chunk.metrics = None
    return chunk
