"""What `Generator.score` and `Generator.perplexity` ask of the core, and what becomes of its answers."""

from __future__ import annotations

from . import _phicandle
from .arguments import integer, number, shown, text, token_ids, wrong
from .errors import GenerationTimeout, InvalidParameterError
from .likelihood import Perplexity, Score, token_logprobs
from .prompt import prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .completion import Completion

    _Request = tuple[_phicandle._Prompt, list[str | list[int]], int, float | None]


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
