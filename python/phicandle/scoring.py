"""`Generator.score` and `Generator.perplexity`: what they ask of the core, and what becomes of its answers."""

from __future__ import annotations

from . import _phicandle
from .arguments import integer, number, shown, text, token_ids, wrong
from .errors import GenerationTimeout, InvalidParameterError
from .likelihood import Perplexity, Score, token_logprobs
from .loaded import Loaded
from .prompt import prepare
from .stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .completion import Completion
    from .types import Continuations, Prompt

    _Request = tuple[_phicandle._Prompt, list[str | list[int]], int, float | None]


class Scoring(Loaded):
    """The methods of a `Generator` that tell how likely texts are."""

    def score(
        self,
        prompt: Prompt,
        continuations: Continuations,
        /,
        *,
        top_logprobs: int = 0,
        template: bool | None = None,
        timeout: float | None = None,
    ) -> list[Score]:
        """Tells how likely continuations of a prompt are. The prompt is read once for all of them.

        The `candle` backend cannot go back to the end of a prompt, and reads it again for each continuation of more
        than one token; so does the native one where attention looks back over a sliding window within the context.
        All continuations of a call are read with the long rope factors when the longest needs them.

        Args:
            prompt: As for `stream`.
            continuations: Texts, or lists of token ids; a `str` alone is one text. After a prompt of raw text, a text
                is cut into tokens as if it were one with the prompt; after any other, for itself. Token ids leave no
                question open.
            top_logprobs: How many of the likeliest tokens to list at each place, 0 to 20.
            template: As in `SamplingParams`.
            timeout: Most seconds to take; `None` = no limit.

        Returns:
            A `Score` for each continuation, in their order.

        Raises:
            InvalidParameterError: An argument cannot be used; a continuation has no token.
            ContextOverflowError: The prompt and a continuation are longer than the context.
            GenerationTimeout: `timeout` ran out.
            PhicandleError: As for `generate`.

        Example:
            >>> from phicandle import Generator
            >>> with Generator("demo") as generator:
            ...     scores = generator.score("Write a haiku about ice", ["the ice is still", "zzz"])
            >>> scores[0].mean > scores[1].mean
            True
        """
        raw = self._raw.score(*score_request(prompt, continuations, top_logprobs, template, timeout))
        with Stream(self, raw) as stream:
            return scores(raw, stream.result())

    async def ascore(
        self,
        prompt: Prompt,
        continuations: Continuations,
        /,
        *,
        top_logprobs: int = 0,
        template: bool | None = None,
        timeout: float | None = None,
    ) -> list[Score]:
        """Tells how likely continuations are, leaving the event loop free. Cancelling the task ends the work.

        Args:
            prompt: As for `score`, and so the others.
            continuations: As for `score`.
            top_logprobs: As for `score`.
            template: As for `score`.
            timeout: As for `score`.

        Returns:
            A `Score` for each continuation, in their order.

        Raises:
            PhicandleError: As for `score`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> len(asyncio.run(Generator("demo").ascore("Write a haiku about ice", ["the ice", "the sea"])))
            2
        """
        from .async_stream import AsyncStream

        waker = self._waker()
        raw = self._raw.score(*score_request(prompt, continuations, top_logprobs, template, timeout))
        async with AsyncStream(self, raw, waker) as stream:
            return scores(raw, await stream.result())

    def perplexity(
        self,
        text: str | Sequence[int],
        /,
        *,
        stride: int | None = None,
        window: int | None = None,
        bos: bool | None = None,
        timeout: float | None = None,
    ) -> Perplexity:
        """Measures how well the model predicts a text: its perplexity in strided windows.

        A text longer than the window is cut as in Hugging Face's guide to perplexity of fixed-length models: each
        window begins `stride` tokens after the one before, and in each are scored the tokens that none before has
        scored. So every token but the first is scored once, and a small stride gives each more to look back at, for
        more time.

        Args:
            text: The text, in which control tokens are plain text, or token ids as they are.
            stride: Tokens from one window to the next, 1 to `window - 1`; `None` = half the window.
            window: Tokens of a window, 2 to the context length; `None` = the context length.
            bos: Whether the begin-of-text token goes first: once, not in every window; `None` = as the model's file
                says. It is never scored. Token ids get none.
            timeout: Most seconds to take; `None` = no limit.

        Returns:
            The perplexity and what it was made of.

        Raises:
            InvalidParameterError: An argument cannot be used; the text has less than two tokens.
            GenerationTimeout: `timeout` ran out.
            PhicandleError: As for `generate`.

        Example:
            >>> from phicandle import Generator
            >>> with Generator("demo") as generator:
            ...     found = generator.perplexity("snow on the harbour", stride=64, window=128)
            >>> (found.windows, float(found) > 1.0)
            (1, True)
        """
        parts = TextScore(self._raw.tokenizer(), self.info.context_length, text, stride, window, bos, timeout)
        for request in parts.requests():
            raw = self._raw.score(*request)
            with Stream(self, raw) as stream:
                parts.add(scores(raw, stream.result()))
        return parts.result()

    async def aperplexity(
        self,
        text: str | Sequence[int],
        /,
        *,
        stride: int | None = None,
        window: int | None = None,
        bos: bool | None = None,
        timeout: float | None = None,
    ) -> Perplexity:
        """Measures how well the model predicts a text, leaving the event loop free.

        Args:
            text: As for `perplexity`, and so the others.
            stride: As for `perplexity`.
            window: As for `perplexity`.
            bos: As for `perplexity`.
            timeout: As for `perplexity`.

        Returns:
            The perplexity and what it was made of.

        Raises:
            PhicandleError: As for `perplexity`.

        Example:
            >>> import asyncio
            >>> from phicandle import Generator
            >>> asyncio.run(Generator("demo").aperplexity("snow on the harbour")).windows
            1
        """
        from .async_stream import AsyncStream

        waker = self._waker()
        parts = TextScore(self._raw.tokenizer(), self.info.context_length, text, stride, window, bos, timeout)
        for request in parts.requests():
            raw = self._raw.score(*request)
            async with AsyncStream(self, raw, waker) as stream:
                parts.add(scores(raw, await stream.result()))
        return parts.result()


def score_request(
    prompt: object, continuations: object, top_logprobs: object, template: bool | None, timeout: object
) -> _Request:
    """Checks the arguments of `Generator.score` and returns them for the Rust core.

    Raises:
        InvalidParameterError: One of them is of the wrong type.
    """
    return (
        prepare(prompt, template),
        _continuations(continuations),
        integer("top_logprobs", top_logprobs, 0, 20),
        None if timeout is None else positive("timeout", timeout),
    )


def scores(raw: _phicandle.RawStream, whole: Completion) -> list[Score]:
    """Returns what a finished request found.

    Raises:
        GenerationTimeout: Its time ran out before it had found everything.
    """
    outcome = raw.outcome()
    if outcome is None or whole.finish_reason == "timeout":
        raise GenerationTimeout(
            "Time ran out before everything was scored.",
            hint="Give a longer timeout, or less text at a time.",
            partial=whole,
        )
    return [Score(token_logprobs(found) or ()) for found in outcome["scores"]]


class TextScore:
    """A text on its way to a `Perplexity`: an iterator of requests, each of which wants its result in `add`."""

    def __init__(
        self,
        tokenizer: _phicandle.RawTokenizer,
        context_length: int,
        content: object,
        stride: int | None,
        window: int | None,
        bos: bool | None,
        timeout: float | None,
    ) -> None:
        import time

        longest = context_length
        self._window = longest if window is None else integer("window", window, 2, longest)
        half = max(1, self._window // 2)
        self._stride = half if stride is None else integer("stride", stride, 1, self._window - 1)
        self._ids = _text_ids(tokenizer, content, bos)
        self._windows = _phicandle.windows(len(self._ids), self._window, self._stride)
        self._logprobs: list[float] = []
        self._clock = time.monotonic
        self._end = None if timeout is None else self._clock() + positive("timeout", timeout)

    def requests(self) -> Iterator[_Request]:
        """Yields the requests, one for each window."""
        for begin, scored, end in self._windows:
            left = None if self._end is None else max(1e-9, self._end - self._clock())
            yield ("ids", self._ids[begin:scored]), [self._ids[scored:end]], 0, left

    def add(self, found: list[Score]) -> None:
        """Takes the result of a request."""
        self._logprobs.extend(token.logprob for score in found for token in score.logprobs)

    def result(self) -> Perplexity:
        """Returns the perplexity, when the results of all requests were added."""
        from math import fsum

        return Perplexity(
            mean_logprob=fsum(self._logprobs) / len(self._logprobs),
            scored_tokens=len(self._logprobs),
            windows=len(self._windows),
            window=self._window,
            stride=self._stride,
        )


def positive(name: str, value: object) -> float:
    """Returns a number of seconds above 0."""
    found = number(name, value)
    if not 0.0 < found < float("inf"):
        raise wrong(name, "a number of seconds above 0", value)
    return found


def _continuations(value: object) -> list[str | list[int]]:
    if isinstance(value, str):
        return [text("continuations", value)]
    if isinstance(value, (bytes, bytearray, dict)) or not hasattr(value, "__iter__"):
        raise _no_continuations(value)
    found: list[str | list[int]] = []
    for item in value:
        if isinstance(item, str):
            found.append(text("continuations", item))
        elif isinstance(item, (bytes, bytearray, dict)) or not hasattr(item, "__iter__"):
            raise _no_continuations(value)
        else:
            found.append(list(token_ids("continuations", item)))
    return found


def _no_continuations(value: object) -> InvalidParameterError:
    return InvalidParameterError(
        f"continuations is {shown(value)}.",
        hint="Pass a list whose items are text (str) or lists of token ids (int).",
        parameter="continuations",
    )


def _text_ids(tokenizer: _phicandle.RawTokenizer, content: object, bos: bool | None) -> list[int]:
    ids = (
        tokenizer.encode(text("text", content), bos)
        if isinstance(content, str)
        else list(token_ids("text", content))
    )
    if len(ids) < 2:
        raise InvalidParameterError(
            f"The text has {len(ids)} tokens, and the first one follows nothing: there is nothing to score.",
            hint="Give a text of at least two tokens.",
            parameter="text",
        )
    return ids
