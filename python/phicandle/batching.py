"""`Generator.batch` and its sisters: many prompts in one call."""

from __future__ import annotations

from .arguments import flag
from .loaded import Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import abc
    from typing import Any, Literal, TypeVar, overload

    from typing_extensions import Unpack

    from .async_batch import AsyncBatch
    from .batch import Batch
    from .chunk import Chunk
    from .completion import Completion
    from .errors import PhicandleError
    from .params import SamplingParams
    from .types import AsyncPrompts, BatchProgress, Prompt, SamplingOverrides

    _Kind = TypeVar("_Kind", Batch, AsyncBatch)


class Batching(Loaded):
    """The methods of a `Generator` that answer many prompts in one call.

    All of them take the prompts one by one, from an iterable of any length, and keep no more than a window of requests
    in the engine: twice `max_batch`, and not more than `max_batch` and half of `max_queue`. So memory does not grow
    with the number of prompts, except by what is returned, and other callers find places free. Where these have filled
    the queue, a batch waits instead of raising `QueueFullError`.
    """

    if TYPE_CHECKING:

        @overload
        def batch(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> list[Completion]: ...

        @overload
        def batch(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> list[Completion | PhicandleError]: ...

    def batch(
        self,
        prompts: abc.Iterable[Prompt],
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together and returns the answers in the order of the prompts.

        Each is what `generate` gives for the same prompt, parameters and seed. Leaving with Ctrl-C, or with any other
        exception, ends every request of the batch.

        Args:
            prompts: An iterable of prompts as for `stream`, a generator too. It is read on the calling thread, a few
                prompts ahead of the answers.
            params: One `SamplingParams` for all, or a sequence with one for each prompt; `None` = the defaults. A
                `seed` for all is the same for each prompt, and none is a random one for each. `timeout` counts from
                where a prompt's turn has come. With `n=`, each answer has `choices`.
            return_exceptions: Whether a prompt that fails leaves its error in the place of its answer. Otherwise the
                first error to happen ends the batch and is raised, with a note that says which prompt it was.
            progress: `True` draws a bar when standard error is a terminal; a callable is given (prompts done, prompts
                in all, or `None` where `prompts` has no length) after each.
            **overrides: Fields of `SamplingParams`, or their aliases, that go before all `params`.

        Returns:
            The answers.

        Raises:
            InvalidParameterError: An argument cannot be used; there are not as many `params` as prompts.
            PhicandleError: The first error of a prompt, as for `generate`.

        Example:
            >>> from phicandle import Generator
            >>> with Generator("demo") as generator:
            ...     answers = generator.batch(["Write a haiku about ice", "Write a haiku about tea"], seed=1)
            ...     answers[1].text == generator.generate("Write a haiku about tea", seed=1).text
            True
        """
        pairs = self._batch("batch", prompts, params, overrides, return_exceptions, progress).answers()
        return [answer for _, answer in sorted(pairs, key=_index)]

    if TYPE_CHECKING:

        @overload
        async def abatch(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> list[Completion]: ...

        @overload
        async def abatch(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> list[Completion | PhicandleError]: ...

    async def abatch(
        self,
        prompts: AsyncPrompts,
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together, leaving the event loop free. Cancelling the task ends every request.

        Args:
            prompts: As for `batch`; also an async iterable.
            params: As for `batch`, and so the others.
            return_exceptions: As for `batch`.
            progress: As for `batch`.
            **overrides: As for `batch`.

        Returns:
            The answers in the order of the prompts.

        Raises:
            PhicandleError: As for `batch`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> len(asyncio.run(Generator("demo").abatch(["Write a haiku about ice", "Write a haiku about tea"])))
            2
        """
        pairs = self._abatch("abatch", prompts, params, overrides, return_exceptions, progress).aanswers()
        return [answer for _, answer in sorted([pair async for pair in pairs], key=_index)]

    if TYPE_CHECKING:

        @overload
        def batch_iter(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            ordered: bool = False,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.Generator[tuple[int, Completion], None, None]: ...

        @overload
        def batch_iter(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            ordered: bool = False,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.Generator[tuple[int, Completion | PhicandleError], None, None]: ...

    def batch_iter(
        self,
        prompts: abc.Iterable[Prompt],
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        ordered: bool = False,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together and yields each answer when it is there: for more than memory holds.

        Work starts with the first answer asked for, and the prompts are read as the answers are taken. Leaving the loop
        ends every request.

        Args:
            prompts: As for `batch`, and so the others. It may be endless.
            params: As for `batch`.
            ordered: Whether to keep the order of the prompts. Answers that are there before an earlier one are then
                held back, up to four windows of them; else none is.
            return_exceptions: As for `batch`.
            progress: As for `batch`.
            **overrides: As for `batch`.

        Returns:
            An iterator of (index of the prompt, answer).

        Raises:
            PhicandleError: As for `batch`; the errors of prompts while iterating.

        Example:
            >>> from phicandle import Generator
            >>> topics = ("ice", "tea", "rain")
            >>> with Generator("demo") as generator:
            ...     for index, answer in generator.batch_iter(f"Write a haiku about {topic}" for topic in topics):
            ...         print(topics[index], answer.text)  # doctest: +SKIP
        """
        batch = self._batch(
            "batch_iter",
            prompts,
            params,
            overrides,
            return_exceptions,
            progress,
            ordered=flag("ordered", ordered),
        )
        return batch.answers()

    if TYPE_CHECKING:

        @overload
        def abatch_iter(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            ordered: bool = False,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.AsyncGenerator[tuple[int, Completion], None]: ...

        @overload
        def abatch_iter(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            ordered: bool = False,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.AsyncGenerator[tuple[int, Completion | PhicandleError], None]: ...

    def abatch_iter(
        self,
        prompts: AsyncPrompts,
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        ordered: bool = False,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together and yields each answer when it is there, leaving the event loop free.

        Args:
            prompts: As for `batch`; also an async iterable. It may be endless.
            params: As for `batch`, and so the others.
            ordered: As for `batch_iter`.
            return_exceptions: As for `batch`.
            progress: As for `batch`.
            **overrides: As for `batch`.

        Returns:
            An async iterator of (index of the prompt, answer).

        Raises:
            PhicandleError: As for `batch_iter`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> async def main():
            ...     prompts = ["Write a haiku about ice", "Write a haiku about tea"]
            ...     return [index async for index, _ in Generator("demo").abatch_iter(prompts, ordered=True)]
            >>> asyncio.run(main())
            [0, 1]
        """
        batch = self._abatch(
            "abatch_iter",
            prompts,
            params,
            overrides,
            return_exceptions,
            progress,
            ordered=flag("ordered", ordered),
        )
        return batch.aanswers()

    if TYPE_CHECKING:

        @overload
        def batch_stream(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.Generator[tuple[int, Chunk], None, None]: ...

        @overload
        def batch_stream(
            self,
            prompts: abc.Iterable[Prompt],
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.Generator[tuple[int, Chunk | PhicandleError], None, None]: ...

    def batch_stream(
        self,
        prompts: abc.Iterable[Prompt],
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together and yields the pieces of all the answers as they are written.

        Work starts with the first piece asked for. Leaving the loop ends every request.

        Args:
            prompts: As for `batch`, and so the others. It may be endless.
            params: As for `batch`. With `n=`, the `index` of a chunk says which answer to its prompt it belongs to.
            return_exceptions: Whether a prompt that fails ends with its error in the place of a chunk.
            progress: As for `batch`.
            **overrides: As for `batch`.

        Returns:
            An iterator of (index of the prompt, chunk). The last chunk of each answer carries `finish_reason`, `usage`
            and `metrics`.

        Raises:
            PhicandleError: As for `batch_iter`.

        Example:
            >>> from phicandle import Generator
            >>> prompts = ["Write a haiku about ice", "Write a haiku about tea"]
            >>> texts = ["", ""]
            >>> with Generator("demo") as generator:
            ...     for index, chunk in generator.batch_stream(prompts, seed=1):
            ...         texts[index] += chunk
            ...     texts[1] == generator.generate(prompts[1], seed=1).text
            True
        """
        return self._batch("batch_stream", prompts, params, overrides, return_exceptions, progress).pieces()

    if TYPE_CHECKING:

        @overload
        def abatch_stream(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[False] = False,
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.AsyncGenerator[tuple[int, Chunk], None]: ...

        @overload
        def abatch_stream(
            self,
            prompts: AsyncPrompts,
            params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
            /,
            *,
            return_exceptions: Literal[True],
            progress: BatchProgress = False,
            **overrides: Unpack[SamplingOverrides],
        ) -> abc.AsyncGenerator[tuple[int, Chunk | PhicandleError], None]: ...

    def abatch_stream(
        self,
        prompts: AsyncPrompts,
        params: SamplingParams | abc.Sequence[SamplingParams] | None = None,
        /,
        *,
        return_exceptions: bool = False,
        progress: BatchProgress = False,
        **overrides: Unpack[SamplingOverrides],
    ) -> Any:
        """Answers many prompts together and yields the pieces of all the answers, leaving the event loop free.

        Args:
            prompts: As for `batch`; also an async iterable. It may be endless.
            params: As for `batch_stream`, and so the others.
            return_exceptions: As for `batch_stream`.
            progress: As for `batch`.
            **overrides: As for `batch`.

        Returns:
            An async iterator of (index of the prompt, chunk).

        Raises:
            PhicandleError: As for `batch_iter`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> async def main():
            ...     prompts = ["Write a haiku about ice", "Write a haiku about tea"]
            ...     return {index async for index, _ in Generator("demo").abatch_stream(prompts)}
            >>> sorted(asyncio.run(main()))
            [0, 1]
        """
        return self._abatch(
            "abatch_stream", prompts, params, overrides, return_exceptions, progress
        ).apieces()

    def _batch(self, where: str, *arguments: Any, ordered: bool = False) -> Batch:
        # Imported here, as sockets would slow the import of the package.
        from .batch import Batch

        return self._of_kind(Batch, where, *arguments, ordered=ordered)

    def _abatch(self, where: str, *arguments: Any, ordered: bool = False) -> AsyncBatch:
        from .async_batch import AsyncBatch

        return self._of_kind(AsyncBatch, where, *arguments, ordered=ordered)

    def _of_kind(
        self,
        kind: type[_Kind],
        where: str,
        prompts: object,
        params: object,
        overrides: SamplingOverrides,
        return_exceptions: bool,
        progress: object,
        *,
        ordered: bool,
    ) -> _Kind:
        from .batch_arguments import Prompts, Teller

        source = Prompts(prompts, params, overrides, where, can_wait=kind.can_wait)
        batch, queue = self._recipe["max_batch"], self._recipe["max_queue"]
        return kind(
            self._raw,
            self.info.name,
            source,
            min(2 * batch, batch + queue // 2),
            ordered=ordered,
            return_exceptions=flag("return_exceptions", return_exceptions),
            teller=Teller(progress, source.total),
        )


def _index(pair: tuple[int, object]) -> int:
    return pair[0]
